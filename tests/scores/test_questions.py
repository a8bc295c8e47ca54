"""Losses of each question against SciPy, and which galaxies a question counts for."""

import numpy as np
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


def test_a_question_counts_where_half_of_the_volunteers_were_asked_it():
    questions = {"shape": {"answers": ["smooth", "disk", "star"]}, "ring": {"answers": ["yes", "no"]}}
    questions["bar"] = {"answers": ["yes", "no"], "after": "ring_yes"}
    tree = DecisionTree.from_dict({"name": "small", "questions": questions})
    votes = np.array([[4, 0, 0, 2, 2, 1, 1], [5, 0, 0, 2, 3, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
    assert list(relevant(votes, tree.questions[2], tree)) == [True, False, False]
