"""Densities of a page: the masses of bins, compared with SciPy and with counting."""

from types import SimpleNamespace

import numpy as np
import pytest
from drawn import SMALL, duplicated, some_concentrations, some_shares
from scipy import stats
from zoolib.config.labels import Label
from zoolib.explore.densities import BINS, EDGES, as_bytes, densities, of_samples, of_votes


def by_scipy(values, tree, weights=None):
    """The masses of bins of each mixture, one Beta after the other."""
    found = np.zeros((*values.shape[:2], BINS))
    for number, question in enumerate(tree.questions):
        total = values[:, question.slice].sum(axis=1)
        for sample in range(values.shape[2]):
            for answer in range(question.start, question.start + len(question.answers)):
                a = values[:, answer, sample]
                below = stats.beta.cdf(EDGES[:, None], a, total[:, sample] - a)
                share = 1 / values.shape[2] if weights is None else weights[:, number, sample]
                found[:, answer] += (share * np.diff(below, axis=0)).T
    return found


# Concentrations of the published head, and of heads that can be very sure or torn.
@pytest.mark.parametrize(("factor", "error"), [(1, 0.03), (0.05, 0.03), (300, 0.03)])
def test_votes_are_mixtures_of_betas(factor, error):
    values = factor * some_concentrations(40, SMALL, 3)
    found, expected = of_votes(values, SMALL), by_scipy(values, SMALL)
    assert found.sum(axis=2) == pytest.approx(1, abs=0.03)
    # As a share of the highest bin: what a picture shows.
    assert (np.abs(found - expected) / expected.max(axis=2, keepdims=True)).max() < error


def test_components_count_by_their_weights():
    values, weights = some_concentrations(20, SMALL, 3), some_shares(20, SMALL)
    found = of_votes(values, SMALL, weights)
    assert found == pytest.approx(of_votes(duplicated(values, SMALL, weights), SMALL), abs=1e-5)
    assert np.abs(found - by_scipy(values, SMALL, weights)).max() < 0.03


def test_samples_are_counted():
    values = np.random.default_rng(1).normal(5, 2, (6, 2, 500))
    found = of_samples(values, np.array([0.0, 2.0]), np.array([10.0, 9.0]))
    for galaxy in range(6):
        for output, (low, high) in enumerate([(0, 10), (2, 9)]):
            inside = np.clip(values[galaxy, output], low, high)
            expected, _ = np.histogram(inside, BINS, (low, high))
            assert found[galaxy, output] == pytest.approx(expected / 500, abs=1e-6)
    # All galaxies of a number may be predicted the same.
    assert of_samples(np.ones((1, 1, 3)), np.ones(1), np.ones(1)).sum() == 1


def test_votes_beside_labels_keep_their_places():
    labels = [Label("size", "regression"), Label("said", "votes", tree=SMALL), Label("ring")]
    values = some_concentrations(5, SMALL, 4)
    sizes, rings = np.full((5, 1, 4), 12.0), np.full((5, 1, 4), 0.9)
    opened = SimpleNamespace(kind="mixed", named_labels=labels)
    ranges = np.array([[10, *[0] * 7, 0], [14, *[1] * 7, 1]])
    found = densities(opened, np.concatenate([sizes, values, rings], axis=1), None, ranges)
    assert found[:, 0].argmax(axis=1).tolist() == [BINS // 2] * 5
    assert found[:, 8].argmax(axis=1).tolist() == [int(0.9 * BINS)] * 5
    assert (found[:, 1:8] == of_votes(values, SMALL)).all()


def test_bytes_keep_the_shape():
    masses = of_votes(some_concentrations(3, SMALL, 2), SMALL)
    found = as_bytes(masses)
    assert found.dtype == np.uint8 and (found.max(axis=2) == 255).all()
    assert np.abs(found / 255 - masses / masses.max(axis=2, keepdims=True)).max() < 0.003
