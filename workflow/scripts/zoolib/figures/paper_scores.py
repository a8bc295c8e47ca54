"""How far predicted vote fractions are from the volunteers', for each answer and number of volunteers."""

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy import stats

from zoolib.figures.style import COLORS, FAINT, INK, drawing, write_message
from zoolib.job.words import in_words

# Largest number of volunteers that a model is compared with.
MOST = 20
# Fewer galaxies than the first number are too few. Where a survey has too few galaxies with many votes, so
# many of its galaxies with most votes are used.
FEWEST, STAND_IN = 20, 100


def fraction_deviations(held):
    """Mean absolute deviation of expected from voted fractions, for each answer.

    Args:
        held: `HeldOut`.

    Returns:
        (list of the numbers of galaxies that each question counts for, (answers,) deviations; NaN without
        galaxies).
    """
    deviations, counts = np.full(len(held.tree.columns), np.nan), []
    for question in held.tree.questions:
        relevant = held.relevant(question)
        counts.append(int(relevant.sum()))
        if relevant.any():
            votes = held.votes[relevant][:, question.slice]
            voted = votes / votes.sum(axis=1, keepdims=True)
            predicted = held.fractions[relevant][:, question.slice]
            deviations[question.slice] = np.abs(predicted - voted).mean(axis=0)
    return counts, deviations


def draw_deviations(held, published, outputs):
    """Draw the mean absolute deviation of each answer (Walmsley et al. 2022, figure 15).

    Args:
        held: `HeldOut`.
        published: {"deviation": the value that the deviations of the paper are typically below}.
        outputs: paths to write, svg or png.
    """
    counts, deviations = fraction_deviations(held)
    with drawing(outputs, figsize=(10, 13), layout="constrained") as figure:
        if not any(counts):
            write_message(figure, "No galaxy has enough votes for this figure; lower evaluate.min_votes.")
            return
        panel = figure.subplots()
        place, ticks, names = 0.0, [], []
        for number, (question, count) in enumerate(zip(held.tree.questions, counts, strict=True)):
            panel.text(
                0, place, f"{in_words(question.name)}  ({count:,})", va="center", fontsize=13, weight="bold"
            )
            for answer, value in zip(question.answers, deviations[question.slice], strict=True):
                place += 1
                panel.barh(place, value, color=COLORS[number % 2], height=0.75)
                label = "–" if np.isnan(value) else f"{value:.3f}"
                # In a column of its own, where no line crosses it.
                beside = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 11}
                panel.text(1.01, place, label, color=INK, **beside)
                ticks.append(place)
                names.append(in_words(answer))
            place += 1.4
        panel.set_yticks(ticks, names, fontsize=12)
        panel.tick_params(axis="y", length=0)
        panel.set_ylim(place - 0.9, -0.8)
        panel.axvline(published["deviation"], color=INK, ls=":", lw=1.5, zorder=0.5)
        panel.text(
            published["deviation"], -0.9, "typical in the paper: less than this", ha="center", fontsize=12
        )
        panel.set_xlabel("Mean absolute deviation of the predicted from the voted fraction")


def expected_volunteer_error(votes, drawn):
    """How far the fractions of a few volunteers are from those of all, on average.

    The few are drawn at random from all volunteers. Their votes for an answer follow a hypergeometric
    distribution, so the mean absolute deviation is an exact sum. Without volunteers all fractions are
    equal.

    Args:
        votes: (galaxies, answers) of all volunteers, at least `drawn` for each galaxy.
        drawn: number of volunteers.

    Returns:
        The mean over galaxies and answers.
    """
    votes = np.asarray(votes)
    total = votes.sum(axis=1, keepdims=True)
    fractions = votes / total
    if not drawn:
        return np.abs(1 / votes.shape[1] - fractions).mean()
    given = np.arange(drawn + 1)
    probabilities = stats.hypergeom.pmf(given, total[:, :, None], votes[:, :, None], drawn)
    return (probabilities * np.abs(given / drawn - fractions[:, :, None])).sum(axis=2).mean()


def most_voted(volunteers, more_votes_than):
    """Which galaxies have so many votes that their fractions can serve as the truth.

    Args:
        volunteers: (galaxies,) votes on the first question.
        more_votes_than: the paper's limit.

    Returns:
        (galaxies,) boolean: those above the limit or, if they are too few, those with the most votes.
    """
    above = volunteers > more_votes_than
    if above.sum() >= FEWEST or len(volunteers) <= FEWEST:
        return above
    limit = np.sort(volunteers)[-min(STAND_IN, len(volunteers))]
    return volunteers >= limit


def draw_volunteers(held, published, outputs):
    """Draw the error of the model beside that of a few volunteers (Walmsley et al. 2022, figure 16).

    Args:
        held: `HeldOut`.
        published: {"more_votes_than", "galaxies"}: the limit of the paper, and its number of galaxies above
            it.
        outputs: paths to write, svg or png.
    """
    volunteers = held.votes[:, held.tree.questions[0].slice].sum(axis=1)
    chosen = most_voted(volunteers, published["more_votes_than"])
    questions = held.tree.questions
    across = 5
    down = -(-len(questions) // across)
    with drawing(outputs, figsize=(4 * across, 3.9 * down + 0.8), layout="constrained") as figure:
        if chosen.sum() < FEWEST:
            write_message(
                figure,
                f"Too few galaxies ({chosen.sum()} with more than {published['more_votes_than']} votes;"
                f" this figure needs {FEWEST}).",
            )
            return
        least = volunteers[chosen].min()
        figure.suptitle(
            f"{chosen.sum():,} galaxies with {least:g} votes or more (paper: {published['galaxies']}, more"
            f" than {published['more_votes_than']})",
            fontsize=17,
        )
        panels = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
        for panel in panels[len(questions) :]:
            panel.remove()
        for panel, question in zip(panels, questions, strict=False):
            _draw_question(panel, held, question, chosen)
        panels[0].legend(loc="upper right")
        figure.supxlabel("Volunteers asked", fontsize=16)
        figure.supylabel("Mean error of a vote fraction", fontsize=16)


def _draw_question(panel, held, question, chosen):
    votes = held.votes[:, question.slice]
    used = chosen & held.relevant(question) & (votes.sum(axis=1) >= MOST)
    panel.set_title(in_words(question.name), fontsize=15)
    panel.set_xlim(0, MOST)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if used.sum() < FEWEST:
        panel.set_yticks([])
        message = f"too few galaxies ({used.sum()})"
        panel.text(0.5, 0.5, message, transform=panel.transAxes, ha="center", color=FAINT)
        return
    asked = np.arange(MOST + 1)
    errors = np.array([expected_volunteer_error(votes[used], drawn) for drawn in asked])
    voted = votes[used] / votes[used].sum(axis=1, keepdims=True)
    error = np.abs(held.fractions[used][:, question.slice] - voted).mean()
    panel.plot(asked, errors, "o-", color=COLORS[0], ms=4, lw=2, label="volunteers")
    panel.axhline(error, color=COLORS[1], lw=2.5, label="model")
    better = np.flatnonzero(errors <= error)
    worth = f"worth {better[0]} volunteers" if len(better) else f"worth more than {MOST}"
    panel.text(
        0.97, 0.62, f"{used.sum():,} galaxies\n{worth}", transform=panel.transAxes, ha="right", fontsize=12
    )
    panel.set_ylim(0, max(*errors, error) * 1.08)
    panel.yaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.grid(axis="y")
