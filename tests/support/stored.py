"""A few stored galaxies whose votes depend on their brightness, and a tiny model trained on them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from zoolib import train
from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import Catalog, write_catalog
from zoolib.job.attempts import Budget
from zoolib.learning import models
from zoolib.learning.augment import PAPER
from zoolib.learning.fitting import Job
from zoolib.shards import write_shard

TREE = DecisionTree.from_dict(
    {"name": "t", "questions": {"a": {"answers": ["x", "y"]}, "b": {"answers": ["u", "v"], "after": "a_x"}}}
)
IMAGE = {"size": 24, "crop": 0.75, "final_size": 18, "color": False, "encoding": "png"}
SETTINGS = {
    "backbone": "tiny",
    "head": "dirichlet",
    "augmentation": PAPER,
    "dropout": 0.3,
    "learning_rate": 0.01,
    "batch_size": 8,
    "epochs": 6,
    "patience": 10,
    "shuffle": 16,
    "mixed_precision": False,
    "pretrained": None,
    "normalise": None,
    "start_from": None,
}


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """40 galaxies to train on, as shards and as lists of images, and 12 galaxies to validate on."""
    return write_stored(tmp_path_factory.mktemp("stored"))


def write_stored(folder):
    """Write the galaxies of `stored`; returns the folder."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(52):
        bright = number % 2
        pixels = rng.normal(60 + 80 * bright, 20, (24, 24)).clip(0, 255).astype("uint8")
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        votes = rng.multinomial(20, [0.9, 0.1] if bright else [0.2, 0.8])
        rows.append([f"J{number}", "", "", str(path), *votes, *rng.multinomial(votes[0], [0.5, 0.5])])
    table = pd.DataFrame(rows, columns=["id_str", "archive", "member", "file_loc", *TREE.columns])
    for name, part in {"train": table[:40], "val": table[40:]}.items():
        catalog = folder / f"{name}.parquet"
        write_catalog(Catalog(part, TREE.columns, TREE), catalog)
        for suffix in (".tfrecord", ".parquet"):
            for shard, (file, about) in enumerate(zip(*files(folder, name, suffix), strict=True)):
                rejected = about.replace(".json", ".rejected.csv")
                output = SimpleNamespace(shard=file, about=about, rejected=rejected)
                write_shard(catalog, shard, 2, IMAGE, output, enabled=suffix == ".tfrecord")
    return folder


def files(folder, split, suffix=".tfrecord"):
    """The shards of a split, or with another suffix the lists, and their sidecars."""
    place = folder / split if suffix == ".tfrecord" else folder / "lists" / split
    stems = [place / str(shard) for shard in range(2)]
    return [f"{stem}{suffix}" for stem in stems], [f"{stem}.json" for stem in stems]


def train_member(stored, folder, suffix=".tfrecord", code="", shards=None, member=0, budget=None, **changes):
    """Train a member on the stored galaxies; `changes` are settings."""
    output = SimpleNamespace(
        model=folder / "model.keras", about=folder / "model.json", history=folder / "history.csv"
    )
    train.train_member(
        train.Member(TREE, IMAGE, {**SETTINGS, **changes}, "metrics", member, run_seed=1),
        train=shards or files(stored, "train", suffix),
        validation=files(stored, "val", suffix),
        job=Job(output, code, budget or Budget()),
    )
    return models.load_model(folder)


@pytest.fixture(scope="session")
def model_folder(stored, tmp_path_factory):
    """A model trained for two epochs."""
    folder = tmp_path_factory.mktemp("model")
    train_member(stored, folder, epochs=2)
    return folder
