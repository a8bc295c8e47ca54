"""What the studies share: posteriors of simulated galaxies, and what can be done to make them right.

A run of the study has one training for each member. So its predictions are those of several models, and of
ensembles of them.
"""

from dataclasses import dataclass, replace

import numpy as np
from pages import REPO  # noqa: F401 (it makes zoolib importable)
from scipy import special
from zoolib.config.trees import DecisionTree
from zoolib.posteriors import recalibration, recalibration_fit
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.intervals import beta_mixture_quantile, marginals
from zoolib.posteriors.summary import mean_fractions, probability_asked
from zoolib.scores import calibration
from zoolib.scores.questions import matching_rows, question_losses, votes_of

BLOCK = 512
# Parts of equal mass into which a map of the probability integral transform divides a posterior.
PARTS = 20
# Many more rounds fit the noise of the votes.
ROUNDS = 30


@dataclass(frozen=True)
class Posteriors:
    """Predictions for some galaxies of a simulated survey, with their votes and the truth.

    Attributes:
        values: (galaxies, answers of all questions, components); those of one member are neighbours.
        weights: (galaxies, questions, components), or None if all components are equal.
        per_sample: components of one sample.
        kind: `concentrations` or `probabilities`.
        members: of the ensemble.
        tree: the `DecisionTree`.
        votes: (galaxies, answers of all questions).
        true: (galaxies, answers of all questions), probabilities.
    """

    values: np.ndarray
    weights: np.ndarray | None
    per_sample: int
    kind: str
    members: int
    tree: DecisionTree
    votes: np.ndarray
    true: np.ndarray


def load(run, target):
    """Read one target of a run, as its models predicted it.

    Args:
        run: folder of the run's results.
        target: of `predict.targets`, with the name of its split.

    Returns:
        `Posteriors`.
    """
    with open_predictions(run / "predict" / target / "predictions.hdf5") as opened:
        catalog, rows = matching_rows(opened, run / "catalog" / f"{target}.parquet")
        blocks = list(opened.blocks())
        values = np.concatenate([values for _, values, _ in blocks])[rows]
        weights = None
        if opened.weights is not None:
            weights = np.concatenate([weights for *_, weights in blocks])[rows]
        votes = votes_of(catalog, opened.tree, target).astype(float)
        true = calibration.true_probabilities(
            run / "download" / "truth.parquet", catalog["id_str"], opened.tree
        )
        members = int(opened.values.file.attrs["members"])
        of_file = (opened.per_sample, opened.kind, members, opened.tree)
        return Posteriors(values, weights, *of_file, votes, true)


def member(posteriors, number):
    """The posteriors of one member of an ensemble."""
    count = posteriors.values.shape[2] // posteriors.members
    own = slice(number * count, (number + 1) * count)
    weights = posteriors.weights
    if weights is not None:
        weights = weights[:, :, own] * posteriors.members
    return replace(posteriors, values=posteriors.values[:, :, own], weights=weights, members=1)


def members(posteriors):
    """The posteriors of each member of an ensemble, one after the other."""
    return [member(posteriors, number) for number in range(posteriors.members)]


def linear_pool(some):
    """The equal mixture of several posteriors, which may have different numbers of components."""
    first, values = some[0], np.concatenate([one.values for one in some], axis=2)
    if all(one.weights is None and one.values.shape[2] == first.values.shape[2] for one in some):
        return replace(first, values=values, members=len(some))
    shape = (len(values), len(first.tree.questions))
    weights = [
        np.full((*shape, one.values.shape[2]), 1 / one.values.shape[2])
        if one.weights is None
        else one.weights
        for one in some
    ]
    return replace(
        first, values=values, weights=np.concatenate(weights, axis=2) / len(some), members=len(some)
    )


def log_linear_pool(posteriors):
    """The normalised geometric mean of all samples; of Dirichlets it is the one with the mean concentrations.

    That of mixtures is no mixture, so their heads have none here.
    """
    values = posteriors.values.mean(axis=2, keepdims=True)
    return replace(posteriors, values=values, weights=None, per_sample=1, members=1)


def recalibrated(val, *others):
    """Posteriors of one model, corrected by the votes of validation galaxies as the pipeline does it.

    Args:
        val: `Posteriors` of these galaxies.
        others: of any galaxies, by the same model.

    Returns:
        A list of `Posteriors`: the others, corrected.
    """
    about = (val.tree, 0, val.weights, val.per_sample)
    found = recalibration_fit.fit(val.votes, val.values, *about)
    corrected = []
    for one in others:
        numbers = recalibration.apply([found], one.values, one.weights, one.tree, one.per_sample)
        corrected.append(replace(one, **dict(zip(("values", "weights", "per_sample"), numbers, strict=True))))
    return corrected


def with_factor(val, *others):
    """An ensemble of recalibrated members with the factor of the ensemble; see `recalibrated`."""
    factor = recalibration_fit.fit_ensemble(val.votes, val.values, val.tree, 0, val.weights)["factor"]
    return [replace(one, values=factor * one.values) for one in others]


def losses(posteriors):
    """Negative log likelihood of the votes, (galaxies, questions) in nats."""
    about = (posteriors.values, posteriors.kind, posteriors.weights)
    return question_losses(posteriors.tree, posteriors.votes, *about)


