"""The galaxies of a finetuned task: their labels beside the predictions of its fits."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.config.labels import Label
from zoolib.data.catalogs import read_catalog
from zoolib.data.fits import cut_fit
from zoolib.data.locations import PLACES
from zoolib.data.tables import read_table
from zoolib.job.logs import UserError, whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.unseen import check_unseen
from zoolib.scores import metrics
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.questions import question_losses, relevant, votes_of

# The most important split comes first.
SPLITS = ("test", "val", "train")
# Masses of the central intervals whose coverage is scored.
COVERED = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Outcome:
    """The truth and the predictions of some galaxies, for one label or one question of a tree.

    Attributes:
        name: of the label or question.
        kind: `binary`, `multiclass`, `regression` or `votes`.
        classes: names of the classes or answers; empty for a regression.
        rows: (galaxies,) positions in the table that the galaxies are from.
        truth: (galaxies,): number of the class, the value, or number of the answer with most votes.
        predicted: (galaxies, outputs): probability of yes or of each class, the value, vote fractions.
        spread: (galaxies, outputs), standard deviation of the samples.
        ranks: (galaxies, 2), where the truth of a regression lies among the samples; see
            `metrics.coverage`.
        losses: (galaxies,) of votes, in nats.
        fractions: (galaxies, answers), the volunteers' vote fractions on a question.
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
        """Compare the predictions with the truth.

        Args:
            weights: (weightings, galaxies), for the galaxies of this outcome.

        Returns:
            {score: (weightings,)}.
        """
        if self.kind == "binary":
            return metrics.binary_scores(self.truth, self.predicted[:, 0], weights)
        if self.kind == "multiclass":
            return metrics.multiclass_scores(self.truth, self.predicted, weights)
        if self.kind == "regression":
            scores = metrics.regression_scores(self.truth, self.predicted[:, 0], weights)
            shares = {f"coverage_{level * 100:.0f}": metrics.coverage(self.ranks, level) for level in COVERED}
            return scores | {name: metrics.weighted_mean(share, weights) for name, share in shares.items()}
        loss = {"log_loss": metrics.weighted_mean(self.losses, weights)}
        if not self.classes:
            return loss
        predicted = self.predicted.argmax(axis=1)
        return {**metrics.class_scores(self.truth, predicted, len(self.classes), weights), **loss}

    def at(self, chosen):
        """Some of the galaxies.

        Args:
            chosen: (galaxies,) boolean.

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


def read_fits(galaxies, predictions, splits=SPLITS, beside=None):
    """Put the predictions of the fits of a task next to the labels of the galaxies.

    Args:
        galaxies: `galaxies.parquet` of the task.
        predictions: {name of a fit: its HDF5 of predictions}.
        splits: names of the splits to read.
        beside: {name of a fit: what there is of recalibration (its `recalibration.json`), probe (Parquet of
            `linear_probe.probe_task`, name of the fit in it) and scratch (the predictions of the same
            training from random weights)}, or None.

    Returns:
        (list of `Label`; table with one row for each galaxy of each fit: id_str, where the image is,
        split, fit, the targets of the labels, `{output}_predicted` and `{output}_spread`,
        `{label}_rank_low` and `_high` of regressions, `{question}_nats` and `all_nats` of votes; {"constant":
        the same table with the predictions of the constant predictor; and where they are given "as_trained":
        before the recalibration, "probe": of the linear probe, "scratch": from random weights}).

    Raises:
        UserError: predictions for other labels or galaxies, or of a model that learned from galaxies of test.
    """
    catalog, tables, others = read_catalog(galaxies), [], {"constant": []}
    for name, path in predictions.items():
        given = (beside or {}).get(name, {})
        own = given.get("recalibration")
        with open_predictions(path, [own] if own else None) as opened:
            labels, bounds = labels_of(opened), opened.bounds
            values, weights = _all(opened)
            positions = pd.Index(opened.id_str)
            _check_labels(catalog.table, labels, galaxies)
            cut = cut_fit(catalog, name, str(galaxies))
            rows = positions.get_indexer(cut["test"].table["id_str"])
            check_unseen(opened, rows[rows >= 0])
        drawn = {"as_trained": path if own else None, "scratch": given.get("scratch")}
        drawn = {other: _all_of(source, positions) for other, source in drawn.items() if source}
        for split in splits:
            table = cut[split].table
            rows = positions.get_indexer(table["id_str"])
            table = table[rows >= 0].reset_index(drop=True).assign(split=split, fit=name)
            targets = list(dict.fromkeys(column for label in labels for column in label.targets))
            table = table[["id_str", *PLACES, "split", "fit", *targets]]
            here = rows[rows >= 0]
            predicted = predicted_columns(labels, table, _some(values, weights, here), opened.kind, bounds)
            tables.append(pd.concat([table, predicted], axis=1))
            compared = {"constant": (constant_predictions(labels, cut["train"].table, len(table)), None)}
            if "probe" in given:
                compared["probe"] = read_probe(*given["probe"], labels, table["id_str"]), None
            compared |= {other: _some(*numbers, here) for other, numbers in drawn.items()}
            for other, numbers in compared.items():
                # The constant predictor and the probe give concentrations, whatever the head of the model.
                kind = opened.kind if other in drawn else "concentrations"
                columns = predicted_columns(labels, table, numbers, kind)
                others.setdefault(other, []).append(pd.concat([table, columns], axis=1))
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise UserError(
            f"{path}: none of the galaxies of {galaxies} ({splits[-1]}) is predicted in it; predict the task"
            " again."
        )
    return labels, table, {other: pd.concat(found, ignore_index=True) for other, found in others.items()}


def _all_of(path, positions):
    """All numbers of other predictions of the same galaxies, in their order; see `_all`."""
    with open_predictions(path) as opened:
        rows = pd.Index(opened.id_str).get_indexer(positions)
        if (rows < 0).any():
            raise UserError(f"{path}: has other galaxies than the predictions beside it; predict both again.")
        return _some(*_all(opened), rows)


def _all(opened):
    """All numbers of some predictions: values, and weights or None."""
    blocks = [(values, weights) for _, values, weights in opened.blocks()]
    values = np.concatenate([values for values, _ in blocks])
    return values, None if blocks[0][1] is None else np.concatenate([weights for _, weights in blocks])


def _some(values, weights, rows):
    return values[rows], None if weights is None else weights[rows]


def labels_of(opened):
    """The labels that a file of predictions is for.

    Args:
        opened: `Predictions`.

    Returns:
        A list of `Label`. If the file does not name its labels, each column is a binary label.
    """
    if opened.labels:
        return [Label.from_dict(content) for content in opened.labels]
    if opened.tree:
        return [Label(opened.tree.name, "votes", tree=opened.tree)]
    return [Label(column) for column in opened.columns]


def outcomes(labels, table):
    """Take a table of `read_fits` apart: one outcome for each label and for each question of a tree.

    Args:
        labels: a list of `Label`.
        table: some rows of the table, numbered from 0.

    Returns:
        A list of `Outcome`; the last one of a tree, `all questions`, has the sum of their losses.
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
    """Outcomes of the questions of a tree; each has the galaxies that the question counts for."""
    votes = table[tree.columns].to_numpy(float)
    found = []
    for question in tree.questions:
        rows = np.flatnonzero(relevant(votes, question, tree))
        part, of_question = table.iloc[rows], votes[rows][:, question.slice]
        found.append(
            Outcome(
                question.name,
                "votes",
                tuple(question.answers),
                rows,
                of_question.argmax(axis=1),
                _columns(part, question.columns, "predicted"),
                _columns(part, question.columns, "spread"),
                losses=part[f"{question.name}_nats"].to_numpy(),
                fractions=of_question / of_question.sum(axis=1, keepdims=True),
            )
        )
    everything = np.arange(len(table))
    losses = table["all_nats"].to_numpy()
    return [*found, Outcome("all questions", "votes", (), everything, losses, losses[:, None], losses=losses)]


