"""The constant predictor: the best single Dirichlet for each question, which has seen votes and no image."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

# Concentrations beyond these stand for an answer that is as good as certain, or as good as impossible.
LOG_CONCENTRATIONS = (-7.0, 9.0)


def constant_concentrations(tree, votes):
    """The best single Dirichlet for each question, by maximum likelihood.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers), the training votes, whole numbers >= 0.

    Returns:
        (answers,) concentrations, > 0; all 1 for a question that nobody was asked.
    """
    votes = np.asarray(votes, float)
    best = np.ones(votes.shape[1])
    for question in tree.questions:
        counted = votes[:, question.slice]
        counted = counted[counted.sum(1) > 0]
        if len(counted):
            best[question.slice] = _fit_dirichlet(counted)
    return best


def _fit_dirichlet(votes):
    total = votes.sum(1)

    def loss(logs):
        alpha = np.exp(logs)
        strength = alpha.sum()
        value = (gammaln(strength + total) - gammaln(strength)).sum()
        value -= (gammaln(alpha + votes) - gammaln(alpha)).sum()
        slope = (digamma(strength + total) - digamma(strength)).sum()
        slope = slope - (digamma(alpha + votes) - digamma(alpha)).sum(0)
        return value / len(votes), alpha * slope / len(votes)

    share = (votes.sum(0) + 0.5) / (votes.sum() + 0.5 * votes.shape[1])
    start = np.clip(np.log(4 * share), *LOG_CONCENTRATIONS)
    bounds = [LOG_CONCENTRATIONS] * votes.shape[1]
    return np.exp(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)
