"""Heads and losses for the labels of a finetuning task: classes, numbers and votes, one or several."""

import keras
import numpy as np
from keras import layers, ops
from scipy.optimize import least_squares
from scipy.special import expit, logit

from zoolib.config.labels import by_label
from zoolib.learning.likelihood import TreeLoss
from zoolib.learning.models import CONCENTRATION_RANGE, SMALLEST_CONCENTRATION, concentrations

# Length of a galaxy's scaled features, on average; about that of the demo's backbone before they are scaled.
LENGTH = 4.0
# No probability with which a head begins is smaller.
LEAST = 1e-7


def labels_head(features, labels, statistics, units, dropout, known=None, said=None):
    """A head for new labels: dropout and dense layers in turn, then the outputs of every label.

    The layout is that of Zoobot's finetuning guide. Outputs are float32 for any precision of the backbone.
    With `said`, the outputs also see the scaled features themselves, and the head begins as the linear probe
    that has said it: training goes on from there (Kumar et al. 2022, arXiv:2202.10054).

    Args:
        features: count of the numbers that the backbone gives for a galaxy.
        labels: a list of `Label`.
        statistics: {name of a regression without bounds: (mean, standard deviation) of its training
            values}; with them the head itself works with numbers near 0 and 1.
        units: sizes of the dense layers before the outputs, e.g. [64, 64]; may be empty.
        dropout: share dropped before each dense layer.
        known: (galaxies, features) of the training galaxies; the head first scales features by them. None for
            a head that takes features as they are.
        said: (galaxies, outputs of all labels), what a linear probe that knows no bounds says of these
            galaxies; or None.

    Returns:
        keras.Model named `head`, (galaxies, features) -> (galaxies, outputs of all labels): the
        probability of yes, the probability of each class, the value in the label's own units, or the
        concentrations of each answer.
    """
    inputs = layers.Input((features,), name="features")
    scaled = x = inputs if known is None else _scaled(inputs, known)
    for size in units:
        x = layers.Dropout(dropout)(x)
        x = layers.Dense(size, activation="relu")(x)
    if said is not None and units:
        x = layers.Concatenate(name="hidden_and_scaled")([x, scaled])
    x = layers.Dropout(dropout)(x)
    found = [_output(x, label, statistics, name) for label, name in zip(labels, _names(labels), strict=True)]
    joined = found[0] if len(found) == 1 else layers.Concatenate(dtype="float32")(found)
    head = keras.Model(inputs, joined, name="head")
    if said is not None:
        before = ops.convert_to_numpy(keras.Model(inputs, scaled)(np.asarray(known, "float32")))
        _begin_as(head, labels, statistics, before, said)
    return head


def _begin_as(head, labels, statistics, scaled, said):
    """Let a head say of some galaxies what a linear probe says of them.

    The last layer sees the scaled features last. Their weights are those of least squares; for fewer galaxies
    than features the smallest ones for features of the same spread, which are those of the probe.
    """
    mean, spread = scaled.mean(axis=0), scaled.std(axis=0)
    spread = np.where(spread > 0, spread, np.inf)
    for name, (label, of_label) in zip(_names(labels), by_label(labels, said), strict=True):
        wanted = _before_activation(label, of_label, statistics)
        found = np.linalg.lstsq((scaled - mean) / spread, wanted - wanted.mean(axis=0), rcond=1e-6)[0]
        found /= spread[:, None]
        layer = head.get_layer(name)
        kernel = np.zeros(layer.kernel.shape, "float32")
        kernel[-len(found) :] = found
        layer.set_weights([kernel, (wanted.mean(axis=0) - mean @ found).astype("float32")])


def _before_activation(label, said, statistics):
    """What the last layer of a label must give to say what a probe says; it is linear in the features."""
    if label.kind == "multiclass":
        return _centred_logs(said)
    if label.kind == "binary":
        return logit(np.clip(said, LEAST, 1 - LEAST))
    if label.kind == "votes":
        bounds = SMALLEST_CONCENTRATION, SMALLEST_CONCENTRATION + CONCENTRATION_RANGE
        parts = [said[:, question.slice] for question in label.tree.questions]
        return np.concatenate([_within(_centred_logs(part), part, *bounds) for part in parts], axis=1)
    if label.bounds:
        return _within(said, said, *label.bounds)
    offset, spread = statistics[label.name]
    return (said - offset) / spread


def _centred_logs(said):
    """Logarithms without what all classes share, which a softmax does not see; the rest is linear."""
    logs = np.log(np.maximum(said, LEAST))
    return logs - logs.mean(axis=1, keepdims=True)


def _within(linear, said, low, high):
    """Numbers a x + b for which a sigmoid between two bounds is nearest to what a probe says."""
    middle, size = linear.mean(), linear.std() or 1.0
    standard, shares = (linear - middle) / size, (said - low) / (high - low)

    def misses(numbers):
        return (expit(numbers[0] * standard + numbers[1]) - shares).ravel()

    begin = [1.0, logit(np.clip(shares.mean(), 0.01, 0.99))]
    slope, offset = least_squares(misses, begin, bounds=([0.0, -20.0], [20.0, 20.0])).x
    return slope * standard + offset


