"""Replace a model folder by one of two others again and again: `replace.py FOLDER SEED PAUSE`."""

import os
import random
import shutil
import sys
import time
from pathlib import Path

place, chance, pause = Path(sys.argv[1]), random.Random(sys.argv[2]), float(sys.argv[3])
while True:
    for name in ("new", "old"):
        # As `models.save_model` does it: each file is complete, the model first.
        for file in ("model.keras", "model.json"):
            shutil.copyfile(place / name / file, place / f"partial.{file}")
            os.replace(place / f"partial.{file}", place / "model" / file)
            time.sleep(chance.uniform(0, pause))
