"""Intervals of vote fractions: quantiles and shortest intervals of mixtures of Betas, or of samples.

The marginal of a Dirichlet is Beta(α, Σα - α), so that of a mixture of Dirichlets is a mixture of Betas.
A sample that is a probability has no spread; intervals of probabilities come from the samples alone.
"""

import numpy as np
from scipy import special

# Greatest error of a quantile, as a vote fraction.
TOLERANCE = 1e-4
# The search for the shortest interval counts fractions closer than this to 0 or 1 as 0 or 1.
EDGE = 1e-6
# Points of the table of a mixture: for each standard deviation of its narrowest component, and at most.
FINE, MOST = 8, 4096
# Numbers of a table that are computed at once: more do not fit into the cache of a core.
AT_ONCE = 2**17
# Candidates for the mass below the shortest interval, in each of two rounds.
CANDIDATES = 65


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
    probabilities = ((1 - level) / 2, (1 + level) / 2)
    if kind != "concentrations":
        return tuple(np.quantile(values, probabilities, axis=2))
    mixtures = _mixtures(values, tree, weights)
    ends = [beta_mixture_quantile(*mixtures, probability) for probability in probabilities]
    return tuple(end.reshape(values.shape[:2]) for end in ends)


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
    ends = shortest_beta_mixture_interval(*_mixtures(values, tree, weights), level)
    return tuple(end.reshape(values.shape[:2]) for end in ends)


def _mixtures(values, tree, weights):
    """Parameters and weights of the mixture of each answer: three arrays (galaxies x answers, samples)."""
    chosen, others = marginals(values, tree)
    if weights is None:
        weights = np.full_like(chosen, 1 / chosen.shape[2])
    else:
        weights = np.repeat(weights, [len(question.answers) for question in tree.questions], axis=1)
    return [part.reshape(-1, part.shape[2]) for part in (chosen, others, weights)]


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
    mean = np.clip(mean, EDGE, 1 - EDGE)
    matched = np.maximum(mean * (1 - mean) / np.maximum(variance, EDGE**2) - 1, 1e-3)
    return mean * matched, (1 - mean) * matched