def _scaled(x, known):
    """Features with a mean of 0 and a length of about `LENGTH`, for any number of features and any backbone.

    The learning rate then fits all backbones. A feature is divided by a mix of its own spread and the usual
    one: what hardly varies among few galaxies is not blown up, and a few huge features do not hide the rest.
    """
    known = np.asarray(known, float)
    variance = known.var(axis=0)
    usual = max(np.median(variance), variance.mean() / 100) or 1.0
    variance = (variance + usual) / 2 * len(variance) / LENGTH**2
    # The numbers are part of the layer's description, not weights: they are saved, and nothing trains them.
    return layers.Normalization(mean=known.mean(axis=0), variance=variance, name="scaled", dtype="float32")(x)


def _names(labels):
    """Names of the last layers of the labels; `concentrations` has its own."""
    return ["answers" if label.kind == "votes" else f"output_{number}" for number, label in enumerate(labels)]


def _output(x, label, statistics, name):
    if label.kind == "votes":
        return concentrations(x, label.tree)
    activation = {"binary": "sigmoid", "multiclass": "softmax"}.get(label.kind)
    if label.bounds:
        activation = "sigmoid"
    x = layers.Dense(len(label.outputs), activation=activation, dtype="float32", name=name)(x)
    if label.kind != "regression":
        return x
    offset, spread = statistics[label.name]
    if label.bounds:
        offset, spread = label.bounds[0], label.bounds[1] - label.bounds[0]
    return layers.Rescaling(spread, offset=offset, dtype="float32")(x)


class Accuracy(keras.metrics.Metric):
    """Share of galaxies with the right class; the mean over all classifications if there are several.

    Args:
        labels: a list of `Label`, in the order of targets and outputs.
    """

    def __init__(self, labels):
        super().__init__(name="accuracy")
        self.labels = labels
        self.right = self.add_weight(name="right", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, targets, outputs, sample_weight=None):
        """Count the galaxies of a batch."""
        for label, truth, given in _by_label(self.labels, targets, outputs):
            if label.kind == "binary":
                found = ops.cast(given[:, 0] > 0.5, "int32")
            elif label.kind == "multiclass":
                found = ops.cast(ops.argmax(given, axis=1), "int32")
            else:
                continue
            right = ops.cast(ops.equal(ops.cast(truth[:, 0], "int32"), found), "float32")
            self.right.assign_add(ops.sum(right))
            self.count.assign_add(ops.cast(ops.shape(right)[0], "float32"))

    def result(self):
        """Return the share."""
        return ops.divide_no_nan(self.right, self.count)


def _by_label(labels, targets, outputs):
    """For each label: (label, its targets, its outputs), float32."""
    target = output = 0
    for label in labels:
        to_target, to_output = target + len(label.targets), output + len(label.outputs)
        truth = ops.cast(targets[:, target:to_target], "float32")
        yield label, truth, ops.cast(outputs[:, output:to_output], "float32")
        target, output = to_target, to_output


class LabelsLoss(keras.losses.Loss):
    """The sum of the losses of all labels: cross-entropy, squared error, or the Dirichlet-multinomial.

    The squared error of a regression is divided by twice the variance of the training values. A model that
    has learned nothing then has a loss of 0.5, about as much as for a label of two classes.

    Args:
        labels: a list of `Label`, in the order of targets and outputs.
        statistics: {name of a regression: (mean, standard deviation) of its training values}.
        smoothing: share of each class label that is spread evenly over all classes.
        weights: {name of a label: the weight of each of its classes}; all other labels have weights of 1.
    """

    def __init__(self, labels, statistics=None, smoothing=0.0, weights=None):
        super().__init__(name="labels_loss", reduction="sum_over_batch_size")
        self.labels = labels
        self.statistics = statistics or {}
        self.smoothing = smoothing
        self.weights = weights or {}

    def call(self, targets, outputs):
        """Return the loss of each galaxy, (galaxies,)."""
        return sum(self._of_label(*of_label) for of_label in _by_label(self.labels, targets, outputs))

    def _of_label(self, label, truth, given):
        if label.kind == "votes":
            return TreeLoss(label.tree).call(truth, given)
        if label.kind == "regression":
            return 0.5 * ops.square((truth[:, 0] - given[:, 0]) / self.statistics[label.name][1])
        if label.kind == "binary":
            # Yes and no as two classes: both kinds are then smoothed and weighted in the same way.
            given = ops.concatenate([1 - given, given], axis=1)
        classes = given.shape[1]
        chosen = ops.one_hot(ops.cast(truth[:, 0], "int32"), classes)
        wanted = chosen * (1 - self.smoothing) + self.smoothing / classes
        smallest = keras.config.epsilon()
        loss = -ops.sum(wanted * ops.log(ops.clip(given, smallest, 1.0)), axis=1)
        if label.name in self.weights:
            loss = loss * ops.sum(chosen * ops.convert_to_tensor(self.weights[label.name], "float32"), axis=1)
        return loss
