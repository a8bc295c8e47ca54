"""The losses of labels against scikit-learn and closed forms, and the outputs of the head."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss
from zoolib.config.labels import Label
from zoolib.config.trees import DecisionTree
from zoolib.learning.label_heads import Accuracy, LabelsLoss, labels_head
from zoolib.learning.likelihood import TreeLoss
from zoolib.scores.linear_probe import fit_probe

RING = Label("ring")
KIND = Label("kind", "multiclass", ("a", "b", "c"))
SIZE = Label("size", "regression")
SHARE = Label("share", "regression", bounds=(-1, 3))
TREE = DecisionTree.from_dict({"name": "t", "questions": {"q": {"answers": ["x", "y"]}}})
VOTES = Label("t", "votes", tree=TREE)
STATISTICS = {"size": (10.0, 4.0), "share": (1.0, 0.5)}
RNG = np.random.default_rng(0)


def loss(labels, targets, outputs, **settings):
    return float(LabelsLoss(labels, STATISTICS, **settings)(np.array(targets), np.array(outputs)))


def test_the_loss_of_classes_is_their_cross_entropy():
    truth = RNG.integers(0, 2, 50)
    given = RNG.uniform(0.05, 0.95, 50)
    assert loss([RING], truth[:, None], given[:, None]) == pytest.approx(log_loss(truth, given), rel=1e-5)
    truth = RNG.integers(0, 3, 50)
    given = RNG.dirichlet([1, 1, 1], 50) * 0.98 + 0.02 / 3
    expected = log_loss(truth, given, labels=[0, 1, 2])
    assert loss([KIND], truth[:, None], given) == pytest.approx(expected, rel=1e-5)


def test_smoothing_spreads_a_share_over_all_classes():
    given = np.array([[0.7, 0.2, 0.1]])
    wanted = 0.7 * np.array([0, 1, 0]) + 0.1
    expected = -(wanted * np.log(given[0])).sum()
    assert loss([KIND], [[1.0]], given, smoothing=0.3) == pytest.approx(expected, rel=1e-5)
    expected = -(0.9 * np.log(0.7) + 0.1 * np.log(0.3))
    assert loss([RING], [[1.0]], [[0.7]], smoothing=0.2) == pytest.approx(expected, rel=1e-5)


def test_weights_multiply_the_loss_of_their_class():
    one, other = loss([RING], [[1.0]], [[0.7]]), loss([RING], [[0.0]], [[0.7]])
    weighted = loss([RING], [[1.0], [0.0]], [[0.7], [0.7]], weights={"ring": [0.5, 3.0]})
    assert weighted == pytest.approx((3 * one + 0.5 * other) / 2, rel=1e-5)


def test_the_loss_of_a_number_is_half_its_squared_error_over_the_variance():
    assert loss([SIZE], [[14.0]], [[8.0]]) == pytest.approx(0.5 * (6 / 4) ** 2)


def test_the_loss_of_several_labels_is_the_sum():
    targets = np.array([[1.0, 2.0, 12.0], [0.0, 1.0, 9.0]])
    outputs = np.array([[0.8, 0.1, 0.3, 0.6, 11.0], [0.4, 0.5, 0.2, 0.3, 9.5]])
    parts = [
        loss([RING], targets[:, :1], outputs[:, :1]),
        loss([KIND], targets[:, 1:2], outputs[:, 1:4]),
        loss([SIZE], targets[:, 2:], outputs[:, 4:]),
    ]
    assert loss([RING, KIND, SIZE], targets, outputs) == pytest.approx(sum(parts), rel=1e-5)
    accuracy = Accuracy([RING, KIND, SIZE])
    accuracy.update_state(targets, outputs)
    assert float(accuracy.result()) == 0.75


def test_the_loss_of_votes_is_that_of_a_tree():
    votes, given = np.array([[3.0, 1.0], [0.0, 0.0]]), np.array([[2.0, 1.0], [5.0, 1.0]])
    assert loss([VOTES], votes, given) == pytest.approx(float(TreeLoss(TREE)(votes, given)))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_outputs_are_in_the_units_of_the_labels(policy):
    keras.config.set_dtype_policy(policy)
    try:
        head = labels_head(6, [RING, KIND, SIZE, SHARE, VOTES], STATISTICS, [8], 0.5)
    finally:
        keras.config.set_dtype_policy("float32")
    given = keras.ops.convert_to_numpy(head(RNG.normal(0, 50, (200, 6)), training=False))
    assert given.dtype == np.float32
    assert given.shape == (200, 8)
    ring, kind, size, share, votes = np.split(given, [1, 4, 5, 6], axis=1)
    assert ring.min() >= 0 and ring.max() <= 1
    np.testing.assert_allclose(kind.sum(1), 1, rtol=1e-5)
    assert size.std() > 4
    assert share.min() >= -1 and share.max() <= 3 and share.max() - share.min() > 2
    assert votes.min() >= 1


@pytest.mark.parametrize("galaxies", [20, 300])
def test_a_head_begins_as_the_linear_probe(galaxies):
    """Of labels of all kinds, also for galaxies that it has not seen, with fewer galaxies than features."""
    features = RNG.normal(size=(galaxies + 100, 40)) * np.linspace(1, 5, 40) + 3
    labels, signal = [RING, KIND, SIZE, SHARE, VOTES], features[:, :3].mean(axis=1) - 3
    noisy = signal + RNG.normal(size=len(signal))
    truth = pd.DataFrame({"ring": noisy > 0, "kind": np.digitize(noisy, [-0.3, 0.3]), "size": 7 + 9 * signal})
    truth = truth.astype(float).assign(share=np.clip(1 + signal, -1, 3))
    truth[VOTES.targets] = RNG.poisson(np.exp(1 + np.outer(signal, [1, -1])))
    known, others = features[:galaxies], features[galaxies:]
    free = [replace(label, bounds=None) if label.bounds else label for label in labels]
    probe = fit_probe(known, free, truth[:galaxies], "here")
    statistics = {"size": (7.0, 9.0), "share": (1.0, 0.5)}
    head = labels_head(40, labels, statistics, [8], 0.3, known, probe(known))
    found, said = head(others.astype("float32")).numpy(), probe(others)
    said[:, 5] = np.clip(said[:, 5], *SHARE.bounds)
    # What is linear before the activation is the same; bounded numbers and concentrations are only near it.
    apart = np.sqrt(((found - said) ** 2).mean(axis=0) / said.var(axis=0))
    assert apart[:5].max() < 1e-3 and apart[5] < 0.1
    fractions = [each[:, 6] / each[:, 6:].sum(axis=1) for each in (found, said)]
    assert np.corrcoef(*fractions)[0, 1] > 0.99
    random = labels_head(40, labels, statistics, [8], 0.3, known)
    assert np.abs(random(others.astype("float32")).numpy() - said).mean() > 0.2


def test_scaled_features_make_a_head_that_fits_any_backbone(tmp_path):
    """It sees the same, whatever the unit of the features; Keras alone reads it again, without our code."""
    generator = np.random.default_rng(3)
    known = generator.normal(size=(30, 200)).astype("float32")
    # One feature is huge, one is the same for all galaxies.
    known[:, 0] *= 100
    known[:, 1] = 0.5
    others = known.copy()
    others[:5, 1] = 0.6

    def outputs(features, given):
        keras.utils.set_random_seed(4)
        head = labels_head(200, [Label("ring")], {}, [64], 0.3, features)
        head.save(tmp_path / "head.keras")
        again = keras.saving.load_model(tmp_path / "head.keras", compile=False, safe_mode=True)
        np.testing.assert_array_equal(again(given).numpy(), head(given).numpy())
        scaled = keras.Model(head.inputs, head.get_layer("scaled").output)(given).numpy()
        return head(given).numpy(), scaled

    found, scaled = outputs(known, known)
    assert np.abs(scaled.mean(axis=0)).max() < 1e-5
    assert 2 < np.sqrt((scaled**2).sum(axis=1).mean()) < 5
    # The huge feature does not hide the others.
    assert (scaled[:, 0] ** 2).sum() < 0.02 * (scaled**2).sum()
    np.testing.assert_allclose(outputs(1000 * known + 7, 1000 * known + 7)[0], found, atol=1e-3)
    assert np.abs(outputs(known, others)[0][:5] - found[:5]).max() < 0.05
    same = np.ones((10, 200), "float32")
    assert np.isfinite(outputs(same, same)[0]).all()
