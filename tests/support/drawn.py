"""Posteriors drawn at random, and files of predictions that hold them."""

import json

import h5py
import numpy as np
from zoolib.config.trees import DecisionTree

SMALL = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk", "star"]},
            "edge": {"answers": ["yes", "no"], "after": "shape_disk"},
            # Two ways lead to it.
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


def written(path, values, tree=None, columns=None, kind="concentrations"):
    """A file of predictions for galaxies that are called `galaxy 0` and so on."""
    with h5py.File(path, "w") as file:
        file["predictions"] = values.astype("float32")
        names = [f"galaxy {index}" for index in range(len(values))]
        file.create_dataset("id_str", data=names, dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=columns or tree.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind=kind, tree=json.dumps(tree.to_dict() if tree else None))
    return path
