"""Recalibration against SciPy's Dirichlet-multinomial, and on votes that were drawn from known posteriors."""

import numpy as np
import pytest
from drawn import SMALL, some_concentrations, some_weights
from scipy import special, stats
from zoolib.config.trees import DecisionTree
from zoolib.posteriors import recalibration, recalibration_fit
from zoolib.posteriors.intervals import marginals

ONE = DecisionTree.from_dict({"name": "one", "questions": {"edge": {"answers": ["yes", "no", "other"]}}})
LEVELS = np.array([0.5, 0.8, 0.9, 0.95])


def drawn(galaxies, volunteers, spread=0.0, factor=1.0, seed=0):
    """(true probabilities, votes, values): a model whose concentrations are `factor` times the true ones.

    The true concentrations of a galaxy are multiplied by a log-normal number that the model does not see.
    """
    random = np.random.default_rng(seed)
    total = np.exp(random.normal(2.5, 0.6, (galaxies, 1)))
    known = random.dirichlet(np.ones(3), galaxies) * total + 0.2
    hidden = np.exp(spread * random.normal(size=(galaxies, 1)))
    true = np.stack([random.dirichlet(each) for each in known * hidden])
    votes = np.stack(
        [random.multinomial(n, p) for n, p in zip(random.poisson(volunteers, galaxies), true, strict=True)]
    )
    samples = known[:, :, None] * np.exp(0.05 * random.normal(size=(galaxies, 3, 4)))
    return true, votes, factor * samples


def log_mixture(votes, values, weights):
    """Log probability of one galaxy's votes on one question by SciPy, component by component."""
    each = [stats.dirichlet_multinomial.logpmf(votes, alpha, votes.sum()) for alpha in values.T]
    return special.logsumexp(each, b=weights)


def deviations(values, true, tree=ONE):
    """Points by which the central intervals of the masses `LEVELS` hold more truths than they say."""
    below = special.betainc(*marginals(values, tree), true[:, :, None]).mean(axis=2)
    inside = np.abs(below - 0.5)[:, :, None] <= LEVELS / 2
    return 100 * (inside.mean(axis=(0, 1)) - LEVELS)


@pytest.mark.parametrize("per_sample", [1, 3])
def test_tabulated_likelihoods_are_those_of_the_corrected_mixtures_by_scipy(per_sample):
    random = np.random.default_rng(4)
    values = some_concentrations(6, SMALL, 2 * per_sample) * np.exp(random.normal(0, 2, (6, 7, 1)))
    weights = some_weights(6, SMALL, 2, per_sample) if per_sample > 1 else None
    votes = random.integers(0, 30, (6, 7))
    added = np.array([0.1, 0.3, 0.0])[: per_sample if per_sample > 1 else 0]
    for number, question in enumerate(SMALL.questions):
        which = (np.arange(6), number, question.slice)
        table = recalibration_fit._tabulated(votes, values, weights, per_sample, which)
        for middle, spread in [(0, 0), (0.375, 0), (-1.5, 2.5), (2.5, 1.25)]:
            found = recalibration_fit._score(table, np.array([middle, spread]), added)
            factors = np.exp(middle + spread * recalibration_fit.NODES) if spread else [np.exp(middle)]
            one = {"factors": list(factors), "added": added.tolist()}
            after = recalibration.apply([{question.name: one}], values, weights, SMALL, per_sample)
            for galaxy in range(6):
                shares = np.full(after[0].shape[2], 1 / after[0].shape[2])
                if after[1] is not None:
                    shares = after[1][galaxy, number]
                of_question = after[0][galaxy, question.slice]
                expected = log_mixture(votes[galaxy, question.slice], of_question, shares)
                assert found[galaxy] == pytest.approx(expected, abs=0.01)


def test_what_is_applied_is_the_formula_component_by_component():
    values, weights = some_concentrations(3, SMALL, 8), some_weights(3, SMALL, 4, 2)
    members = [
        {"edge": {"factors": [0.5, 2.0, 3.0], "added": [0.2, 0.1]}},
        # A member without a recalibration, or with questions that are left alone, gets equal copies.
        None,
    ]
    found, shares, per_sample = recalibration.apply(members, values, weights, SMALL, 2)
    assert per_sample == 6 and found.shape == (3, 7, 24) and shares.shape == (3, 3, 24)
    for number, question in enumerate(SMALL.questions):
        for component in range(24):
            old, node, kind = component // 3, component % 3, component // 3 % 2
            corrected = question.name == "edge" and component < 12
            factor = members[0]["edge"]["factors"][node] if corrected else 1
            expected = factor * values[:, question.slice, old]
            np.testing.assert_allclose(found[:, question.slice, component], expected)
            share = weights[:, number, old] / 3
            if corrected:
                share = 0.7 * share + members[0]["edge"]["added"][kind] / 4 / 3
            np.testing.assert_allclose(shares[:, number, component], share)
    np.testing.assert_allclose(shares.reshape(3, 3, 4, 6).sum(axis=3), 1 / 4)
    # Nothing is spread, so nothing gets longer; without weights there are none afterwards.
    one = {"shape": {"factors": [2.0], "added": []}}
    found, shares, per_sample = recalibration.apply([one, one], values, None, SMALL)
    assert shares is None and per_sample == 1
    np.testing.assert_allclose(found[:, :3], 2 * values[:, :3])
    np.testing.assert_allclose(found[:, 3:], values[:, 3:])


