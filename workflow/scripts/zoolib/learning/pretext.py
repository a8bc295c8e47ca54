"""Learning from images beside the votes: two views of a galaxy should look the same to a backbone.

This is VICReg (Bardes, Ponce & LeCun 2022, arXiv:2105.04906) together with the votes; Walmsley et al. 2022
(arXiv:2206.11927) learned from both with another loss. Layers on top of the backbone, which are not kept,
project both views. The projections of a galaxy should agree (invariance); those of different galaxies should
differ (variance), each number in its own way (covariance).
"""

import keras
import tensorflow as tf
from keras import layers, ops

from zoolib.job.logs import UserError
from zoolib.learning import datasets
from zoolib.learning.likelihood import QuestionLosses

# Numbers of a projection, and of the layers before it.
WIDTH = 256
# The paper's weights.
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
# What this loss counts beside that of the votes.
BESIDE_VOTES = 0.3
# Keeps the gradient of a standard deviation finite.
SMALLEST = 1e-4


def validation_views(store, augmentation, batch_size, seed, shares):
    """Two views of each validation galaxy, the same in every epoch.

    Args:
        store: the galaxies.
        augmentation: {"name", "steps"} of the training.
        batch_size: galaxies in a batch; batches are a little smaller, so that nearly all galaxies are used.
        seed: of the training.
        shares: devices that share a batch.

    Returns:
        A dataset of (images, votes).

    Raises:
        UserError: a device would have fewer than two galaxies to compare, or both views would be the same.
    """
    if not augmentation["steps"]:
        raise UserError(
            "train.augmentation has no steps, so the two views of a galaxy would be the same, and"
            " train.ensembles[].pretext would learn nothing; choose another augmentation."
        )
    least = 2 * shares
    if min(batch_size, store.count) < least:
        raise UserError(
            f"train.ensembles[].pretext compares galaxies with each other: train.batch_size is {batch_size},"
            f" and {store.count} galaxies decide when training stops, expected {least} or more of both (2 for"
            " each GPU); select more galaxies, increase train.batch_size or use fewer GPUs."
        )
    steps = -(-store.count // batch_size)
    batch = max(store.count // steps // shares * shares, least)
    views, steps = datasets.training_batches(store, augmentation, batch, seed, range(1), shuffle=1, views=2)
    return views.apply(tf.data.experimental.assert_cardinality(steps))


def with_projections(network):
    """A network to train: the answers, and after them the projections.

    Args:
        network: from `models.join`; its layers are those that are trained.

    Returns:
        keras.Model, images -> (galaxies, answers + WIDTH), float32.
    """
    inputs = keras.Input(network.input_shape[1:], name="image")
    x = features = network.get_layer("backbone")(inputs)
    for _ in range(2):
        x = layers.Dense(WIDTH, use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    projections = layers.Dense(WIDTH, use_bias=False, dtype="float32", name="projections")(x)
    answers = network.get_layer("head")(features)
    return keras.Model(inputs, layers.Concatenate(dtype="float32")([answers, projections]), name="views")


def vicreg(projections):
    """The loss of pairs of views.

    Args:
        projections: (2 * galaxies, numbers); the views of a galaxy follow each other. 2 galaxies or more.

    Returns:
        A scalar, float32.
    """
    pairs = ops.reshape(projections, (-1, 2, projections.shape[-1]))
    loss = INVARIANCE * ops.mean(ops.square(pairs[:, 0] - pairs[:, 1]))
    for view in range(2):
        away = pairs[:, view] - ops.mean(pairs[:, view], axis=0)
        others = ops.cast(ops.shape(away)[0] - 1, away.dtype)
        covariance = ops.matmul(ops.transpose(away), away) / others
        variances = ops.diagonal(covariance)
        spread = ops.mean(ops.relu(1.0 - ops.sqrt(variances + SMALLEST)))
        together = (ops.sum(ops.square(covariance)) - ops.sum(ops.square(variances))) / covariance.shape[0]
        loss = loss + VARIANCE * spread / 2 + COVARIANCE * together
    return loss


def views_loss(votes, outputs):
    """The loss of the views as that of each of them, (2 * galaxies,): a metric beside the votes."""
    return ops.zeros_like(outputs[:, 0]) + vicreg(outputs[:, -WIDTH:])


class ViewsLoss(keras.losses.Loss):
    """The loss of the votes, and of pairs of views.

    Args:
        of_votes: a `likelihood.TreeLoss`.
    """

    def __init__(self, of_votes):
        super().__init__(name="views_loss", reduction="sum_over_batch_size")
        self.of_votes = of_votes

    def call(self, votes, outputs):
        """Return the loss of each view, (2 * galaxies,); that of the pairs is the same for all of them."""
        of_votes = self.of_votes.call(votes, outputs[:, :-WIDTH])
        return of_votes + BESIDE_VOTES * views_loss(votes, outputs)


class AnswersLosses(QuestionLosses):
    """The losses of the questions, where projections follow the answers."""

    def update_state(self, votes, outputs, sample_weight=None):
        """Add a batch."""
        super().update_state(votes, outputs[:, :-WIDTH], sample_weight)
