"""Learning from images without labels: two views of a galaxy should look the same to a backbone.

This is VICReg (Bardes, Ponce & LeCun 2022, arXiv:2105.04906). Layers on top of the backbone, which are not
kept, project both views. The projections of a galaxy should agree (invariance); those of different galaxies
should differ (variance), each number in its own way (covariance).
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from zoolib.data.decoders import limit_pixels
from zoolib.data.listing import count_images, read_images
from zoolib.data.selection import read_pixels
from zoolib.job.logs import UserError, log
from zoolib.job.provenance import hash_of
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
# Of the galaxies of a target, one in so many decides when training stops.
HELD_OUT = 20


def galaxies_of_target(path, image, folder, limits):
    """The galaxies of a target, without votes; every twentieth of them decides when training stops.

    All images are read once before, as those of a task are: a galaxy whose image cannot be read is left out,
    and the log has its name.

    Args:
        path: the list of the target's galaxies (Parquet).
        image: the `image` section of the configuration.
        folder: each image is kept there after its first reading.
        limits: {"max_pixels", "max_rejected"} of the section `shards`.

    Returns:
        (stores to learn from and to validate on, names of their galaxies, hash of names and pixels).

    Raises:
        UserError: there are too few galaxies, or too many images that cannot be read.
    """
    limit_pixels(limits["max_pixels"])
    table = read_images([path], 0, count_images([path]))
    table["pixels"], reasons = read_pixels(table, limits["max_rejected"])
    for name, reason in zip(table["id_str"], reasons, strict=True):
        if reason:
            log.warning("%s is left out: %s", name, reason)
    table = table[reasons == ""].reset_index(drop=True)
    if len(table) < 2 * HELD_OUT:
        raise UserError(
            f"{path}: has {len(table)} galaxies whose images can be read, expected {2 * HELD_OUT} or more to"
            " learn without votes; name a target with more galaxies in train.ensembles[].target."
        )
    held_out = np.arange(len(table)) % HELD_OUT == HELD_OUT - 1
    parts = (table[chosen].reset_index(drop=True) for chosen in (~held_out, held_out))
    stores = [datasets.from_catalog([part], [], image, keep_in=folder) for part in parts]
    return stores, table["id_str"].tolist(), hash_of(table[["id_str", "pixels"]].to_numpy().tolist())


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
    """A network to train: the answers, if it gives any, and after them the projections.

    Args:
        network: from `models.join`; it has the same layers, which are trained.

    Returns:
        keras.Model, images -> (galaxies, answers + WIDTH), float32.
    """
    inputs = keras.Input(network.input_shape[1:], name="image")
    x = features = network.get_layer("backbone")(inputs)
    head = next((layer for layer in network.layers if layer.name == "head"), None)
    for _ in range(2):
        x = layers.Dense(WIDTH, use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    projections = layers.Dense(WIDTH, use_bias=False, dtype="float32", name="projections")(x)
    outputs = layers.Concatenate(dtype="float32")([head(features), projections]) if head else projections
    return keras.Model(inputs, outputs, name="views")


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
    """The loss of pairs of views, and of their votes where a head answers.

    Args:
        of_votes: a `likelihood.TreeLoss`, or None without a head.
    """

    def __init__(self, of_votes=None):
        super().__init__(name="views_loss", reduction="sum_over_batch_size")
        self.of_votes = of_votes

    def call(self, votes, outputs):
        """Return the loss of each view, (2 * galaxies,); that of the pairs is the same for all of them."""
        loss = views_loss(votes, outputs)
        if self.of_votes is None:
            return loss
        return BESIDE_VOTES * loss + self.of_votes.call(votes, outputs[:, :-WIDTH])


class AnswersLosses(QuestionLosses):
    """The losses of the questions, where projections follow the answers."""

    def update_state(self, votes, outputs, sample_weight=None):
        """Add a batch."""
        super().update_state(votes, outputs[:, :-WIDTH], sample_weight)