def test_a_model_that_is_too_sure_gets_its_factor_and_a_second_fit_gets_the_same():
    true, votes, values = drawn(1500, 20, factor=3.0)
    found = recalibration_fit.fit(votes, values, ONE, seed=5)
    one = found["edge"]
    assert one["kind"] == "together" and one["factors"] == [pytest.approx(1 / 3, rel=0.3)]
    assert one["after"] < one["before"] - 0.05 and one["galaxies"] == (votes.sum(axis=1) > 0).sum()
    assert recalibration_fit.fit(votes, values, ONE, seed=5) == found
    after = recalibration.apply([found], values, None, ONE)[0]
    assert np.abs(deviations(values, true)).max() > 10 > 4 > np.abs(deviations(after, true)).max()


def test_a_sharp_core_with_wide_wings_is_a_spread_and_covers_new_galaxies():
    _, votes, values = drawn(2000, 25, spread=1.2, factor=0.5)
    found = recalibration_fit.fit(votes, values, ONE, seed=1)
    assert found["edge"]["kind"] == "spread" and len(found["edge"]["factors"]) == 3
    true, votes, values = drawn(2000, 25, spread=1.2, factor=0.5, seed=9)
    after, _, _ = recalibration.apply([found], values, None, ONE)
    assert np.abs(deviations(values, true)).max() > 12
    assert np.abs(deviations(after, true)).max() < 4
    one = np.exp(np.log(values).mean(axis=2, keepdims=True))
    means = [each / each.sum(axis=1, keepdims=True) for each in (one, after)]
    np.testing.assert_allclose(means[0].mean(axis=2), means[1].mean(axis=2))


def test_few_galaxies_leave_a_question_alone():
    """As `edge-on-bulge`, 150 galaxies with a few votes each: their best factor is mostly chance."""
    chance = []
    for seed in range(12):
        true, votes, values = drawn(150, 6, seed=seed)
        one = recalibration_fit.fit(votes, values, ONE, seed)["edge"]
        # The samples hardly differ, so one in their place costs nothing.
        assert one["pooled"] and one["factors"] == [1.0] and one["strength"] is None
        assert one["before"] == pytest.approx(one["after"], abs=2e-3)
        table = recalibration_fit._tabulated(votes, values, None, 1, (np.arange(150), 0, slice(0, 3)))
        sums = recalibration_fit._at(table[:, 0], recalibration_fit.TRIED).sum(axis=0)
        (middle, spread), _ = recalibration_fit._fitted(table, sums, "spread", 0.0)
        freely = {"edge": {"factors": list(np.exp(middle + spread * recalibration_fit.NODES)), "added": []}}
        after = recalibration.apply([freely], values, None, ONE)[0]
        chance.append(np.abs(deviations(after, true)).max() - np.abs(deviations(values, true)).max())
    # Without the cross-validation it would be otherwise.
    assert max(chance) > 10


def samples_of(galaxies, random, shift=0.7):
    """Concentrations of four samples, which differ by a log-normal number in each answer."""
    known = random.dirichlet(np.ones(3), galaxies) * 20 + 0.5
    return known, known[:, :, None] * np.exp(shift * random.normal(size=(galaxies, 3, 4)))


def test_samples_become_one_where_their_disagreement_is_not_of_the_truth():
    random = np.random.default_rng(2)
    known, values = samples_of(3000, random)
    pool = np.exp(np.log(values).mean(axis=2))
    true = np.stack([random.dirichlet(each) for each in pool])
    votes = np.stack([random.multinomial(15, each) for each in true])
    found = recalibration_fit.fit(votes, values, ONE, 0)
    assert found["edge"]["pooled"] and found["edge"]["factors"] == [pytest.approx(1, abs=0.15)]
    after = recalibration.apply([found], values, None, ONE)[0]
    np.testing.assert_allclose(after[:, :, 0], found["edge"]["factors"][0] * pool)
    assert deviations(values, true).max() > 8 and np.abs(deviations(after, true)).max() < 3


