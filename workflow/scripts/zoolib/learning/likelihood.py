"""The likelihood of volunteers' votes on any Keras backend: Dirichlet-multinomial, a mixture, or multinomial.

Every ratio of gamma functions is a rising factorial, Γ(a + k) / Γ(a). As a difference of log-gammas it
loses all its digits for large `a` in float32. Here the Stirling series of both log-gammas are subtracted on
paper, and only small terms are left to compute.
"""

import math

import keras
from keras import ops

from zoolib.config.questions import SMALLEST_PROBABILITY

# The Stirling series is used from this number on; below it, the recurrence Γ(a + 1) = a Γ(a) leads up to it.
STIRLING_FROM = 8


def log_rising_factorial(start, steps):
    """Log Γ(start + steps) - log Γ(start), accurate in float32 from 1e-2 to 1e5.

    Abramowitz & Stegun 6.1.40 for Γ(start + 8), and 6.1.15 to get from Γ(start) to it.

    Args:
        start: any shape, > 0.
        steps: a shape that broadcasts with it, >= 0; 0 gives exactly 0, and a gradient of exactly 0.

    Returns:
        The shape of both together.
    """
    low = start + STIRLING_FROM
    high = low + steps
    climbed = sum(ops.log1p(steps / (start + step)) for step in range(STIRLING_FROM))
    stirling = (low - 0.5) * ops.log1p(steps / low) + steps * ops.log(high) - steps
    return stirling + _stirling_tail(high) - _stirling_tail(low) - climbed


def _stirling_tail(x):
    inverse = 1.0 / x
    return inverse * (1 / 12 - inverse * inverse * (1 / 360 - inverse * inverse / 1260))


def _over_answers(values):
    return ops.sum(values, axis=-1)


def dirichlet_multinomial_loss(votes, concentrations, add=_over_answers):
    """Negative log likelihood of the votes on a question, multinomial coefficient included.

    Walmsley et al. 2022 (arXiv:2102.08414), equation 6. A question that nobody was asked
    contributes exactly 0 and a gradient of exactly 0.

    Args:
        votes: (galaxies, answers), whole numbers >= 0.
        concentrations: (galaxies, answers), > 0.
        add: sums over the answers; `question_losses` sums over those of each question.

    Returns:
        (galaxies,), or the shape that `add` gives; in nats, float32.
    """
    votes = ops.cast(votes, "float32")
    concentrations = ops.cast(concentrations, "float32")
    return _loss_of_one_order(votes, concentrations, add) - _log_coefficient(votes, add)


def _loss_of_one_order(votes, concentrations, add):
    """The Dirichlet-multinomial loss without the coefficient: the votes came in one certain order."""
    answered = add(log_rising_factorial(concentrations, votes))
    return log_rising_factorial(add(concentrations), add(votes)) - answered


def dirichlet_mixture_loss(votes, outputs, add=_over_answers):
    """Negative log likelihood -log Σ w DM(votes | α) of the votes on a question, for a mixture of Dirichlets.

    The sum is over the components, each with a weight w and concentrations α; DM is equation 6 of Walmsley
    et al. 2022. A question that nobody was asked contributes exactly 0 and a gradient of exactly 0.

    Args:
        votes: (galaxies, answers), whole numbers >= 0.
        outputs: (galaxies, components * answers + components * questions): the concentrations (> 0),
            component by component, then the logarithms of the weights, also component by component.
        add: sums over the answers; `question_losses` sums over those of each question. Without it there is
            one question.

    Returns:
        (galaxies,), or the shape that `add` gives; in nats, float32.
    """
    votes, outputs = ops.cast(votes, "float32"), ops.cast(outputs, "float32")
    coefficient = _log_coefficient(votes, add)
    answers, questions = votes.shape[-1], coefficient.shape[1:]
    components = outputs.shape[-1] // (answers + math.prod(questions))
    split = components * answers
    concentrations = ops.reshape(outputs[:, :split], (-1, components, answers))
    log_weights = ops.reshape(outputs[:, split:], (-1, components, *questions))
    of_components = _loss_of_one_order(votes[:, None], concentrations, add)
    mixture = ops.logsumexp(log_weights - of_components, axis=1)
    # Without votes the sum over the weights is 1 only up to rounding.
    return ops.where(add(votes) > 0, -mixture - coefficient, 0.0)


