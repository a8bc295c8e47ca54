"""Files of finetuned tasks without a model: true labels, and predictions that a model might make."""

import json

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from zoolib.config.labels import Label, kind_of_outputs
from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.data.fits import read_fit
from zoolib.recalibrate import recalibrate_task

TREE = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk", "star"]},
            "edge": {"answers": ["yes", "no"], "after": "shape_disk"},
        },
    }
)
RING = Label("ring")
KIND = Label("type", "multiclass", classes=("elliptical", "spiral", "edge-on", "merger"))
SIZE = Label("size", "regression")
VOTES = Label("small", "votes", tree=TREE)


def write_images(folder, count):
    """Write small images, each of one colour; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"g{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", (16, 16), (index % 256, 255 - index % 256, 40)).save(path)
    return [str(path) for path in paths]


def truths(label, count, random):
    """Targets of some galaxies, (galaxies, targets)."""
    if label.kind == "binary":
        return random.integers(0, 2, (count, 1))
    if label.kind == "multiclass":
        return random.choice(len(label.classes), (count, 1), p=[0.4, 0.3, 0.2, 0.1])
    if label.kind == "regression":
        return random.gamma(4, 1.0, (count, 1))
    shape = np.array([random.multinomial(20, random.dirichlet([0.6, 0.9, 0.1])) for _ in range(count)])
    return np.concatenate([shape, random.multinomial(shape[:, 1], [0.3, 0.7])], axis=1)


def said(label, truth, random, samples=10):
    """Predictions of a model that has learned something, (galaxies, outputs, samples)."""
    count = len(truth)
    if label.kind == "binary":
        odds = 3 * (truth - 0.5) + random.normal(0, 1.2, (count, 1))
        return 1 / (1 + np.exp(-odds[:, :, None] - random.normal(0, 0.3, (count, 1, samples))))
    if label.kind == "multiclass":
        odds = 2.5 * (truth == np.arange(len(label.classes))) + random.normal(
            0, 1, (count, len(label.classes))
        )
        powers = np.exp(odds[:, :, None] + random.normal(0, 0.3, (*odds.shape, samples)))
        return powers / powers.sum(axis=1, keepdims=True)
    if label.kind == "regression":
        return (0.8 * truth + 0.8 + random.normal(0, 0.8, truth.shape))[:, :, None] + random.normal(
            0, 0.7, (count, 1, samples)
        )
    return 1 + truth[:, :, None] * random.uniform(0.2, 1, (count, truth.shape[1], samples))


def write_predictions(path, labels, ids, values):
    """Write a file of predictions in the layout of the pipeline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    votes = len(labels) == 1 and labels[0].kind == "votes"
    with h5py.File(path, "w") as file:
        file["predictions"] = np.asarray(values, "float32")
        file.create_dataset("id_str", data=list(ids), dtype=h5py.string_dtype())
        columns = [column for label in labels for column in label.outputs]
        file.create_dataset("label_cols", data=columns, dtype=h5py.string_dtype())
        file.attrs["kind"] = kind_of_outputs(labels)
        file.attrs["tree"] = json.dumps(labels[0].tree.to_dict() if votes else None)
        file.attrs["labels"] = json.dumps([label.to_dict() for label in labels])
    return path


class Fits:
    """The files of a task's fits: its galaxies, and the predictions of each fit.

    Attributes:
        galaxies: `galaxies.parquet`.
        predictions: {name of a fit: HDF5}.
    """

    def __init__(self, galaxies):
        self.galaxies, self.predictions = galaxies, {}

    @property
    def path(self):
        """The predictions of the first fit."""
        return next(iter(self.predictions.values()))

    def read(self, split):
        """The galaxies of a split, as the first fit has them."""
        return read_fit(self.galaxies, next(iter(self.predictions)))[split].table

    def assign(self, part, **values):
        """Give the galaxies of a part other labels."""
        catalog = read_catalog(self.galaxies)
        for name, value in values.items():
            catalog.table.loc[catalog.table["part"] == part, name] = value
        write_catalog(catalog, self.galaxies)


def write_fits(folder, labels, names=("",), counts=(100, 20, 40), seed=0):
    """The files of a task's fits; folds have parts of the last count."""
    random = np.random.default_rng(seed)
    count, folds = sum(counts), len(names) if names[0].startswith("fold") else None
    truth = [truths(label, count, random) for label in labels]
    table = pd.DataFrame({"id_str": [f"g{index}" for index in range(count)], "archive": "", "member": ""})
    table["file_loc"] = write_images(folder / "images", count)
    for label, values in zip(labels, truth, strict=True):
        table[label.targets] = values
    table["part"] = np.repeat(range(folds), counts[2]) if folds else np.repeat(range(3), counts)
    about = {"labels": [label.to_dict() for label in labels], "folds": folds, "balance": "none"}
    targets = [column for label in labels for column in label.targets]
    fits = Fits(folder / "galaxies.parquet")
    tree = labels[0].tree if len(labels) == 1 else None
    write_catalog(Catalog(table, targets, tree, about), fits.galaxies)
    for name in names:
        values = [said(label, values, random) for label, values in zip(labels, truth, strict=True)]
        shuffled = random.permutation(count)
        ids, values = table["id_str"][shuffled], np.concatenate(values, axis=1)[shuffled]
        fits.predictions[name] = write_predictions(folder / name / "predictions.hdf5", labels, ids, values)
    return fits


def write_probe(path, fits, labels, names, values):
    """Write what a linear probe gives: the same values for each fit, in the order of the task's galaxies."""
    ids = read_catalog(fits.galaxies).table["id_str"]
    columns = [column for label in labels for column in label.outputs]
    table = pd.DataFrame(values, columns=columns)
    pd.concat([table.assign(id_str=ids, fit=name) for name in names]).to_parquet(path)
    return path


def recalibrate(folder, fits, seed=1):
    """Recalibrate all fits of a task; returns the files, in their order."""
    found = []
    for number, (name, path) in enumerate(fits.predictions.items()):
        with h5py.File(path, "r+") as file:
            file.attrs["models"], file.attrs["each_model"] = f"hash{number}", json.dumps([f"hash{number}"])
        model = folder / f"model{number}.keras"
        model.write_bytes(bytes([number]))
        found.append(folder / f"recalibration{number}.json")
        recalibrate_task(path, model, fits.galaxies, name, seed, found[-1])
    return found