def test_samples_stay_where_one_of_them_is_the_truth():
    random = np.random.default_rng(2)
    _, values = samples_of(3000, random)
    true = np.stack([random.dirichlet(each[:, random.integers(4)]) for each in values])
    votes = np.stack([random.multinomial(15, each) for each in true])
    assert not recalibration_fit.fit(votes, values, ONE, 0)["edge"]["pooled"]


def test_the_pool_is_the_geometric_mean_component_by_component():
    values, weights = some_concentrations(3, SMALL, 12), some_weights(3, SMALL, 6, 2)
    names = [question.name for question in SMALL.questions]
    pooled = {name: {"pooled": True, "factors": [1.0], "added": []} for name in names}
    # Two members of three samples with two components; one sample a member is left.
    found, shares, per_sample = recalibration.apply([pooled, pooled], values, weights, SMALL, 2)
    assert per_sample == 2 and found.shape == (3, 7, 4) and shares.shape == (3, 3, 4)
    for member, kind in np.ndindex(2, 2):
        own = [6 * member + 2 * sample + kind for sample in range(3)]
        expected = values[:, :, own].prod(axis=2) ** (1 / 3)
        np.testing.assert_allclose(found[:, :, 2 * member + kind], expected)
        both = [
            weights[:, :, [6 * member + 2 * sample + k for sample in range(3)]].prod(axis=2) for k in (0, 1)
        ]
        share = both[kind] ** (1 / 3) / (both[0] ** (1 / 3) + both[1] ** (1 / 3)) / 2
        np.testing.assert_allclose(shares[:, :, 2 * member + kind], share)
    # Where a member keeps its samples, the other's are equal copies of the one that they became.
    mixed, some, _ = recalibration.apply([pooled, None], values, weights, SMALL, 2)
    np.testing.assert_allclose(mixed[:, :, :6], np.tile(found[:, :, :2], 3))
    np.testing.assert_allclose(mixed[:, :, 6:], values[:, :, 6:])
    np.testing.assert_allclose(some[:, :, :6], np.tile(shares[:, :, :2] / 3, 3))
    np.testing.assert_allclose(some[:, :, 6:], weights[:, :, 6:])


def test_an_ensemble_of_right_members_is_too_wide_and_gets_a_factor():
    random = np.random.default_rng(2)
    _, values = samples_of(3000, random, shift=0.3)
    true = np.stack([random.dirichlet(each) for each in np.exp(np.log(values).mean(axis=2))])
    votes = np.stack([random.multinomial(15, each) for each in true])
    found = recalibration_fit.fit_ensemble(votes, values, ONE, 0)
    assert found["factor"] > 1.1 and found["after"] < found["before"]
    after = [np.abs(deviations(factor * values, true)).max() for factor in (1, found["factor"])]
    assert after[1] < 0.5 * after[0]
    few = recalibration_fit.fit_ensemble(votes[:30], values[:30], ONE, 0)
    assert few["factor"] == 1.0 and few["before"] == few["after"]


def test_too_few_galaxies_for_any_fit_leave_it_alone():
    _, votes, values = drawn(4, 6)
    for asked in (0, 1, 4):
        few = np.where(np.arange(4)[:, None] < asked, votes, 0)
        one = recalibration_fit.fit(few, values, ONE, 0)["edge"]
        assert one["kind"] == "leave" and one["galaxies"] == (few.sum(axis=1) > 0).sum()
        assert one["before"] is one["after"] is None


def test_weights_of_a_mixture_head_that_are_too_sure_are_mixed_with_fixed_ones():
    random = np.random.default_rng(3)
    values = np.concatenate([drawn(1200, 1, seed=seed)[2][:, :, :1] for seed in (1, 2)], axis=2)
    claimed = random.dirichlet([0.1, 0.1], 1200)
    # In truth the second component has 30 % of the galaxies, whatever the model claims.
    honest = 0.4 * claimed + [0.3, 0.3]
    component = (random.random(1200) > honest[:, 0]).astype(int)
    true = [random.dirichlet(values[galaxy, :, kind]) for galaxy, kind in enumerate(component)]
    votes = np.stack([random.multinomial(20, each) for each in true])
    found = recalibration_fit.fit(votes, values, ONE, 0, claimed[:, None], per_sample=2)["edge"]
    assert found["kind"] == "weights" and found["factors"] == [pytest.approx(1, abs=0.2)]
    assert found["added"] == pytest.approx([0.3, 0.3], abs=0.08)
    assert found["after"] < found["before"]
