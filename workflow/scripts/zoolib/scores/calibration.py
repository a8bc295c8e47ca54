"""Calibration: how often credible intervals hold the truth, and predictive intervals the votes."""

import numpy as np
import pandas as pd
from scipy import special

from zoolib.job.logs import log, progress, whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.information import vote_probabilities
from zoolib.posteriors.intervals import marginals
from zoolib.posteriors.summary import RELEVANT, mean_fractions, probability_asked
from zoolib.posteriors.unseen import check_unseen
from zoolib.scores.questions import matching_rows, relevant, votes_of

# Masses of the central intervals that are tested.
LEVELS = np.array([0.5, 0.8, 0.9, 0.95])
# How the galaxies of a question are chosen: by the share of volunteers that the model expects to be asked it,
# or by the votes. The first one is judged, because votes choose galaxies by the truth that they depend on.
SELECTED = ("predicted", "votes")
# Fewest galaxies for a question to be judged: with 200, the standard error of a share is 3.5 points at
# 50 % and 1.5 points at 95 %.
ENOUGH = 200
# Figure 19 of Walmsley et al. 2022: the requested masses, and its two groups of galaxies by votes.
REQUESTED = np.linspace(0.1, 0.95, 50)
GROUPS = {"3 < N < 5": (3, 5), "30 < N < 40": (30, 40)}
# Bins of figure 19, by the mass of the intervals, and the fewest intervals for a bin to be drawn.
BINS = 10
MEASUREMENTS = 100


def calibrate(predictions, test, truth, output, recalibrations=None):
    """Compare the mass of intervals with how often they hold what they should.

    A question counts for a galaxy if the model expects at least half of the volunteers to be asked it
    (`predicted`). The galaxies that it counts for in the scores are measured beside that (`votes`): the
    votes on one question choose galaxies by their truth, which is not independent of the truth of another.
    Each answer has two measures:

    - `truth`, only for a simulated survey: how often the true probability of the answer lies in its
      central credible interval.
    - `votes`: how often the number of votes for the answer lies in its central predictive interval,
      given the number of volunteers that were asked, one or more. Votes are whole numbers, so such an
      interval holds more than the stated mass. The share is compared with the mass that the interval has.

    Args:
        predictions: HDF5 of concentrations, or of the probabilities of a tree's answers.
        test: catalogue (Parquet) with the votes to compare with.
        truth: Parquet with the true answer probabilities in the columns of the tree; None for a real
            survey.
        output: attributes with the paths of two CSV files to write.
            coverage: question, answer (`all` for all answers of the question together), measure, selected
            (how the galaxies were chosen), stated (mass), expected (mass that the intervals have), actual
            (share of them that hold what they should), galaxies.
            calibration, figure 19 of Walmsley et al. 2022: question, votes (group of galaxies), expected
            (mean mass of the intervals of a bin), actual (share of them that hold the votes), intervals.
        recalibrations: files of the members to correct the predictions by.

    Raises:
        UserError: predictions and catalogue have no galaxy or no tree in common, or a model has learned from
            some of the galaxies.
    """
    of_blocks = []
    with open_predictions(predictions, recalibrations) as opened:
        catalog, rows = matching_rows(opened, test)
        check_unseen(opened, rows)
        votes = votes_of(catalog, opened.tree, test)
        true = true_probabilities(truth, catalog["id_str"], opened.tree) if truth else None
        with progress(None, "measuring coverage", total=len(opened.id_str)) as meter:
            for block, values, weights in opened.blocks():
                here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
                known = None if true is None else true[here]
                chosen = rows[here] - block.start
                shares = None if weights is None else weights[chosen]
                found = measure(values[chosen], votes[here], known, opened.tree, opened.kind, shares)
                of_blocks.append(found)
                meter.update(len(values))
    covered, intervals = summarise(of_blocks)
    for table, path in ((covered, output.coverage), (intervals, output.calibration)):
        with whole(path) as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    for message in verdicts(covered):
        log.info("%s", message)


def true_probabilities(truth, ids, tree):
    """The true answer probabilities of some galaxies of a simulated survey.

    Args:
        truth: Parquet with id_str and the columns of the tree.
        ids: (galaxies,) id_str.
        tree: a `DecisionTree`.

    Returns:
        (galaxies, answers of all questions).
    """
    return pd.read_parquet(truth).set_index("id_str").loc[ids, tree.columns].to_numpy(float)


