"""What a model is held against: the best constant, the true probabilities, and plain pixels.

All losses are those of training: negative log likelihoods in nats with the multinomial
coefficient, summed over questions (Walmsley et al. 2022, arXiv:2102.08414, equations 6 and 7).
The numbers come from scipy in double precision: the loss that models are trained with has no part in
them.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln, logsumexp

# Concentrations outside are as good as a certain, or as an impossible, answer.
LOG_CONCENTRATIONS = (-7.0, 9.0)


def votes_losses(tree, votes, concentrations):
    """Negative log likelihood of votes under a Dirichlet-multinomial for every question.

    Walmsley et al. 2022, equation 6. A question that nobody was asked contributes 0.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers), whole numbers >= 0.
        concentrations: (galaxies, answers), or (answers,) for all galaxies alike, > 0.

    Returns:
        (galaxies,), in nats.
    """
    votes = np.asarray(votes, float)
    concentrations = np.broadcast_to(np.asarray(concentrations, float), votes.shape)
    losses = np.zeros(len(votes))
    for question in tree.questions:
        counted, alpha = votes[:, question.slice], concentrations[:, question.slice]
        total, strength = counted.sum(1), alpha.sum(1)
        losses += gammaln(strength + total) - gammaln(strength)
        losses -= (gammaln(alpha + counted) - gammaln(alpha)).sum(1)
        losses -= gammaln(1 + total) - gammaln(1 + counted).sum(1)
    return losses


def truth_losses(tree, votes, probabilities):
    """Negative log likelihood of votes under known answer probabilities: a multinomial a question.

    No model can be better on average, for the votes were drawn from just these.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers), whole numbers >= 0.
        probabilities: (galaxies, answers), each question's sum to 1.

    Returns:
        (galaxies,), in nats.
    """
    votes, probabilities = np.asarray(votes, float), np.asarray(probabilities, float)
    losses = -(votes * np.log(probabilities)).sum(1)
    for question in tree.questions:
        counted = votes[:, question.slice]
        losses -= gammaln(1 + counted.sum(1)) - gammaln(1 + counted).sum(1)
    return losses


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


def grey_pixels(images, edge=16):
    """Images as a few grey pixels, each the mean of a block.

    Args:
        images: (galaxies, height, width) or (galaxies, height, width, channels).
        edge: pixels along each side of the result; sides that it does not divide lose their rim.

    Returns:
        (galaxies, edge * edge), float64.
    """
    images = np.asarray(images)
    if images.ndim == 4:
        images = images.mean(-1)
    blocks = [side // edge for side in images.shape[1:]]
    rims = [(side - block * edge) // 2 for side, block in zip(images.shape[1:], blocks, strict=True)]
    height, width = (slice(rim, rim + block * edge) for rim, block in zip(rims, blocks, strict=True))
    shape = (len(images), edge, blocks[0], edge, blocks[1])
    return images[:, height, width].reshape(shape).mean((2, 4)).reshape(len(images), -1)


def pixel_concentrations(tree, pixels, votes, others, penalty=0.1):
    """Concentrations by logistic regression on pixels: what brightness alone gives away.

    For each question a softmax of a linear function of the standardised pixels, fitted to the
    votes; a single strength a question then turns the probabilities into the concentrations that
    make the training votes most likely.

    Args:
        tree: a `DecisionTree`.
        pixels: (galaxies, features) of the training galaxies.
        votes: (galaxies, answers), their votes.
        others: (others, features), the galaxies to predict.
        penalty: weight of the squared coefficients beside the mean loss of a vote.

    Returns:
        (others, answers), > 0.
    """
    mean, spread = pixels.mean(0), pixels.std(0) + 1e-9
    inside = np.column_stack([np.ones(len(pixels)), (pixels - mean) / spread])
    outside = np.column_stack([np.ones(len(others)), (others - mean) / spread])
    votes = np.asarray(votes, float)
    found = np.ones((len(others), votes.shape[1]))
    for question in tree.questions:
        counted = votes[:, question.slice]
        asked = counted.sum(1) > 0
        if not asked.any():
            continue
        weights = _fit_softmax(inside[asked], counted[asked], penalty)
        strength = _fit_strength(_softmax(inside[asked] @ weights), counted[asked])
        found[:, question.slice] = np.maximum(strength * _softmax(outside @ weights), 1e-3)
    return found


def pixel_labels(pixels, labels, others, penalty=0.1):
    """Binary labels by logistic regression on pixels.

    Args:
        pixels: (galaxies, features) of the labelled galaxies.
        labels: (galaxies,), 0 or 1.
        others: (others, features), the galaxies to predict.
        penalty: weight of the squared coefficients beside the mean loss.

    Returns:
        (others,) probability of label 1.
    """
    mean, spread = pixels.mean(0), pixels.std(0) + 1e-9
    inside = np.column_stack([np.ones(len(pixels)), (pixels - mean) / spread])
    outside = np.column_stack([np.ones(len(others)), (others - mean) / spread])
    weights = _fit_softmax(inside, np.eye(2)[np.asarray(labels, int)], penalty)
    return _softmax(outside @ weights)[:, 1]


def _softmax(scores):
    return np.exp(scores - logsumexp(scores, axis=1, keepdims=True))


def _fit_softmax(features, votes, penalty):
    shape = (features.shape[1], votes.shape[1])
    count = votes.sum()

    def loss(flat):
        weights = flat.reshape(shape)
        scores = features @ weights
        logs = scores - logsumexp(scores, axis=1, keepdims=True)
        slope = features.T @ (np.exp(logs) * votes.sum(1, keepdims=True) - votes) / count
        # The first row is the intercept, which is free.
        slope[1:] += 2 * penalty * weights[1:]
        value = -(votes * logs).sum() / count + penalty * (weights[1:] ** 2).sum()
        return value, slope.ravel()

    start = np.zeros(shape).ravel()
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x.reshape(shape)


def _fit_strength(probabilities, votes):
    total = votes.sum(1)

    def loss(log):
        alpha = np.maximum(np.exp(log[0]) * probabilities, 1e-9)
        strength = alpha.sum(1)
        value = (gammaln(strength + total) - gammaln(strength)).sum()
        return (value - (gammaln(alpha + votes) - gammaln(alpha)).sum()) / len(votes)

    return np.exp(minimize(loss, [1.5], method="L-BFGS-B", bounds=[LOG_CONCENTRATIONS]).x[0])


def share_closed(constant, model, truth):
    """How much of the way from the constant predictor's loss to the truth's a model goes.

    Args:
        constant: mean loss of the constant predictor.
        model: mean loss of the model, on the same galaxies.
        truth: mean loss of the true probabilities, on the same galaxies.

    Returns:
        0 for the constant, 1 for the truth.
    """
    return (constant - model) / (constant - truth)
