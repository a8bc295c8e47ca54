"""Scores of a finetuned task, for each split and each fold."""

import numpy as np
import pandas as pd

from zoolib.config.tasks import label_count_of
from zoolib.job.logs import log, whole
from zoolib.scores.confusion import confusion_rows
from zoolib.scores.metrics import bootstrap_weights
from zoolib.scores.outcomes import SPLITS, outcomes, read_fits, write_galaxies

RESAMPLES = 1000
# Quantiles of the resamples that end the central intervals.
ENDS = {"low_68": 0.16, "high_68": 0.84, "low_95": 0.025, "high_95": 0.975}
# Numbers in a block of resamples: blocks bound the memory.
ROOM = 4_000_000
# The score that the log names for each kind of label.
MAIN = {"binary": "accuracy", "multiclass": "accuracy", "regression": "rmse", "votes": "log_loss"}
# Scores without intervals: resampling makes them larger, so the intervals would not hold the score itself.
UNSURE = ("calibration_error",)


def evaluate_task(galaxies, predictions, seed, output):
    """Score the predictions of a task, with bootstrap intervals and, if it has folds, their spread.

    Several fits are the folds of a cross-validation. A split then holds the galaxies of all folds, each
    predicted by the model that had it in this split.

    Args:
        galaxies: `galaxies.parquet` of the task.
        predictions: {name of a fit, "" or e.g. "fold0": its HDF5 of predictions}.
        seed: of the bootstrap.
        output: attributes galaxies (Parquet: split, fit, truth and predictions of every galaxy), scores
            (CSV: label, split, score, galaxies, value, low_68, high_68, low_95, high_95, constant, which is
            the score of the constant predictor; with folds also fold_mean, fold_deviation and each fold)
            and confusion (CSV: question, subset, true, predicted, count).

    Raises:
        UserError: the predictions are for labels that the galaxies do not have, or for none of the galaxies.
    """
    labels, table, constants = read_fits(galaxies, predictions)
    random = np.random.default_rng(seed)
    names = list(predictions)
    scores, confusions = [], []
    for split in SPLITS:
        chosen = (table["split"] == split).to_numpy()
        if not chosen.any():
            continue
        of_split = table[chosen].reset_index(drop=True)
        trivial = outcomes(labels, constants[chosen].reset_index(drop=True))
        for outcome, constant in zip(outcomes(labels, of_split), trivial, strict=True):
            of_outcome = of_split.iloc[outcome.rows]
            numbers = pd.factorize(of_outcome["id_str"])[0]
            about = {"label": outcome.name, "split": split}
            rows = _score_rows(outcome, constant, numbers, random)
            if len(names) > 1:
                _add_folds(rows, outcome, of_outcome["fit"].to_numpy(), names)
            scores += [{**about, **row} for row in rows]
            if outcome.classes:
                predicted = outcome.probabilities.argmax(axis=1)
                truth = outcome.truth.astype(int)
                confusions += confusion_rows(outcome.name, split, outcome.classes, truth, predicted)
    write_galaxies(table, labels, output.galaxies)
    columns = ["question", "subset", "true", "predicted", "count"]
    for content, path in ((scores, output.scores), (confusions, output.confusion)):
        with whole(path) as partial:
            chosen = columns if content is confusions else None
            pd.DataFrame(content, columns=chosen).to_csv(partial, index=False, float_format="%.6g")
    for row in scores:
        if row["split"] == "test" and row["score"] in MAIN.values():
            log.info(
                "%s: %s %.3f (constant: %.3f)", *(row[k] for k in ("label", "score", "value", "constant"))
            )


def evaluate_label_counts(galaxies, predictions, output):
    """Score the fits of a task that learned from different numbers of labels, finetuned and from scratch.

    Args:
        galaxies: `galaxies.parquet` of the task; the constant predictor learns from all of its train.
        predictions: {name of a fit such as "labels50-1-finetuned": its HDF5 of predictions}.
        output: CSV to write: labels (their number), seed, start (finetuned or scratch), label, score,
            value, constant.

    Raises:
        UserError: as `evaluate_task`.
    """
    rows = []
    for name, path in predictions.items():
        (count, seed), start = label_count_of(name), name.rpartition("-")[2]
        # With the name "" the split is that of the task: all fits have the same test galaxies and constant.
        labels, table, constants = read_fits(galaxies, {"": path}, ["test"])
        pairs = zip(outcomes(labels, table), outcomes(labels, constants), strict=True)
        for outcome, constant in pairs:
            ones = np.ones((1, len(outcome.rows)))
            trivial = constant.scores(ones)
            for score, value in outcome.scores(ones).items():
                about = {"labels": count, "seed": seed, "start": start, "label": outcome.name}
                rows.append({**about, "score": score, "value": value[0], "constant": trivial[score][0]})
    table = pd.DataFrame(rows).sort_values(["label", "score", "start", "labels", "seed"])
    with whole(output) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")


def _score_rows(outcome, constant, galaxies, random):
    """The scores of one label in one split, one dict for each; a galaxy is resampled with all its fits."""
    count = int(galaxies.max() + 1) if len(galaxies) else 0
    ones = np.ones((1, len(galaxies)))
    values, trivial = outcome.scores(ones), constant.scores(ones)
    ends = {}
    # Every resample of a single galaxy is that galaxy.
    if count > 1:
        blocks, step = [], max(1, ROOM // len(galaxies))
        for begin in range(0, RESAMPLES, step):
            weights = bootstrap_weights(count, min(step, RESAMPLES - begin), random)
            blocks.append(outcome.scores(weights[:, galaxies]))
        resampled = {name: np.concatenate([block[name] for block in blocks]) for name in values}
        ends = {name: _quantiles(found) for name, found in resampled.items() if name not in UNSURE}
    return [
        {
            "score": name,
            "galaxies": count,
            "value": value[0],
            **dict(zip(ENDS, ends.get(name, [np.nan] * len(ENDS)), strict=True)),
            "constant": trivial[name][0],
        }
        for name, value in values.items()
    ]


def _quantiles(values):
    known = values[~np.isnan(values)]
    return np.quantile(known, list(ENDS.values())) if len(known) else [np.nan] * len(ENDS)


def _add_folds(rows, outcome, fit, names):
    """Add to each score its value in each fold, and their mean and standard deviation."""
    folds = [outcome.at(fit == name) for name in names]
    by_fold = [fold.scores(np.ones((1, len(fold.rows)))) for fold in folds]
    for row in rows:
        values = pd.Series([scores[row["score"]][0] for scores in by_fold], index=names)
        row |= {"fold_mean": values.mean(), "fold_deviation": values.std(ddof=1), **values}