def measure(values, votes, true, tree, kind, weights=None):
    """Count the truths and votes that lie inside the intervals of some galaxies.

    Args:
        values: (galaxies, answers of all questions, components), concentrations or probabilities.
        votes: (galaxies, answers of all questions).
        true: (galaxies, answers of all questions) true probabilities, or None.
        tree: a `DecisionTree`.
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, questions, components), >= 0, of a mixture of Dirichlets; None if all
            components are equal.

    Returns:
        Two data frames for `summarise`: counts of the central intervals, and counts of figure 19.
    """
    covered, intervals = [], [_binned(None, None, [], [])]
    held = None if true is None else true_inside(values, true, tree, kind, weights)
    expected = probability_asked(mean_fractions(values, tree, weights), tree)
    for number, question in enumerate(tree.questions):
        answered = votes[:, question.slice]
        asked = answered.sum(axis=1)
        chosen = (expected[:, number] >= RELEVANT, relevant(votes, question, tree))
        counted = np.flatnonzero((asked > 0) & (chosen[0] | chosen[1]))
        inside, mass = np.zeros((2, *answered.shape, len(LEVELS)))
        for total in np.unique(asked[counted]):
            alike = counted[asked[counted] == total]
            shares = None if weights is None else weights[alike]
            chances = vote_probabilities(values[alike], tree, question.columns, int(total), kind, shares)
            inside[alike], mass[alike] = votes_inside(chances, answered[alike])
            for group, (more, fewer) in GROUPS.items():
                if len(question.answers) == 2 and more < total < fewer:
                    some = chosen[0][alike]
                    measured = highest_density(chances[some, 0], answered[alike[some], 0])
                    intervals.append(_binned(question, group, *measured))
        for selected, rows in zip(SELECTED, chosen, strict=True):
            if held is not None:
                within = held[rows][:, question.slice]
                of_truth = within, np.broadcast_to(LEVELS, within.shape)
                covered.append(_counted(question, "truth", selected, *of_truth))
            rows = rows & (asked > 0)
            covered.append(_counted(question, "votes", selected, inside[rows], mass[rows]))
    return pd.concat(covered), pd.concat(intervals)


def true_inside(values, true, tree, kind, weights=None):
    """Whether true probabilities lie inside central credible intervals of the masses `LEVELS`.

    Args:
        values: (galaxies, answers of all questions, components), concentrations or probabilities.
        true: (galaxies, answers of all questions).
        tree: a `DecisionTree`.
        kind: what the values are.
        weights: (galaxies, questions, components), >= 0, of a mixture of Dirichlets; those of a question
            sum to 1. None if all components are equal.

    Returns:
        (galaxies, answers of all questions, levels), bool.
    """
    if kind == "probabilities":
        low, high = np.quantile(values, [(1 - LEVELS) / 2, (1 + LEVELS) / 2], axis=2)
        return np.moveaxis((low <= true) & (true <= high), 0, 2)
    # The share of the posterior below the truth is one computation; the quantiles would be four pairs.
    below = special.betainc(*marginals(values, tree), true[:, :, None])
    if weights is None:
        below = below.mean(axis=2)
    else:
        of_answers = np.repeat(weights, [len(question.answers) for question in tree.questions], axis=1)
        below = (of_answers * below).sum(axis=2)
    return np.abs(below - 0.5)[:, :, None] <= LEVELS / 2


def votes_inside(chances, votes):
    """Whether votes lie inside central predictive intervals of at least the masses `LEVELS`.

    Such an interval goes from the (1 - level) / 2 quantile of the number of votes to the (1 + level) / 2
    quantile. Each quantile is the smallest number whose cumulative probability reaches the level.

    Args:
        chances: (galaxies, answers, N + 1) probabilities of 0 to N votes.
        votes: (galaxies, answers).

    Returns:
        Two arrays (galaxies, answers, levels): whether the votes lie inside (0 or 1), and the mass of the
        interval.
    """
    up_to = np.cumsum(chances, axis=2)
    up_to[:, :, -1] = 1
    low, high = (
        (up_to[:, :, None, :] < tail[:, None]).sum(axis=3) for tail in ((1 - LEVELS) / 2, (1 + LEVELS) / 2)
    )
    below = np.pad(up_to, ((0, 0), (0, 0), (1, 0)))
    mass = np.take_along_axis(up_to, high, axis=2) - np.take_along_axis(below, low, axis=2)
    return (low <= votes[:, :, None]) & (votes[:, :, None] <= high), mass


