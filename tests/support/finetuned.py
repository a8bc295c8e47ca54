"""The stored galaxies with labels that depend on their brightness, and finetunings for these labels."""

from types import SimpleNamespace

import pandas as pd
from zoolib import finetune
from zoolib.config.labels import Label
from zoolib.config.strategies import Stage, Strategy
from zoolib.data.catalogs import Catalog, write_catalog
from zoolib.learning import fitting, models

TASK = {
    "name": "bright",
    "head": {"units": [8], "dropout": 0.1, "probed": False},
    "strategy": "freeze",
    "train_bn": False,
    "augment": True,
    "smoothing": 0,
    "optimizer": "adam",
    "schedule": "constant",
    "warmup_epochs": 0,
    "weight_decay": None,
    "clip_norm": None,
    "normalise": None,
    "learning_rate": 0.02,
    "batch_size": 12,
    "epochs": 3,
    "patience": 15,
}
BRIGHT = Label("bright")


def write_labelled(stored, folder, labels, values, balance="none"):
    """The galaxies of a task: the stored ones, with labels that depend on their brightness."""
    tables = []
    for part, name in enumerate(("train", "val")):
        table = pd.read_parquet(stored / f"{name}.parquet")[["id_str", "archive", "member", "file_loc"]]
        bright = table["id_str"].str[1:].astype(int).to_numpy() % 2
        tables.append(table.assign(part=part, **{name: of(bright) for name, of in values.items()}))
    tree = labels[0].tree if len(labels) == 1 else None
    columns = [column for label in labels for column in label.targets]
    about = {"labels": [label.to_dict() for label in labels], "folds": None, "balance": balance}
    table = pd.concat(tables, ignore_index=True)
    write_catalog(Catalog(table, columns, tree, about), folder / "galaxies.parquet")
    return folder


def run_finetuning(labelled, model_folder, folder, scratch=False, **changes):
    """Finetune a model; `changes` are keys of the task. Returns the new model and its history."""
    output = SimpleNamespace(
        model=folder / "model.keras", about=folder / "model.json", history=folder / "history.csv"
    )
    finetune.finetune_task(
        galaxies=labelled / "galaxies.parquet",
        model=model_folder,
        task=TASK | changes,
        seed=1,
        job=fitting.Job(output),
        scratch=scratch,
    )
    return models.load_model(folder), pd.read_csv(folder / "history.csv")


class LastBlockFast(Strategy):
    """A user's strategy: the last block alone, with ten times the learning rate of the head."""

    def __init__(self, times=10):
        self.times = times

    def stages(self, blocks, task):
        """One stage."""
        rates = dict.fromkeys(blocks[-1], float(self.times))
        return [Stage("last", tuple(blocks[-1]), task["epochs"], task["learning_rate"], None, rates)]


class HeadAfterAll(Strategy):
    """The head, then everything, then the head alone on the changed backbone."""

    def stages(self, blocks, task):
        """Three stages."""
        every = tuple(name for block in blocks for name in block)
        again = Stage("again", (), 1, 1e-6, None, from_best=False)
        return [Stage("head", (), 1, 0.01, None), Stage("all", every, 1, 0.05, None), again]
