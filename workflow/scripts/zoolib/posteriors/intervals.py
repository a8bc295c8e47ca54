"""Intervals of vote fractions: quantiles and shortest intervals of mixtures of Betas, or of samples.

The marginal of a Dirichlet is Beta(α, Σα - α), so that of a mixture of Dirichlets is a mixture of Betas.
A sample that is a probability has no spread; intervals of probabilities come from the samples alone.
"""

import numpy as np
from scipy import special

# Greatest error of a quantile, as a vote fraction.
TOLERANCE = 1e-4
# The masses in the tables of `mixtures` are wrong by up to 2e-6. Where the density at an end is below this,
# or where a table lost more mass, the quantiles are searched for without a table.
LOW_DENSITY, MASS_LOST = 0.05, 1e-5


def marginals(concentrations, tree):
    """Parameters of the Beta distribution of each answer's vote fraction.

    Args:
        concentrations: (galaxies, answers of all questions, samples), > 0.
        tree: a `DecisionTree`.

    Returns:
        Two arrays of the same shape, float64: α of the answer, and Σα of its question's others.
    """
    chosen = np.asarray(concentrations, dtype=float)
    others = np.empty_like(chosen)
    for question in tree.questions:
        of_question = chosen[:, question.slice]
        others[:, question.slice] = of_question.sum(axis=1, keepdims=True) - of_question
    # Next to a concentration 1e16 times as large the sum of the others is lost, but a Beta needs it > 0.
    return chosen, np.maximum(others, 1e-6)


def credible_intervals(values, tree, level, kind="concentrations", weights=None):
    """Central credible interval of the vote fraction of each answer: the masses below and above are equal.

    Exact for concentrations (see `beta_mixture_quantile`); quantiles of the samples for probabilities.

    Args:
        values: (galaxies, answers of all questions, samples).
        tree: a `DecisionTree`; not used for probabilities.
        level: mass of the interval, between 0 and 1.
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, questions, samples), >= 0, of a mixture of Dirichlets; those of a question sum
            to 1. None: all samples are equal, as samples of probabilities always are.

    Returns:
        Two arrays (galaxies, answers of all questions), the lower and the upper ends.
    """
    if kind != "concentrations":
        return tuple(np.quantile(values, ((1 - level) / 2, (1 + level) / 2), axis=2))
    return _of_mixtures(values, tree, level, weights)[:2]


def highest_density_intervals(values, tree, level, kind="concentrations", weights=None):
    """Shortest interval with the stated mass for the vote fraction of each answer.

    If the density has one peak, the interval holds the fractions of highest density (see
    `shortest_beta_mixture_interval`). For probabilities it is the shortest window over the samples.

    Args:
        values: (galaxies, answers of all questions, samples).
        tree: a `DecisionTree`; not used for probabilities.
        level: mass of the interval, between 0 and 1.
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, questions, samples), >= 0, of a mixture of Dirichlets; those of a question sum
            to 1. None: all samples are equal, as samples of probabilities always are.

    Returns:
        Two arrays (galaxies, answers of all questions), the lower and the upper ends.
    """
    if kind != "concentrations":
        return shortest_window(values, level)
    return _of_mixtures(values, tree, level, weights)[2:]


def both_intervals(values, tree, level, kind="concentrations", weights=None):
    """Central credible and highest-density intervals, in little more than the time of one of them.

    Args and returns: see `credible_intervals` and `highest_density_intervals`; the arrays of the first, then
    those of the second.
    """
    if kind == "concentrations":
        return _of_mixtures(values, tree, level, weights)
    central = credible_intervals(values, tree, level, kind)
    return *central, *highest_density_intervals(values, tree, level, kind)


def _of_mixtures(values, tree, level, weights):
    """Both intervals of the vote fraction of each answer: four arrays (galaxies, answers)."""
    chosen, others = marginals(values, tree)
    if weights is None:
        weights = np.full_like(chosen, 1 / chosen.shape[2])
    else:
        weights = np.repeat(weights, [len(question.answers) for question in tree.questions], axis=1)
    mixtures = (part.reshape(-1, part.shape[2]) for part in (chosen, others, weights))
    return tuple(end.reshape(values.shape[:2]) for end in beta_mixture_intervals(*mixtures, level))


def shortest_window(values, level):
    """Shortest interval from one sample to another that holds the stated share of the samples.

    Args:
        values: (galaxies, answers, samples).
        level: share of the samples, between 0 and 1; rounded up to a whole number of samples.

    Returns:
        Two arrays (galaxies, answers), the lower and the upper ends.
    """
    ordered = np.sort(values, axis=2)
    samples = ordered.shape[2]
    # Slightly less, so that 0.9 of 10 samples are 9 in spite of rounding.
    held = max(int(np.ceil(level * samples - 1e-9)), 1)
    low, high = ordered[:, :, : samples - held + 1], ordered[:, :, held - 1 :]
    shortest = (high - low).argmin(axis=2)[:, :, None]
    return tuple(np.take_along_axis(ends, shortest, axis=2)[:, :, 0] for ends in (low, high))


