"""What posteriors say about a galaxy: equal mixtures of Dirichlets, one per posterior sample.

A model gives every galaxy several samples (members, views, dropout draws) of the concentrations of
each question's answers. Nothing here needs TensorFlow.
"""

import numpy as np
import pandas as pd
from scipy import special

from zoolib.trees import DecisionTree

# Interval ends are bracketed to this share of the volunteers.
TOLERANCE = 1e-4


def expected_fractions(concentrations):
    """Mean posterior vote fraction of each answer.

    The mean of a Dirichlet is α / Σα; an equal mixture of them has the mean of the means
    (Walmsley et al. 2022, section 5.1).

    Args:
        concentrations: (galaxies, answers, samples), the answers of one question, > 0.

    Returns:
        (galaxies, answers), each row sums to 1.
    """
    return (concentrations / concentrations.sum(axis=1, keepdims=True)).mean(axis=2)


def mean_fractions(concentrations, tree):
    """Mean posterior vote fraction of each answer of a tree.

    Args:
        concentrations: (galaxies, answers of all questions, samples), > 0.
        tree: a `DecisionTree`.

    Returns:
        (galaxies, answers of all questions), float64; those of one question sum to 1.
    """
    concentrations = np.asarray(concentrations, dtype=float)
    fractions = [expected_fractions(concentrations[:, question.slice]) for question in tree.questions]
    return np.concatenate(fractions, axis=1)


def probability_asked(fractions, tree):
    """The share of volunteers that a question reaches.

    A question is reached by way of one of the answers that lead to it, and each of those by way of
    its own question: a product up the tree, summed over the answers that lead to the same question.
    With one parent a question it is the `proportion_volunteers_asked` of Walmsley et al. 2022.

    Args:
        fractions: (galaxies, answers of all questions), expected vote fractions.
        tree: a `DecisionTree`.

    Returns:
        (galaxies, questions), 1 for questions that everybody is asked.
    """
    owner = {column: question for question in tree.questions for column in question.columns}
    position = {column: index for index, column in enumerate(tree.columns)}
    found = {}

    def asked(question):
        if question.name not in found:
            ways = [asked(owner[column]) * fractions[:, position[column]] for column in question.after]
            found[question.name] = np.minimum(sum(ways), 1.0) if ways else np.ones(len(fractions))
        return found[question.name]

    return np.stack([asked(question) for question in tree.questions], axis=1)


def entropies(fractions, tree):
    """Entropy of the expected vote fractions of each question: how undecided the answer is.

    Args:
        fractions: (galaxies, answers of all questions).
        tree: a `DecisionTree`.

    Returns:
        (galaxies, questions) in nats, from 0 to the logarithm of the number of answers.
    """
    terms = special.entr(fractions)
    return np.stack([terms[:, question.slice].sum(axis=1) for question in tree.questions], axis=1)


def credible_intervals(concentrations, tree, level):
    """Exact central credible interval of the vote fraction of each answer.

    The marginal of a Dirichlet is Beta(α, Σα - α), so that of a mixture is a mixture of Betas.

    Args:
        concentrations: (galaxies, answers of all questions, samples), > 0.
        tree: a `DecisionTree`.
        level: mass of the interval, between 0 and 1; as much lies below it as above.

    Returns:
        Two arrays (galaxies, answers of all questions), the lower and the upper ends.
    """
    chosen = np.asarray(concentrations, dtype=float)
    others = np.empty_like(chosen)
    for question in tree.questions:
        of_question = chosen[:, question.slice]
        others[:, question.slice] = of_question.sum(axis=1, keepdims=True) - of_question
    flat_shape = (-1, chosen.shape[2])
    ends = [
        beta_mixture_quantile(chosen.reshape(flat_shape), others.reshape(flat_shape), probability)
        for probability in ((1 - level) / 2, (1 + level) / 2)
    ]
    return tuple(end.reshape(chosen.shape[:2]) for end in ends)