def _columns(table, names, end):
    return table[[f"{name}_{end}" for name in names]].to_numpy(float)


def _check_labels(table, labels, path):
    for label in labels:
        if label.kind == "votes":
            votes_of(table, label.tree, path)
        elif label.name not in table:
            raise UserError(
                f"{path}: has no column '{label.name}', which the predictions are of; predict the task again."
            )


def predicted_columns(labels, catalog, numbers, kind, bounds=None):
    """What the scores of labels need of some numbers.

    Args:
        labels: a list of `Label`.
        catalog: (galaxies,) data frame with the labels' targets.
        numbers: ((galaxies, outputs, components) values, (galaxies, questions, components) weights or None).
        kind: what the values are, as the predictions say it.
        bounds: (lowest, highest) of each output, or None.

    Returns:
        Data frame of `{output}_predicted` and `{output}_spread`, `{label}_rank_low` and `_high` of
        regressions, `{question}_nats` and `all_nats` of votes.
    """
    (values, weights), found, begin = numbers, {}, 0
    for label in labels:
        here = values[:, begin : begin + len(label.outputs)]
        begin += len(label.outputs)
        shares, of_answers = here, np.full(here.shape, 1 / here.shape[2])
        if label.kind == "votes":
            questions = [here[:, q.slice] for q in label.tree.questions]
            shares = np.concatenate([part / part.sum(axis=1, keepdims=True) for part in questions], axis=1)
            of_votes = "concentrations" if kind == "mixed" else kind
            found |= _nats(label.tree, catalog, here, of_votes, weights)
            if weights is not None:
                of_answers = np.repeat(weights, [len(q.answers) for q in label.tree.questions], axis=1)
        means = (of_answers * shares).sum(axis=2)
        spreads = np.sqrt((of_answers * (shares - means[:, :, None]) ** 2).sum(axis=2))
        if bounds:
            means = np.clip(means, *(ends[begin - len(label.outputs) : begin] for ends in bounds))
        for number, name in enumerate(label.outputs):
            found[f"{name}_predicted"] = means[:, number]
            found[f"{name}_spread"] = spreads[:, number]
        if label.kind == "regression":
            samples = here[:, 0]
            below = (samples < catalog[label.name].to_numpy(float)[:, None]).sum(axis=1)
            # A single sample has no interval.
            pieces = samples.shape[1] + 1 if samples.shape[1] > 1 else np.nan
            found[f"{label.name}_rank_low"] = below / pieces
            found[f"{label.name}_rank_high"] = (below + 1) / pieces
    return pd.DataFrame(found, index=catalog.index)


