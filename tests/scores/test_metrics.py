"""Scores for many weightings of the galaxies at once, against scikit-learn's one by one."""

import numpy as np
import pytest
from sklearn import metrics
from zoolib.scores.metrics import (
    binary_scores,
    bootstrap_weights,
    calibration_curve,
    calibration_error,
    class_scores,
    coverage,
    multiclass_scores,
    regression_scores,
)

GALAXIES, RESAMPLES = 200, 30


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.fixture
def weights(random):
    return bootstrap_weights(GALAXIES, RESAMPLES, random)


def agree(found, expected):
    """Scores of all weightings, {score: (weightings,)}, beside a dict for each weighting."""
    for number, scores in enumerate(expected):
        for name, value in scores.items():
            assert found[name][number] == pytest.approx(value, rel=0, abs=1e-12), name


def test_binary_scores_are_scikit_learns_for_every_weighting(random, weights):
    truth = random.integers(0, 2, GALAXIES)
    probability = np.clip(0.3 * truth + random.uniform(0.05, 0.65, GALAXIES), 0, 1).round(2)
    expected = []
    for row in weights:
        called, of = probability > 0.5, {"sample_weight": row}
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            truth, called, average="binary", **of
        )
        expected.append(
            {
                "accuracy": metrics.accuracy_score(truth, called, **of),
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "auc": metrics.roc_auc_score(truth, probability, **of),
                "log_loss": metrics.log_loss(truth, probability, **of),
            }
        )
    agree(binary_scores(truth, probability, weights), expected)


def test_scores_of_classes_are_scikit_learns_for_every_weighting(random, weights):
    truth = random.integers(0, 3, GALAXIES)
    probabilities = random.dirichlet(np.ones(4), GALAXIES) * [1, 1, 1, 0.8] + 0.5 * np.eye(4)[truth]
    # The fourth class has no galaxy, and is predicted now and then.
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    called = probabilities.argmax(axis=1)
    assert (called == 3).any()
    expected = []
    for row in weights:
        of = {"sample_weight": row}
        averages = metrics.precision_recall_fscore_support(
            truth, called, average="weighted", zero_division=0, **of
        )
        scores = dict(zip(("precision", "recall", "f1"), averages, strict=False))
        areas = [metrics.roc_auc_score(truth == c, probabilities[:, c], **of) for c in range(3)]
        losses = metrics.log_loss(truth, probabilities, labels=range(4), **of)
        expected.append({"accuracy": metrics.accuracy_score(truth, called, **of), **scores})
        expected[-1] |= {"auc": np.mean(areas), "log_loss": losses}
    found = multiclass_scores(truth, probabilities, weights)
    agree(found, expected)
    for name, values in class_scores(truth, called, 4, weights).items():
        np.testing.assert_array_equal(values, found[name])


def test_regression_scores_are_scikit_learns_for_every_weighting(random, weights):
    truth = random.gamma(4, 1, GALAXIES)
    value = truth + random.normal(0.2, 0.5, GALAXIES)
    expected = [
        {
            "rmse": metrics.root_mean_squared_error(truth, value, sample_weight=row),
            "mae": metrics.mean_absolute_error(truth, value, sample_weight=row),
            "r2": metrics.r2_score(truth, value, sample_weight=row),
            "bias": np.average(value - truth, weights=row),
        }
        for row in weights
    ]
    agree(regression_scores(truth, value, weights), expected)


def test_a_weight_counts_a_galaxy_so_many_times():
    random = np.random.default_rng(2)
    truth, scores = random.integers(0, 2, 60), random.uniform(0, 1, 60).round(1)
    weights = bootstrap_weights(60, 20, random)
    assert (weights.sum(axis=1) == 60).all()
    found = binary_scores(truth, scores, weights)
    for number, row in enumerate(weights):
        drawn = np.repeat(np.arange(60), row)
        assert found["auc"][number] == pytest.approx(metrics.roc_auc_score(truth[drawn], scores[drawn]))
        assert found["f1"][number] == pytest.approx(metrics.f1_score(truth[drawn], scores[drawn] > 0.5))


def test_calibration_is_the_distance_between_probabilities_and_shares():
    probability = np.repeat([0.05, 0.62, 0.9], [10, 5, 20])
    truth = np.r_[np.zeros(10), 1, 1, 0, 0, 0, np.ones(20)]
    curve = calibration_curve(truth, probability)
    assert list(curve["galaxies"]) == [10, 5, 20]
    assert list(curve["share"]) == pytest.approx([0, 0.4, 1])
    assert ((curve["low"] <= curve["share"]) & (curve["share"] <= curve["high"])).all()
    error = calibration_error(truth, probability, np.ones((1, 35)))[0]
    assert error == pytest.approx((10 * 0.05 + 5 * 0.22 + 20 * 0.1) / 35)


@pytest.mark.parametrize("samples", [4, 5, 30])
def test_coverage_is_the_mass_where_samples_are_right(samples):
    below = np.arange(samples + 1)
    ranks = np.stack([below, below + 1], axis=1) / (samples + 1)
    for level in (0.1, 0.5, 0.68, 0.9):
        assert coverage(ranks, level).mean() == pytest.approx(level)
    # A truth beyond all samples is in no interval but the widest.
    assert coverage(ranks[:1], 1 - 2 / (samples + 1))[0] == 0
