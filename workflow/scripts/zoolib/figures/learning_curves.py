"""Learning curves: training and validation loss against epoch, for every model and every question."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from zoolib.figures.style import COLORS, FAINT, INK, drawing
from zoolib.job.words import in_words

# Small panels in a row; each has one question.
ACROSS = 5


def draw_learning_curves(histories, names, outputs, title, loss="Loss (nats per galaxy)"):
    """Draw the losses of one or several trainings.

    Args:
        histories: CSV files with the columns epoch, loss, val_loss; also loss_{question} and
            val_loss_{question} for a tree, and stage if a training had several.
        names: their names in the legend.
        outputs: paths to write, svg or png.
        title: title of the figure.
        loss: label of the vertical axis.
    """
    tables = [pd.read_csv(path) for path in histories]
    questions = [
        column.removeprefix("val_loss_") for column in tables[0].columns if column.startswith("val_loss_")
    ]
    rows = -(-len(questions) // ACROSS)
    with drawing(outputs, figsize=(10 if not rows else 12, 6 + 2.3 * rows), layout="constrained") as figure:
        heights = [6] + [2.3] * rows
        grid = figure.add_gridspec(1 + rows, ACROSS, height_ratios=heights)
        panel = figure.add_subplot(grid[0, :])
        for index, (table, name) in enumerate(zip(tables, names, strict=True)):
            _draw_training(panel, table, COLORS[index % len(COLORS)], name)
        panel.plot([], [], color=INK, lw=2.5, label="validation")
        panel.plot([], [], color=INK, ls=":", lw=2, label="training")
        panel.plot([], [], "o", color=INK, ms=9, label="best epoch: its weights are kept")
        panel.legend(ncols=1 if len(histories) < 4 else 2)
        panel.set_xlabel("Epoch")
        panel.set_ylabel(loss)
        panel.set_title(title, loc="left", fontsize=18, pad=28)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(axis="y")
        for number, question in enumerate(questions):
            small = figure.add_subplot(grid[1 + number // ACROSS, number % ACROSS])
            _draw_question(small, tables, question)
            if number % ACROSS == 0:
                small.set_ylabel("nats per galaxy asked", fontsize=12)


def _draw_question(panel, tables, question):
    for index, table in enumerate(tables):
        color = COLORS[index % len(COLORS)]
        panel.plot(table["epoch"], table[f"loss_{question}"], color=color, ls=":", lw=1.5)
        panel.plot(table["epoch"], table[f"val_loss_{question}"], color=color, lw=1.8)
    # Without a limit, the high validation losses of the first epochs, before the statistics of BatchNorm have
    # settled, would flatten the rest.
    seen = pd.concat(table[[f"loss_{question}", f"val_loss_{question}"]].stack() for table in tables)
    low, high = seen.min(), seen.quantile(0.95)
    if high > low:
        panel.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
    panel.set_title(in_words(question), loc="left", fontsize=12)
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(3))
    panel.tick_params(labelsize=11)
    panel.grid(axis="y")


def _draw_training(panel, history, color, name):
    # A training of one epoch is a single point.
    marker = "." if len(history) == 1 else None
    stages = history.get("stage", pd.Series("", index=history.index))
    # Each stage continues from the best weights of the stage before.
    best = [history.loc[of_stage["val_loss"].idxmin()] for _, of_stage in history.groupby(stages, sort=False)]
    label = f"{name}, best {best[-1]['val_loss']:.3f}"
    panel.plot(history["epoch"], history["loss"], color=color, ls=":", lw=2, marker=marker)
    panel.plot(history["epoch"], history["val_loss"], color=color, lw=2.5, label=label, marker=marker)
    for row in best:
        panel.plot(row["epoch"], row["val_loss"], "o", color=color, ms=10, mec="white", mew=1.5)
    if len(best) == 1:
        return
    for _, row in history[stages != stages.shift()].iterrows():
        if row["epoch"] > history["epoch"].min():
            panel.axvline(row["epoch"] - 0.5, color=FAINT, lw=1.5)
        place = panel.get_xaxis_transform()
        panel.text(
            row["epoch"] - 0.5, 1.015, in_words(row["stage"]), transform=place, color=FAINT, fontsize=13
        )
