"""Confusion matrices: the answers of the volunteers and of the model, one panel for each question."""

import math

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from zoolib.config.published import SUBSETS
from zoolib.figures.style import FAINT, INK, SEQUENTIAL, drawing, write_message
from zoolib.job.words import in_words

PANELS_A_ROW = 5


def draw_confusion(confusion, subset, outputs, truth="Volunteers say"):
    """Draw the confusion matrices of one subset of the galaxies (Walmsley et al. 2022, figures 13, 14).

    Args:
        confusion: CSV with the columns question, subset, true, predicted, count.
        subset: which galaxies, `all` or `confident`.
        outputs: paths to write, svg or png.
        truth: label of the vertical axis.
    """
    table = pd.read_csv(
        confusion, dtype={"question": str, "true": str, "predicted": str}, keep_default_na=False
    )
    table = table[table["subset"] == subset]
    questions = list(dict.fromkeys(table["question"]))
    across = min(len(questions), PANELS_A_ROW) or 1
    down = math.ceil(len(questions) / across) or 1
    size = (max(4.2 * across, 5.5), 4.9 * down + 0.7)
    with drawing(outputs, figsize=size, layout="constrained") as figure:
        if not questions:
            write_message(figure, "No question was compared.")
            return
        if across > 1:
            figure.suptitle(SUBSETS[subset], fontsize=18)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel, question in zip(panels, questions, strict=False):
            draw_matrix(panel, question, table[table["question"] == question])
        for panel in panels[len(questions) :]:
            panel.remove()
        explain_colors(figure)
        figure.supxlabel("Model says", fontsize=16)
        figure.supylabel(truth, fontsize=16)


def explain_colors(figure):
    """Draw a bar beside the matrices of a figure that says what their colours are.

    Args:
        figure: matplotlib figure with panels of `draw_matrix`, or without any.
    """
    images = [image for panel in figure.axes for image in panel.images]
    if images:
        bar = figure.colorbar(images[0], ax=figure.axes, format=PercentFormatter(1), shrink=0.8, pad=0.02)
        bar.set_label("Colour: share of the galaxies of its row", fontsize=12)
        bar.outline.set_visible(False)


def draw_matrix(panel, question, rows):
    """Draw one confusion matrix: numbers are galaxies, colours are shares of the galaxies of a row.

    Args:
        panel: matplotlib axes.
        question: its name.
        rows: of a table of confusions, with the columns true, predicted, count.
    """
    answers = list(dict.fromkeys(rows["true"]))
    counts = rows["count"].to_numpy().reshape(len(answers), len(answers))
    total, right = counts.sum(), np.trace(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.imshow(shares, cmap=SEQUENTIAL, vmin=0, vmax=1)
    of_numbers = 15 if len(answers) <= 4 else 11
    for row, of_row in enumerate(counts):
        for column, count in enumerate(of_row):
            dark = shares[row, column] > 0.55
            color = "white" if dark else INK if count else FAINT
            panel.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=of_numbers)
    names = [in_words(answer).replace(" ", "\n", 1) for answer in answers]
    panel.set_yticks(range(len(names)), names)
    if len(answers) > 2:
        slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
        panel.set_xticks(range(len(names)), [name.replace("\n", " ") for name in names], **slanted)
    else:
        panel.set_xticks(range(len(names)), names)
    panel.tick_params(length=0, labelsize=12)
    panel.spines[:].set_visible(False)
    subtitle = f"{right / total:.1%} of {total:,} agree" if total else "no galaxies"
    panel.set_title(f"{in_words(question)}\n", fontsize=15)
    panel.text(0.5, 1.03, subtitle, transform=panel.transAxes, ha="center", color=FAINT, fontsize=12)
