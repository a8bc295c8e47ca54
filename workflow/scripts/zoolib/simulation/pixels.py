"""A logistic regression on 16 x 16 grey pixels: it sees size and brightness, but hardly any structure."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from zoolib.scores.baselines import LOG_CONCENTRATIONS

# Weight of the squared coefficients of each answer, beside the mean loss of a vote.
PENALTY = 0.1


def grey_pixels(images, edge=16):
    """Reduce images to a few grey pixels, each the mean of a block.

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


def pixel_concentrations(tree, pixels, votes, others, penalty=PENALTY):
    """Concentrations by logistic regression on pixels, fitted to votes.

    For each question the regression gives answer probabilities. One strength for the question then turns
    them into the concentrations that make the training votes most likely.

    Args:
        tree: a `DecisionTree`.
        pixels: (galaxies, features) of the training galaxies.
        votes: (galaxies, answers), their votes.
        others: (others, features), the galaxies to predict.
        penalty: weight of the squared coefficients beside the mean loss of a vote.

    Returns:
        (others, answers), > 0; all 1 for a question that nobody was asked.
    """
    votes = np.asarray(votes, float)
    found = np.ones((len(others), votes.shape[1]))
    for question in tree.questions:
        counted = votes[:, question.slice]
        asked = counted.sum(1) > 0
        if not asked.any():
            continue
        regression = _fit_regression(pixels[asked], counted[asked], penalty)
        strength = _fit_strength(regression.predict_proba(pixels[asked]), counted[asked])
        found[:, question.slice] = np.maximum(strength * regression.predict_proba(others), 1e-3)
    return found


def pixel_labels(pixels, labels, others, penalty=PENALTY):
    """Probabilities of a binary label by logistic regression on pixels.

    Args:
        pixels: (galaxies, features) of the labelled galaxies.
        labels: (galaxies,), 0 or 1.
        others: (others, features), the galaxies to predict.
        penalty: weight of the squared coefficients beside the mean loss of a label.

    Returns:
        (others,) probability of label 1.
    """
    # A label is one vote.
    votes = np.eye(2)[np.asarray(labels, int)]
    return _fit_regression(pixels, votes, penalty).predict_proba(others)[:, 1]


def _fit_regression(pixels, votes, penalty):
    """Fit a logistic regression to votes: each answer of a galaxy is a row with its votes as weight."""
    weighted = votes > 0
    # An answer that nobody gave needs one row too, or it would have no probability.
    weighted[0] |= ~weighted.any(axis=0)
    rows, answers = np.nonzero(weighted)
    # For two answers scikit-learn fits one set of coefficients w instead of two sets, w/2 and -w/2, whose
    # squares add up to half as much.
    penalty = penalty / 2 if votes.shape[1] == 2 else penalty
    # It minimises C times the summed loss plus half the squared coefficients.
    regression = LogisticRegression(C=1 / (2 * penalty * votes.sum()))
    model = make_pipeline(StandardScaler(), regression)
    return model.fit(pixels[rows], answers, logisticregression__sample_weight=votes[rows, answers])


def _fit_strength(probabilities, votes):
    total = votes.sum(1)

    def loss(log):
        alpha = np.maximum(np.exp(log[0]) * probabilities, 1e-9)
        strength = alpha.sum(1)
        value = (gammaln(strength + total) - gammaln(strength)).sum()
        return (value - (gammaln(alpha + votes) - gammaln(alpha)).sum()) / len(votes)

    return np.exp(minimize(loss, [1.5], method="L-BFGS-B", bounds=[LOG_CONCENTRATIONS]).x[0])
