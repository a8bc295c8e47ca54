"""Scores of a finetuned task, for each split and each fold."""

import numpy as np
import pandas as pd

from zoolib.config.tasks import label_count_of
from zoolib.job.logs import log, whole
from zoolib.scores.advice import MAIN, advise
from zoolib.scores.confusion import confusion_rows
from zoolib.scores.metrics import bootstrap_weights
from zoolib.scores.outcomes import SPLITS, outcomes, read_fits, write_galaxies

RESAMPLES = 1000
# Quantiles of the resamples that end the central intervals.
ENDS = {"low_68": 0.16, "high_68": 0.84, "low_95": 0.025, "high_95": 0.975}
# Columns of the scores in their order, as far as they are there; those of folds follow.
COLUMNS = ("label", "split", "score", "galaxies", "value", *ENDS, "constant", "probe")
COLUMNS += ("minus_probe_low_95", "minus_probe_high_95", "as_trained", "scratch")
# Numbers in a block of resamples: blocks bound the memory.
ROOM = 4_000_000
# Scores without intervals: resampling makes them larger, so the intervals would not hold the score itself.
UNSURE = ("calibration_error",)


def evaluate_task(galaxies, predictions, seed, output, probe=None, recalibrations=(), scratch=()):
    """Score the predictions of a task, with bootstrap intervals and, if it has folds, their spread.

    Several fits are the folds of a cross-validation. A split then holds the galaxies of all folds, each
    predicted by the model that had it in this split.

    Args:
        galaxies: `galaxies.parquet` of the task.
        predictions: {name of a fit, "" or e.g. "fold0": its HDF5 of predictions}.
        seed: of the bootstrap.
        output: attributes galaxies (Parquet: split, fit, truth and predictions of every galaxy), scores
            (CSV: label, split, score, galaxies, value, low_68, high_68, low_95, high_95, constant, which is
            the score of the constant predictor; as_trained, before the recalibration; scratch, of the
            training from random weights; with folds also fold_mean, fold_deviation and each fold; with a
            probe also probe, minus_probe_low_95 and minus_probe_high_95, the interval of value - probe, which
            are blank for galaxies that the probe has learned from), confusion (CSV: question, subset, true,
            predicted, count) and advice (CSV: label, advice: a sentence where a model is no better than its
            probe or its constant).
        probe: Parquet of `linear_probe.probe_task`, or None.
        recalibrations: the `recalibration.json` of each fit, in their order; or none.
        scratch: HDF5 of predictions of the same trainings from random weights, in their order; or none.

    Raises:
        UserError: the predictions are for labels that the galaxies do not have, or for none of the galaxies.
    """
    names = list(predictions)
    beside = {name: {"probe": (probe, name)} if probe else {} for name in names}
    for what, paths in (("recalibration", recalibrations), ("scratch", scratch)):
        for name, path in zip(names, paths, strict=True) if paths else ():
            beside[name][what] = path
    labels, table, others = read_fits(galaxies, predictions, SPLITS, beside)
    random = np.random.default_rng(seed)
    scores, confusions = [], []
    for split in SPLITS:
        chosen = (table["split"] == split).to_numpy()
        if chosen.any():
            # The probe has learned from the galaxies of the other splits.
            compared = {
                name: outcomes(labels, other[chosen].reset_index(drop=True))
                for name, other in others.items()
                if split == "test" or name != "probe"
            }
            of_split = table[chosen].reset_index(drop=True)
            found = score_split(split, outcomes(labels, of_split), of_split, compared, names, random)
            scores, confusions = scores + found[0], confusions + found[1]
    write_galaxies(table, labels, output.galaxies)
    write_scores(scores, confusions, output)


def score_split(split, of_labels, table, compared, names, random):
    """Score one split, with bootstrap intervals.

    Args:
        split: its name.
        of_labels: a list of `Outcome`.
        table: the galaxies of the outcomes, with id_str and fit.
        compared: {"constant", and perhaps "as_trained" and "probe": the outcomes of other predictions}.
        names: of the fits.
        random: `numpy.random.Generator`.

    Returns:
        Two lists of dicts: the rows of scores, and those of confusions.
    """
    scores, confusions = [], []
    for number, outcome in enumerate(of_labels):
        of_outcome = table.iloc[outcome.rows]
        numbers = pd.factorize(of_outcome["id_str"])[0]
        rows = _score_rows(outcome, {key: found[number] for key, found in compared.items()}, numbers, random)
        if len(names) > 1:
            _add_folds(rows, outcome, of_outcome["fit"].to_numpy(), names)
        scores += [{"split": split, "label": outcome.name, **row} for row in rows]
        if outcome.classes:
            answers = outcome.probabilities.argmax(axis=1)
            truth = outcome.truth.astype(int)
            confusions += confusion_rows(outcome.name, split, outcome.classes, truth, answers)
    return scores, confusions