def beta_mixture_intervals(a, b, weights, level):
    """Central and shortest intervals with the stated mass of mixtures of Beta distributions.

    The ends of central intervals are within `TOLERANCE` of the quantiles. A shortest interval is at most
    0.0005 longer than the shortest there is. If an end of it is within `TOLERANCE` of 0 or 1, it becomes 0
    or 1.

    - If the density is highest at 0 or 1, or infinite there (a parameter below 1), the shortest interval
      begins exactly at 0 or ends exactly at 1.
    - If it is infinite at both ends, because the samples are sure but disagree, the result is the shortest
      *interval*, not two pieces of highest density. It then reaches nearly from 0 to 1.
    - With several peaks it is the shortest single interval, which may hold several peaks. If two are
      equally short, it is one of them.

    Args:
        a, b: (mixtures, components), the parameters of the components, > 0.
        weights: (mixtures, components), >= 0, with the sum 1.
        level: mass of the intervals, between 0 and 1.

    Returns:
        Four arrays (mixtures,): lower and upper ends of the central interval, then of the shortest one.
    """
    # Most processes that import this module need no intervals, and numba takes half a second.
    from zoolib.posteriors.mixtures import intervals

    *ends, below, density, lost = intervals(a, b, weights, level)
    # Between narrow peaks, a small error of the mass moves a quantile far.
    lossy = lost > MASS_LOST
    doubtful = lossy | (density < LOW_DENSITY)
    masses = ((1 - level) / 2, (1 + level) / 2, below, below + level)
    for end, mass, some in zip(ends, masses, (doubtful, doubtful, lossy, lossy), strict=True):
        mass = np.broadcast_to(mass, len(end))
        some = some & (mass > 0) & (mass < 1)
        end[some] = beta_mixture_quantile(a[some], b[some], weights[some], mass[some], guess=end[some])
    # This close to 0 or 1, where much of the mass may be, a quantile cannot be told apart from 0 or 1.
    ends[2][ends[2] < TOLERANCE] = 0
    ends[3][ends[3] > 1 - TOLERANCE] = 1
    return tuple(ends)


def beta_mixture_quantile(a, b, weights, probability, tolerance=TOLERANCE, guess=None):
    """Quantile of mixtures of Beta distributions.

    This is Newton's method inside a bracket that always holds the quantile.

    Args:
        a, b: (mixtures, components), the parameters of the components, > 0.
        weights: (mixtures, components), >= 0, with the sum 1.
        probability: which quantile, between 0 and 1; one for all or (mixtures,).
        tolerance: greatest width of the final bracket.
        guess: (mixtures,) first guesses; None takes the quantile of the Beta with the same mean and
            variance.

    Returns:
        (mixtures,), each closer to the quantile than `tolerance`.
    """
    probability = np.broadcast_to(np.asarray(probability, float), len(a))
    low, low_excess = np.zeros(len(a)), -probability
    high, high_excess = np.ones(len(a)), 1 - probability
    log_beta = special.betaln(a, b)
    active = np.arange(len(a))
    if guess is None:
        guess = special.betaincinv(*_matched_beta(a, b, weights), probability)
    guess = np.clip(guess, tolerance / 2, 1 - tolerance / 2)
    rounds = 0
    while len(active):
        rounds += 1
        column = guess[:, None]
        excess = (weights * special.betainc(a, b, column)).sum(axis=1) - probability[active]
        below = excess < 0
        low[active[below]], low_excess[active[below]] = guess[below], excess[below]
        high[active[~below]], high_excess[active[~below]] = guess[~below], excess[~below]

        going_on = high[active] - low[active] > tolerance
        active, excess, column = active[going_on], excess[going_on], column[going_on]
        a, b, weights, log_beta = (each[going_on] for each in (a, b, weights, log_beta))
        guess, below = guess[going_on], below[going_on]
        with np.errstate(all="ignore"):
            log_density = (a - 1) * np.log(column) + (b - 1) * np.log1p(-column) - log_beta
            newton = guess - excess / (weights * np.exp(log_density)).sum(axis=1)
        # Slightly too far, so that the next round closes the bracket from the other side.
        newton += np.where(below, 0.45, -0.45) * tolerance
        inside = (newton > low[active]) & (newton < high[active])
        # Halving the bracket in every fourth round limits the number of rounds for any mixture.
        halved = (low[active] + high[active]) / 2
        guess = np.where(inside & (rounds % 4 != 0), newton, halved)
    return low - low_excess * (high - low) / (high_excess - low_excess)


def _matched_beta(a, b, weights):
    """Parameters of the Beta with the mean and the variance of a mixture of Betas."""
    total = a + b
    means = a / total
    mean = (weights * means).sum(axis=1)
    variance = (weights * (means * (1 - means) / (total + 1) + means**2)).sum(axis=1) - mean**2
    # If rounding leaves a mean of 0 or 1, there is no such Beta; a mean near it is close enough.
    mean = np.clip(mean, 1e-6, 1 - 1e-6)
    matched = np.maximum(mean * (1 - mean) / np.maximum(variance, 1e-6**2) - 1, 1e-3)
    return mean * matched, (1 - mean) * matched