def _nats(tree, catalog, values, kind, weights):
    losses = question_losses(tree, catalog[tree.columns].to_numpy(), values, kind, weights)
    found = {f"{q.name}_nats": of_question for q, of_question in zip(tree.questions, losses.T, strict=True)}
    return {**found, "all_nats": losses.sum(axis=1)}


def read_probe(path, fit, labels, names):
    """What the linear probe of a fit gives for some galaxies.

    Args:
        path: Parquet of `linear_probe.probe_task`.
        fit: name of the finetuning.
        labels: a list of `Label`.
        names: (galaxies,) id_str.

    Returns:
        (galaxies, outputs of all labels, 1).

    Raises:
        UserError: the file is of other galaxies, fits or labels.
    """
    columns = [column for label in labels for column in label.outputs]
    table = read_table(path)
    missing = next((column for column in ("id_str", "fit", *columns) if column not in table), None)
    found = table if missing else table[table["fit"] == fit].set_index("id_str").reindex(names)[columns]
    if missing or found.isna().to_numpy().any():
        what = f"no column '{missing}'" if missing else "not all galaxies"
        raise UserError(f"{path}: has {what} of the task, so it is another task's; delete it and run again.")
    return found.to_numpy(float)[:, :, None]


def constant_predictions(labels, known, galaxies):
    """Predictions of the constant predictor, (galaxies, outputs, 1): the average of the training galaxies."""
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
    """Write the galaxies of a task with their labels and predictions.

    Args:
        table: as `read_fits` returns it.
        labels: the list of `Label`; it is stored in the metadata of the file.
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
