"""The Dirichlet-multinomial likelihood of volunteers' votes, on any Keras backend.

Every ratio of gamma functions is a rising factorial, Γ(a + k) / Γ(a). Written as a difference of
log-gammas it loses all its digits for large `a` in float32; here the Stirling series of both ends
are subtracted on paper, so that only small terms are left to compute.
"""

import keras
from keras import ops

# The Stirling series is used from here on; below, the recurrence Γ(a + 1) = a Γ(a) leads up to it.
STIRLING_FROM = 8


def log_rising_factorial(start, steps):
    """Log Γ(start + steps) - log Γ(start), accurate in float32 from 1e-2 to 1e5.

    Abramowitz & Stegun 6.1.40 for Γ(start + 8), 6.1.15 for the way there.

    Args:
        start: any shape, > 0.
        steps: the same shape, >= 0; 0 gives exactly 0, and a gradient of exactly 0.

    Returns:
        The same shape.
    """
    low = start + STIRLING_FROM
    high = low + steps
    climbed = sum(ops.log1p(steps / (start + step)) for step in range(STIRLING_FROM))
    stirling = (low - 0.5) * ops.log1p(steps / low) + steps * ops.log(high) - steps
    return stirling + _stirling_tail(high) - _stirling_tail(low) - climbed


def _stirling_tail(x):
    inverse = 1.0 / x
    return inverse * (1 / 12 - inverse * inverse * (1 / 360 - inverse * inverse / 1260))


def dirichlet_multinomial_loss(votes, concentrations):
    """Negative log likelihood of the votes on one question, multinomial coefficient included.

    Walmsley et al. 2022 (arXiv:2102.08414), equation 6. A question that nobody was asked
    contributes exactly 0 and a gradient of exactly 0.

    Args:
        votes: (galaxies, answers), whole numbers >= 0.
        concentrations: (galaxies, answers), > 0.

    Returns:
        (galaxies,), in nats, float32.
    """
    votes = ops.cast(votes, "float32")
    concentrations = ops.cast(concentrations, "float32")
    total = ops.sum(votes, axis=-1)
    coefficient = log_rising_factorial(ops.ones_like(total), total) - ops.sum(
        log_rising_factorial(ops.ones_like(votes), votes), axis=-1
    )
    answered = ops.sum(log_rising_factorial(concentrations, votes), axis=-1)
    asked = log_rising_factorial(ops.sum(concentrations, axis=-1), total)
    return asked - answered - coefficient


def question_losses(tree, votes, concentrations):
    """Losses of every question of a tree.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers of all questions).
        concentrations: (galaxies, answers of all questions).

    Returns:
        (galaxies, questions), in nats.
    """
    losses = [
        dirichlet_multinomial_loss(votes[:, question.slice], concentrations[:, question.slice])
        for question in tree.questions
    ]
    return ops.stack(losses, axis=-1)


class TreeLoss(keras.losses.Loss):
    """The training loss: summed over questions, mean over galaxies (Walmsley et al. 2022, eq. 7).

    Args:
        tree: a `DecisionTree`, in the order of the model's outputs.
    """

    def __init__(self, tree):
        super().__init__(name="tree_loss", reduction="sum_over_batch_size")
        self.tree = tree

    def call(self, votes, concentrations):
        """Return the loss of each galaxy, (galaxies,) in nats."""
        return ops.sum(question_losses(self.tree, votes, concentrations), axis=-1)
