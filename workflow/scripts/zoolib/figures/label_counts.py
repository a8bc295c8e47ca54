"""Score against number of labels, finetuned and from scratch, as in the figure of arXiv:2110.12735."""

import numpy as np
import pandas as pd
import yaml
from matplotlib.ticker import FixedLocator, NullLocator

from zoolib.figures.style import COLORS, FAINT, drawing
from zoolib.job.words import in_words

STARTS = {"finetuned": (COLORS[0], "o-"), "scratch": (COLORS[1], "s--")}
NAMES = {"finetuned": "finetuned", "scratch": "from scratch"}
# Names of the scores for which smaller is better.
ERRORS = {"rmse": "Root mean squared error", "log_loss": "Loss (nats per galaxy)"}


def draw_label_counts(table, outputs, published=None):
    """Draw mean and standard deviation over seeds, and every fit as a dot; one panel for each label.

    Args:
        table: CSV of `evaluate_label_counts`.
        outputs: paths to write, svg or png.
        published: YAML with published curves; they are drawn in grey, in the panels of their labels.
    """
    scores = pd.read_csv(table)
    if published:
        with open(published) as file:
            published = yaml.safe_load(file)
    # A training on votes minimises the loss of all questions together; a question has neither of the scores.
    together = scores["label"] == "all questions"
    labels = scores["label"][scores["score"].isin(["auc", "rmse"])]
    chosen = scores[together | scores["label"].isin(labels)] if together.any() else scores
    panels = [part for _, part in chosen.groupby("label", sort=False)]
    with drawing(outputs, figsize=(8.5 * len(panels), 7.2), layout="constrained") as figure:
        for panel, part in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_label(panel, part, published)
        # A line that several panels have is in the legend once.
        legends = [panel.get_legend_handles_labels() for panel in figure.axes]
        entries = {name: line for lines, names in legends for line, name in zip(lines, names, strict=True)}
        figure.legend(entries.values(), entries.keys(), loc="outside lower left", ncols=2)


def _draw_label(panel, part, published):
    name = part["label"].iloc[0]
    score = next(score for score in ("accuracy", "rmse", "log_loss") if score in set(part["score"]))
    part = part[part["score"] == score]
    counts = sorted(part["labels"].unique())
    if published and name in published["labels"] and score == published["score"]:
        _draw_published(panel, published)
    for start, (color, line) in STARTS.items():
        fits = part[part["start"] == start]
        if fits.empty:
            continue
        by_count = fits.groupby("labels")["value"]
        mean, deviation = by_count.mean(), by_count.std(ddof=1).fillna(0)
        seeds = by_count.count().max()
        legend = f"{NAMES[start]}, {seeds} seeds" if seeds > 1 else NAMES[start]
        panel.fill_between(mean.index, mean - deviation, mean + deviation, color=color, alpha=0.15, lw=0)
        panel.plot(mean.index, mean, line, color=color, lw=2.5, ms=8, label=legend)
        panel.plot(fits["labels"], fits["value"], ".", color=color, ms=6, alpha=0.6)
    panel.axhline(
        part["constant"].mean(), color=FAINT, lw=1, label="constant: the same answer for all galaxies"
    )
    panel.set_xscale("log")
    panel.set_xlim(counts[0] / 1.6, counts[-1] * 1.6)
    panel.xaxis.set_major_locator(FixedLocator(counts))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set_xlabel("Labels (training and validation)")
    panel.set_ylabel(ERRORS.get(score, in_words(score)))
    panel.set_title(in_words(name), loc="left", fontsize=18)
    panel.grid(axis="y")


def _draw_published(panel, published):
    for index, (curve, values) in enumerate(published["curves"].items()):
        known = [(x, y) for x, y in zip(published["images"], values, strict=True) if y is not None]
        images, shown = np.array(known).T
        line = ("-", "--")[index % 2]
        panel.plot(
            images, shown, line, color="#bbbbbb", lw=1.5, label=f"{curve}, {published['title']}", zorder=0
        )