def shortest_beta_mixture_interval(a, b, weights, level):
    """Shortest interval with the stated mass of mixtures of Beta distributions.

    A table of the distribution gives the mass below the shortest interval. The ends are then the exact
    quantiles (`beta_mixture_quantile`). The width depends on this mass only in second order, so it is
    within 0.0005 of the smallest possible width. An end within `TOLERANCE` of 0 or 1 becomes 0 or 1.

    - If the density is highest at 0 or 1, or infinite there (a parameter below 1), the interval begins
      exactly at 0 or ends exactly at 1.
    - If it is infinite at both ends, because the samples are sure but disagree, the result is the shortest
      *interval*, not two pieces of highest density. It then reaches nearly from 0 to 1.
    - With several peaks it is the shortest single interval, which may hold several peaks. If two are
      equally short, it is one of them.

    Args:
        a, b: (mixtures, components), the parameters of the components, > 0.
        weights: (mixtures, components), >= 0, with the sum 1.
        level: mass of the interval, between 0 and 1.

    Returns:
        Two arrays (mixtures,), the lower and the upper ends.
    """
    below, low, high = np.empty((3, len(a)))
    begin, end, points = _grids(a, b)
    for count in np.unique(points):
        alike = np.flatnonzero(points == count)
        size = max(AT_ONCE // (a.shape[1] * count), 1)
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            fractions, cumulative = _tabulated(
                [part[some] for part in (a, b, weights)], begin[some], end[some], count
            )
            below[some], low[some], high[some] = _shortest_of_table(fractions, cumulative, level)
    for end, mass in ((low, below), (high, below + level)):
        inside = (mass > 0) & (mass < 1)
        end[inside] = beta_mixture_quantile(
            a[inside], b[inside], weights[inside], mass[inside], guess=end[inside]
        )
    # This close to 0 or 1, where much of the mass may be, a quantile cannot be told apart from 0 or 1.
    return np.where(low < TOLERANCE, 0.0, low), np.where(high > 1 - TOLERANCE, 1.0, high)


def _grids(a, b):
    """First and last log odds of the table of each mixture, and the number of points that it needs.

    The log odds of a Beta have a smooth and finite density for any a and b, with mean ψ(a) - ψ(b) and
    variance ψ'(a) + ψ'(b).
    """
    middle = special.digamma(a) - special.digamma(b)
    spread = np.sqrt(special.polygamma(1, a) + special.polygamma(1, b))
    edge = -special.logit(EDGE)
    begin = np.clip((middle - 8 * spread).min(axis=1), -edge, edge - 1)
    end = np.clip((middle + 8 * spread).max(axis=1), begin + 1, edge + 1)
    wanted = FINE * (end - begin) / spread.min(axis=1)
    # Powers of two, so that many mixtures have tables of equal size.
    points = 2 ** np.ceil(np.log2(np.clip(wanted, 32, MOST))).astype(int)
    return begin, end, points


def _tabulated(mixtures, begin, end, count):
    """Cumulative distributions of mixtures: two arrays (mixtures, count), fractions and masses below.

    The first fraction is 0 and the last is 1, so that the mass outside the table belongs to its ends.
    """
    a, b, weights = mixtures
    odds = np.linspace(begin, end, count, axis=1)
    # log x and log(1 - x), without loss of digits where x is close to 1.
    log_below, log_above = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    of_components = np.stack([a, b, -special.betaln(a, b)], axis=2) @ np.stack(
        [log_below, log_above, np.ones_like(odds)], axis=1
    )
    density = (weights[:, None] @ np.exp(of_components, out=of_components))[:, 0]
    steps = (density[:, 1:] + density[:, :-1]) / 2
    fractions = np.exp(log_below)
    tails = fractions[:, [0, -1]].T[:, :, None]
    first, last = ((weights * special.betainc(a, b, tail)).sum(axis=1) for tail in tails)
    summed = np.cumsum(steps, axis=1)
    # The sums of the steps are the masses, except for a factor.
    scale = (last - first) / np.maximum(summed[:, -1], np.finfo(float).tiny)
    cumulative = np.zeros_like(density)
    cumulative[:, 1:] = summed * scale[:, None]
    cumulative += first[:, None]
    fractions[:, 0], cumulative[:, 0] = 0, 0
    fractions[:, -1], cumulative[:, -1] = 1, 1
    return fractions, cumulative


def _shortest_of_table(fractions, cumulative, level):
    """Shortest intervals of tabulated distributions: mass below them, lower ends, upper ends."""
    rows = np.arange(len(fractions))
    # Dense at both ends, where the ends of an interval change fastest with the mass.
    below = (1 - level) * np.sin(np.linspace(0, np.pi / 2, CANDIDATES)) ** 2
    below = np.broadcast_to(below, (len(rows), CANDIDATES))
    for _ in range(2):
        low = _looked_up(below, cumulative, fractions)
        high = _looked_up(below + level, cumulative, fractions)
        best = (high - low).argmin(axis=1)
        chosen = below[rows, best], low[rows, best], high[rows, best]
        # The second round searches between the neighbours of the best candidate of the first.
        around = below[rows, np.maximum(best - 1, 0)], below[rows, np.minimum(best + 1, CANDIDATES - 1)]
        below = np.linspace(*around, CANDIDATES, axis=1)
    return chosen


def _looked_up(masses, cumulative, fractions):
    """Fractions below which the masses lie, by linear interpolation in each row."""
    # With an offset for each row, all rows together are one increasing table.
    offset = 2.0 * np.arange(len(masses))[:, None]
    found = np.interp(
        (np.minimum(masses, 1) + offset).ravel(), (cumulative + offset).ravel(), fractions.ravel()
    )
    return found.reshape(masses.shape)
