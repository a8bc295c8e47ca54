"""The probe of normalisations finds the pixels that carry the labels; test galaxies have no part in it."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss
from zoolib.config.labels import Label
from zoolib.config.normalise import NAMED
from zoolib.config.trees import DecisionTree
from zoolib.learning import datasets
from zoolib.learning.augment import PAPER
from zoolib.scores.linear_probe import fit_probe
from zoolib.scores.normalise_probe import CANDIDATES, _loss, probe_normalise

IMAGE = {"size": 16, "crop": 1.0, "final_size": 16, "color": True, "encoding": "png"}
TREE = DecisionTree.from_dict({"name": "mine", "questions": {"glow": {"answers": ["bright", "dim"]}}})
COUNTS = {"train": 80, "validation": 60}


def backbone():
    """Three features: the colours of the image, as far as they lie between -2 and 2 after the scaling."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def stores_of(pixels, targets):
    """Galaxies with these colours and targets, in memory."""
    found, start = {}, 0
    for split, count in COUNTS.items():
        images = tf.constant(np.tile(pixels[start : start + count, None, None], (1, 16, 16, 1)), tf.float32)
        values = tf.constant(targets[start : start + count], tf.float32)
        found[split] = datasets.Store(
            counts=(count,),
            open=lambda _, count=count: tf.data.Dataset.range(count),
            decode=lambda n, images=images, values=values: (tf.strings.as_string(n), images[n], values[n]),
            image=IMAGE,
        )
        start += count
    return found


def features_of(network, seen):
    return network.predict_on_batch(np.tile(seen[:, None, None].astype("float32"), (1, 16, 16, 1)))


@pytest.fixture(scope="module")
def tuned():
    """For each normalisation a network whose feature tells bright galaxies only with these pixels."""

    def make(name):
        inputs = keras.Input((16, 16, 3))
        x = keras.layers.Rescaling(1 / 255)(inputs)
        # A narrow band of values around that of a medium brightness with these pixels; outside it is 0.
        mean, std = (np.mean(part) for part in NAMED[name])
        centre, width = (0.5 - mean) / std, 0.2 / std
        x = keras.layers.Rescaling(1 / width, offset=-centre / width)(x)
        x = keras.layers.Lambda(lambda v: keras.ops.exp(-(v**2)))(x)
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="backbone")

    return make


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_probe_finds_the_pixels_that_carry_the_label(tuned, name):
    values = np.random.default_rng(0).uniform(0, 255, (140, 1)).repeat(3, axis=1)
    medium = (np.abs(values[:, :1] / 255 - 0.5) < 0.25).astype(float)
    stores, label = stores_of(values, medium), Label("medium")
    losses = probe_normalise(tuned(name), stores, [label], PAPER, "normalise")
    assert list(losses) == list(CANDIDATES) and min(losses, key=losses.get) == name
    assert losses[name] < 0.5 * min(loss for other, loss in losses.items() if other != name)
    assert losses == probe_normalise(tuned(name), stores, [label], PAPER, "normalise")


def test_equally_good_normalisations_are_unit():
    values = np.random.default_rng(0).uniform(0, 255, (140, 3))
    losses = probe_normalise(
        backbone(), stores_of(values, np.arange(140)[:, None] % 2), [Label("x")], PAPER, "n"
    )
    # A linear network only scales its features, which the probe undoes.
    assert max(losses.values()) - min(losses.values()) < 1e-3


def test_the_loss_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(140, 3))
    labels = [Label("a"), Label("b", "multiclass", ("x", "y", "z")), Label("c", "regression")]
    yes = (features[:, 0] + rng.normal(size=140) > 0).astype(int)
    kinds, number = rng.integers(0, 3, 140), 3 * features[:, 1] + rng.normal(size=140)
    table = pd.DataFrame({"a": yes, "b": kinds, "c": number})
    train, rest = table[:80], table[80:]
    found = fit_probe(features[:80], labels, train, "x")(features[80:])
    expected = log_loss(rest["a"], found[:, 0]) + log_loss(rest["b"], found[:, 1:4], labels=[0, 1, 2])
    expected += ((found[:, 4] - rest["c"]) ** 2).mean() / np.var(train["c"])
    assert _loss(found, labels, train, rest) == pytest.approx(expected)


def test_votes_are_probed_too(tuned):
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 255, (140, 1)).repeat(3, axis=1)
    share = np.where(np.abs(values[:, 0] / 255 - 0.5) < 0.25, 0.9, 0.1)
    votes = np.column_stack([found := rng.binomial(20, share), 20 - found])
    label = Label("mine", "votes", tree=TREE)
    losses = probe_normalise(tuned("unit/255"), stores_of(values, votes), [label], PAPER, "normalise")
    assert min(losses, key=losses.get) == "unit/255"