def blocks(posteriors):
    """Some galaxies at a time: (slice, values, weights)."""
    for start in range(0, len(posteriors.votes), BLOCK):
        rows = slice(start, start + BLOCK)
        yield rows, posteriors.values[rows], None if posteriors.weights is None else posteriors.weights[rows]


def coverage(posteriors):
    """The two tables of `calibration.calibrate`: coverage, and figure 19."""
    found = []
    for rows, values, weights in blocks(posteriors):
        about = (posteriors.votes[rows], posteriors.true[rows], posteriors.tree, posteriors.kind)
        found.append(calibration.measure(values, *about, weights))
    return calibration.summarise(found)


def expected(posteriors):
    """((galaxies, answers) expected fractions, (galaxies, questions) which questions count for a galaxy)."""
    fractions = np.concatenate(
        [mean_fractions(values, posteriors.tree, weights) for _, values, weights in blocks(posteriors)]
    )
    return fractions, probability_asked(fractions, posteriors.tree) >= calibration.RELEVANT


def of_answers(weights, tree):
    """Weights of each answer, (galaxies, answers, components), from those of its question."""
    return np.repeat(weights, [len(question.answers) for question in tree.questions], axis=1)


def transform(posteriors):
    """The probability integral transform of the truth: the mass below it, (galaxies, answers)."""
    found = []
    for rows, values, weights in blocks(posteriors):
        below = special.betainc(*marginals(values, posteriors.tree), posteriors.true[rows][:, :, None])
        if weights is None:
            found.append(below.mean(axis=2))
        else:
            found.append((of_answers(weights, posteriors.tree) * below).sum(axis=2))
    return np.concatenate(found)


def transform_map(val, question):
    """A map of the probability integral transform of a question, fitted to the votes of validation galaxies.

    The posterior of each answer is divided into parts of equal mass. What share of the galaxies has its true
    fraction in each part follows by expectation maximisation from the probability of the votes there.

    Args:
        val: `Posteriors` of validation galaxies.
        question: a `Question`.

    Returns:
        (PARTS + 1,) the share of the galaxies up to each of PARTS + 1 equal steps from 0 to 1.
    """
    votes = val.votes[:, question.slice]
    asked = votes.sum(axis=1) > 0
    chances = []
    middles = (np.arange(PARTS) + 0.5) / PARTS
    shown = replace(val, values=val.values[asked], votes=val.votes[asked], true=val.true[asked])
    shown = replace(shown, weights=None if val.weights is None else val.weights[asked])
    for rows, values, weights in blocks(shown):
        of_question = [part[:, question.slice] for part in marginals(values, val.tree)]
        count, components = of_question[0].shape[1:]
        if weights is None:
            weights = np.full((len(values), len(val.tree.questions), components), 1 / components)
        of_question.append(of_answers(weights, val.tree)[:, question.slice])
        mixtures = [part.reshape(-1, components) for part in of_question]
        fractions = np.stack([beta_mixture_quantile(*mixtures, middle) for middle in middles], axis=1)
        answered = shown.votes[rows][:, question.slice]
        others = answered.sum(axis=1, keepdims=True) - answered
        logs = special.xlogy(answered.reshape(-1, 1), fractions)
        logs += special.xlog1py(others.reshape(-1, 1), -np.minimum(fractions, 1 - 1e-12))
        chances.append(np.exp(logs - logs.max(axis=1, keepdims=True)).reshape(-1, PARTS))
    chances, shares = np.concatenate(chances), np.full(PARTS, 1 / PARTS)
    for _ in range(ROUNDS):
        likely = chances * shares
        shares = (likely / likely.sum(axis=1, keepdims=True)).mean(axis=0)
    return np.concatenate([[0], shares.cumsum()])


def mapped_coverage(val, test, by_truth=False):
    """Coverage of the truth after maps of the probability integral transform, a row a question and level.

    A map corrects the intervals of single answers. Their fractions would no longer sum to 1.

    Args:
        val: `Posteriors` of validation galaxies.
        test: of test galaxies, by the same model.
        by_truth: fit the maps to the true fractions of the validation galaxies, known in a simulation alone.

    Returns:
        A list of (question, stated mass, share of the truths inside, galaxies).
    """
    found, counts, on_test = [], expected(test)[1], transform(test)
    on_val, of_val = (transform(val), expected(val)[1]) if by_truth else (None, None)
    for number, question in enumerate(test.tree.questions):
        rows = counts[:, number]
        if by_truth:
            known = np.sort(on_val[of_val[:, number]][:, question.slice].ravel())
            place = known.searchsorted(on_test[rows][:, question.slice]) / max(len(known), 1)
        else:
            steps = np.linspace(0, 1, PARTS + 1)
            place = np.interp(on_test[rows][:, question.slice], steps, transform_map(val, question))
        for level in calibration.LEVELS:
            inside = np.abs(place - 0.5) <= level / 2
            found.append((question.name, level, inside.mean() if rows.any() else np.nan, int(rows.sum())))
    return found


def seconds_of(results, runs):
    """{job: seconds} of all jobs of some runs, from the benchmarks that Snakemake wrote."""
    tables = [table for run in runs for table in (results.parent / "benchmarks" / run).rglob("*.tsv")]
    return {table: float(table.read_text().splitlines()[1].split("\t")[0]) for table in tables}
