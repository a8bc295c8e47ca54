"""Entropy and mutual information of all votes on one question, whose distribution is a mixture.

A component is a Dirichlet-multinomial, or a multinomial where it is a probability. A sample of a model is one
component or several neighbours, and the posterior is the mixture over the samples.
"""

import math
from functools import cache

import numpy as np
from scipy import special

# Up to so many results that N votes can have, all are counted; more are simulated.
MOST = 5000
# Largest standard error of a simulated information, in nats; and draws in a round of the simulation.
ERROR, DRAWS = 0.005, 4096
# Probabilities in memory at once: more do not fit into the cache of a core.
AT_ONCE = 2**18
# Errors of rounding are less, in nats.
ROUNDING = 1e-12
# Its logarithm is finite, and times 0 it is 0.
TINY = np.finfo(float).tiny


def information_of_votes(values, votes, step, generator, weights=None, per_sample=1):
    """Mutual information between N votes on a question and the sample that predicts them, in nats.

    It is H(mixture of the samples) - mean of H(sample), where H is the entropy of the votes for all answers
    together. H of one component is exact. H of a mixture is the sum over all results that N votes can have,
    if these are 5,000 or fewer. If there are more, the information is the mean over simulated votes of
    log(probability by the sample that drew them / probability by the mixture).

    Args:
        values: (galaxies, answers, components), concentrations (> 0) or probabilities of one question.
        votes: N, at least 1.
        step: what a vote adds to the concentration of its answer: 1; for probabilities 0.
        generator: a function that gives the numpy `Generator` of a galaxy by its place; only a simulation
            calls it.
        weights: (galaxies, components), with the sum 1; None if all components are equal.
        per_sample: components of one sample; they are neighbours.

    Returns:
        (galaxies,) information, >= 0, and (galaxies,) its standard errors, 0 where it is exact.
    """
    galaxies, answers, components = values.shape
    found, errors = np.zeros((2, galaxies))
    if components == per_sample:
        return found, errors
    # Answers first and components last: products of answers are then products of long rows.
    values = np.ascontiguousarray(np.moveaxis(values, 1, 0), dtype=float)
    values = values if step else values / values.sum(axis=0)
    weights = np.full((galaxies, components), 1 / components) if weights is None else np.asarray(weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    results = math.comb(votes + answers - 1, votes)
    if results > MOST:
        for galaxy in range(galaxies):
            of_galaxy = values[:, galaxy], votes, step, weights[galaxy], per_sample, generator(galaxy)
            found[galaxy], errors[galaxy] = _simulated(*of_galaxy)
    else:
        size = max(AT_ONCE // (components // per_sample * results if per_sample > 1 else results), 1)
        size = min(size, max(AT_ONCE // (components * (votes + 1)), 1))
        for start in range(0, galaxies, size):
            rows = slice(start, start + size)
            found[rows] = _counted(values[:, rows], votes, step, weights[rows], per_sample)
    # Equal samples differ by rounding.
    return np.where(found > ROUNDING, found, 0), errors


def component_entropies(values, votes, step):
    """Entropy of the votes on a question, for each component.

    log P(n) is a constant plus a function of each answer's votes, so its mean needs only the distribution of
    each answer's votes: a beta-binomial, or a binomial.

    Args:
        values: (answers, galaxies, components), concentrations, or probabilities that sum to 1.
        votes: N.
        step: 1 for concentrations, 0 for probabilities.

    Returns:
        (galaxies, components) in nats.
    """
    total = values.sum(axis=0)
    own, constant = _terms(values, votes, step)
    others = _rising(np.maximum(total - values, 0), total + step * votes, votes, step)
    others *= np.log(np.maximum(own, TINY))[::-1]
    return -constant - np.exp(constant) * np.einsum("kags,kags->gs", own, others[::-1])


def _counted(values, votes, step, weights, per_sample):
    """Information of some galaxies, from all results that the votes can have.

    The answers are divided in two groups. A sum over components of products of both groups' terms is a
    product of matrices, one for each number of votes that the first group gets.
    """
    answers, galaxies, components = values.shape
    terms, constant = _terms(values, votes, step)
    terms = terms.swapaxes(0, 1)
    half, of_mixture, of_samples = answers // 2, np.zeros(galaxies), np.zeros(galaxies)
    factors = weights * np.exp(constant)
    by_sample = galaxies, components // per_sample, per_sample
    for first in range(votes + 1):
        left = _products(terms[:half], first) * factors
        right = _products(terms[half:], votes - first)
        if per_sample == 1:
            chances = left.transpose(1, 0, 2) @ right.transpose(1, 2, 0)
        else:
            left, right = (side.reshape(len(side), *by_sample) for side in (left, right))
            each = left.transpose(1, 2, 0, 3) @ right.transpose(1, 2, 3, 0)
            of_samples += _summed_entropy(each)
            chances = each.sum(axis=1)
        of_mixture += _summed_entropy(chances)
    if per_sample == 1:
        return of_mixture - (weights * component_entropies(values, votes, step)).sum(axis=1)
    # The terms of a sample above are its probabilities times its weight.
    return of_mixture - of_samples + special.entr(weights.reshape(by_sample).sum(axis=2)).sum(axis=1)


def _summed_entropy(chances):
    terms = np.log(np.maximum(chances, TINY))
    terms *= chances
    return -terms.reshape(len(chances), -1).sum(axis=1)


def _terms(values, votes, step):
    """What each answer with k votes contributes to the probability of all votes, and what all share.

    Returns:
        (N + 1, answers, galaxies, components) of `_rising`; and (galaxies, components), the logarithm of
        N! / A(A+1)…(A+N-1), with factors divided by the same number.
    """
    total = values.sum(axis=0)
    scale = total + step * votes
    asked = (total + step * np.arange(votes)[:, None, None]) / scale
    constant = special.gammaln(votes + 1) - np.log(asked).sum(axis=0)
    return _rising(values, scale, votes, step), constant


def _rising(values, scale, votes, step):
    """a(a+1)…(a+k-1) / k! for k = 0 to N on a new first axis.

    Each factor is divided by `scale`, which is more than all of them: a product of answers has N factors, and
    could be too large for a float.
    """
    terms = np.ones((votes + 1, *values.shape))
    for vote in range(votes):
        np.multiply(terms[vote], (values + step * vote) / (scale * (vote + 1)), out=terms[vote + 1])
    return terms


@cache
def _compositions(votes, answers):
    """All ways to share out votes among answers, (ways, answers)."""
    if answers == 1:
        return np.array([[votes]])
    ways = [
        np.insert(_compositions(votes - first, answers - 1), 0, first, axis=1) for first in range(votes + 1)
    ]
    return np.concatenate(ways)


def _products(terms, votes):
    """Products of the terms of some answers, for all ways to share out votes among them."""
    ways = _compositions(votes, len(terms))
    found = terms[0][ways[:, 0]]
    for answer in range(1, len(terms)):
        found = found * terms[answer][ways[:, answer]]
    return found


def _simulated(values, votes, step, weights, per_sample, generator):
    """Information of one galaxy from simulated votes, and its standard error.

    Args:
        values: (answers, components).
        votes, step, per_sample: as for `information_of_votes`.
        weights: (components,).
        generator: a numpy `Generator`.
    """
    terms, constant = _terms(values[:, None], votes, step)
    with np.errstate(divide="ignore"):
        # (answers, N + 1, components) and (components,)
        logs, shared = np.log(terms[:, :, 0].swapaxes(0, 1)), (constant[0] + np.log(weights))
    ends = weights.cumsum()
    gains = []
    while len(gains) < 2 or np.std(gains) > ERROR * np.sqrt(np.size(gains)):
        # Equally spaced, so that each round has the components in proportion to their weights.
        places = (np.arange(DRAWS) + generator.random(DRAWS)) / DRAWS * ends[-1]
        drawn = np.minimum(np.searchsorted(ends, places, side="right"), len(weights) - 1)
        found = _urn(values[:, drawn], votes, step, generator)
        chances = sum(of_answer[count] for of_answer, count in zip(logs, found, strict=True)) + shared
        by_sample = special.logsumexp(chances.reshape(DRAWS, -1, per_sample), axis=2)
        sizes = np.log(weights.reshape(-1, per_sample).sum(axis=1))
        own = (by_sample - sizes)[np.arange(DRAWS), drawn // per_sample]
        gains.append(own - special.logsumexp(by_sample, axis=1))
    return np.mean(gains), np.std(gains) / np.sqrt(np.size(gains))


def _urn(values, votes, step, generator):
    """Draw votes one by one, each with what the votes before it add (Polya's urn); (answers, draws)."""
    held, counts = values.copy(), np.zeros(values.shape, int)
    every = np.arange(values.shape[1])
    for _ in range(votes):
        ends = held.cumsum(axis=0)
        answer = (ends[:-1] <= generator.random(len(every)) * ends[-1]).sum(axis=0)
        counts[answer, every] += 1
        held[answer, every] += step
    return counts
