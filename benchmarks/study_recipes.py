"""The study of recipes: which head and training learn new labels best from a frozen backbone.

Writes the last section of docs/finetuning.md from the runs results/study_recipes/ (128 features) and
results/study_recipes_b0/ (EfficientNetB0, 1,280 features). The latter learned briefly from the same survey:
weights that know real galaxies cannot be had everywhere. Each finished cell is a file of its run, so that an
interrupted study goes on where it was.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from pages import REPO, machine, write_section
from zoolib.config.labels import Label
from zoolib.config.recipes import complete_batch, complete_head
from zoolib.config.trees import DecisionTree
from zoolib.data.partition import divide, first_few
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.attempts import Budget
from zoolib.job.logs import whole
from zoolib.job.provenance import hash_of
from zoolib.learning import datasets, fitting
from zoolib.learning.checkpoints import Progress
from zoolib.learning.features import features_of_store
from zoolib.learning.label_heads import LabelsLoss, labels_head
from zoolib.learning.models import load_model
from zoolib.scores.linear_probe import fit_probe

RUNS = {"study_recipes": "tiny, 128", "study_recipes_b0": "EfficientNetB0, 1,280"}
COUNTS, SEEDS = (20, 100, 1000), 3
# Shares of the galaxies that labels are drawn from: half of the galaxies are tested on.
PARTS = (0.4375, 0.0625, 0.5)
TREE = DecisionTree.from_dict(
    {
        "name": "shapes",
        "questions": {
            "smooth-or-featured": {"answers": ["smooth", "featured-or-disk", "artifact"]},
            "bar": {"answers": ["strong", "weak", "no"], "after": "smooth-or-featured_featured-or-disk"},
        },
    }
)
LABELS = {
    "rings": Label("ring"),
    "bars": Label("bar"),
    "bulge": Label("bulge", "regression", bounds=(0, 1)),
    "votes": Label("shapes", "votes", tree=TREE),
    "classes": Label("type", "multiclass", ("elliptical", "spiral", "disc", "disturbed")),
}
# The score of each kind, and whether more is better.
SCORES = {"binary": "accuracy", "multiclass": "accuracy", "regression": "explained variance", "votes": "loss"}
USUAL = {"batch_size": None, "patience": 20, "learning_rate": 0.001, "epochs": 80}
RECOMMENDED = complete_head("recommended")
# As `recommended`, but it begins from random weights.
SCALED = {**RECOMMENDED, "probed": False, "scaled": True}
# Names on the page: (head, settings). The first is what the default was.
RECIPES = {
    "the old default": (complete_head("published"), {"batch_size": 64, "patience": 10}),
    "`published`": (complete_head("published"), {}),
    "64, not scaled": (complete_head({"units": [64], "dropout": 0.3}), {"batch_size": 32}),
    "linear": ({**SCALED, "units": [], "dropout": 0.2}, {"learning_rate": 0.01}),
    "64, scaled": (SCALED, {}),
    "`recommended`": (RECOMMENDED, {}),
    "its rate 0.0003": (RECOMMENDED, {"learning_rate": 0.0003}),
}


@dataclass(frozen=True)
class Galaxies:
    """Galaxies that a backbone has not learned from.

    Attributes:
        features: data frame, id_str -> numbers of the backbone.
        truth: data frame of the simulation, the same rows.
        votes: data frame of what the volunteers said, the same rows.
        checksum: of the model.
    """

    features: pd.DataFrame
    truth: pd.DataFrame
    votes: pd.DataFrame
    checksum: str


def stored(run, image):
    """The test galaxies of a run.

    Args:
        run: folder of the run.
        image: the section `image` of its model.

    Returns:
        (a `datasets.Store`, their id_str).
    """
    abouts = sorted((run / "shards" / "test").glob("*.json"))
    shards = [about.with_suffix(".tfrecord") for about in abouts]
    store = datasets.from_shards(shards, [read_sidecar(about) for about in abouts], image)
    names = [name.decode() for ids, *_ in datasets.stored_batches(store, 256) for name in ids.numpy()]
    return store, names


def read_galaxies(run):
    """The test galaxies of a run, as its backbone sees them.

    Args:
        run: folder of the run.

    Returns:
        `Galaxies`.
    """
    model = load_model(run / "train" / "metrics" / "0")
    store, names = stored(run, model.about["image"])
    features, votes = features_of_store(model.backbone, store, model.about["training"]["augmentation"])
    truth = pd.read_parquet(run / "download" / "truth.parquet").set_index("id_str").loc[names]
    votes = pd.DataFrame(votes, names, model.tree.columns)
    return Galaxies(pd.DataFrame(features, names), truth, votes, model.about["checksums"]["model.keras"])


def labelled(galaxies, task):
    """The galaxies of a task with their labels, id_str and the targets; half have a ring, or a bar."""
    truth = galaxies.truth
    if task == "votes":
        found = galaxies.votes[TREE.columns]
    elif task == "bulge":
        found = truth[["bulge_share"]].set_axis(["bulge"], axis=1)
    elif task == "classes":
        kinds = [truth["disturbance"] > 0.6, truth["disc"] == 0, truth["spiral_strength"] > 0.3]
        found = pd.DataFrame({"type": np.select(kinds, [3, 0, 1], 2)}, truth.index)
    else:
        name = task.removesuffix("s")
        strength = truth[f"{name}_strength"][(truth["disc"] == 1) & (truth["axis_ratio"] > 0.4)]
        clear = strength[(strength < 0.05) | (strength > 0.35)]
        found = pd.DataFrame({name: (clear > 0.35).astype(int)})
        found = found.groupby(name).head(found[name].value_counts().min())
    return found.rename_axis("id_str").reset_index()


def parts_of(table, label, count, seed):
    """{"train", "val", "test": table}; train and val together have as many labels as asked for, or all."""
    part = divide(table, [label], PARTS, seed)
    train, val, test = (table[part == number].reset_index(drop=True) for number in range(3))
    few = max(
        2 if label.kind != "multiclass" else len(label.classes), round(count * PARTS[1] / sum(PARTS[:2]))
    )
    return {
        "train": first_few(train, [label], count - few, seed),
        "val": first_few(val, [label], few, seed),
        "test": test,
    }


def learn(recipe, label, features, parts, seed):
    """What a head gives for the test galaxies, trained as `finetune` does it on a frozen backbone."""
    head, changes = recipe
    settings = complete_batch({**USUAL, **changes}, len(parts["train"]))
    x = {name: features.loc[table["id_str"]].to_numpy("float32") for name, table in parts.items()}
    y = {name: table[label.targets].to_numpy("float32") for name, table in parts.items()}
    keras.utils.set_random_seed(seed)
    statistics = {label.name: (float(y["train"].mean()), float(y["train"].std()))}
    known, said = x["train"] if head["probed"] or head.get("scaled") else None, None
    if head["probed"]:
        free = replace(label, bounds=None)
        said = fit_probe(known, [free], parts["train"], label.name)(known)
    network = labels_head(features.shape[1], [label], statistics, head["units"], head["dropout"], known, said)
    training = partial(datasets.array_batches, x["train"], y["train"], settings["batch_size"], seed)
    validation = tf.data.Dataset.from_tensor_slices((x["val"], y["val"])).batch(256)
    loss, begun = LabelsLoss([label], statistics), network.get_weights()
    before = float(loss(y["val"], network(x["val"]))) if head["probed"] else np.inf
    with tempfile.TemporaryDirectory() as folder:
        progress = Progress(Path(folder), "study", Budget())
        history, _ = fitting.fit(network, loss, (training, validation), settings, seed, progress)
    if history["val_loss"].min() >= before:
        network.set_weights(begun)
    return network.predict_on_batch(x["test"])


def score(label, truth, given):
    """The score of `SCORES`; NaN-free, more is better except for the loss of votes (nats a galaxy)."""
    if label.kind == "votes":
        return float(np.mean(LabelsLoss([label]).call(truth.astype("float32"), np.float32(given))))
    if label.kind == "regression":
        return float(1 - np.mean((truth - given) ** 2) / np.var(truth))
    found = given.argmax(axis=1) if label.kind == "multiclass" else given[:, 0] > 0.5
    return float(np.mean(found == truth[:, 0]))


def constant(label, parts):
    """The same answer for every test galaxy: the mean of the training labels, or the most frequent class."""
    truth, tests = parts["train"][label.targets].to_numpy(float), len(parts["test"])
    if label.kind == "multiclass":
        answer = np.eye(len(label.classes))[truth[:, 0].astype(int)].mean(axis=0)
    elif label.kind == "votes":
        # Concentrations of few votes a question, in the shares of the training votes.
        answer = 1 + 10 * np.concatenate(
            [votes.sum(axis=0) / max(votes.sum(), 1) for votes in (truth[:, :3], truth[:, 3:])]
        )
    else:
        answer = truth.mean(axis=0)
    return np.tile(answer, (tests, 1))


def cells(run, tasks, counts, seeds):
    """The score of each recipe, of the probe and of the constant, for each task, count and seed of a run.

    Args:
        run: folder of the run.
        tasks, counts: which; see `LABELS` and `COUNTS`.
        seeds: how many.

    Returns:
        Data frame: task, labels, seed, recipe, score.
    """
    galaxies, rows = read_galaxies(run), []
    for task in tasks:
        label, table = LABELS[task], labelled(galaxies, task)
        for count in counts:
            for seed in range(seeds):
                parts = parts_of(table, label, count, seed)
                for name in ("constant", "linear probe", *RECIPES):
                    row = {"task": task, "labels": count, "seed": seed, "recipe": name}
                    rows.append({**row, "score": _cell(run, galaxies, label, parts, row)})
    return pd.DataFrame(rows)


def _cell(run, galaxies, label, parts, row):
    """One score, from its file if it has been computed before."""
    recipe, features = RECIPES.get(row["recipe"]), galaxies.features

    def given():
        if recipe:
            return learn(recipe, label, features, parts, row["seed"])
        if row["recipe"] == "constant":
            return constant(label, parts)
        seen = pd.concat([parts["train"], parts["val"]], ignore_index=True)
        probe = fit_probe(features.loc[seen["id_str"]].to_numpy("float32"), [label], seen, row["task"])
        return probe(features.loc[parts["test"]["id_str"]].to_numpy("float32"))

    return remembered(run, [row, recipe, USUAL, galaxies.checksum], label, parts["test"], given)


def remembered(run, made_from, label, test, give):
    """The score of a cell, from its file if it has been computed before.

    Args:
        run: folder of the run.
        made_from: what the score depends on besides the labels; the row of the cell first.
        label: a `Label`.
        test: the galaxies that are tested on.
        give: called without arguments for what a model gives for them.

    Returns:
        float.
    """
    row = made_from[0]
    path = run / "cells" / f"{row['task']}-{row['labels']}-{row['seed']}-{hash_of(made_from)}.json"
    if path.is_file():
        return json.loads(path.read_text())["score"]
    found = score(label, test[label.targets].to_numpy(float), give())
    with whole(path) as partial_path:
        partial_path.write_text(json.dumps({**row, "score": found}) + "\n")
    about = f"{row['task']}, {row['labels']} labels, seed {row['seed']}, {row['recipe']}"
    print(f"{run.name}, {about}: {found:.3f}", flush=True)
    return found


def lines_of(table, names=("constant", "linear probe", *RECIPES)):
    """Lines of a table: mean and standard deviation over seeds, a row for each task and number of labels."""
    names = list(names)
    lines = [f"| task, labels | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for (task, count), part in table.groupby(["task", "labels"], sort=False):
        found = part.groupby("recipe")["score"].agg(["mean", "std"]).loc[names].fillna(0)
        digits = [f"{mean:.2f} ± {std:.2f}" for mean, std in found.to_numpy()]
        lines.append(f"| {task}, {count:,} | {' | '.join(digits)} |")
    return lines


def study(results, tasks, counts, seeds, write):
    """Compute all cells of all runs that are there, and write the section."""
    section = [
        machine("study-recipes"),
        "",
        "The head learns from features of a frozen backbone that has not seen these simulated galaxies. Of"
        " the labels, an eighth decides when training stops; half of the galaxies are tested on. Accuracy for"
        " rings, bars and classes, the explained share of the variance for the bulge's share, and the loss in"
        " nats a galaxy for votes, where less is better: mean and standard deviation over"
        f" {seeds} draws of the labels. Where there are fewer galaxies than labels, all are used."
        " EfficientNetB0 was trained for a few epochs on the same survey: its features stand in for those of"
        " a real encoder, which knows more.",
        "",
        "The linear probe learns from all of these labels, also from those that stop the other trainings."
        " *The old default* is `published` with batches of 64 and a patience of 10. *64, not scaled* and"
        " *64, scaled* have a dense layer of 64 and a dropout of 0.3 and begin from random weights,"
        " *linear* has no dense layer; the last two see scaled features. `recommended` is *64, scaled*, but"
        " begins as the linear probe of the training galaxies; the last column is the same with a learning"
        " rate of 0.0003. At first *64, scaled* was to be recommended. With few labels it was behind the"
        " linear probe, on the same galaxies as here: that is why `recommended` begins as one.",
    ]
    for run, name in RUNS.items():
        if (results / run / "train").is_dir():
            table = cells(results / run, tasks, counts, seeds)
            section += ["", f"**{name} features**", "", *lines_of(table)]
    write_section("finetuning.md", "Which recipe", section, write)


def command_line(about, study, counts=COUNTS):
    """Call a study with what was typed; `counts` are its usual numbers of labels."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--results", type=Path, default=REPO / "results")
    parser.add_argument("--tasks", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--counts", nargs="+", type=int, default=counts)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--print", action="store_true", help="print the section instead of writing it")
    given = parser.parse_args()
    study(given.results.absolute(), given.tasks, given.counts, given.seeds, not given.print)


if __name__ == "__main__":
    command_line(__doc__, study)
