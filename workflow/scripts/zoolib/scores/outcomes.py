"""What a finetuned task's galaxies are, beside what the models of its fits say of them."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.config.labels import Label
from zoolib.job.logs import UserError, whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.summary import RELEVANT
from zoolib.scores import labels as label_scores
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.questions import question_losses, votes_of

# What matters most comes first.
SPLITS = ("test", "val", "train")
PLACES = ["id_str", "archive", "member", "file_loc"]
# Mass of the intervals of samples whose coverage is scored.
COVERED = 0.9


@dataclass(frozen=True)
class Outcome:
    """What some galaxies are, and what a model says of them: one label, or one question of a tree.

    Attributes:
        name: of the label or question.
        kind: `binary`, `multiclass`, `regression` or `votes`.
        classes: names of what a galaxy can be; empty for a regression.
        rows: (galaxies,) their places in the table that they are from.
        truth: (galaxies,): the class's number, the value, or the number of the answer with most votes.
        predicted: (galaxies, outputs): probability of yes or of each class, the value, vote fractions.
        spread: (galaxies, outputs), standard deviation of the samples.
        ranks: (galaxies, 2), where the truth of a regression lies among the samples; see
            `label_scores.coverage`.
        losses: (galaxies,) of votes, in nats.
        fractions: (galaxies, answers), what the volunteers say of a question.
    """

    name: str
    kind: str
    classes: tuple
    rows: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    spread: np.ndarray | None = None
    ranks: np.ndarray | None = None
    losses: np.ndarray | None = None
    fractions: np.ndarray | None = None

    @property
    def probabilities(self):
        """(galaxies, classes) of no and yes, or of each class."""
        if self.kind == "binary":
            return np.concatenate([1 - self.predicted, self.predicted], axis=1)
        return self.predicted

    def scores(self, weights):
        """Compare with the truth.

        Args:
            weights: (weightings, galaxies) of this outcome.

        Returns:
            {score: (weightings,)}.
        """
        if self.kind == "binary":
            return label_scores.binary_scores(self.truth, self.predicted[:, 0], weights)
        if self.kind == "multiclass":
            return label_scores.multiclass_scores(self.truth, self.predicted, weights)
        if self.kind == "regression":
            scores = label_scores.regression_scores(self.truth, self.predicted[:, 0], weights)
            covered = label_scores.coverage(self.ranks, COVERED)
            return {**scores, f"coverage_{COVERED * 100:.0f}": label_scores.weighted_mean(covered, weights)}
        called = self.predicted.argmax(axis=1) if self.classes else self.truth
        loss = {"log_loss": label_scores.weighted_mean(self.losses, weights)}
        if not self.classes:
            return loss
        return {**label_scores.class_scores(self.truth, called, len(self.classes), weights), **loss}

    def at(self, chosen):
        """Some of the galaxies.

        Args:
            chosen: (galaxies,) a mask.

        Returns:
            An `Outcome`.
        """
        parts = ("rows", "truth", "predicted", "spread", "ranks", "losses", "fractions")
        arrays = {name: getattr(self, name) for name in parts}
        return Outcome(
            self.name,
            self.kind,
            self.classes,
            **{name: None if array is None else array[chosen] for name, array in arrays.items()},
        )


def read_fits(fits, splits=SPLITS):
    """Put the predictions of a task's fits beside what the galaxies are.

    Args:
        fits: [{"name", "predictions", "train" and the other splits' catalogues}].
        splits: those to read.

    Returns:
        (list of `Label`; table with a row for each galaxy of each fit: id_str, places, split, fit, the
        labels' targets, `{output}_predicted` and `{output}_spread`, `{label}_rank_low` and `_high` of
        regressions, `{question}_nats` and `all_nats` of votes; a table like it whose predictions are
        constant).

    Raises:
        UserError: predictions of other labels than the catalogues have, or of none of their galaxies.
    """
    tables, constants = [], []
    for fit in fits:
        with open_predictions(fit["predictions"]) as opened:
            labels = labels_of(opened)
            values = np.concatenate([block for _, block in opened.blocks()])
            places = pd.Index(opened.id_str)
        known = _catalog(fit["train"], labels)
        for split in splits:
            catalog = _catalog(fit[split], labels)
            rows = places.get_indexer(catalog["id_str"])
            catalog = catalog[rows >= 0].reset_index(drop=True).assign(split=split, fit=fit["name"])
            kept = [name for name in PLACES if name in catalog]
            targets = list(dict.fromkeys(column for label in labels for column in label.targets))
            catalog = catalog[[*kept, "split", "fit", *targets]]
            predicted = _predicted(labels, catalog, values[rows[rows >= 0]], opened.kind)
            # The constant predictor answers with concentrations, whatever the model's head.
            trivial = _predicted(labels, catalog, _constants(labels, known, len(catalog)), "concentrations")
            tables.append(pd.concat([catalog, predicted], axis=1))
            constants.append(pd.concat([catalog, trivial], axis=1))
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise UserError(
            f"{fits[0]['predictions']}: none of the galaxies of {fits[0][splits[-1]]} is predicted in it;"
            " predict the task again."
        )
    return labels, table, pd.concat(constants, ignore_index=True)


def labels_of(opened):
    """What a file of predictions is about.

    Args:
        opened: `Predictions`.

    Returns:
        A list of `Label`; columns of a file that does not say are binary labels.
    """
    if opened.labels:
        return [Label.from_dict(content) for content in opened.labels]
    if opened.tree:
        return [Label(opened.tree.name, "votes", tree=opened.tree)]
    return [Label(column) for column in opened.columns]


def outcomes(labels, table):
    """What a table of `read_fits` says of each label, and of each question of a tree.

    Args:
        labels: a list of `Label`.
        table: some rows of the table, numbered from 0.

    Returns:
        A list of `Outcome`; after the questions of a tree comes one of their losses together.
    """
    found = []
    for label in labels:
        if label.kind == "votes":
            found += _questions(label.tree, table)
            continue
        names = {"binary": (f"no {label.name}", label.name), "multiclass": label.classes}
        ends = [f"{label.name}_rank_low", f"{label.name}_rank_high"]
        ranks = table[ends].to_numpy() if label.kind == "regression" else None
        found.append(
            Outcome(
                label.name,
                label.kind,
                names.get(label.kind, ()),
                np.arange(len(table)),
                table[label.name].to_numpy(float),
                _columns(table, label.outputs, "predicted"),
                _columns(table, label.outputs, "spread"),
                ranks,
            )
        )
    return found


def _questions(tree, table):
    """Outcomes of a tree's questions, for galaxies that enough volunteers answered each of them for."""
    votes = table[tree.columns].to_numpy(float)
    found = []
    for question in tree.questions:
        of_question, first = votes[:, question.slice], votes[:, tree.first(question).slice].sum(axis=1)
        asked = of_question.sum(axis=1)
        rows = np.flatnonzero((asked > 0) & (asked >= RELEVANT * first))
        part = table.iloc[rows]
        found.append(
            Outcome(
                question.name,
                "votes",
                tuple(question.answers),
                rows,
                of_question[rows].argmax(axis=1),
                _columns(part, question.columns, "predicted"),
                _columns(part, question.columns, "spread"),
                losses=part[f"{question.name}_nats"].to_numpy(),
                fractions=of_question[rows] / asked[rows, None],
            )
        )
    everything = np.arange(len(table))
    losses = table["all_nats"].to_numpy()
    return [*found, Outcome("all questions", "votes", (), everything, losses, losses[:, None], losses=losses)]


def _columns(table, names, end):
    return table[[f"{name}_{end}" for name in names]].to_numpy(float)


def _catalog(path, labels):
    catalog = pd.read_parquet(path)
    for label in labels:
        if label.kind == "votes":
            votes_of(catalog, label.tree, path)
        elif label.name not in catalog:
            raise UserError(
                f"{path}: has no column '{label.name}', which the predictions are of; predict the task again."
            )
    return catalog


def _predicted(labels, catalog, values, kind):
    """Columns for a table: mean and spread of the samples, and what else a label's scores need."""
    found, begin = {}, 0
    for label in labels:
        here = values[:, begin : begin + len(label.outputs)]
        begin += len(label.outputs)
        shares = here
        if label.kind == "votes":
            questions = [here[:, q.slice] for q in label.tree.questions]
            shares = np.concatenate([part / part.sum(axis=1, keepdims=True) for part in questions], axis=1)
            found |= _nats(label.tree, catalog, here, kind)
        for name, of_output in zip(label.outputs, shares.transpose(1, 0, 2), strict=True):
            found[f"{name}_predicted"] = of_output.mean(axis=1)
            found[f"{name}_spread"] = of_output.std(axis=1)
        if label.kind == "regression":
            samples = here[:, 0]
            below = (samples < catalog[label.name].to_numpy(float)[:, None]).sum(axis=1)
            # One sample has no interval.
            pieces = samples.shape[1] + 1 if samples.shape[1] > 1 else np.nan
            found[f"{label.name}_rank_low"] = below / pieces
            found[f"{label.name}_rank_high"] = (below + 1) / pieces
    return pd.DataFrame(found, index=catalog.index)


def _nats(tree, catalog, values, kind):
    losses = question_losses(tree, catalog[tree.columns].to_numpy(), values, kind)
    found = {f"{q.name}_nats": of_question for q, of_question in zip(tree.questions, losses.T, strict=True)}
    return {**found, "all_nats": losses.sum(axis=1)}


def _constants(labels, known, galaxies):
    """Predictions, (galaxies, outputs, 1), of one answer for all: the average training galaxy."""
    found = []
    for label in labels:
        if label.kind == "votes":
            found.append(constant_concentrations(tree=label.tree, votes=known[label.tree.columns].to_numpy()))
        elif label.kind == "multiclass":
            counts = np.bincount(known[label.name].astype(int), minlength=len(label.classes))
            found.append(counts / counts.sum())
        else:
            found.append([known[label.name].mean()])
    return np.broadcast_to(np.concatenate(found)[None, :, None], (galaxies, sum(map(len, found)), 1))


def write_galaxies(table, labels, output):
    """Write the galaxies of a task with what they are and what the models say of them.

    Args:
        table: of `read_fits`.
        labels: the list of `Label`; it becomes part of the file.
        output: Parquet to write.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    about = {**(content.schema.metadata or {}), "labels": json.dumps([label.to_dict() for label in labels])}
    with whole(output) as partial:
        pq.write_table(content.replace_schema_metadata(about), partial)


def read_galaxies(path):
    """Read what `write_galaxies` wrote.

    Args:
        path: Parquet.

    Returns:
        (list of `Label`, the table).
    """
    content = json.loads(pq.read_schema(path).metadata[b"labels"])
    return [Label.from_dict(label) for label in content], pd.read_parquet(path)