def highest_density(chances, votes):
    """The intervals of figure 19 of Walmsley et al. 2022, for one answer.

    Both ends start at the most probable number of votes and step outwards together until the interval
    holds the requested mass. Requests that give the same interval of a galaxy count once.

    Args:
        chances: (galaxies, N + 1) probabilities of 0 to N votes.
        votes: (galaxies,).

    Returns:
        Two arrays (intervals,): the mass of each, and whether it holds the votes (0 or 1).
    """
    total = chances.shape[1] - 1
    mode = chances.argmax(axis=1)[:, None]
    steps = np.arange(total + 1)
    below = np.pad(np.cumsum(chances, axis=1), ((0, 0), (1, 0)))
    # below[k] is the probability of fewer than k votes.
    upper, lower = np.minimum(mode + steps, total) + 1, np.maximum(mode - steps, 0)
    mass = np.take_along_axis(below, upper, axis=1) - np.take_along_axis(below, lower, axis=1)
    # The complete distribution holds any requested mass, whatever the rounding.
    reached = (mass[:, None, :-1] < REQUESTED[:, None]).sum(axis=2)
    chosen = (reached[:, :, None] == steps).any(axis=1)
    inside = np.abs(votes[:, None] - mode) <= steps
    return mass[chosen], inside[chosen].astype(float)


def _counted(question, measure, selected, inside, mass):
    """Sums over galaxies, one row for each answer and level."""
    answers, levels = len(question.answers), len(LEVELS)
    return pd.DataFrame(
        {
            "question": question.name,
            "answer": np.repeat(question.answers, levels),
            "measure": measure,
            "selected": selected,
            "stated": np.tile(LEVELS, answers),
            "expected": mass.sum(axis=0).ravel(),
            "actual": inside.sum(axis=0).ravel(),
            "galaxies": len(inside),
        }
    )


def _binned(question, group, mass, inside):
    """Sums over intervals, one row for each bin of mass."""
    number = np.minimum((np.asarray(mass) * BINS).astype(int), BINS - 1)
    table = pd.DataFrame({"bin": number, "expected": mass, "actual": inside, "intervals": 1})
    table = table.groupby("bin", as_index=False).sum()
    table.insert(0, "votes", group)
    table.insert(0, "question", question and question.name)
    return table


def summarise(of_blocks):
    """Turn the counts of blocks of galaxies into shares.

    Args:
        of_blocks: list of the pairs that `measure` returns.

    Returns:
        Two data frames with the columns of the two tables of `calibrate`.
    """
    covered, intervals = (pd.concat(tables) for tables in zip(*of_blocks, strict=True))
    keys = ["question", "answer", "measure", "selected", "stated"]
    covered = covered.groupby(keys, sort=False, as_index=False).sum()
    # All answers of a question together: the same galaxies, each counted once for every answer.
    keys.remove("answer")
    together = covered.groupby(keys, sort=False, as_index=False)[["expected", "actual"]].sum()
    sizes = covered.groupby(keys, sort=False, as_index=False)["galaxies"].agg(["sum", "first"])
    together = together.assign(answer="all", times=sizes["sum"], galaxies=sizes["first"])
    covered = pd.concat([together, covered.assign(times=covered["galaxies"])], ignore_index=True)
    covered[["expected", "actual"]] = covered[["expected", "actual"]].div(covered["times"], axis=0)
    intervals = intervals.groupby(["question", "votes", "bin"], as_index=False).sum()
    intervals[["expected", "actual"]] = intervals[["expected", "actual"]].div(intervals["intervals"], axis=0)
    columns = ["question", "answer", "measure", "selected", "stated", "expected", "actual", "galaxies"]
    return covered[columns], intervals.drop(columns="bin")


def judged(covered):
    """The rows that a posterior is judged by: all answers of a question, galaxies by the predicted share.

    Args:
        covered: the table of coverage.

    Returns:
        Some of its rows, one for each question, measure and stated mass.
    """
    return covered[(covered["answer"] == "all") & (covered["selected"] == SELECTED[0])]


def worst(covered, measure):
    """The greatest deviation of the actual share from the mass, among questions with enough galaxies.

    Args:
        covered: the table of coverage.
        measure: `truth` or `votes`.

    Returns:
        Its row, with `deviation` (actual - expected); None where no question has `ENOUGH` galaxies.
    """
    chosen = judged(covered)
    chosen = chosen[chosen["measure"] == measure]
    chosen = chosen[chosen["galaxies"] >= ENOUGH]
    deviation = chosen["actual"] - chosen["expected"]
    if chosen.empty:
        return None
    return chosen.assign(deviation=deviation).loc[deviation.abs().idxmax()]


def verdicts(covered):
    """Messages for the log: the greatest deviation of each measure.

    Args:
        covered: the table of coverage.

    Returns:
        A list of messages.
    """
    messages = []
    for measured in covered["measure"].unique():
        row = worst(covered, measured)
        if row is None:
            messages.append(f"{measured}: no question counts for {ENOUGH} galaxies or more.")
        else:
            messages.append(
                f"{measured}: the greatest deviation is {100 * row['deviation']:+.1f} points, of the"
                f" {row['stated']:.0%} intervals of {row['question']} ({row['galaxies']} galaxies)."
            )
    return messages
