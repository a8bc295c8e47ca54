"""The likelihood of votes, against scipy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import digamma, gammaln, log_softmax, logsumexp
from scipy.stats import dirichlet_multinomial, multinomial
from zoolib.config.trees import DecisionTree
from zoolib.learning import models
from zoolib.learning.likelihood import (
    LOSSES,
    QuestionLosses,
    TreeLoss,
    dirichlet_mixture_loss,
    dirichlet_multinomial_loss,
    multinomial_loss,
    question_losses,
)

TREE = DecisionTree.from_dict(
    {"questions": {"a": {"answers": ["x", "y"]}, "b": {"answers": ["u", "v", "w"], "after": "a_x"}}}
)


def draw(answers, galaxies=400, seed=0):
    rng = np.random.default_rng([seed, answers])
    concentrations = (10 ** rng.uniform(-2, 5, (galaxies, answers))).astype("float32")
    totals = rng.integers(0, 201, galaxies)
    # Extreme values: the ends of the ranges, and the number from which the Stirling series is used.
    ends = np.array([1e-2, 1, 8, 101, 1e5], "float32")
    concentrations[::4] = rng.choice(ends, concentrations[::4].shape)
    totals[::8], totals[1::8] = 200, 0
    shares = rng.dirichlet(np.full(answers, 0.7), galaxies)
    votes = np.array([rng.multinomial(total, share) for total, share in zip(totals, shares, strict=True)])
    return votes.astype("float32"), concentrations


def loss_and_gradient(votes, values, loss_of=dirichlet_multinomial_loss):
    variable = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        loss = loss_of(votes, variable)
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
    assert (loss[totals == 0] == 0).all()


@pytest.mark.parametrize("answers", [2, 8])
def test_the_multinomial_loss_and_gradient_are_those_of_scipy(answers):
    votes, weights = draw(answers)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    loss, gradient = loss_and_gradient(votes, probabilities, multinomial_loss)
    exact = probabilities.astype("float64")
    exact /= exact.sum(axis=1, keepdims=True)
    expected = -multinomial.logpmf(votes.astype(int), votes.sum(axis=1).astype(int), exact)
    assert np.abs(loss - expected).max() < 1e-3
    np.testing.assert_allclose(gradient, -votes / exact, rtol=1e-5)


def draw_mixtures(answers, components, galaxies=3000):
    """Votes, concentrations (galaxies, components, answers) and log weights (galaxies, components)."""
    rng = np.random.default_rng([answers, components])
    shape = (galaxies, components, answers)
    concentrations = 10 ** rng.uniform(-2, 5, shape)
    concentrations[::4] = rng.choice([1e-2, 1, 8, 101, 1e5], shape)[::4]
    # Components that are nearly the same: all of them count.
    near = concentrations[:, :1] * np.exp(rng.normal(0, 0.01, shape))
    concentrations[3::4] = near[3::4].clip(1e-2, 1e5)
    totals = rng.integers(0, 5001, galaxies)
    totals[::8], totals[1::8], totals[2::4] = 5000, 0, rng.integers(0, 60, len(totals[2::4]))
    shares = rng.dirichlet(np.full(answers, 0.7), galaxies)
    votes = np.array([rng.multinomial(total, share) for total, share in zip(totals, shares, strict=True)])
    # From nearly equal weights to some that underflow.
    logits = rng.normal(0, rng.choice([0.1, 2, 60], (galaxies, 1)), (galaxies, components))
    numbers = votes, concentrations, log_softmax(logits, axis=1)
    return [array.astype("float32") for array in numbers]


@pytest.mark.parametrize("answers", [2, 3, 8])
@pytest.mark.parametrize("components", [1, 3, 5])
def test_the_mixture_loss_and_gradient_are_those_of_scipy(answers, components):
    votes, concentrations, log_weights = draw_mixtures(answers, components)
    outputs = np.concatenate([concentrations.reshape(len(votes), -1), log_weights], axis=1)
    loss, gradient = loss_and_gradient(votes, outputs, dirichlet_mixture_loss)

    votes, exact, logs = (array.astype(float) for array in (votes, concentrations, log_weights))
    totals, sums = votes.sum(axis=1, keepdims=True), exact.sum(axis=2)
    of_components = np.stack(
        [dirichlet_multinomial.logpmf(votes.astype(int), exact[:, k], totals[:, 0].astype(int))
         for k in range(components)], axis=1
    )  # fmt: skip
    # 1e-3 nats, or 2e-6 of the largest of the terms that are summed, log Γ(α + n) - log Γ(α) of each sum.
    terms = gammaln(exact + votes[:, None]) - gammaln(exact)
    terms = np.hstack([terms.reshape(len(votes), -1), gammaln(sums + totals) - gammaln(sums)])
    terms = np.hstack([terms, gammaln(totals + 1), gammaln(votes + 1)])
    allowed = np.maximum(1e-3, 2e-6 * np.abs(terms).max(axis=1))
    assert (np.abs(loss + logsumexp(logs + of_components, axis=1)) <= allowed).all()
    assert (allowed == 1e-3).mean() > 0.2

    # The weight of each component after the votes: the gradient of its log weight, and a factor of the rest.
    after = np.exp(log_softmax(logs + of_components, axis=1))
    to_values, to_weights = np.split(gradient, [components * answers], axis=1)
    assert (np.abs(to_weights + after * (totals > 0)) <= allowed[:, None]).all()
    closed = digamma(sums + totals) - digamma(sums)
    closed = closed[:, :, None] - digamma(exact + votes[:, None]) + digamma(exact)
    size = after[:, :, None] * np.maximum(np.abs(closed), (totals / sums)[:, :, None])
    difference = np.abs(to_values.reshape(exact.shape) - after[:, :, None] * closed)
    # Below 1e-30 single precision has fewer digits.
    assert (difference <= np.maximum(allowed[:, None, None] * size, 1e-30)).all()
    nobody = totals[:, 0] == 0
    assert (loss[nobody] == 0).all() and (gradient[nobody] == 0).all()


def test_a_mixture_of_one_component_is_the_dirichlet_multinomial():
    votes, concentrations = draw(3)
    outputs = np.hstack([concentrations, np.zeros((len(votes), 1), "float32")])
    loss, gradient = loss_and_gradient(votes, outputs, dirichlet_mixture_loss)
    expected, expected_gradient = loss_and_gradient(votes, concentrations)
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_allclose(gradient[:, :3], expected_gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient[:, 3], -(votes.sum(axis=1) > 0).astype(float), rtol=1e-6)


def test_the_mixtures_of_a_tree_are_those_of_its_questions():
    rng = np.random.default_rng(4)
    votes = rng.integers(0, 20, (7, 5)).astype("float32")
    votes[2, 2:] = 0
    concentrations = rng.uniform(0.1, 50, (7, 3, 5)).astype("float32")
    log_weights = log_softmax(rng.normal(size=(7, 3, 2)), axis=1).astype("float32")
    outputs = np.hstack([concentrations.reshape(7, -1), log_weights.reshape(7, -1)])
    losses = question_losses(TREE, votes, outputs, "mixtures").numpy()
    for number, question in enumerate(TREE.questions):
        own = np.hstack([concentrations[:, :, question.slice].reshape(7, -1), log_weights[:, :, number]])
        alone = dirichlet_mixture_loss(votes[:, question.slice], own).numpy()
        np.testing.assert_allclose(losses[:, number], alone, rtol=1e-5, atol=1e-5)
    assert losses[2, 1] == 0
    assert float(TreeLoss(TREE, "mixtures")(votes, outputs)) == pytest.approx(losses.sum() / 7, rel=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_question_without_votes_adds_nothing(kind):
    values = {"concentrations": [[0.01, 1e5], [1.0, 101.0]], "probabilities": [[0.0, 1.0], [0.3, 0.7]]}
    logs = np.log([[0.2, 0.8], [1e-6, 1 - 1e-6]])
    values["mixtures"] = np.hstack([[[0.01, 1e5, 3.0, 0.3], [1.0, 101.0, 1e5, 1e5]], logs])
    nobody = np.zeros((2, 2), "float32")
    loss, gradient = loss_and_gradient(nobody, np.array(values[kind], "float32"), LOSSES[kind])
    assert (loss == 0).all()
    assert (gradient == 0).all()


def test_a_probability_that_underflows_gives_a_finite_loss():
    logits = tf.constant([[300.0, 0.0], [0.0, 300.0], [60.0, 0.0]])
    votes = np.array([[3.0, 0.0], [200.0, 0.0], [0.0, 200.0]], "float32")
    loss, gradient = loss_and_gradient(votes, logits, lambda v, z: multinomial_loss(v, tf.nn.softmax(z)))
    assert loss[0] == 0
    assert (loss[1:] > 1e4).all()
    assert np.isfinite(loss).all()
    assert np.isfinite(gradient).all()


def test_tree_loss_sums_questions_and_averages_galaxies():
    rng = np.random.default_rng(1)
    votes = rng.integers(0, 20, (7, 5)).astype("float32")
    concentrations = rng.uniform(1, 101, (7, 5)).astype("float32")
    expected = [
        -dirichlet_multinomial.logpmf(row[part].astype(int), a[part], int(row[part].sum()))
        for row, a in zip(votes, concentrations.astype("float64"), strict=True)
        for part in (slice(0, 2), slice(2, 5))
    ]
    losses = question_losses(TREE, votes, concentrations).numpy()
    np.testing.assert_allclose(losses, np.reshape(expected, (7, 2)), atol=1e-4)
    assert float(TreeLoss(TREE)(votes, concentrations)) == pytest.approx(np.sum(expected) / 7, abs=1e-4)


def test_half_precision_stays_finite():
    votes = np.array([[200.0, 0.0]], "float32")
    loss = dirichlet_multinomial_loss(votes, tf.constant([[1.0, 101.0]], tf.float16))
    assert np.isfinite(loss.numpy()).all()


def test_each_question_is_logged_as_its_mean_over_the_galaxies_asked():
    rng = np.random.default_rng(2)
    votes = rng.integers(1, 20, (9, 5)).astype("float32")
    votes[4:, 2:] = 0
    concentrations = rng.uniform(1, 101, (9, 5)).astype("float32")
    metric = QuestionLosses(TREE)
    metric.update_state(votes[4:], concentrations[4:])
    assert np.isnan(metric.result()["loss_b"])
    metric.update_state(votes[:4], concentrations[:4])
    losses = question_losses(TREE, votes, concentrations).numpy()
    logged = {name: float(value) for name, value in metric.result().items()}
    expected = {"loss_a": losses[:, 0].mean(), "loss_b": losses[:4, 1].mean()}
    assert logged == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("head", models.KINDS)
def test_training_in_half_precision_stays_finite(head):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((4,))
        features = keras.layers.Dense(8, activation="relu")(inputs)
        network = keras.Model(inputs, models.tree_head(8, TREE, 0.2, head, components=3)(features))
        optimizer = keras.optimizers.Adam(0.02)
        network.compile(optimizer, TreeLoss(TREE, models.KINDS[head]), jit_compile=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    pixels = np.random.default_rng(0).normal(0, 5, (64, 4)).astype("float32")
    votes = np.tile([200.0, 0, 0, 150, 50], (64, 1)).astype("float32")
    before = network.get_weights()
    history = network.fit(pixels, votes, batch_size=8, epochs=5, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    for weight, old in zip(network.get_weights(), before, strict=True):
        assert np.isfinite(weight).all()
        assert np.abs(weight - old).max() > 0
    values = network(pixels)
    assert values.dtype == "float32"
    assert np.isfinite(values).all()
