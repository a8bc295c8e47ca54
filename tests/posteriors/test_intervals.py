"""Intervals against brute force on SciPy's distributions."""

import numpy as np
import pytest
from drawn import SMALL, some_concentrations, some_probabilities
from scipy import optimize, special, stats
from zoolib.config.trees import DecisionTree
from zoolib.posteriors import intervals

# Fine steps close to 0 and 1 too.
GRID = np.unique(np.r_[0, special.expit(np.linspace(-30, 30, 20001)), np.linspace(0, 1, 100001), 1])


def equal(a):
    return np.full(a.shape, 1 / a.shape[1])


def shortest_intervals(a, b, level):
    return intervals.beta_mixture_intervals(a, b, equal(a), level)[2:]


def mass_between(a, b, low, high):
    return (stats.beta.cdf(high, a, b) - stats.beta.cdf(low, a, b)).mean()


def shortest_width(a, b, level):
    """Width of the shortest interval with the mass, found by trying many intervals."""
    cumulative = np.mean([stats.beta.cdf(GRID, *each) for each in zip(a, b, strict=True)], axis=0)
    below = np.linspace(0, 1 - level, 20001)
    low = np.interp(below, cumulative, GRID)
    high = np.interp(np.minimum(below + level, 1), cumulative, GRID)
    low[0], high[-1] = 0, 1
    return (high - low).min()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_central_intervals_against_root_finding_on_scipy(repo, level):
    tree = DecisionTree.load(repo / "config" / "trees" / "gz_decals_5.yaml")
    concentrations = some_concentrations(4, tree, 25)
    low, high = intervals.credible_intervals(concentrations, tree, level)
    for question in tree.questions:
        totals = concentrations[:, question.slice].sum(axis=1)
        for galaxy in range(4):
            answer = question.slice.start + galaxy % len(question.answers)
            a = concentrations[galaxy, answer]
            mixture = stats.beta(a, totals[galaxy] - a)
            for end, mass in ((low, (1 - level) / 2), (high, (1 + level) / 2)):
                exact = optimize.brentq(lambda x, m=mixture, p=mass: m.cdf(x).mean() - p, 0, 1, xtol=1e-10)
                assert end[galaxy, answer] == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-2, 0.3, 1, 1e3, 1e5])
def test_quantiles_of_wild_mixtures(scale):
    # Components far apart, and so small that the density is infinite at the ends.
    random = np.random.default_rng(1)
    a, b = scale * random.uniform(0.01, 3, (2, 60, 5))
    tolerance = intervals.TOLERANCE
    each = random.uniform(0.01, 0.99, 60)
    for probability in (0.005, 0.05, 0.5, 0.95, 0.995, each):
        for guess in (None, random.uniform(0, 1, 60)):
            found = intervals.beta_mixture_quantile(a, b, equal(a), probability, guess=guess)
            above = stats.beta.cdf(np.minimum(found + tolerance, 1)[:, None], a, b).mean(axis=1)
            below = stats.beta.cdf(np.maximum(found - tolerance, 0)[:, None], a, b).mean(axis=1)
            assert (above >= probability).all()
            assert (below <= probability).all()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_highest_density_of_one_peak_is_scipys(level):
    # One Beta with a peak inside: the density is the same at both ends.
    a, b = np.array([[3.0], [40.0], [300.0]]), np.array([[9.0], [2.0], [800.0]])
    low, high = shortest_intervals(a, b, level)
    for index in range(3):
        beta = stats.beta(a[index, 0], b[index, 0])
        best = optimize.minimize_scalar(
            lambda p, beta=beta: beta.ppf(p + level) - beta.ppf(p), bounds=(0, 1 - level), method="bounded"
        )
        assert high[index] - low[index] == pytest.approx(best.fun, abs=1e-4)
        assert beta.cdf(high[index]) - beta.cdf(low[index]) == pytest.approx(level, abs=1e-4)
        assert high[index] - low[index] < np.subtract(*beta.interval(level)[::-1]) + 1e-4


@pytest.mark.parametrize("scale", [1e-2, 0.3, 1, 30, 1e3, 1e5])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_highest_density_of_wild_mixtures_by_brute_force(scale, level):
    random = np.random.default_rng(2)
    a, b = scale * random.uniform(0.01, 3, (2, 8, 5))
    low, high = shortest_intervals(a, b, level)
    for index in range(len(a)):
        assert mass_between(a[index], b[index], low[index], high[index]) >= level - 1e-3
        assert high[index] - low[index] <= shortest_width(a[index], b[index], level) + 5e-4


