"""Losses of each question against SciPy, and which galaxies a question counts for."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from drawn import SMALL, duplicated, some_concentrations, some_shares
from scipy import stats
from zoolib.config.trees import DecisionTree
from zoolib.scores.questions import question_losses, relevant


def test_losses_are_those_of_scipy(tree):
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.3, 60, len(tree.columns))
    votes = rng.integers(0, 12, (20, len(alpha)))
    votes[:, tree.questions[2].slice] = 0
    shares, mixed, fixed = alpha.copy(), np.zeros(20), np.zeros(20)
    for question in tree.questions:
        counted, chosen = votes[:, question.slice], alpha[question.slice]
        shares[question.slice] = chosen / chosen.sum()
        mixed -= stats.dirichlet_multinomial.logpmf(counted, chosen, counted.sum(1))
        fixed -= stats.multinomial.logpmf(counted, counted.sum(1), shares[question.slice])
    for values, kind, expected in ((alpha, "concentrations", mixed), (shares, "probabilities", fixed)):
        one_sample = np.tile(values, (20, 1))[:, :, None]
        losses = question_losses(tree, votes, one_sample, kind)
        assert np.allclose(losses.sum(axis=1), expected)
        assert (losses[:, 2] == 0).all()


def test_losses_of_a_weighted_mixture_are_those_of_duplicated_components(tree):
    values, weights = some_concentrations(20, tree, 3), some_shares(20, tree)
    votes = np.random.default_rng(1).integers(0, 12, values.shape[:2])
    found = question_losses(tree, votes, values, "concentrations", weights)
    expected = question_losses(tree, votes, duplicated(values, tree, weights), "concentrations")
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert (np.abs(found - question_losses(tree, votes, values, "concentrations")) > 0.01).mean() > 0.3


def test_a_question_counts_where_half_of_the_volunteers_were_asked_it():
    questions = {"shape": {"answers": ["smooth", "disk", "star"]}, "ring": {"answers": ["yes", "no"]}}
    questions["bar"] = {"answers": ["yes", "no"], "after": "ring_yes"}
    tree = DecisionTree.from_dict({"name": "small", "questions": questions})
    votes = np.array([[4, 0, 0, 2, 2, 1, 1], [5, 0, 0, 2, 3, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
    assert list(relevant(votes, tree.questions[2], tree, "asked")) == [True, False, False]
    # Two of four are not more than one half, three of five are.
    votes[1, 3:5] = [3, 2]
    assert list(relevant(votes, tree.questions[2], tree)) == [False, True, False]


def product_above_half(votes, question, tree):
    """The rule of Zoobot 0.0.3 for one galaxy, in exact fractions, from the question up to the root."""

    def chance(asked):
        total = Fraction(0)
        for column in asked.after:
            parent = next(other for other in tree.questions if column in other.columns)
            of_parent = [int(votes[tree.columns.index(answer)]) for answer in parent.columns]
            if sum(of_parent):
                answered = int(votes[tree.columns.index(column)])
                total += Fraction(answered, sum(of_parent)) * chance(parent)
        return total if asked.after else Fraction(1)

    return votes[question.slice].sum() > 0 and chance(question) > Fraction(1, 2)


@pytest.mark.parametrize("most", [3, 12, 90])
def test_a_question_counts_where_the_product_of_the_fractions_before_it_is_above_one_half(tree, most):
    rng = np.random.default_rng(most)
    for several in (tree, SMALL):
        # Few answers and few votes, so that there are exact halves, and questions without a vote.
        votes = rng.integers(0, most, (400, len(several.columns))) * (
            rng.random((400, len(several.columns))) < 0.6
        )
        # The answers that lead somewhere have most votes.
        leading = [several.columns.index(column) for q in several.questions for column in q.after]
        votes[:, leading] *= 4
        for question in several.questions:
            expected = [product_above_half(galaxy, question, several) for galaxy in votes]
            assert list(relevant(votes, question, several)) == expected
            assert 0 < sum(expected) < 400


def test_questions_of_all_galaxies_need_only_a_vote(tree):
    # Ten volunteers: six call it an artifact and are asked nothing more.
    votes = np.zeros((2, len(tree.columns)), int)
    votes[:, :3] = [1, 3, 6]
    merging = tree.questions[-1]
    votes[0, merging.slice] = [4, 0, 0, 0]
    assert list(relevant(votes, merging, tree)) == [True, False]
    assert list(relevant(votes, merging, tree, "asked")) == [False, False]
    assert relevant(votes, tree.questions[0], tree).all()


def test_the_rules_choose_other_galaxies_of_the_miniature(tree, real_data):
    table = pd.read_csv(real_data / "gz_decals_record" / "gz_decals_volunteers_5.csv")
    votes = table[tree.columns].fillna(0).to_numpy(int)
    votes = votes[votes[:, :3].sum(axis=1) >= 34]
    counts = {
        question.name: [int(relevant(votes, question, tree, rule).sum()) for rule in ("product", "asked")]
        for question in tree.questions
    }
    # docs/reproducing.md has these numbers.
    assert counts["smooth-or-featured"] == [343, 343]
    assert counts["disk-edge-on"] == [180, 183]
    assert counts["how-rounded"] == [119, 120]
    assert counts["spiral-winding"] == counts["spiral-arm-count"] == [115, 119]
