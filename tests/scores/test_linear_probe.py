"""The linear probe against scikit-learn's own cross-validation, and on galaxies that are few or strange."""

import logging

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from task_fits import KIND, RING, SIZE, TREE, VOTES
from threadpoolctl import threadpool_limits
from zoolib.config.labels import Label
from zoolib.scores import linear_probe
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.linear_probe import fit_probe
from zoolib.scores.questions import question_losses


def drawn(classes, galaxies=240, features=30, seed=0):
    """Features, and classes that depend on them linearly: one number a galaxy."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(galaxies, features)) * random.uniform(0.1, 10, features)
    logits = StandardScaler().fit_transform(features) @ random.normal(0, 0.6, (features.shape[1], classes))
    return features, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("label", [RING, KIND], ids=["binary", "multiclass"])
def test_a_probe_of_classes_is_scikit_learns(label):
    features, classes = drawn(max(2, len(label.classes)))
    known, asked = slice(0, 200), slice(200, None)
    probe = fit_probe(features[known], [label], pd.DataFrame({label.name: classes[known]}), "here")
    scaler = StandardScaler().fit(features[known])
    splits = linear_probe._splits(np.eye(classes.max() + 1)[classes[known]])
    settings = {
        "scoring": "neg_log_loss",
        "max_iter": 2000,
        "l1_ratios": (0,),
        "use_legacy_attributes": False,
    }
    with threadpool_limits(1):
        oracle = LogisticRegressionCV(Cs=linear_probe.CS, cv=splits, **settings)
        oracle.fit(scaler.transform(features[known]), classes[known])
    expected = oracle.predict_proba(scaler.transform(features[asked]))
    found = probe(features[asked])
    assert np.abs(found - (expected[:, 1:] if label.kind == "binary" else expected)).max() < 0.01
    full = np.concatenate([1 - found, found], axis=1) if label.kind == "binary" else found
    shares = np.bincount(classes[known]) / 200
    constant = log_loss(classes[asked], np.tile(shares, (40, 1)))
    full = full / full.sum(axis=1, keepdims=True)
    assert log_loss(classes[asked], full) < 0.9 * constant


def test_a_probe_of_numbers_is_scikit_learns_and_stays_within_bounds():
    random = np.random.default_rng(1)
    features = random.normal(size=(150, 40))
    numbers = features[:, 0] + random.normal(0, 0.5, 150)
    table = pd.DataFrame({"size": numbers})
    scaled = StandardScaler().fit_transform(features)
    expected = RidgeCV(alphas=linear_probe.ALPHAS).fit(scaled, numbers).predict(scaled)
    assert fit_probe(features, [SIZE], table, "here")(features)[:, 0] == pytest.approx(expected, abs=1e-3)
    bounded = Label("size", "regression", bounds=(-0.5, 1))
    found = fit_probe(features, [bounded], table, "here")(features)[:, 0]
    assert found == pytest.approx(np.clip(expected, -0.5, 1), abs=1e-3)


def test_a_probe_of_votes_is_between_the_constant_and_the_truth():
    random = np.random.default_rng(2)
    features = random.normal(size=(500, 12))
    alpha = 8 * special.softmax(features[:, :3], axis=1)
    shares = np.array([random.dirichlet(one) for one in alpha])
    shape = np.array([random.multinomial(20, one) for one in shares])
    edge = random.binomial(shape[:, 1], special.expit(2 * features[:, 3]))
    votes = np.column_stack([shape, edge, shape[:, 1] - edge])
    table = pd.DataFrame(votes, columns=TREE.columns)
    probe = fit_probe(features[:400], [VOTES], table[:400], "here")
    found = probe(features[400:])
    constant = np.tile(constant_concentrations(TREE, votes[:400]), (100, 1))
    # The edge question is drawn from one probability, so its strength goes to the largest one.
    yes = special.expit(2 * features[:, 3])
    truth = np.column_stack([alpha, 1e4 * yes, 1e4 * (1 - yes)])[400:]
    losses = [
        question_losses(TREE, votes[400:], one[:, :, None], "concentrations").mean(axis=0)
        for one in (truth, found, constant)
    ]
    assert (losses[0] < losses[1]).all()
    # Three quarters of the way from the constant to the truth.
    assert (losses[1] < 0.75 * losses[0] + 0.25 * losses[2]).all()
    assert found[:, :3].sum(axis=1) == pytest.approx(np.full(100, 8), rel=0.3)


def test_several_labels_have_their_outputs_side_by_side():
    features, classes = drawn(4)
    table = pd.DataFrame({"ring": classes > 1, "type": classes, "size": features[:, 0]})
    found = fit_probe(features, [RING, KIND, SIZE], table, "here")(features[:7])
    assert found.shape == (7, 6)
    for number, label in ((0, [RING]), (5, [SIZE])):
        alone = fit_probe(features, label, table, "here")(features[:7])
        assert found[:, number] == pytest.approx(alone[:, 0])


@pytest.mark.parametrize(
    ("classes", "said"),
    [([0] * 9 + [1], True), ([0] * 8 + [1] * 2, False), ([0, 1], True), ([2] * 5 + [3] * 5, False)],
    ids=["one of a class", "two of a class", "one of each", "classes without galaxies"],
)
def test_few_galaxies_of_a_class_are_said_and_no_error(classes, said, caplog):
    features = np.random.default_rng(3).normal(size=(len(classes), 5))
    label = KIND if max(classes) > 1 else RING
    with caplog.at_level(logging.WARNING, logger="zoolib"):
        found = fit_probe(features, [label], pd.DataFrame({label.name: classes}), "mine/ring.csv")(features)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert ("mine/ring.csv, ring: only one galaxy of a class" in caplog.text) == said
    if label is KIND:
        assert (found[:, :2] == 0).all()
        assert found.sum(axis=1) == pytest.approx(1)


def test_questions_and_answers_that_nobody_gave_are_no_error():
    features = np.random.default_rng(4).normal(size=(30, 5))
    table = pd.DataFrame(0, range(30), TREE.columns)
    table["shape_smooth"] = 10
    found = fit_probe(features, [VOTES], table, "here")(features)
    assert (found > 0).all()
    assert (found[:, 0] > 1000 * found[:, 1]).all()
    assert (found[:, 3:] == 1).all()
    one = fit_probe(features[:1], [VOTES], table[:1].assign(shape_disk=3, edge_yes=3), "here")(features)
    assert np.isfinite(one).all()