def test_highest_density_where_the_density_piles_up():
    a = np.array([[0.2, 0.5], [8.0, 20.0], [1.0, 1.0], [0.05, 0.05]])
    b = np.array([[5.0, 9.0], [0.3, 0.9], [6.0, 7.0], [0.05, 0.05]])
    low, high = shortest_intervals(a, b, 0.9)
    np.testing.assert_array_equal(low[[0, 2, 3]], 0)
    np.testing.assert_array_equal(high[[1, 3]], 1)
    for index in range(3):
        assert mass_between(a[index], b[index], low[index], high[index]) == pytest.approx(0.9, abs=2e-3)


def test_highest_density_of_two_peaks_is_one_interval():
    # Samples that disagree: two peaks of mass 1/2 at 0.1 and 0.9, and the same with 4 to 1.
    a = np.array([[100.0, 900, 100, 900, 100], [100, 100, 100, 100, 900]])
    b = np.array([[900.0, 100, 900, 100, 900], [900, 900, 900, 900, 100]])
    low, high = shortest_intervals(a, b, 0.75)
    assert (low[0] < 0.1) and (high[0] > 0.9)
    assert 0.07 < low[1] < 0.1 < high[1] < 0.13


def test_highest_density_of_many_narrow_peaks_far_apart():
    random = np.random.default_rng(5)
    middle, total = random.uniform(0.02, 0.98, (4, 25)), 10 ** random.uniform(3, 5, (4, 25))
    a, b = middle * total, (1 - middle) * total
    low, high = shortest_intervals(a, b, 0.5)
    for index in range(4):
        assert high[index] - low[index] <= shortest_width(a[index], b[index], 0.5) + 5e-4


def test_a_component_of_weight_n_counts_as_n_equal_ones(repo):
    tree = DecisionTree.load(repo / "config" / "trees" / "gz_decals_5.yaml")
    random = np.random.default_rng(6)
    values = some_concentrations(3, tree, 10)
    counts = np.stack([random.multinomial(10, random.dirichlet(np.ones(10)), 3) for _ in tree.questions], 1)
    repeated = np.empty_like(values)
    for galaxy, number in np.ndindex(counts.shape[:2]):
        of_question = tree.questions[number].slice
        repeated[galaxy, of_question] = np.repeat(values[galaxy, of_question], counts[galaxy, number], axis=1)
    weights = counts / 10
    central = intervals.credible_intervals(values, tree, 0.8, weights=weights)
    np.testing.assert_allclose(central, intervals.credible_intervals(repeated, tree, 0.8), atol=2e-4)
    # Many intervals are nearly as short as the shortest.
    shortest, expected = (
        np.subtract(*intervals.highest_density_intervals(each, tree, 0.8, weights=weight))
        for each, weight in ((values, weights), (repeated, None))
    )
    np.testing.assert_allclose(shortest, expected, atol=5e-4)


def test_highest_density_is_never_longer_than_central(repo):
    tree = DecisionTree.load(repo / "config" / "trees" / "gz_decals_5.yaml")
    values = some_concentrations(20, tree, 25)
    central = np.subtract(*intervals.credible_intervals(values, tree, 0.9)[::-1])
    shortest = np.subtract(*intervals.highest_density_intervals(values, tree, 0.9)[::-1])
    assert (shortest <= central + 5e-4).all()
    assert (central - shortest).max() > 0.02


def test_intervals_of_probabilities_come_from_the_samples():
    values = some_probabilities(6, SMALL, 40)
    low, high = intervals.credible_intervals(values, SMALL, 0.8, "probabilities")
    np.testing.assert_allclose(low, np.quantile(values, 0.1, axis=2))
    np.testing.assert_allclose(high, np.quantile(values, 0.9, axis=2))
    low, high = intervals.highest_density_intervals(values, SMALL, 0.8, "probabilities")
    for galaxy, answer in np.ndindex(low.shape):
        samples = np.sort(values[galaxy, answer])
        widths = [samples[first + 31] - samples[first] for first in range(9)]
        assert high[galaxy, answer] - low[galaxy, answer] == min(widths)
        inside = (samples >= low[galaxy, answer]) & (samples <= high[galaxy, answer])
        assert inside.sum() == 32
    one = values[:, :, :1]
    for ends in intervals.highest_density_intervals(one, SMALL, 0.8, "probabilities"):
        np.testing.assert_array_equal(ends, one[:, :, 0])


def test_an_answer_that_outweighs_all_others_has_an_interval():
    values = np.array([[[1e30], [1e-30], [1e-30], [1.0], [1.0], [1e-3], [1e5]]])
    for find in (intervals.credible_intervals, intervals.highest_density_intervals):
        low, high = find(values, SMALL, 0.9)
        assert np.isfinite([low, high]).all()
        assert low[0, 0] > 0.99
        assert high[0, 1] < 0.01
