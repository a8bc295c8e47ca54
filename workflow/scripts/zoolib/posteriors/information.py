"""Predictive probabilities of votes, and the information that a model would get from them."""

import hashlib
from functools import partial

import numpy as np
from scipy import special

from zoolib.config.questions import SMALLEST_PROBABILITY, featured_answers
from zoolib.posteriors.intervals import marginals
from zoolib.posteriors.summary import mean_fractions, probability_asked
from zoolib.posteriors.vote_entropy import information_of_votes

# Number of volunteers whose votes are to inform: about as many as a new galaxy gets first.
VOTES = 10
# As many as Galaxy Zoo showed the galaxies that its acquisition chose (Walmsley et al. 2022, section 3.1).
SHOWN = 40


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


def joint_information(values, tree, names, kind="concentrations", weights=None, per_sample=1, seed=0):
    """Mutual information between the model and the votes that a galaxy would get, question by question.

    For each question it is the entropy of the predictive distribution of its votes, all answers together,
    minus the mean entropy of the distributions of the samples (BALD: Houlsby et al. 2011,
    https://arxiv.org/abs/1112.5745). It is large where the samples are sure but disagree. It is zero where
    they agree, even if all are unsure. N is `VOTES` times the share of the volunteers who would be asked the
    question, rounded; so a question that few would be asked counts little or nothing.

    Args:
        values: (galaxies, answers of all questions, components); one sample has no information.
        tree: a `DecisionTree`.
        names: (galaxies,) id_str; with the seed they say how the information is simulated that is not exact.
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, questions, components), as for `vote_probabilities`.
        per_sample: components of one sample; they are neighbours.
        seed: of the run.

    Returns:
        (galaxies, questions) information in nats, >= 0, and its standard errors, at most
        `vote_entropy.ERROR`, and 0 where it is exact.
    """
    asked = probability_asked(mean_fractions(values, tree, weights), tree)
    votes = np.floor(VOTES * asked + 0.5).astype(int)
    found, errors = np.zeros((2, *votes.shape))
    for number, question in enumerate(tree.questions):
        for total in set(votes[:, number]) - {0}:
            rows = np.flatnonzero(votes[:, number] == total)
            chosen = None if weights is None else weights[rows, number]
            generator = partial(_generator, names[rows], question.name, seed)
            step = int(kind == "concentrations")
            of_question = values[rows, question.slice], total, step, generator, chosen, per_sample
            found[rows, number], errors[rows, number] = information_of_votes(*of_question)
    return found, errors


def featured_information(values, tree, kind="concentrations", weights=None, per_sample=1):
    """Mutual information between the model and the votes for "featured" in the tree's first question.

    This is equation 3 of Walmsley et al. 2022: N = `SHOWN` volunteers, votes for an artifact left out. The
    network of the paper gave a probability, so its votes were binomial; those of a Dirichlet are
    beta-binomial.

    Args:
        values, kind, weights, per_sample: as for `joint_information`.
        tree: a `DecisionTree`; in a union of trees the first question of the first one counts.

    Returns:
        (galaxies,) in nats, >= 0.

    Raises:
        UserError: the first question does not ask whether a galaxy has features.
    """
    featured, smooth = featured_answers(tree.questions[0])
    pair = np.stack([values[:, featured], values[:, smooth].sum(axis=1)], axis=1)
    # Where no other votes are expected, a softmax may round to 0.
    pair = pair if kind == "concentrations" else np.maximum(pair, SMALLEST_PROBABILITY)
    of_first = None if weights is None else weights[:, 0]
    step = int(kind == "concentrations")
    return information_of_votes(pair, SHOWN, step, None, of_first, per_sample)[0]


def label_information(values, labels=None):
    """Mutual information between a finetuned model and one more label of each kind for a galaxy.

    Args:
        values: (galaxies, outputs, samples), probabilities.
        labels: a list of `Label`, whose outputs the values are; None takes each output for a yes-no question.

    Returns:
        (galaxies, labels) in nats, >= 0.
    """
    counts = [len(label.outputs) for label in labels] if labels else [1] * values.shape[1]
    found = []
    for of_label in np.split(values, np.cumsum(counts)[:-1], axis=1):
        if of_label.shape[1] == 1:
            # A softmax may round to a little more than 1.
            of_label = np.concatenate([of_label, np.maximum(1 - of_label, 0)], axis=1)
        found.append(information_of_votes(of_label, 1, 0, None)[0])
    return np.stack(found, axis=1)


def number_information(values, noise):
    """Mutual information between a finetuned model and one more measurement of a number for a galaxy.

    For Gaussians it is half the logarithm of the total variance over the variance that remains if the model
    is known: the samples disagree by the first, and the residuals of validation galaxies scatter by the
    second (MacKay 1992, https://doi.org/10.1162/neco.1992.4.4.590).

    Args:
        values: (galaxies, 1, samples), numbers as the model draws them.
        noise: residual variance; NaN if it is not known.

    Returns:
        (galaxies, 1) in nats, >= 0; NaN where the noise is not known, or is 0.
    """
    if not noise > 0:
        return np.full((len(values), 1), np.nan)
    return np.log1p(values.var(axis=2) / noise) / 2


def _generator(names, question, seed, place):
    """Random numbers that depend on the galaxy and the question, not on the galaxies beside it."""
    digest = hashlib.sha256(f"{names[place]}\0{question}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:16])])


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