def beta_mixture_quantile(a, b, probability, tolerance=TOLERANCE):
    """Quantile of equal mixtures of Beta distributions.

    Newton's method inside a bracket that always holds the quantile, from the quantile of the Beta
    with the same mean and variance.

    Args:
        a, b: (mixtures, components), the parameters of the components, > 0.
        probability: which quantile, between 0 and 1.
        tolerance: greatest width of the final bracket.

    Returns:
        (mixtures,), each closer to the quantile than `tolerance`.
    """
    low, low_excess = np.zeros(len(a)), np.full(len(a), -probability)
    high, high_excess = np.ones(len(a)), np.full(len(a), 1 - probability)
    log_beta = special.betaln(a, b)
    active = np.arange(len(a))
    guess = np.clip(special.betaincinv(*_matched_beta(a, b), probability), tolerance / 2, 1 - tolerance / 2)
    rounds = 0
    while len(active):
        rounds += 1
        column = guess[:, None]
        excess = special.betainc(a, b, column).mean(axis=1) - probability
        below = excess < 0
        low[active[below]], low_excess[active[below]] = guess[below], excess[below]
        high[active[~below]], high_excess[active[~below]] = guess[~below], excess[~below]

        going_on = high[active] - low[active] > tolerance
        active, excess, column = active[going_on], excess[going_on], column[going_on]
        a, b, log_beta = a[going_on], b[going_on], log_beta[going_on]
        guess, below = guess[going_on], below[going_on]
        with np.errstate(all="ignore"):
            log_density = (a - 1) * np.log(column) + (b - 1) * np.log1p(-column) - log_beta
            newton = guess - excess / np.exp(log_density).mean(axis=1)
        # A little too far, so that the next round closes the bracket from the other side.
        newton += np.where(below, 0.45, -0.45) * tolerance
        inside = (newton > low[active]) & (newton < high[active])
        # Halving the bracket now and then bounds the number of rounds whatever the mixture.
        halved = (low[active] + high[active]) / 2
        guess = np.where(inside & (rounds % 4 != 0), newton, halved)
    return low - low_excess * (high - low) / (high_excess - low_excess)


def _matched_beta(a, b):
    """Parameters of the Beta with the mean and the variance of an equal mixture of Betas."""
    total = a + b
    means = a / total
    mean = means.mean(axis=1)
    variance = (means * (1 - means) / (total + 1) + means**2).mean(axis=1) - mean**2
    matched = np.maximum(mean * (1 - mean) / variance - 1, 1e-3)
    return mean * matched, (1 - mean) * matched


def log_predictive(votes, concentrations):
    """Log probability of the votes on one question, given the posterior and the number of votes.

    The votes follow an equal mixture of Dirichlet-multinomials, coefficient included (Walmsley et
    al. 2022, equation 6 and section 5.1). Where nobody voted it is exactly 0.

    Args:
        votes: (galaxies, answers), whole numbers >= 0.
        concentrations: (galaxies, answers, samples), > 0.

    Returns:
        (galaxies,), in nats.
    """
    votes = np.asarray(votes, dtype=float)
    concentrations = np.asarray(concentrations, dtype=float)
    total = votes.sum(axis=1)
    coefficient = special.gammaln(total + 1) - special.gammaln(votes + 1).sum(axis=1)
    answered = special.gammaln(concentrations + votes[:, :, None]) - special.gammaln(concentrations)
    sums = concentrations.sum(axis=1)
    asked = special.gammaln(sums + total[:, None]) - special.gammaln(sums)
    of_samples = answered.sum(axis=1) - asked
    mixture = special.logsumexp(of_samples, axis=1) - np.log(of_samples.shape[1])
    return np.where(total > 0, coefficient + mixture, 0.0)


def describe(id_str, values, about, credible_level):
    """Describe posteriors in a flat table, one row a galaxy.

    Concentrations give, for each answer, `{answer}_fraction`, `{answer}_low` and `{answer}_high`
    (expected vote fraction and exact central credible interval), for each question
    `{question}_asked` (share of volunteers it reaches) and `{question}_entropy` (nats).
    Probabilities give `{label}`, `{label}_low` and `{label}_high`: mean and quantiles of the samples.

    Args:
        id_str: (galaxies,) names.
        values: (galaxies, answers, samples).
        about: attributes kind (`concentrations` or e.g. `probabilities`), tree (a `DecisionTree`, its
            plain values, or None for labels) and columns (names of the answers).
        credible_level: mass of the intervals, between 0 and 1.

    Returns:
        pandas.DataFrame: id_str, then float32 columns.
    """
    if about.kind == "concentrations":
        tree = DecisionTree.from_dict(about.tree) if isinstance(about.tree, dict) else about.tree
        fractions = mean_fractions(values, tree)
        low, high = credible_intervals(values, tree, credible_level)
        of_questions = (probability_asked(fractions, tree), entropies(fractions, tree))
        names = [f"{answer}{end}" for answer in about.columns for end in ("_fraction", "_low", "_high")]
        names += [f"{question.name}{end}" for question in tree.questions for end in ("_asked", "_entropy")]
    else:
        fractions = np.mean(values, axis=2)
        low, high = np.quantile(values, [(1 - credible_level) / 2, (1 + credible_level) / 2], axis=2)
        of_questions = ()
        names = [f"{label}{end}" for label in about.columns for end in ("", "_low", "_high")]
    blocks = [np.stack([fractions, low, high], axis=2)]
    blocks += [np.stack(of_questions, axis=2)] if of_questions else []
    columns = np.concatenate(
        [block.reshape(len(values), np.prod(block.shape[1:])) for block in blocks], axis=1
    )
    table = pd.DataFrame(columns.astype(np.float32), columns=names)
    table.insert(0, "id_str", np.asarray(id_str, dtype=str))
    return table
