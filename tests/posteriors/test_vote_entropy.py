"""Information of the votes on a question against SciPy, by brute force over all results of the votes."""

import numpy as np
import pytest
from brute_force import chances_of, entropy, information
from zoolib.posteriors import vote_entropy
from zoolib.posteriors.vote_entropy import MOST, component_entropies, information_of_votes


def some(answers, components, kind, seed=0, galaxies=3):
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(1, 1.5, (galaxies, answers, components)))
    weights = rng.dirichlet(np.full(components, 0.7), galaxies)
    return values if kind == "concentrations" else values / values.sum(axis=1, keepdims=True), weights


def no_generator(place):
    raise AssertionError(f"galaxy {place} was simulated")


@pytest.mark.parametrize("per_sample", [1, 3])
@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
@pytest.mark.parametrize(("answers", "votes"), [(2, 1), (2, 40), (3, 10), (4, 7), (5, 4), (6, 3)])
def test_the_information_is_that_of_all_results(answers, votes, kind, per_sample):
    values, weights = some(answers, 6, kind)
    step = kind == "concentrations"
    for given in (weights, None):
        found, errors = information_of_votes(values, votes, step, no_generator, given, per_sample)
        used = np.full((3, 6), 1 / 6) if given is None else given
        expected = [information(v, votes, kind, w, per_sample) for v, w in zip(values, used, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-10)
        assert min(expected) > 1e-3 and not errors.any()


@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
@pytest.mark.parametrize(("answers", "votes"), [(2, 10), (3, 40), (6, 5)])
def test_the_entropy_of_a_component_is_exact(answers, votes, kind):
    values, _ = some(answers, 4, kind)
    found = component_entropies(values.swapaxes(0, 1), votes, kind == "concentrations")
    np.testing.assert_allclose(found, [entropy(chances_of(v, votes, kind)) for v in values], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e5, 1e30])
def test_small_and_large_concentrations(scale):
    values, weights = some(3, 4, "concentrations")
    found, _ = information_of_votes(values * scale, 10, 1, no_generator, weights)
    # SciPy's differences of log-gammas have no digits left for the largest ones.
    compared = np.minimum(values * scale, 1e9 * values)
    kind = "concentrations" if scale < 1e9 else "probabilities"
    expected = [information(v, 10, kind, w, 1) for v, w in zip(compared, weights, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_answers_that_cannot_be_given():
    values = np.array([[[1.0, 0.5], [0.0, 0.5], [0.0, 0.0]]])
    found, _ = information_of_votes(values, 2, 0, no_generator)
    expected = information(values[0], 2, "probabilities", np.full(2, 0.5), 1)
    np.testing.assert_allclose(found, [expected], atol=1e-12)


@pytest.mark.parametrize("per_sample", [1, 3])
@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_more_results_are_simulated_to_the_stated_error(kind, per_sample, monkeypatch):
    values, weights = some(4, 6, kind, galaxies=40)
    step = kind == "concentrations"
    exact, _ = information_of_votes(values, 6, step, no_generator, weights, per_sample)
    monkeypatch.setattr(vote_entropy, "MOST", 83)
    found, errors = information_of_votes(values, 6, step, np.random.default_rng, weights, per_sample)
    assert (errors > 0).all() and errors.max() <= 0.005
    pulls = (found - exact) / errors
    assert abs(pulls.mean()) < 0.5 and 0.5 < pulls.std() < 1.3
    again, _ = information_of_votes(
        values[7:8], 6, step, lambda place: np.random.default_rng(7), weights[7:8], per_sample
    )
    np.testing.assert_array_equal(again, found[7:8])


def test_up_to_5000_results_are_counted():
    assert MOST == 5000
    values, weights = some(7, 3, "concentrations", galaxies=1)
    # 3,003 and 5,005 results.
    information_of_votes(values, 8, 1, no_generator, weights)
    with pytest.raises(AssertionError, match="was simulated"):
        information_of_votes(values, 9, 1, no_generator, weights)


def test_only_disagreement_informs():
    undecided, contrary = np.full((1, 2, 4), 30.0), np.full((1, 2, 4), 1.0)
    contrary[0, 0, :2] = contrary[0, 1, 2:] = 100
    (nothing,), _ = information_of_votes(undecided, 10, 1, no_generator)
    (much,), _ = information_of_votes(contrary, 10, 1, no_generator)
    assert nothing == pytest.approx(0, abs=1e-12)
    # Two opinions that votes can tell apart: nearly one bit.
    assert 0.6 < much < np.log(2)


def test_components_of_one_sample_do_not_contradict_each_other():
    contrary = np.array([[[100.0, 1.0], [1.0, 100.0]]])
    apart, _ = information_of_votes(contrary, 10, 1, no_generator)
    together, _ = information_of_votes(contrary, 10, 1, no_generator, per_sample=2)
    assert apart > 0.6 and together == pytest.approx(0, abs=1e-12)
