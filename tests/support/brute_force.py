"""Probabilities and entropies of all results that the votes on a question can have, by SciPy."""

import itertools

import numpy as np
from scipy import special, stats


def results_of(votes, answers):
    """All results of the votes, (results, answers)."""
    every = itertools.product(range(votes + 1), repeat=answers)
    return np.array([counts for counts in every if sum(counts) == votes])


def chances_of(values, votes, kind="concentrations"):
    """Probability of each result by each component, (results, components), from (answers, components)."""
    results, answers = results_of(votes, len(values)), values.T
    if kind == "probabilities":
        return np.stack([stats.multinomial(votes, p / p.sum()).pmf(results) for p in answers], axis=1)
    return np.stack([stats.dirichlet_multinomial(a, votes).pmf(results) for a in answers], axis=1)


def entropy(chances):
    """Entropy of the results for each component, in nats."""
    return special.entr(chances).sum(axis=0)


def information(values, votes, kind="concentrations", weights=None, per_sample=1):
    """Mutual information between the votes and the sample: entropy of the mean minus mean entropy."""
    chances = chances_of(values, votes, kind)
    weights = np.full(values.shape[1], 1 / values.shape[1]) if weights is None else weights
    of_samples = (chances * weights).reshape(len(chances), -1, per_sample).sum(axis=2)
    sizes = weights.reshape(-1, per_sample).sum(axis=1)
    return entropy(of_samples.sum(axis=1)) - (sizes * entropy(of_samples / sizes)).sum()
