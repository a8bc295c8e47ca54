"""Shards, models and encoders: valid files, how the pipeline reads them, and what is a wrong answer.

The readers of this module need TensorFlow.
"""

import functools
import itertools
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from damage import write
from table_readers import TREE, catalog_of, with_images

IMAGE = {"size": 16, "crop": 0.75, "final_size": 12, "color": False, "encoding": "png"}


# ---------------------------------------------------------------- shards


@functools.cache
def shard_of():
    """A shard and its sidecar."""
    from zoolib.shards import write_shard

    with tempfile.TemporaryDirectory() as folder:
        write({"train.parquet": catalog_of(), **with_images(b"", "csv")}, Path(folder))
        here = os.getcwd()
        os.chdir(folder)
        try:
            output = SimpleNamespace(shard="0.tfrecord", about="0.json", rejected="0.csv")
            write_shard("train.parquet", 0, 1, IMAGE, output)
        finally:
            os.chdir(here)
        return {name: Path(folder, name).read_bytes() for name in ("0.tfrecord", "0.json")}


def read_shard(folder, cell):
    """A shard as prediction and training read it."""
    from zoolib.data.tfrecords import read_sidecar
    from zoolib.learning import datasets

    about = read_sidecar(folder / "0.json", None, IMAGE)
    store = datasets.from_shards([folder / "0.tfrecord"], [about], {**IMAGE, "encoding": about["encoding"]})
    with datasets.images_read(store):
        return [tuple(part.numpy() for part in batch) for batch in datasets.stored_batches(store, 64)]


def same_records(answer, right, *_):
    """All galaxies have the same names, pixels and votes."""
    pairs = itertools.zip_longest(answer, right, fillvalue=())
    same = all(len(one) == len(other) and all(map(np.array_equal, one, other)) for one, other in pairs)
    return None if same else "other galaxies, pixels or votes without a word"


# ---------------------------------------------------------------- models


@functools.cache
def model_of():
    """A model folder."""
    import keras
    from zoolib.config.trees import DecisionTree
    from zoolib.learning import models
    from zoolib.learning.backbones import build_backbone

    keras.utils.set_random_seed(1)
    tree = DecisionTree.from_dict(TREE)
    backbone = build_backbone("tiny", IMAGE["final_size"], 1)
    network = models.join(backbone, models.tree_head(backbone.output.shape[-1], tree, 0.2))
    about = {
        "kind": "concentrations",
        "tree": tree.to_dict(),
        "columns": tree.columns,
        "image": IMAGE,
        "training": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("model.keras", "model.json")]
        models.save_model(network, about, *paths)
        return {path.name: path.read_bytes() for path in paths}


def older_model():
    """A model folder as older versions wrote it, without checksums."""
    files = model_of()
    about = json.loads(files["model.json"])
    return {
        **files,
        "model.json": json.dumps({key: about[key] for key in about if key != "checksums"}).encode(),
    }


def read_model(folder, cell):
    """A model as prediction loads it: its weights and what model.json says."""
    from zoolib.learning.models import load_model

    model = load_model(folder)
    about = {key: model.about[key] for key in ("kind", "tree", "columns", "image")}
    return [np.array(weight) for weight in model.network.weights], about


def same_model(answer, right, folder, cell):
    """The same weights and meaning; without checksums the same shapes."""
    if cell.startswith("older"):
        return (
            None if [w.shape for w in answer[0]] == [w.shape for w in right[0]] else "weights of other shapes"
        )
    same = len(answer[0]) == len(right[0]) and all(map(np.array_equal, answer[0], right[0]))
    return None if same and answer[1] == right[1] else "other weights or another meaning without a word"


# ---------------------------------------------------------------- encoders


@functools.cache
def encoder_of():
    """An encoder as timm saves it."""
    from encoders import config, resnet18
    from safetensors.numpy import save

    return {"config.json": json.dumps(config()).encode(), "model.safetensors": save(resnet18())}


@functools.cache
def empty_network(channels):
    """The network that the tensors go into; it is built once."""
    from zoolib.learning.backbones import build_backbone

    return build_backbone("resnet18", 48, channels)


def read_encoder(folder, cell):
    """An encoder as it is imported, until its weights are in a network."""
    from zoolib.job.logs import UserError
    from zoolib.learning.backbones import ZOO
    from zoolib.pretrained import read_tensors, read_timm_config, timm_preprocessing
    from zoolib.weights.timm import set_timm_weights

    settings = read_timm_config(folder / "config.json", "mine")
    if settings["architecture"] not in ZOO:
        raise UserError("mine: its architecture is not supported.")
    tensors = read_tensors(folder / "model.safetensors", "mine")
    own, channels = timm_preprocessing(settings, tensors)
    if settings["architecture"] != "resnet18":
        raise UserError("mine: another architecture.")
    network = empty_network(channels)
    set_timm_weights(network, "resnet18", tensors)
    return own, [np.array(weight) for weight in network.weights]


def possible_weights(answer, right, *_):
    """Weights of the same shapes, and all finite."""
    if [weight.shape for weight in answer[1]] != [weight.shape for weight in right[1]]:
        return "weights of other shapes"
    return None if all(np.isfinite(weight).all() for weight in answer[1]) else "weights that are not finite"
