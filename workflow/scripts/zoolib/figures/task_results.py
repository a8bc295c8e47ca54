"""Predictions of a finetuned model beside the labels: confusion matrices, curves, number against number."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.stats import binom
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from zoolib.figures.confusion import draw_matrix, explain_colors
from zoolib.figures.style import COLORS, FAINT, drawing, write_message
from zoolib.job.words import in_words
from zoolib.scores.metrics import calibration_curve, coverage
from zoolib.scores.outcomes import outcomes, read_galaxies

PANELS_A_ROW = 4
LINES = ("-", "--", ":")
LEVELS = np.linspace(0.05, 0.95, 19)


def draw_task_confusion(galaxies, confusion, outputs):
    """Draw confusion matrices of classes and, for regressions, label against prediction.

    Args:
        galaxies: Parquet of `evaluate_task`.
        confusion: CSV of confusions of `evaluate_task`.
        outputs: paths to write, svg or png.
    """
    table = pd.read_csv(
        confusion, dtype={"question": str, "true": str, "predicted": str}, keep_default_na=False
    )
    table = table[table["subset"] == "test"]
    shown = [outcome for outcome in _tested(galaxies) if outcome.classes or outcome.kind == "regression"]
    across = min(len(shown), PANELS_A_ROW) or 1
    down = -(-len(shown) // across) or 1
    with drawing(outputs, figsize=(5.2 * across, 5.4 * down), layout="constrained") as figure:
        if not shown:
            write_message(figure, "No test galaxy was predicted.")
            return
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel, outcome in zip(panels, shown, strict=False):
            if outcome.classes:
                draw_matrix(panel, outcome.name, table[table["question"] == outcome.name])
            else:
                _draw_numbers(panel, outcome)
        for panel in panels[len(shown) :]:
            panel.remove()
        explain_colors(figure)
        figure.supxlabel("Model says", fontsize=16)
        figure.supylabel(
            "Volunteers say" if {outcome.kind for outcome in shown} == {"votes"} else "Label", fontsize=16
        )


def draw_task_curves(galaxies, outputs):
    """Draw curves that explain the scores, one row of panels for each label.

    For classes: receiver operating characteristic, precision against recall, and calibration. For numbers:
    error against label, the share of labels inside the intervals, and where in its posterior each label lies.
    For votes: expected fractions against those of the volunteers.

    Args:
        galaxies: Parquet of `evaluate_task`.
        outputs: paths to write, svg or png.
    """
    found = _tested(galaxies)
    labels = [outcome for outcome in found if outcome.kind != "votes"]
    questions = [outcome for outcome in found if outcome.kind == "votes" and outcome.classes]
    across = 3 if labels else min(len(questions), PANELS_A_ROW) or 1
    down = len(labels) + -(-len(questions) // across)
    size = (5.4 * across, 5 * max(down, 1) + 0.3)
    with drawing(outputs, figsize=size, layout="constrained") as figure:
        if not found:
            write_message(figure, "No test galaxy was predicted.")
            return
        panels = figure.subplots(down, across, squeeze=False)
        for row, outcome in zip(panels, labels, strict=False):
            if outcome.kind == "regression":
                _draw_errors(row[0], outcome)
                _draw_coverage(row[1], outcome)
                _draw_ranks(row[2], outcome)
            else:
                _draw_characteristic(row[0], outcome)
                _draw_precision(row[1], outcome)
                _draw_calibration(row[2], outcome)
            row[0].set_title(_title(outcome), loc="left")
        below = panels[len(labels) :].ravel()
        for panel, outcome in zip(below, questions, strict=False):
            _draw_fractions(panel, outcome)
        for panel in below[len(questions) :]:
            panel.remove()


def _tested(galaxies):
    labels, table = read_galaxies(galaxies)
    tested = table[table["split"] == "test"].reset_index(drop=True)
    return [outcome for outcome in outcomes(labels, tested) if len(outcome.rows)]


def _title(outcome):
    return f"{in_words(outcome.name)} (test galaxies: {len(outcome.rows):,})"


def _classes(outcome):
    """(name, truth, probability, style) of each class that some galaxies belong to and others do not."""
    chosen = [1] if outcome.kind == "binary" else range(len(outcome.classes))
    for index in chosen:
        truth = outcome.truth == index
        if truth.any() and not truth.all():
            style = {"color": COLORS[index % len(COLORS) if len(chosen) > 1 else 0]}
            style["ls"] = LINES[index // len(COLORS) % len(LINES)]
            yield outcome.classes[index], truth, outcome.probabilities[:, index], style


def _squared(panel, across, up):
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=across, ylabel=up)
    panel.grid()
    panel.set_axisbelow(True)


def _draw_characteristic(panel, outcome):
    panel.plot([0, 1], [0, 1], color=FAINT, lw=1)
    for name, truth, probability, style in _classes(outcome):
        false, true, _ = roc_curve(truth, probability)
        area = roc_auc_score(truth, probability)
        panel.plot(false, true, lw=2.5, label=f"{in_words(name)}, area {area:.3f}", **style)
    _squared(panel, "false positive rate", "true positive rate")
    _legend(panel, "lower right")


def _draw_precision(panel, outcome):
    for name, truth, probability, style in _classes(outcome):
        precision, recall, _ = precision_recall_curve(truth, probability)
        # scikit-learn adds the last point; it belongs to no galaxy.
        panel.plot(recall[:-1], precision[:-1], lw=2.5, drawstyle="steps-post", label=in_words(name), **style)
        panel.axhline(truth.mean(), lw=1, **style)
    _squared(panel, "recall", "precision")
    _legend(panel, "lower left", "thin: all galaxies put in the class")


def _draw_calibration(panel, outcome):
    panel.plot([0, 1], [0, 1], color=FAINT, lw=1)
    if outcome.kind == "binary":
        truth, probability, across = outcome.truth, outcome.predicted[:, 0], f"probability of {outcome.name}"
        up = f"share that is {outcome.name}"
    else:
        probabilities = outcome.predicted
        truth, probability = probabilities.argmax(axis=1) == outcome.truth, probabilities.max(axis=1)
        across, up = "probability of the most probable class", "share of right predictions"
    curve = calibration_curve(truth, probability)
    errors = [curve["share"] - curve["low"], curve["high"] - curve["share"]]
    panel.errorbar(
        curve["probability"],
        curve["share"],
        np.maximum(errors, 0),
        fmt="o-",
        color=COLORS[0],
        lw=2,
        capsize=4,
    )
    for row in curve.itertuples():
        panel.text(row.probability, -0.09, f"{row.galaxies:,}", ha="center", fontsize=10, color=FAINT)
    error = np.average((curve["share"] - curve["probability"]).abs(), weights=curve["galaxies"])
    panel.set_title(f"calibration error {error:.3f} (bars: 95 % intervals)", loc="left", fontsize=12)
    _squared(panel, across, up)
    panel.set_ylim(-0.11, 1.02)


def _draw_numbers(panel, outcome):
    truth, value = outcome.truth, outcome.predicted[:, 0]
    panel.errorbar(
        value, truth, xerr=outcome.spread[:, 0], fmt="o", ms=5, lw=0.8, alpha=_alpha(truth), color=COLORS[0]
    )
    both = np.concatenate([truth, value])
    margin = 0.05 * (np.ptp(both) or 1)
    ends = [both.min() - margin, both.max() + margin]
    panel.plot(ends, ends, color=FAINT, lw=1, zorder=0)
    panel.set(xlim=ends, ylim=ends)
    panel.set_title(f"{in_words(outcome.name)}\n", fontsize=15)
    subtitle = f"{len(truth):,} galaxies, scatter {np.std(value - truth):.3g}"
    panel.text(0.5, 1.03, subtitle, transform=panel.transAxes, ha="center", color=FAINT, fontsize=12)


def _draw_errors(panel, outcome):
    truth, error = outcome.truth, outcome.predicted[:, 0] - outcome.truth
    panel.axhline(0, color=FAINT, lw=1)
    panel.plot(truth, error, "o", ms=5, alpha=_alpha(truth), color=COLORS[0])
    groups = np.array_split(np.argsort(truth, kind="stable"), max(1, min(8, len(truth) // 10)))
    low, middle, high = np.array([np.quantile(error[rows], (0.16, 0.5, 0.84)) for rows in groups]).T
    centres = [truth[rows].mean() for rows in groups]
    panel.errorbar(
        centres,
        middle,
        np.stack([middle - low, high - middle]),
        fmt="s-",
        color=COLORS[1],
        lw=2.5,
        capsize=4,
        label="median and central 68 %",
    )
    panel.set(xlabel=f"{in_words(outcome.name)}, label", ylabel="model − label")
    panel.grid(axis="y")
    _legend(panel, "best")


def _draw_coverage(panel, outcome):
    panel.plot([0, 1], [0, 1], color=FAINT, lw=1)
    actual = [coverage(outcome.ranks, level).mean() for level in LEVELS]
    if np.isnan(actual).any():
        panel.text(0.5, 0.5, "a single sample has no interval", ha="center", color=FAINT)
    panel.plot(LEVELS, actual, "o-", color=COLORS[0], lw=2.5)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    _squared(panel, "mass of the interval of the samples", "share of labels inside")


def _draw_ranks(panel, outcome):
    """Draw where in its posterior each label lies: all places are equally frequent if it is right."""
    known = outcome.ranks[np.isfinite(outcome.ranks).all(axis=1)]
    if not len(known):
        panel.text(0.5, 0.5, "a single sample has no interval", ha="center", color=FAINT)
        return
    count = int(np.clip(len(known) // 10, 2, 10))
    edges = np.linspace(0, 1, count + 1)
    # A label lies anywhere between two samples, so it counts for each bin by its share of this range.
    begin, end = known.T[:, :, None]
    shares = np.clip(np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0, None) / (end - begin)
    panel.bar(edges[:-1], shares.sum(axis=0), width=0.95 / count, align="edge", color=COLORS[0])
    expected = binom(len(known), 1 / count)
    panel.axhspan(*expected.interval(0.95), color=FAINT, alpha=0.25, lw=0)
    panel.axhline(expected.mean(), color=FAINT, lw=1)
    panel.set(xlim=(0, 1), xlabel="share of the posterior below the label", ylabel="galaxies")
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.set_title("grey: 95 % of the bars, if posteriors are right", loc="left", fontsize=12)


def _draw_fractions(panel, outcome):
    panel.plot([0, 1], [0, 1], color=FAINT, lw=1)
    for index, answer in enumerate(outcome.classes):
        color = COLORS[index % len(COLORS)]
        panel.plot(
            outcome.fractions[:, index],
            outcome.predicted[:, index],
            "o",
            ms=5,
            alpha=_alpha(outcome.truth),
            color=color,
        )
        panel.plot([], [], "o", color=color, label=in_words(answer))
    _squared(panel, "volunteers' fraction", "expected fraction")
    panel.set_title(_title(outcome), loc="left", fontsize=13)
    _legend(panel, "upper left")


def _alpha(truth):
    return float(np.clip(60 / max(len(truth), 1), 0.15, 0.8))


def _legend(panel, place, title=None):
    handles, names = panel.get_legend_handles_labels()
    if not handles:
        panel.text(0.5, 0.5, "all test galaxies have the same label", ha="center", color=FAINT)
        return
    panel.legend(handles, names, loc=place, title=title, title_fontsize=11, ncols=1 if len(names) < 8 else 2)
