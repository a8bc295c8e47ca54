"""Predictive probabilities and mutual information against SciPy."""

import brute_force
import numpy as np
import pytest
from drawn import SMALL, some_concentrations, some_probabilities
from pipeline import REPO
from scipy import special, stats
from zoolib.config.labels import Label
from zoolib.config.trees import DecisionTree
from zoolib.posteriors.information import (
    featured_information,
    joint_information,
    label_information,
    vote_probabilities,
)
from zoolib.posteriors.summary import mean_fractions, probability_asked


def names(galaxies):
    return np.array([f"galaxy {number}" for number in range(galaxies)], object)


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


def undecided_tree(**questions):
    return DecisionTree.from_dict({"name": "t", "questions": questions})


@pytest.mark.parametrize("per_sample", [1, 3])
@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_joint_information_is_that_of_ten_times_the_share_asked(kind, per_sample):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    values, rng = draw(20, SMALL, 6), np.random.default_rng(1)
    weights = rng.dirichlet(np.full(6, 0.7), (20, 3)) if per_sample > 1 else None
    found, errors = joint_information(values, SMALL, names(20), kind, weights, per_sample)
    asked = probability_asked(mean_fractions(values, SMALL, weights), SMALL)
    assert found.shape == (20, 3) and not errors.any()
    counted = set()
    for galaxy, number in np.ndindex(20, 3):
        votes = round(10 * asked[galaxy, number])
        counted.add(votes)
        of_question = None if weights is None else weights[galaxy, number]
        chosen = values[galaxy, SMALL.questions[number].slice]
        expected = brute_force.information(chosen, votes, kind, of_question, per_sample) if votes else 0
        assert found[galaxy, number] == pytest.approx(expected, abs=1e-10)
    assert {1, 5, 10} <= counted


def test_a_question_that_nobody_would_be_asked_informs_nothing():
    values = np.ones((1, 7, 4))
    values[0, 0] = 1000
    values[0, 3, :2] = values[0, 4, 2:] = 50
    found, _ = joint_information(values, SMALL, names(1))
    assert found[0, 1] == 0
    values[0, 1] = 1000
    found, _ = joint_information(values, SMALL, names(1))
    assert found[0, 1] > 0.3


def test_two_answers_count_once():
    """The sum over both answers' votes, each on its own, would be twice the information."""
    values, tree = some_concentrations(5, SMALL, 8)[:, 3:5], undecided_tree(edge={"answers": ["yes", "no"]})
    found, _ = joint_information(values, tree, names(5))
    chances = vote_probabilities(values, tree, "edge_yes", 10)
    each = stats.betabinom(10, values[:, 0], values[:, 1]).pmf(np.arange(11)[:, None, None])
    expected = special.entr(chances).sum(axis=1) - special.entr(each).sum(axis=0).mean(axis=1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-8)


def test_simulated_information_is_the_same_in_any_chunk():
    tree = undecided_tree(kind={"answers": list("abcdefg")}, edge={"answers": ["yes", "no"]})
    values = some_concentrations(12, tree, 5)
    found, errors = joint_information(values, tree, names(12), seed=3)
    assert (errors[:, 0] > 0).all() and errors.max() <= 0.005 and not errors[:, 1].any()
    parts = [
        joint_information(values[rows], tree, names(12)[rows], seed=3)[0] for rows in (slice(5), slice(5, 12))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), found)
    other, _ = joint_information(values, tree, names(12), seed=4)
    assert 0 < np.abs(other - found).max() < 0.05


@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_the_papers_information_is_equation_3(kind):
    tree = DecisionTree.load(REPO / "config" / "trees" / "gz_decals_5.yaml")
    values = (some_concentrations if kind == "concentrations" else some_probabilities)(4, tree, 5)
    found = featured_information(values, tree, kind)
    k = np.arange(41)
    for galaxy in range(4):
        # Smooth, featured, artifact: votes for the last are left out.
        smooth, featured, _ = values[galaxy, :3]
        if kind == "concentrations":
            each = stats.betabinom(40, featured, smooth).pmf(k[:, None])
        else:
            each = stats.binom(40, featured / (featured + smooth)).pmf(k[:, None])
        expected = special.entr(each.mean(axis=1)).sum() - special.entr(each).sum(axis=0).mean()
        assert found[galaxy] == pytest.approx(expected, rel=1e-6)
        assert expected > 1e-3


def test_one_sample_has_no_information():
    values = some_concentrations(4, SMALL, 1)
    np.testing.assert_allclose(joint_information(values, SMALL, names(4))[0], 0, atol=1e-12)


def test_a_label_is_one_yes_or_no():
    # Two samples that are sure of opposite answers, and a softmax that rounded to more than 1.
    values = np.array([[[0.0, 1.0]], [[0.5, 0.5]], [[1.0000001, 1.0]]])
    found = label_information(values)
    np.testing.assert_allclose(found[:, 0], [np.log(2), 0, 0], atol=1e-6)


def test_classes_of_a_label_are_one_answer():
    labels = [Label("ring"), Label("kind", "multiclass", ("a", "b", "c"))]
    values = np.concatenate(
        [some_probabilities(3, undecided_tree(q={"answers": list("abc")}), 4)] * 2, axis=1
    )[:, 2:]
    found = label_information(values, labels)
    assert found.shape == (3, 2)
    for galaxy in range(3):
        both = np.stack([values[galaxy, 0], 1 - values[galaxy, 0]])
        expected = [brute_force.information(some, 1, "probabilities") for some in (both, values[galaxy, 1:])]
        np.testing.assert_allclose(found[galaxy], expected, atol=1e-10)
