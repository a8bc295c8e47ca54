"""Rankings by likeness, against brute force and planted galaxies."""

import numpy as np
import pytest
from zoolib.likeness import rankings
from zoolib.likeness.rankings import directions, more_like, nearest, odd_and_wanted, oddness


def galaxies(count=600, numbers=8, seed=1):
    """Galaxies, of which the first 30 are of one kind: they have the same direction, but for noise."""
    values = np.random.default_rng(seed).normal(size=(count, numbers))
    values[:30] = 0.4 * values[:30] + 3 * np.eye(numbers)[0]
    return values.astype(np.float32)


@pytest.mark.parametrize("block", [7, 64, 10_000])
def test_the_nearest_are_those_of_a_brute_force_search(monkeypatch, block):
    monkeypatch.setattr(rankings, "BLOCK", block)
    found = directions(galaxies())
    rows = np.array([0, 5, 599])
    near, alike = nearest(found, rows, 20)
    expected = found[rows] @ found.T
    expected[np.arange(3), rows] = -np.inf
    np.testing.assert_array_equal(near, np.argsort(-expected, axis=1)[:, :20])
    np.testing.assert_allclose(alike, -np.sort(-expected, axis=1)[:, :20], rtol=1e-6)


def test_there_are_no_more_neighbours_than_other_galaxies():
    near, alike = nearest(directions(galaxies(4)), np.array([2]), 32)
    assert sorted(near[0]) == [0, 1, 3] and np.isfinite(alike).all()


def test_likeness_does_not_depend_on_lengths_or_on_the_origin():
    values = galaxies()
    scaled = directions(100 + 7 * values)
    np.testing.assert_allclose(scaled, directions(values), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)
    assert not directions(np.ones((3, 4), np.float32)).any()


def test_five_examples_find_most_of_their_kind():
    scores = more_like(directions(galaxies()), np.arange(5), np.array([], int), seed=1)
    first = [row for row in np.argsort(-scores) if row >= 5][:25]
    assert np.mean(np.array(first) < 30) > 0.8


def test_a_no_moves_its_kind_down():
    values = galaxies()
    values[30:60] = values[:30] + 2 * np.eye(8, dtype=np.float32)[1]
    found = directions(values)
    ranks = []
    for no in ([], range(30, 50)):
        scores = more_like(found, np.arange(5), np.array(no, int), seed=1)
        ranks.append(np.argsort(np.argsort(-scores))[50:60].mean())
    assert ranks[1] > ranks[0] + 5


def test_a_catalogue_of_wanted_galaxies_alone_has_no_ranking():
    assert not more_like(directions(galaxies(5)), np.arange(5), np.array([], int), seed=1).any()


@pytest.mark.parametrize("crowd", [100, 1_000])
def test_odd_galaxies_are_far_from_others(monkeypatch, crowd):
    monkeypatch.setattr(rankings, "CROWD", crowd)
    values = galaxies()
    odd = np.random.default_rng(2).permutation(600)[:6]
    values[odd] *= 10
    scores = oddness(values, seed=1)
    assert set(np.argsort(-scores)[:6]) == set(odd)
    assert np.median(scores) == pytest.approx(1)


def test_the_distance_is_that_to_the_twentieth_of_the_others():
    values = galaxies(50)
    apart = np.sort(np.linalg.norm(values[:, None] - values[None], axis=2), axis=1)
    np.testing.assert_allclose(oddness(values, seed=1), apart[:, 20] / np.median(apart[:, 20]), rtol=1e-3)


def test_answers_change_what_is_odd():
    values = galaxies()
    values[30:60] *= 4
    values[:30] *= 4
    found, odd = directions(values), oddness(values, seed=1)
    none = np.array([], int)
    np.testing.assert_array_equal(odd_and_wanted(odd, found, none, none, 1), odd)

    def rank(yes, no):
        scores = odd_and_wanted(odd, found, np.array(yes, int), np.array(no, int), 1)
        return np.argsort(np.argsort(-scores))[10:30].mean()

    assert rank(range(10), []) < rank([], []) < rank([], range(10))
