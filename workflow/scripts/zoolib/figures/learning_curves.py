"""Learning curves: training and validation loss of every member, epoch by epoch."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from zoolib.figures.style import COLORS, FAINT, INK, drawing, in_words


def draw_learning_curves(histories, names, outputs, title, loss="Loss (nats per galaxy)"):
    """Draw the losses of one or several trainings.

    Args:
        histories: CSV files with the columns epoch, loss, val_loss and, where a training had several,
            stage.
        names: what the legend calls each.
        outputs: paths to write, svg or png.
        title: of the figure.
        loss: label of the vertical axis.
    """
    with drawing(outputs, figsize=(10, 6), layout="constrained") as figure:
        panel = figure.subplots()
        for index, (path, name) in enumerate(zip(histories, names, strict=True)):
            _draw_training(panel, pd.read_csv(path), COLORS[index % len(COLORS)], name)
        panel.plot([], [], color=INK, lw=2.5, label="validation")
        panel.plot([], [], color=INK, ls=":", lw=2, label="training")
        panel.plot([], [], "o", color=INK, ms=9, label="best epoch: its weights are kept")
        panel.legend(ncols=1 if len(histories) < 4 else 2)
        panel.set_xlabel("Epoch")
        panel.set_ylabel(loss)
        panel.set_title(title, loc="left", fontsize=18, pad=28)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(axis="y")


def _draw_training(panel, history, color, name):
    # A point is all there is to see of a training of one epoch.
    marker = "." if len(history) == 1 else None
    stages = history.get("stage", pd.Series("", index=history.index))
    # Each stage goes on from the best weights of the one before.
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
