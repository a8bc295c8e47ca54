"""Posteriors and votes drawn at random, and the files that hold them."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from zoolib.config.trees import DecisionTree
from zoolib.posteriors.files import describe_posteriors

SMALL = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk", "star"]},
            "edge": {"answers": ["yes", "no"], "after": "shape_disk"},
            # It follows two answers.
            "bulge": {"answers": ["big", "small"], "after": ["edge_no", "shape_smooth"]},
        },
        "cuts": {
            "disk": {"answers": ["shape_disk"], "above": 0.3, "votes": 5},
            "face-on": {"answers": ["edge_yes"], "below": 0.25, "votes": 5},
            "no-star": {"answers": ["shape_smooth", "shape_disk"], "above": 0.9, "votes": 5},
        },
    }
)


def some_concentrations(galaxies, tree, samples, seed=0):
    """Concentrations from 1 to 101 (galaxies, answers, samples), whose samples differ somewhat."""
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 1.5, (galaxies, len(tree.columns), 1))
    logits = logits + random.normal(0, 0.5, (galaxies, len(tree.columns), samples))
    return 1 + 100 / (1 + np.exp(-logits))


def some_probabilities(galaxies, tree, samples, seed=0):
    """Probabilities (galaxies, answers, samples); those of a question sum to 1."""
    values = some_concentrations(galaxies, tree, samples, seed)
    shares = [values[:, q.slice] / values[:, q.slice].sum(axis=1, keepdims=True) for q in tree.questions]
    return np.concatenate(shares, axis=1)


def some_weights(galaxies, tree, samples, per_sample, seed=0):
    """Unequal weights (galaxies, questions, samples x per_sample); those of a sample sum to 1 / samples."""
    random = np.random.default_rng(seed)
    shape = (galaxies, len(tree.questions), samples)
    shares = random.dirichlet(np.full(per_sample, 0.5), shape) / samples
    return shares.reshape(*shape[:2], samples * per_sample)


# Weights that are far from equal, each a multiple of 1 / 20: the mixture is also one of 20 equal components.
SHARES = np.array([[0.05, 0.9, 0.05], [0.6, 0.0, 0.4], [0.25, 0.5, 0.25]])


def some_shares(galaxies, tree, seed=0):
    """Weights (galaxies, questions, 3), one of `SHARES` for each question."""
    return SHARES[np.random.default_rng(seed).integers(3, size=(galaxies, len(tree.questions)))]


def duplicated(values, tree, weights, parts=20):
    """The equal mixture (galaxies, answers, parts) in which each component is as often as its weight says."""
    found = np.empty((*values.shape[:2], parts))
    for galaxy in range(len(values)):
        for number, question in enumerate(tree.questions):
            times = np.rint(parts * weights[galaxy, number]).astype(int)
            chosen = np.repeat(np.arange(values.shape[2]), times)
            found[galaxy, question.slice] = values[galaxy, question.slice][:, chosen]
    return found


def weigh(path, weights, per_sample=3):
    """Add weights to a file of predictions."""
    with h5py.File(path, "a") as file:
        file["weights"] = weights.astype("float32")
        file.attrs["components"] = per_sample
    return path


def mixtures(tree, per_sample):
    """What `model.json` says of a model whose samples are mixtures of Dirichlets."""
    return {
        "kind": "mixtures",
        "tree": tree.to_dict(),
        "columns": tree.columns,
        "training": {"components": per_sample},
    }


def written(path, values, tree=None, columns=None, kind="concentrations"):
    """Write predictions for galaxies that are called `galaxy 0` and so on."""
    with h5py.File(path, "w") as file:
        file["predictions"] = values.astype("float32")
        names = [f"galaxy {index}" for index in range(len(values))]
        file.create_dataset("id_str", data=names, dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=columns or tree.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind=kind, tree=json.dumps(tree.to_dict() if tree else None))
    return path


def some_survey(folder, tree, galaxies, kind="concentrations", seed=0):
    """Galaxies with votes, one image for all of them, and predictions by two models in another order."""
    random = np.random.default_rng(seed)
    truth = [random.dirichlet(np.full(len(q.answers), 0.6), galaxies) for q in tree.questions]
    votes = np.zeros((galaxies, len(tree.columns)), int)
    for question, probabilities in zip(tree.questions, truth, strict=True):
        asked = (
            votes[:, tree.parents(question)].sum(axis=1)
            if question.after
            else random.integers(20, 90, galaxies)
        )
        votes[:, question.slice] = random.multinomial(asked, probabilities)
    table = pd.DataFrame(votes, columns=tree.columns).astype("int32")
    table.insert(0, "id_str", [f"g{index:04d}" for index in range(galaxies)])
    table = table.assign(archive="", member="", file_loc=str(folder / "one.png"))
    table.to_parquet(folder / "test.parquet")
    Image.new("RGB", (32, 32), (200, 100, 40)).save(folder / "one.png")
    values = 1 + 30 * np.concatenate(truth, axis=1)[:, :, None] * random.uniform(0.5, 1.5, (galaxies, 1, 6))
    if kind == "probabilities":
        values = np.repeat(np.concatenate(truth, axis=1)[:, :, None], 6, axis=2)
    order = random.permutation(galaxies)
    with h5py.File(folder / "p.hdf5", "w") as file:
        file["predictions"] = values[order]
        file.create_dataset("id_str", data=list(table["id_str"][order]), dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=tree.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind=kind, tree=json.dumps(tree.to_dict()), members=2)
    describe_posteriors(folder / "p.hdf5", folder / "flat.parquet", 0.9)
    return SimpleNamespace(votes=votes, values=values, files=(folder / "p.hdf5", folder / "test.parquet"))
