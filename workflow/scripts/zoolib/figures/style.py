"""The style of all figures: large enough to be read in a talk, and safe for colour-blind readers."""

import contextlib
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from zoolib.job.logs import log, whole

matplotlib.use("Agg")

# The palette of Okabe & Ito, https://jfly.uni-koeln.de/color/, without yellow, which is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# White to blue: dark and white numbers on it can be read, in print and by colour-blind readers.
SEQUENTIAL = "Blues"
INK = "#222222"
FAINT = "#777777"

SETTINGS = {
    "font.size": 14,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 15,
    "axes.labelsize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": False,
    "grid.color": "#dddddd",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
    # Without a salt, names inside an SVG are random, and equal figures would be different files.
    "svg.hashsalt": "zoo",
}


@contextlib.contextmanager
def drawing(outputs, **settings):
    """Open a figure in the common style, and save it at the end of the `with` block.

    Args:
        outputs: paths to write it to; the suffix of each is its format (svg, png).
        **settings: for `matplotlib.pyplot.figure`, e.g. figsize in inches.

    Yields:
        The figure.
    """
    with plt.rc_context(SETTINGS):
        figure = plt.figure(**settings)
        try:
            yield figure
            for output in outputs:
                suffix = Path(output).suffix.removeprefix(".")
                with whole(output) as partial:
                    metadata = {"Date": None} if suffix == "svg" else None
                    figure.savefig(partial, format=suffix, metadata=metadata)
                log.info("drew %s", output)
        finally:
            plt.close(figure)


def write_message(figure, message):
    """Write a message in the middle of a figure that has nothing to show."""
    figure.text(0.5, 0.5, message, ha="center", va="center", wrap=True, color=FAINT)


def by_name(outputs):
    """The files of each figure, for a rule that draws several figures.

    Args:
        outputs: paths; the files of one figure differ only in their suffix.

    Returns:
        {name of the figure: [its paths]}.
    """
    figures = {}
    for path in map(str, outputs):
        figures.setdefault(Path(path).stem, []).append(path)
    return figures
