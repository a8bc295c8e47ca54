"""The Dirichlet-multinomial likelihood, against scipy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import digamma
from scipy.stats import dirichlet_multinomial
from zoolib.likelihood import TreeLoss, dirichlet_multinomial_loss, question_losses
from zoolib.trees import DecisionTree


def draw(answers, galaxies=400, seed=0):
    rng = np.random.default_rng([seed, answers])
    concentrations = (10 ** rng.uniform(-2, 5, (galaxies, answers))).astype("float32")
    totals = rng.integers(0, 201, galaxies)
    shares = rng.dirichlet(np.full(answers, 0.7), galaxies)
    votes = np.array([rng.multinomial(total, share) for total, share in zip(totals, shares, strict=True)])
    return votes.astype("float32"), concentrations


def loss_and_gradient(votes, concentrations):
    variable = tf.constant(concentrations)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        loss = dirichlet_multinomial_loss(votes, variable)
    return loss.numpy(), tape.gradient(loss, variable).numpy()


@pytest.mark.parametrize("answers", range(2, 9))
def test_loss_and_gradient_are_those_of_scipy(answers):
    votes, concentrations = draw(answers)
    loss, gradient = loss_and_gradient(votes, concentrations)
    exact, totals = concentrations.astype("float64"), votes.sum(axis=1)
    rows = zip(votes, exact, totals, strict=True)
    expected = [-dirichlet_multinomial.logpmf(vote.astype(int), a, int(total)) for vote, a, total in rows]
    assert np.abs(loss - expected).max() < 1e-3

    sums = exact.sum(axis=1, keepdims=True)
    closed = digamma(sums + totals[:, None]) - digamma(sums) - digamma(exact + votes) + digamma(exact)
    allowed = 1e-3 * np.maximum(np.abs(closed), totals[:, None] / sums)
    assert (np.abs(gradient - closed) <= allowed).all()


def test_a_question_nobody_was_asked_adds_nothing():
    concentrations = np.array([[0.01, 1e5], [1.0, 101.0]], "float32")
    loss, gradient = loss_and_gradient(np.zeros((2, 2), "float32"), concentrations)
    assert (loss == 0).all()
    assert (gradient == 0).all()


def test_tree_loss_sums_questions_and_averages_galaxies():
    tree = DecisionTree.from_dict(
        {"questions": {"a": {"answers": ["x", "y"]}, "b": {"answers": ["u", "v", "w"], "after": "a_x"}}}
    )
    rng = np.random.default_rng(1)
    votes = rng.integers(0, 20, (7, 5)).astype("float32")
    concentrations = rng.uniform(1, 101, (7, 5)).astype("float32")
    expected = [
        -dirichlet_multinomial.logpmf(row[part].astype(int), a[part], int(row[part].sum()))
        for row, a in zip(votes, concentrations.astype("float64"), strict=True)
        for part in (slice(0, 2), slice(2, 5))
    ]
    losses = question_losses(tree, votes, concentrations).numpy()
    np.testing.assert_allclose(losses, np.reshape(expected, (7, 2)), atol=1e-4)
    assert float(TreeLoss(tree)(votes, concentrations)) == pytest.approx(np.sum(expected) / 7, abs=1e-4)


def test_half_precision_stays_finite():
    votes = np.array([[200.0, 0.0]], "float32")
    loss = dirichlet_multinomial_loss(votes, tf.constant([[1.0, 101.0]], tf.float16))
    assert np.isfinite(loss.numpy()).all()
