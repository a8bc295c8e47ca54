"""A finetuning task for tests: a folder with galaxies, their images, and what the task writes."""

import io
from types import SimpleNamespace

import pandas as pd
from PIL import Image
from zoolib.config.tasks import fit_names
from zoolib.data.catalogs import SPLITS
from zoolib.data.fits import read_fit
from zoolib.data.tasks import build_task

TASK = {
    "name": "mine",
    "table": None,
    "folders": None,
    "test": None,
    "archives": [],
    "images": None,
    "id": None,
    "location": None,
    "query": None,
    "group": None,
    "missing": "drop",
    "balance": "none",
    "split": None,
    "folds": None,
    "label_counts": [],
    "label_count_seeds": 2,
    "compare_scratch": False,
}


def picture(number=0, size=(6, 4), mode="RGB", form="png"):
    # Far enough apart to stay different as JPEG.
    number %= 256
    colour = (number % 16 * 16, number // 16 * 16, 200) if mode == "RGB" else number
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, form)
    return buffer.getvalue()


class Task:
    """A task in a folder: galaxies, their images, and what the task writes."""

    def __init__(self, folder, count=60):
        self.folder = folder
        self.galaxies = pd.DataFrame({"id_str": [f"J{number:03d}" for number in range(count)]})
        (folder / "images").mkdir()
        for number, name in enumerate(self.galaxies["id_str"]):
            (folder / "images" / f"{name}.png").write_bytes(picture(number))

    def build(self, labels, table=None, suffix="csv", max_rejected=0.0, **changes):
        task = {**TASK, "labels": [label.to_dict() for label in labels], **changes}
        if table is not None:
            task["table"] = str(self.folder / f"mine.{suffix}")
            task["images"] = changes.get("images", str(self.folder / "images"))
            table.to_csv(task["table"], index=False) if suffix == "csv" else table.to_parquet(task["table"])
        self.out = self.folder / "out"
        files = {"galaxies": "galaxies.parquet", "rejected": "rejected.csv", "summary": "summary.csv"}
        output = SimpleNamespace(**{name: self.out / file for name, file in files.items()})
        build_task(task, fit_names(task), 1, output, max_rejected=max_rejected)
        return self

    def read(self, split, fit=""):
        return read_fit(self.out / "galaxies.parquet", fit)[split]

    def __getitem__(self, split):
        return self.read(split).table

    @property
    def all(self):
        return pd.concat([self[split] for split in SPLITS], ignore_index=True)

    @property
    def rejected(self):
        return pd.read_csv(self.out / "rejected.csv")

    @property
    def steps(self):
        return pd.read_csv(self.out / "summary.csv").set_index("step")["galaxies"]
