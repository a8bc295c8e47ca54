"""How every figure looks: large enough to be read in a talk, and colour-blind safe."""

import contextlib
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from zoolib.job.logs import log, whole

matplotlib.use("Agg")

# The palette of Okabe & Ito, https://jfly.uni-koeln.de/color/, without its yellow: too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# White to blue: legible under dark and under white numbers, in print and to the colour-blind.
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
    # Names inside an SVG are random otherwise, and equal figures would be different files.
    "svg.hashsalt": "zoo",
}


@contextlib.contextmanager
def drawing(outputs, **settings):
    """Make a figure in the common style, and save it when it is drawn.

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


def say(figure, sentence):
    """Write one sentence in the middle of a figure that has nothing to show."""
    figure.text(0.5, 0.5, sentence, ha="center", va="center", wrap=True, color=FAINT)


def by_name(outputs):
    """The files of each figure of a rule that draws several.

    Args:
        outputs: paths; one figure's files differ in their suffix alone.

    Returns:
        {name of the figure: [its paths]}.
    """
    figures = {}
    for path in map(str, outputs):
        figures.setdefault(Path(path).stem, []).append(path)
    return figures