def write_scores(scores, confusions, output):
    """Write the tables of `evaluate_task`, and say in the log how good the model is.

    Args:
        scores: rows of scores of all splits.
        confusions: rows of confusions.
        output: attributes scores, confusion and advice, CSV files to write.
    """
    advice = list(advise(scores))
    rows = pd.DataFrame(scores)
    first = [name for name in COLUMNS if name in rows]
    tables = {
        "scores": rows[first + [name for name in rows if name not in first]],
        "confusion": pd.DataFrame(confusions, columns=["question", "subset", "true", "predicted", "count"]),
        "advice": pd.DataFrame(advice, columns=["label", "advice"]),
    }
    for name, table in tables.items():
        with whole(getattr(output, name)) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    for row in scores:
        if row["split"] == "test" and row["score"] in MAIN:
            compared = ", ".join(f"{key}: {row[key]:.3f}" for key in ("constant", "probe") if key in row)
            log.info("%s: %s %.3f (%s)", row["label"], row["score"], row["value"], compared)
    for one in advice:
        log.warning("%s", one["advice"])


def evaluate_label_counts(galaxies, predictions, output, probe=None):
    """Score the fits of a task that learned from different numbers of labels, finetuned and from scratch.

    Args:
        galaxies: `galaxies.parquet` of the task; the constant predictor learns from all of its train.
        predictions: {name of a fit such as "labels50-1-finetuned": its HDF5 of predictions}.
        output: CSV to write: labels (their number), seed, start (finetuned or scratch), label, score,
            value, constant and, if it is given, probe, which has learned from the same labels.
        probe: Parquet of `linear_probe.probe_task`, or None.

    Raises:
        UserError: as `evaluate_task`.
    """
    rows = []
    for name, path in predictions.items():
        (count, seed), start = label_count_of(name), name.rpartition("-")[2]
        # With the name "" the split is that of the task: all fits have the same test galaxies and constant.
        # The probe of a training from scratch is that of the finetuning with the same labels.
        finetuned = f"{name.removesuffix(start)}finetuned"
        beside = {"": {"probe": (probe, finetuned)}} if probe else None
        labels, table, others = read_fits(galaxies, {"": path}, ["test"], beside)
        beside = {other: outcomes(labels, found) for other, found in others.items()}
        for number, outcome in enumerate(outcomes(labels, table)):
            ones = np.ones((1, len(outcome.rows)))
            others = {other: found[number].scores(ones) for other, found in beside.items()}
            for score, value in outcome.scores(ones).items():
                about = {"labels": count, "seed": seed, "start": start, "label": outcome.name}
                row = {**about, "score": score, "value": value[0]}
                rows.append(row | {other: found[score][0] for other, found in others.items()})
    table = pd.DataFrame(rows).sort_values(["label", "score", "start", "labels", "seed"])
    with whole(output) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")


def _score_rows(outcome, beside, galaxies, random):
    """The scores of one label in one split, one dict for each; a galaxy is resampled with all its fits.

    Args:
        outcome: an `Outcome`.
        beside: {"constant", and perhaps "as_trained" and "probe": the same galaxies, predicted otherwise}.
        galaxies: (rows,) the number of each row's galaxy.
        random: `numpy.random.Generator`.
    """
    count = int(galaxies.max() + 1) if len(galaxies) else 0
    ones = np.ones((1, len(galaxies)))
    values = outcome.scores(ones)
    others = {name: other.scores(ones) for name, other in beside.items()}
    ends, apart = {}, {}
    # Every resample of a single galaxy is that galaxy.
    if count > 1:
        blocks, probed, step = [], [], max(1, ROOM // len(galaxies))
        for begin in range(0, RESAMPLES, step):
            weights = bootstrap_weights(count, min(step, RESAMPLES - begin), random)[:, galaxies]
            blocks.append(outcome.scores(weights))
            if "probe" in beside:
                probed.append(beside["probe"].scores(weights))
        resampled = {name: np.concatenate([block[name] for block in blocks]) for name in values}
        ends = {name: _quantiles(found) for name, found in resampled.items() if name not in UNSURE}
        if probed:
            of_probe = {name: np.concatenate([block[name] for block in probed]) for name in values}
            apart = {name: _quantiles(resampled[name] - of_probe[name]) for name in ends}
    unknown = [np.nan] * len(ENDS)
    rows = []
    for name, value in values.items():
        row = {"score": name, "galaxies": count, "value": value[0]}
        row |= dict(zip(ENDS, ends.get(name, unknown), strict=True))
        row |= {other: found[name][0] for other, found in others.items()}
        if "probe" in beside:
            low, high = apart.get(name, unknown)[2:]
            row |= {"minus_probe_low_95": low, "minus_probe_high_95": high}
        rows.append(row)
    return rows


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
