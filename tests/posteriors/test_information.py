"""Predictive probabilities and mutual information against SciPy's beta-binomials."""

import numpy as np
import pytest
from drawn import SMALL, some_concentrations, some_probabilities
from scipy import stats
from zoolib.posteriors.information import information, vote_probabilities


def entropy(chances):
    return -(chances * np.log(chances, where=chances > 0, out=np.zeros_like(chances))).sum()


def of_each_sample(values, question, answer, votes, kind):
    """(samples, votes + 1), by SciPy."""
    k = np.arange(votes + 1)
    chosen, total = values[answer], values[question.slice].sum(axis=0)
    if kind == "probabilities":
        return np.stack([stats.binom(votes, p).pmf(k) for p in chosen])
    return np.stack([stats.betabinom(votes, a, t - a).pmf(k) for a, t in zip(chosen, total, strict=True)])


@pytest.mark.parametrize("votes", [1, 10, 200])
@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_vote_probabilities_are_scipys_mixture(kind, votes):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    values = draw(3, SMALL, 6)
    found = vote_probabilities(values, SMALL, SMALL.columns, votes, kind)
    assert found.shape == (3, 7, votes + 1)
    for question in SMALL.questions:
        for galaxy in range(3):
            for answer in range(question.slice.start, question.slice.stop):
                each = of_each_sample(values[galaxy], question, answer, votes, kind)
                np.testing.assert_allclose(found[galaxy, answer], each.mean(axis=0), rtol=1e-8, atol=1e-14)
    one = vote_probabilities(values, SMALL, "edge_no", votes, kind)
    np.testing.assert_array_equal(one, found[:, SMALL.columns.index("edge_no")])


def test_vote_probabilities_of_weighted_components_are_scipys_mixture():
    values, rng = some_concentrations(3, SMALL, 6), np.random.default_rng(4)
    weights = rng.dirichlet(np.full(6, 0.5), (3, len(SMALL.questions)))
    found = vote_probabilities(values, SMALL, SMALL.columns, 10, weights=weights)
    for number, question in enumerate(SMALL.questions):
        for galaxy in range(3):
            for answer in range(question.slice.start, question.slice.stop):
                each = of_each_sample(values[galaxy], question, answer, 10, "concentrations")
                np.testing.assert_allclose(found[galaxy, answer], weights[galaxy, number] @ each, rtol=1e-8)
    one = vote_probabilities(values, SMALL, "bulge_big", 10, weights=weights)
    np.testing.assert_array_equal(one, found[:, SMALL.columns.index("bulge_big")])
    equal = vote_probabilities(values, SMALL, SMALL.columns, 10, weights=np.full((3, 3, 6), 1 / 6))
    np.testing.assert_allclose(equal, vote_probabilities(values, SMALL, SMALL.columns, 10), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1e5])
def test_small_and_large_concentrations(scale):
    values = scale * some_concentrations(2, SMALL, 3)
    found = vote_probabilities(values, SMALL, ["bulge_big"], 30)
    each = of_each_sample(values[1], SMALL.questions[2], 5, 30, "concentrations")
    np.testing.assert_allclose(found[1, 0], each.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=2), 1, rtol=1e-10)


@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_information_is_entropy_of_the_mean_minus_mean_entropy(kind):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    values = draw(3, SMALL, 6)
    found = information(values, SMALL, kind=kind)
    for question in SMALL.questions:
        for galaxy in range(3):
            for answer in range(question.slice.start, question.slice.stop):
                each = of_each_sample(values[galaxy], question, answer, 10, kind)
                expected = entropy(each.mean(axis=0)) - np.mean([entropy(chances) for chances in each])
                assert found[galaxy, answer] == pytest.approx(expected, abs=1e-10)
                assert expected > 1e-3


def test_only_disagreement_informs():
    undecided = np.full((1, 7, 4), 30.0)
    sure_and_different = np.full((1, 7, 4), 1.0)
    sure_and_different[0, 0, :2] = sure_and_different[0, 1, 2:] = 100
    found = [information(values, SMALL)[0, 0] for values in (undecided, sure_and_different)]
    assert found[0] == pytest.approx(0, abs=1e-12)
    # Two opinions that votes can tell apart: nearly one bit.
    assert 0.6 < found[1] < np.log(2)


def test_one_sample_has_no_information():
    np.testing.assert_allclose(information(some_concentrations(4, SMALL, 1), SMALL), 0, atol=1e-12)


def test_a_label_is_one_yes_or_no():
    # Two samples that are sure of opposite answers, and a softmax that rounded to more than 1.
    values = np.array([[[0.0, 1.0]], [[0.5, 0.5]], [[1.0000001, 1.0]]])
    found = information(values, None, votes=1, kind="probabilities")
    np.testing.assert_allclose(found[:, 0], [np.log(2), 0, 0], atol=1e-6)
