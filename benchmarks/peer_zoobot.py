"""Zoobot's prediction of a folder, in the environment that `bench.py` makes for it.

`python peer_zoobot.py IMAGES GALAXIES CORES` prints two numbers of seconds: from the first line of this file
to the written table, and of these the call of Zoobot's `predict`. Everything is as released, but one shim:
where torchvision was built for torch with CUDA and CUDA is missing, its operators `nms` and `qnms` are
declared, which no prediction calls.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

begin = time.perf_counter()
try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    import torchvision_operators

    shim = torchvision_operators.declared()
    import torchvision  # noqa: F401

import pandas as pd  # noqa: E402
import timm  # noqa: E402
from galaxy_datasets.transforms import get_galaxy_transform, minimal_view_config  # noqa: E402
from zoobot.pytorch.predictions.predict_on_catalog import predict  # noqa: E402
from zoobot.pytorch.training.finetune import FinetuneableZoobotTree  # noqa: E402
from zoobot.shared import schemas  # noqa: E402


def main(images, galaxies, cores):
    """Predict the first galaxies of a folder with random weights, and no hub."""
    schema = schemas.decals_all_campaigns_ortho_schema
    encoder = timm.create_model("efficientnet_b0", in_chans=1, num_classes=0)
    model = FinetuneableZoobotTree(schema, encoder=encoder)
    paths = sorted(Path(images).iterdir())[: int(galaxies)]
    catalog = pd.DataFrame(
        {"id_str": [path.stem for path in paths], "file_loc": [str(path) for path in paths]}
    )
    view = minimal_view_config()
    view.greyscale = True
    with tempfile.TemporaryDirectory() as folder:
        called = time.perf_counter()
        predict(
            catalog,
            model,
            f"{folder}/predictions.csv",
            schema.label_cols,
            get_galaxy_transform(view),
            datamodule_kwargs={"batch_size": 64, "num_workers": int(cores)},
            trainer_kwargs={"accelerator": "cpu", "logger": False, "enable_progress_bar": False},
        )
    end = time.perf_counter()
    print(json.dumps([end - begin, end - called]))


if __name__ == "__main__":
    main(*sys.argv[1:])
