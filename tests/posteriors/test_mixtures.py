"""Intervals of weighted mixtures of Betas against brute force on SciPy's distributions."""

import numpy as np
import pytest
from scipy import optimize, special
from zoolib.posteriors import intervals, mixtures

# Fine steps close to 0 and 1 too.
GRID = np.unique(np.r_[0, special.expit(np.linspace(-20, 20, 4001)), np.linspace(0, 1, 10001), 1])
LEVELS = [0.5, 0.9, 0.99]


def drawn_weights(random, count, components):
    """Weights of which some are tiny and some are 0."""
    weights = random.dirichlet(np.full(components, 0.2), count)
    weights[:, 1:][random.uniform(size=(count, components - 1)) < 0.1] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def from_end_to_end(random, count, components):
    """Concentrations from 0.01 to 1e5, each independent of the others."""
    return 10 ** random.uniform(-2, 5, (2, count, components))


def narrow_peaks(random, count, components):
    middle, total = random.uniform(0.01, 0.99, (count, components)), 10 ** random.uniform(2, 5, (count, 1))
    return middle * total, (1 - middle) * total


def infinite_at_both_ends(random, count, components):
    return 10 ** random.uniform(-2, -0.2, (2, count, components))


def all_at_one_end(random, count, components):
    a, b = 10 ** random.uniform(-2, 0.5, (count, components)), np.full((count, components), 1e5)
    swap = random.uniform(size=(count, 1)) < 0.5
    return np.where(swap, b, a), np.where(swap, a, b)


def one_narrow_beside_wide_ones(random, count, components):
    a, b = random.uniform(1, 20, (2, count, components))
    a[:, 0], b[:, 0] = 10 ** random.uniform(3, 5, (2, count))
    return a, b


def as_heads_predict(random, count, components):
    logits = random.normal(-2, 1.5, (2, count, 1)) + random.normal(0, 0.5, (2, count, components))
    return 1 + 100 * special.expit(logits)


FAMILIES = [
    from_end_to_end,
    narrow_peaks,
    infinite_at_both_ends,
    all_at_one_end,
    one_narrow_beside_wide_ones,
    as_heads_predict,
]


def draw(family, seed, count, components):
    random = np.random.default_rng(seed)
    weights = drawn_weights(random, count, components)
    weights[: count // 2] = 1 / components
    return *family(random, count, components), weights


def mass_below(x, a, b, weights):
    return (weights * special.betainc(a, b, np.clip(x, 0, 1)[:, None])).sum(axis=1)


def shortest_width(a, b, weights, level):
    """Width of the shortest interval of one mixture that begins or ends at a point of the grid."""
    cumulative = (weights[:, None] * special.betainc(a[:, None], b[:, None], GRID)).sum(axis=0)
    widths = [1.0]
    held = cumulative + level <= cumulative[-1]
    widths.append((np.interp(cumulative[held] + level, cumulative, GRID) - GRID[held]).min(initial=1))
    held = cumulative >= level
    widths.append((GRID[held] - np.interp(cumulative[held] - level, cumulative, GRID)).min(initial=1))
    return min(widths)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("components", [1, 5, 25, 75])
def test_ends_of_central_intervals_are_within_the_tolerance_of_the_quantiles(family, components):
    a, b, weights = draw(family, components, 20, components)
    for level in (*LEVELS, 0.999):
        ends = intervals.beta_mixture_intervals(a, b, weights, level)[:2]
        for end, mass in zip(ends, ((1 - level) / 2, (1 + level) / 2), strict=True):
            # Where the mass below is the same over a wide range, SciPy itself is right to 1e-12 only.
            assert (mass_below(end + intervals.TOLERANCE, a, b, weights) >= mass - 1e-12).all()
            assert (mass_below(end - intervals.TOLERANCE, a, b, weights) <= mass + 1e-12).all()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@pytest.mark.parametrize("components", [1, 5, 20])
def test_no_interval_is_much_shorter_than_the_shortest(family, components):
    a, b, weights = draw(family, components + 100, 4, components)
    for level in LEVELS:
        low, high = intervals.beta_mixture_intervals(a, b, weights, level)[2:]
        # Both ends have the error of a quantile.
        inner, outer = (
            mass_below(high + error, a, b, weights) - mass_below(low - error, a, b, weights)
            for error in (-intervals.TOLERANCE, intervals.TOLERANCE)
        )
        assert (outer >= level - 1e-5).all()
        exact = (low > 0) & (high < 1)
        assert (inner <= level + 1e-5)[exact].all()
        shortest = [shortest_width(*parts, level) for parts in zip(a, b, weights, strict=True)]
        assert (high - low <= np.array(shortest) + 5e-4).all()


def test_a_quantile_between_two_peaks_is_where_their_tails_are_equal():
    # Exactly a twentieth of the mass is in the lower peak, and there is nearly none between the peaks.
    a, b, weights = np.full((1, 20), 120.0), np.full((1, 20), 80.0), np.full((1, 20), 0.05)
    a[0, 0], b[0, 0] = 60, 140
    low, _ = intervals.beta_mixture_intervals(a, b, weights, 0.9)[:2]
    exact = optimize.brentq(lambda x: mass_below(np.array([x]), a, b, weights)[0] - 0.05, 0.3, 0.6)
    assert low[0] == pytest.approx(exact, abs=intervals.TOLERANCE)


def test_components_without_weight_change_nothing():
    a, b, weights = draw(as_heads_predict, 3, 30, 10)
    far, none = np.full((30, 4), 1e5), np.zeros((30, 4))
    with_more = (np.hstack([a, far]), np.hstack([b, far / 7]), np.hstack([weights, none]))
    expected = intervals.beta_mixture_intervals(a, b, weights, 0.8)
    found = intervals.beta_mixture_intervals(*with_more, 0.8)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_tables_keep_their_mass():
    for family in FAMILIES:
        a, b, weights = draw(family, 5, 200, 25)
        assert mixtures.intervals(a, b, weights, 0.9)[6].max() < intervals.MASS_LOST


def test_machine_code_that_cannot_be_kept_is_compiled_for_the_process(monkeypatch):
    compiled = mixtures._machine_code(True)

    def full_disk(keep):
        if keep:
            raise OSError("No space left on device")
        return compiled

    monkeypatch.setattr(mixtures, "_machine_code", full_disk)
    a = np.full((1, 2), 3.0)
    assert mixtures.intervals(a, a, a / 6, 0.9)[:2, 0].sum() == pytest.approx(1)
