"""Draw coverage: how often intervals hold the truth and the votes, beside their mass."""

import pandas as pd
from matplotlib.ticker import PercentFormatter

from zoolib.figures.style import COLORS, FAINT, INK, drawing
from zoolib.job.words import in_words
from zoolib.scores.calibration import ENOUGH, MEASUREMENTS, judged

# Measure: the title of its panel, and the deviation in percentage points that is accepted.
PANELS = {
    "truth": ("True probabilities\nin credible intervals", 5),
    "votes": ("Volunteers' votes\nin predictive intervals", 3),
}
MARKERS = "osD^"


def draw_calibration(coverage, calibration, outputs, as_trained=None):
    """Draw the deviations of all questions, and figure 19 of Walmsley et al. 2022.

    Args:
        coverage: CSV of `calibrate`.
        calibration: the other CSV of `calibrate`.
        outputs: paths to write the figure to.
        as_trained: CSV like `coverage`, of the same posteriors before their recalibration; None without one.
    """
    covered, intervals = pd.read_csv(coverage), pd.read_csv(calibration)
    covered = judged(covered)
    before = None if as_trained is None else judged(pd.read_csv(as_trained))
    questions = list(covered["question"].unique())
    measures = [measure for measure in PANELS if measure in set(covered["measure"])]
    height = max(6.5, 2.2 + 0.5 * len(questions))
    with drawing(outputs, figsize=(5.6 * len(measures) + 7.4, height), layout="constrained") as figure:
        panels = figure.subplots(1, len(measures) + 1)
        for panel, measure in zip(panels[:-1], measures, strict=True):
            of_measure = None if before is None else before[before["measure"] == measure]
            deviations(panel, covered[covered["measure"] == measure], *PANELS[measure], of_measure)
        for panel in panels[1:-1]:
            panel.set_yticklabels([])
        figure_19(panels[-1], intervals)
        panels[-1].set_title("Predictive intervals as in\nfigure 19 of Walmsley et al. 2022")
        name_marks(figure, panels[0], "" if before is None else " Crosses: before the recalibration.")


def name_marks(figure, panel, more=""):
    """Write a legend of the marks below a figure.

    Args:
        figure: matplotlib figure.
        panel: one that `deviations` drew.
        more: another sentence.
    """
    figure.legend(
        *panel.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=len(MARKERS),
        title=f"Stated mass of the intervals. Open marks: fewer than {ENOUGH} galaxies."
        f" Shaded: accepted deviations.{more}",
        title_fontsize=12,
        alignment="left",
    )


def deviations(panel, covered, title, band, before=None):
    """Draw how far the share inside is from the mass: one row for each question, one mark for each mass.

    Args:
        panel: matplotlib axes.
        covered: rows of one measure of the table of coverage, one for each question and stated mass.
        title: of the panel.
        band: accepted deviation in percentage points; it is shaded.
        before: the same rows before a recalibration, which get crosses; None for none.
    """
    questions = list(covered["question"].unique())
    before = covered[:0] if before is None else before
    panel.axvspan(-band, band, color="#e8e8e8", lw=0)
    panel.axvline(0, color=FAINT, lw=1)
    levels = covered.groupby("stated")
    for number, (stated, rows) in enumerate(levels):
        for enough, of_rows in rows.groupby(rows["galaxies"] >= ENOUGH):
            panel.plot(
                100 * (of_rows["actual"] - of_rows["expected"]),
                [questions.index(name) + 0.16 * (number - 1.5) for name in of_rows["question"]],
                MARKERS[number],
                color=COLORS[number],
                mfc=COLORS[number] if enough else "white",
                ms=8,
                clip_on=False,
            )
        trained = before[before["stated"] == stated]
        panel.plot(
            100 * (trained["actual"] - trained["expected"]),
            [questions.index(name) + 0.16 * (number - 1.5) for name in trained["question"]],
            "x",
            color=COLORS[number],
            ms=7,
            # An empty line that is not clipped lies at no place, and the layout fails.
            clip_on=not len(trained),
        )
        panel.plot([], [], MARKERS[number], color=COLORS[number], ms=8, label=f"{stated:.0%}")
    sizes = covered.groupby("question")["galaxies"].first()
    panel.set_yticks(range(len(questions)), [f"{in_words(name)} ({sizes[name]:,})" for name in questions])
    panel.set_ylim(len(questions) - 0.4, -0.6)
    drawn = pd.concat([covered, before])
    reach = 1.05 * max(2 * band, (100 * (drawn["actual"] - drawn["expected"])).abs().max())
    panel.set_xlim(-reach, reach)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x")
    panel.set_axisbelow(True)
    panel.set_xlabel("share inside − mass (percentage points)")
    panel.set_title(title)


def figure_19(panel, intervals):
    """Draw the share of intervals that hold the votes against the mass of the intervals.

    Args:
        panel: matplotlib axes.
        intervals: the table `calibration` of `calibrate`.
    """
    panel.plot([0, 1], [0, 1], color=FAINT, lw=1)
    shown = intervals[intervals["intervals"] >= MEASUREMENTS]
    questions = list(intervals["question"].unique())
    lines = dict(zip(shown["votes"].unique(), ("-", "--"), strict=False))
    for question, rows in shown.groupby("question", sort=False):
        place = questions.index(question)
        marker = MARKERS[place // len(COLORS) % len(MARKERS)]
        style = {"color": COLORS[place % len(COLORS)], "marker": marker}
        for votes, of_votes in rows.groupby("votes", sort=False):
            panel.plot(of_votes["expected"], of_votes["actual"], ls=lines[votes], lw=2, **style)
        panel.plot([], [], ls="", label=in_words(question), **style)
    for votes, line in lines.items():
        panel.plot([], [], ls=line, lw=2, color=INK, label=votes)
    if shown.empty:
        message = f"No bin has {MEASUREMENTS} intervals:\ntoo few galaxies for this figure."
        panel.text(0.55, 0.2, message, ha="center", color=FAINT)
    else:
        # Below the axes, because the curves may be anywhere.
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
        panel.legend(fontsize=11, columnspacing=1, handlelength=3, **below)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    panel.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    panel.set_xlabel("mass of the interval")
    panel.set_ylabel("share of intervals that hold the votes")
