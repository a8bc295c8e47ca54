"""How far galaxies are from those of a training: the distance by brute force, and what models keep of it."""

import json

import numpy as np
import pytest
from stored import IMAGE, files, train_member
from zoolib import train
from zoolib.job.logs import UserError, log
from zoolib.learning import familiar, models
from zoolib.learning.augment import PAPER
from zoolib.learning.familiar import FAMILIAR, Familiar, summarize
from zoolib.learning.features import features_of_store


def some_features(galaxies, size, seed=0, shift=0):
    """Features that are never negative, as a backbone's, along a few directions."""
    rng = np.random.default_rng(seed)
    known = np.random.default_rng(99).normal(size=(size, size)) * 0.9 ** np.arange(size)[:, None]
    return np.abs(9 + rng.normal(size=(galaxies, size)) @ known + shift * (np.arange(size) % 2))


def by_brute_force(learned, features, axes):
    """The definition: a loop over galaxies, the inverse of a covariance of all features."""

    def described(one):
        length = np.sqrt((one**2).sum())
        return np.array([*(one / length), 0.1 * np.log(length)])

    seen = np.array([described(one) for one in learned])
    variances, vectors = np.linalg.eigh(np.cov(seen.T))
    # From the smallest to the largest: all but the last ones have their mean variance.
    others = len(variances) - axes
    variances[:others] = variances[:others].mean()
    inverse = np.linalg.inv(vectors @ np.diag(variances) @ vectors.T)
    away = [described(one) - seen.mean(axis=0) for one in features]
    return np.array([np.sqrt(one @ inverse @ one / len(one)) for one in away])


@pytest.mark.parametrize(("size", "axes", "expected"), [(12, 5, 5), (12, 64, 12), (80, 64, 64)])
def test_distances_are_those_of_brute_force(monkeypatch, size, axes, expected):
    monkeypatch.setattr(familiar, "AXES", axes)
    learned, checked = some_features(400, size), some_features(50, size, seed=1)
    known = Familiar({FAMILIAR: summarize(learned, checked)})
    assert known.axes.shape == (expected, size + 1)
    for seed, shift in ((2, 0), (3, 20)):
        features = some_features(30, size, seed, shift)
        np.testing.assert_allclose(
            known.distances(features), by_brute_force(learned, features, expected), rtol=2e-3
        )
    np.testing.assert_array_equal(known.validation, np.sort(known.distances(checked)))
    # The mean square of the training galaxies themselves is 1.
    assert (known.distances(learned) ** 2).mean() == pytest.approx(1, abs=0.01)
    assert known.distances(some_features(30, size, 3, 20)).mean() > 2


def test_of_many_validation_galaxies_quantiles_are_kept():
    learned, checked = some_features(100, 8), some_features(3500, 8, seed=1)
    known = Familiar({FAMILIAR: summarize(learned, checked)})
    assert len(known.validation) == 1000
    found = known.distances(checked)
    for share in (0.1, 0.5, 0.99):
        nearer = np.searchsorted(known.validation, np.quantile(found, share)) / 1000
        assert nearer == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize(
    "features",
    [np.ones((50, 6)), np.zeros((50, 6)), np.eye(6)[:3], np.tile(np.arange(6.0), (5, 1))],
    ids=["alike", "zero", "three", "repeated"],
)
def test_features_that_never_differ_have_distances(features):
    known = Familiar({FAMILIAR: summarize(features, features[:2])})
    assert np.isfinite(known.validation).all() and len(known.validation) == 2
    far = known.distances(np.array([[0, 9.0, 0, 0, 0, 1]]))
    assert np.isfinite(far).all() and far[0] >= known.validation[0]


def test_what_cannot_be_described_has_no_distance():
    good = some_features(9, 4)
    assert summarize(good[:2], good) is None
    assert summarize(good, good[:0]) is None
    assert summarize(np.where(good > 2, np.nan, good), good) is None
    for about in ({}, {FAMILIAR: None}):
        known = Familiar(about)
        assert len(known.validation) == 0
        assert np.isnan(known.distances(good)).all()


def test_half_precision_is_enough():
    learned = some_features(300, 16).astype("float16")
    known = Familiar({FAMILIAR: summarize(learned, learned[:50])})
    np.testing.assert_allclose(
        known.distances(learned[:9]),
        by_brute_force(learned.astype(float), learned[:9].astype(float), 16),
        rtol=5e-3,
    )


def test_a_model_keeps_its_training_galaxies(stored, model_folder, monkeypatch):
    model = models.load_model(model_folder)
    stores = [train.open_store(*files(stored, split), model.tree, IMAGE)[0] for split in ("train", "val")]
    learned, checked = (features_of_store(model.backbone, store, PAPER)[0] for store in stores)
    known = Familiar(model.about)
    assert known.said["galaxies"] == 40 and len(known.validation) == 12
    expected = Familiar({FAMILIAR: summarize(learned, checked)})
    np.testing.assert_allclose(known.validation, expected.validation, rtol=1e-3)
    # Of more galaxies than are needed, every third is taken, over all of the shards.
    monkeypatch.setattr(familiar, "LEARNED", 15)
    some = familiar.familiar_galaxies(model.backbone, *stores, PAPER)
    first = stores[0].counts[0]
    every = np.concatenate([learned[:first:3], learned[first::3]])
    assert some["galaxies"] == len(every) == 14
    again = Familiar({FAMILIAR: some})
    np.testing.assert_allclose(
        again.center, Familiar({FAMILIAR: summarize(every, checked)}).center, rtol=1e-4
    )


def test_a_killed_pass_is_repeated_and_the_training_is_not(stored, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", "zoolib")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "familiar_galaxies", killed)
        with pytest.raises(KeyboardInterrupt):
            train_member(stored, tmp_path, epochs=2)
    assert not (tmp_path / "model.json").exists()
    caplog.clear()
    about = train_member(stored, tmp_path, epochs=2).about
    assert about[FAMILIAR]["galaxies"] == 40 and about["scores"]["epochs"] == 2
    assert not [line for line in caplog.messages if line.startswith("epoch")]


def test_a_damaged_description_is_one_sentence(model_folder, tmp_path):
    text = (model_folder / "model.json").read_text()
    center = json.loads(text)[FAMILIAR]["center"]
    other = center[:9] + ("A" if center[9] != "A" else "B") + center[10:]
    (tmp_path / "model.json").write_text(text.replace(center, other))
    (tmp_path / "model.keras").write_bytes((model_folder / "model.keras").read_bytes())
    with pytest.raises(UserError, match="model.json: is damaged or was edited") as caught:
        models.load_model(tmp_path)
    assert "\n" not in str(caught.value)