def multinomial_loss(votes, probabilities, add=_over_answers):
    """Negative log likelihood of the votes on a question, where each vote is an independent draw.

    A question that nobody was asked contributes exactly 0 and a gradient of exactly 0. A probability
    that underflows counts as 1e-25, and its gradient as 0.

    Args:
        votes: (galaxies, answers), whole numbers >= 0.
        probabilities: (galaxies, answers), >= 0, each row sums to 1.
        add: sums over the answers; `question_losses` sums over those of each question.

    Returns:
        (galaxies,), or the shape that `add` gives; in nats, float32.
    """
    votes = ops.cast(votes, "float32")
    probabilities = ops.maximum(ops.cast(probabilities, "float32"), SMALLEST_PROBABILITY)
    return -add(votes * ops.log(probabilities)) - _log_coefficient(votes, add)


def _log_coefficient(votes, add):
    total = add(votes)
    arrangements = log_rising_factorial(ops.ones_like(total), total)
    return arrangements - add(log_rising_factorial(ops.ones_like(votes), votes))


# The loss for each kind of outputs, see `models.GalaxyModel.kind`.
LOSSES = {
    "concentrations": dirichlet_multinomial_loss,
    "mixtures": dirichlet_mixture_loss,
    "probabilities": multinomial_loss,
}


def question_losses(tree, votes, outputs, kind="concentrations"):
    """Losses of every question of a tree.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers of all questions).
        outputs: the model's, (galaxies, answers of all questions); for `mixtures` see
            `dirichlet_mixture_loss`.
        kind: what the outputs are, a name in `LOSSES`.

    Returns:
        (galaxies, questions), in nats.
    """

    # All answers at once: one question after the other would be ten times as many operations.
    def add(values):
        return ops.stack([ops.sum(values[..., q.slice], axis=-1) for q in tree.questions], axis=-1)

    return LOSSES[kind](votes, outputs, add)


class TreeLoss(keras.losses.Loss):
    """The training loss: summed over questions, mean over galaxies (Walmsley et al. 2022, eq. 7).

    Args:
        tree: a `DecisionTree`, in the order of the model's outputs.
        kind: what the outputs are, a name in `LOSSES`.
    """

    def __init__(self, tree, kind="concentrations"):
        super().__init__(name="tree_loss", reduction="sum_over_batch_size")
        self.tree = tree
        self.kind = kind

    def call(self, votes, outputs):
        """Return the loss of each galaxy, (galaxies,) in nats."""
        return ops.sum(question_losses(self.tree, votes, outputs, self.kind), axis=-1)


class QuestionLosses(keras.metrics.Metric):
    """The loss of each question, for the log: the mean over the galaxies with votes on the question.

    Args:
        tree: a `DecisionTree`, in the order of the model's outputs.
        kind: what the outputs are, a name in `LOSSES`.
    """

    def __init__(self, tree, kind="concentrations"):
        super().__init__(name="question_losses")
        self.tree = tree
        self.kind = kind
        shape = (len(tree.questions),)
        self.total = self.add_variable(shape, "zeros", name="total")
        self.asked = self.add_variable(shape, "zeros", name="asked")

    def update_state(self, votes, outputs, sample_weight=None):
        """Add a batch: votes and outputs as in `question_losses`; all galaxies have the same weight."""
        losses = question_losses(self.tree, votes, outputs, self.kind)
        answered = [ops.any(votes[:, question.slice] > 0, axis=-1) for question in self.tree.questions]
        asked = ops.cast(ops.stack(answered, axis=-1), losses.dtype)
        # Where nobody was asked, the loss is 0.
        self.total.assign_add(ops.sum(losses, axis=0))
        self.asked.assign_add(ops.sum(asked, axis=0))

    def result(self):
        """Return {`loss_{question}`: nats a galaxy with votes}; not a number where there are no votes."""
        means = self.total / self.asked
        return {f"loss_{question.name}": means[index] for index, question in enumerate(self.tree.questions)}
