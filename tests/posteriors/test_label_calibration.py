"""Recalibrated labels: coverage of simulated numbers, temperatures against scipy, and what few labels do."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special, stats
from task_fits import KIND, RING, SIZE
from zoolib.config.labels import Label
from zoolib.posteriors import label_calibration
from zoolib.posteriors.intervals import credible_intervals

LEVELS = (0.5, 0.8, 0.9, 0.95)


def numbers(galaxies, seed, scatter=0.5, spread=0.1, samples=30):
    """True numbers, and samples around them: the scatter is known, and the samples know little of it."""
    random = np.random.default_rng(seed)
    truth = random.normal(10, 2, galaxies)
    deviation = scatter * (np.ones(galaxies) if np.isscalar(spread) else 1)
    means = truth + random.normal(0, deviation, galaxies)
    values = means[:, None, None] + spread * random.normal(size=(galaxies, 1, samples))
    return pd.DataFrame({"size": truth}), values


def covered(truth, values, level):
    low, high = credible_intervals(values, None, level, "values")
    return ((low[:, 0] <= truth["size"]) & (truth["size"] <= high[:, 0])).mean()


@pytest.mark.parametrize("samples", [1, 30])
def test_intervals_of_known_scatter_hold_what_they_say(samples):
    targets, values = numbers(1000, 0, samples=samples)
    found = label_calibration.fit([SIZE], targets, values, targets)
    asked, others = numbers(4000, 1, samples=samples)
    after = label_calibration.apply([found], others, [SIZE])
    assert found["size"]["noise"] == pytest.approx(0.5, rel=0.06)
    assert after.mean(axis=2) == pytest.approx(others.mean(axis=2))
    for level in LEVELS:
        # Errors of the 1,000 galaxies of the fit, and of the 4,000 that are scored.
        error = np.sqrt(level * (1 - level) * (1 / 1000 + 1 / 4000))
        assert covered(asked, after, level) == pytest.approx(level, abs=3 * error + 0.005)
    if samples > 1:
        assert covered(asked, others, 0.9) < 0.35


def test_intervals_of_few_galaxies_hold_what_they_say_on_average():
    shares = []
    for seed in range(200):
        targets, values = numbers(20, seed)
        found = label_calibration.fit([SIZE], targets, values, targets)
        asked, others = numbers(200, 1000 + seed)
        shares.append(covered(asked, label_calibration.apply([found], others, [SIZE]), 0.9))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.015)


def test_intervals_follow_the_samples_where_these_know_the_scatter():
    random = np.random.default_rng(3)
    scatter = random.uniform(0.1, 2, 2000)
    truth = pd.DataFrame({"size": random.normal(size=2000)})
    means = truth["size"].to_numpy() + scatter * random.normal(size=2000)
    # The samples are half as wide as they should be.
    values = means[:, None, None] + scatter[:, None, None] / 2 * random.normal(size=(2000, 1, 30))
    known, asked = slice(0, 1000), slice(1000, None)
    found = label_calibration.fit([SIZE], truth[known], values[known], truth)
    assert found["size"]["scale"][1] == pytest.approx(2, rel=0.15)
    after = label_calibration.apply([found], values[asked], [SIZE])
    for part in (scatter[asked] < 0.5, scatter[asked] > 1.5):
        assert covered(truth[asked][part], after[part], 0.9) == pytest.approx(0.9, abs=0.07)


def test_several_members_keep_their_own_residuals():
    targets, values = numbers(500, 4)
    sure = label_calibration.fit([SIZE], targets, values, targets)
    both = np.concatenate([values[:50], values[:50] + 3], axis=2)
    after = label_calibration.apply([sure, None], both, [SIZE])
    half = after.shape[2] // 2
    assert after.shape[2] >= label_calibration.NODES
    assert (after[:, :, half:] == np.repeat(values[:50] + 3, half // 30, axis=2)).all()
    assert after[:, 0, :half].std(axis=1) == pytest.approx(np.full(50, 0.5), rel=0.15)


def classes(label, galaxies, temperature, seed):
    """True classes, and probabilities that are surer than they should be by a temperature."""
    random = np.random.default_rng(seed)
    count = max(2, len(label.classes))
    logits = random.normal(0, 1.5, (galaxies, count))
    truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    noisy = temperature * logits[:, :, None] + random.normal(0, 0.1, (galaxies, count, 5))
    values = special.softmax(noisy, axis=1)
    return pd.DataFrame({label.name: truth}), values[:, 1:] if label.kind == "binary" else values


@pytest.mark.parametrize("label", [RING, KIND], ids=["binary", "multiclass"])
@pytest.mark.parametrize("galaxies", [30, 800])
def test_a_temperature_is_scipys_minimum(label, galaxies):
    targets, values = classes(label, galaxies, 3.0, 5)
    found = label_calibration.fit([label], targets, values, targets)[label.name]
    full = np.concatenate([1 - values, values], axis=1) if label.kind == "binary" else values
    truth, count = targets[label.name].to_numpy(), full.shape[1]
    wanted = (np.eye(count)[truth] * galaxies + 1) / (galaxies + count)

    def loss(log_temperature):
        mean = special.softmax(np.log(full) / np.exp(log_temperature[0]), axis=1).mean(axis=2)
        return stats.entropy(wanted, mean, axis=1).sum()

    best = optimize.minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    assert found["kind"] == "temperature"
    assert found["temperature"] == pytest.approx(np.exp(best.x[0]), rel=1e-3)
    assert found["after"] < found["before"]
    after = label_calibration.apply([{label.name: found}], values, [label])
    assert after.shape == values.shape
    expected = special.softmax(np.log(full) / found["temperature"], axis=1)
    assert after == pytest.approx(expected[:, 1:] if label.kind == "binary" else expected, abs=1e-6)
    if galaxies == 800:
        assert found["temperature"] == pytest.approx(3, rel=0.15)


def test_a_model_that_is_right_stays_as_it_is_and_a_few_right_answers_make_nothing_certain():
    targets, values = classes(RING, 400, 1.0, 6)
    found = label_calibration.fit([RING], targets, values, targets)["ring"]
    assert (found["kind"], found["temperature"]) == ("leave", 1.0)
    always = pd.DataFrame({"ring": [1] * 6 + [0] * 6})
    values = np.where(always["ring"] == 1, 0.7, 0.3)[:, None, None]
    found = label_calibration.fit([RING], always, values, always)
    after = label_calibration.apply([found], values, [RING])
    assert 0.7 < after.max() == pytest.approx(13 / 14, abs=0.005)


@pytest.mark.parametrize("label", [RING, SIZE], ids=["classes", "numbers"])
def test_too_few_galaxies_change_nothing(label):
    make = numbers if label is SIZE else lambda galaxies, seed: classes(RING, galaxies, 3.0, seed)
    for galaxies in (0, 1, label_calibration.FEWEST - 1):
        targets, values = make(galaxies, 7)
        found = label_calibration.fit([label], targets, values, targets)
        assert found[label.name]["kind"] == "leave"
        assert found[label.name]["galaxies"] == galaxies
        after = label_calibration.apply([found], values, [label])
        assert (after == np.repeat(values, after.shape[2] // values.shape[2], axis=2)).all()
        label_calibration.check(found, [label])


def test_bounds_are_given_or_guessed_for_fractions():
    targets, values = numbers(20, 8)
    mass = Label("size", "regression", bounds=(7, 12))
    guess = label_calibration.fit([SIZE], targets, values, targets / 100)
    cases = [
        (SIZE, targets, None, False),
        (mass, targets / 100, [7, 12], False),
        (SIZE, targets / 100, [0, 1], True),
        (SIZE, (targets - 10) / 100, None, False),
    ]
    for label, known, bounds, guessed in cases:
        found = label_calibration.fit([label], targets, values, known)["size"]
        assert (found["bounds"], found["guessed"]) == (bounds, guessed)
    low, high = label_calibration.bounds_of([guess, guess], [RING, SIZE])
    assert (low.tolist(), high.tolist()) == ([-np.inf, 0], [np.inf, 1])
    assert np.isinf(label_calibration.bounds_of([guess, None], [SIZE])).all()


def test_numbers_that_are_predicted_exactly_have_no_width():
    targets = pd.DataFrame({"size": np.arange(12.0)})
    values = np.repeat(targets["size"].to_numpy()[:, None, None], 3, axis=2)
    found = label_calibration.fit([SIZE], targets, values, targets)
    after = label_calibration.apply([found], values, [SIZE])
    assert np.ptp(after, axis=2) == pytest.approx(0)
