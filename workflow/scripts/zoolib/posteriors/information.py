"""Predictive probabilities of votes, and the information that a model would get from them."""

import numpy as np
from scipy import special

from zoolib.posteriors.intervals import marginals

# Number of votes whose information is computed: about as many as a new galaxy gets first.
VOTES = 10


def vote_probabilities(values, tree, answers, votes, kind="concentrations", weights=None):
    """Predictive probability that k of N votes on its question go to an answer.

    With concentrations this is a mixture of beta-binomials, with probabilities a mixture of binomials: the
    marginals of the predictive distribution of Walmsley et al. 2022, section 5.1.

    Args:
        values: (galaxies, answers of all questions, components).
        tree: a `DecisionTree`.
        answers: column of an answer such as `bar_strong`, or a list of them.
        votes: N, the number of volunteers that are asked the question.
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, questions, components), >= 0, with the sum 1 for each question; None if all
            components are equal.

    Returns:
        (galaxies, N + 1) for one answer, (galaxies, answers, N + 1) for a list, from k = 0 to N; each
        sums to 1 over k.
    """
    chosen = [answers] if isinstance(answers, str) else list(answers)
    index = [tree.columns.index(column) for column in chosen]
    a, b = _of_answers(values, tree, kind)
    found = _of_samples(a[:, index], b[:, index], votes, kind)
    if weights is None:
        found = found.mean(axis=3)
    else:
        owner = np.repeat(np.arange(len(tree.questions)), [len(q.columns) for q in tree.questions])
        found = np.einsum("kgas,gas->kga", found, np.asarray(weights, dtype=float)[:, owner[index]])
    found = found.transpose(1, 2, 0)
    return found[:, 0] if isinstance(answers, str) else found


def information(values, tree, votes=VOTES, kind="concentrations"):
    """Mutual information between the votes that a galaxy would get and the model that predicts them.

    For each answer: the entropy of the predictive distribution of its votes minus the mean entropy of
    the distributions of the samples (BALD: Houlsby et al. 2011, https://arxiv.org/abs/1112.5745). It is
    large where the samples are sure but disagree. It is zero where they agree, even if all are unsure.
    Galaxy Zoo chose the galaxies to show volunteers by the sum over the answers of all questions, each
    counted as if N volunteers were asked it (Walmsley et al. 2020, https://arxiv.org/abs/1905.07424,
    section 4.1, for one question; Walmsley et al. 2022).

    Args:
        values: (galaxies, answers of all questions, samples); one sample has no information.
        tree: a `DecisionTree`, or None for labels; each label is then a yes-no question.
        votes: N.
        kind: what the values are, `concentrations` or `probabilities`.

    Returns:
        (galaxies, answers of all questions or labels) in nats, >= 0.
    """
    a, b = _of_answers(values, tree, kind)
    found = np.empty(values.shape[:2])
    # Answer by answer, because all of them at once do not fit into the cache of a core.
    for answer in range(values.shape[1]):
        of_samples = _of_samples(a[:, answer], b[:, answer], votes, kind)
        of_mixture = special.entr(of_samples.mean(axis=2)).sum(axis=0)
        found[:, answer] = of_mixture - special.entr(of_samples).sum(axis=0).mean(axis=1)
    # Rounding can make the difference of equal samples negative.
    return np.maximum(found, 0)


def _of_answers(values, tree, kind):
    """For each answer, its concentration or probability, and that of all other answers together."""
    if kind == "concentrations":
        return marginals(values, tree)
    values = np.asarray(values, dtype=float)
    # A softmax may round to a little more than 1.
    return values, np.maximum(1 - values, 0)


def _of_samples(a, b, votes, kind):
    """Probability of k votes by each sample, (N + 1, ...): k = 0 to N, then the shape of a and b.

    Beta-binomial: C(N, k) a(a+1)…(a+k-1) b(b+1)…(b+N-k-1) / (a+b)(a+b+1)…(a+b+N-1). Binomial: the same
    without the additions, with a + b = 1. For large concentrations differences of log-gammas lose digits;
    sums of logarithms do not.
    """
    step = 1.0 if kind == "concentrations" else 0.0
    k = np.arange(votes + 1)
    log_chosen, log_others, log_total = np.zeros((3, votes + 1, *a.shape))
    with np.errstate(divide="ignore"):
        for begun, sums in ((a, log_chosen), (b, log_others), (a + b, log_total)):
            for vote in range(votes):
                sums[vote + 1] = sums[vote] + np.log(begun + step * vote)
    log_ways = special.gammaln(votes + 1) - special.gammaln(k + 1) - special.gammaln(votes - k + 1)
    log_chosen += log_others[::-1]
    log_chosen += log_ways.reshape(-1, *(1,) * a.ndim) - log_total[-1]
    return np.exp(log_chosen, out=log_chosen)
