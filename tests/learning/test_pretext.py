"""Learning from votes and views: the loss of pairs of views, and the models that it gives."""

import numpy as np
import pandas as pd
import pytest
from stored import IMAGE, SETTINGS, TREE, train_member
from zoolib import train
from zoolib.job.logs import UserError
from zoolib.learning import datasets
from zoolib.learning.augment import PAPER
from zoolib.learning.likelihood import TreeLoss
from zoolib.learning.pretext import (
    BESIDE_VOTES,
    WIDTH,
    ViewsLoss,
    validation_views,
    vicreg,
    with_projections,
)


def paper_loss(one, other):
    """Equations 1 to 6 of arXiv:2105.04906, with its weights."""
    loss = 25 * np.mean((one - other) ** 2)
    for view in (one, other):
        spread = np.sqrt(view.var(axis=0, ddof=1) + 1e-4)
        covariance = np.cov(view.T)
        others = covariance - np.diag(np.diag(covariance))
        # The paper sums over both views; its code takes half of the variances.
        loss += 25 * np.maximum(0, 1 - spread).mean() / 2 + (others**2).sum() / view.shape[1]
    return loss


def test_the_loss_is_that_of_the_paper():
    random = np.random.default_rng(0)
    one, other = random.normal(0, [0.5, 1, 2, 0.1], (2, 30, 4))
    pairs = np.stack([one, other], axis=1).reshape(60, 4).astype("float32")
    assert float(vicreg(pairs)) == pytest.approx(paper_loss(one, other), rel=1e-4)
    # Views that agree are better; galaxies that all look the same are the worst.
    assert float(vicreg(np.repeat(one, 2, axis=0).astype("float32"))) < float(vicreg(pairs))
    assert float(vicreg(np.zeros((60, 4), "float32"))) == pytest.approx(25 * 0.99, rel=1e-3)


def test_the_votes_count_beside_the_views():
    random = np.random.default_rng(0)
    votes = random.integers(0, 5, (8, len(TREE.columns))).astype("float32")
    answers = random.uniform(1, 9, votes.shape).astype("float32")
    outputs = np.concatenate([answers, random.normal(size=(8, WIDTH)).astype("float32")], axis=1)
    expected = float(TreeLoss(TREE)(votes, answers)) + BESIDE_VOTES * float(vicreg(outputs[:, -WIDTH:]))
    assert float(ViewsLoss(TreeLoss(TREE))(votes, outputs)) == pytest.approx(expected, rel=1e-5)


def test_the_projections_follow_the_answers():
    network = train.build_network(TREE, IMAGE, SETTINGS)
    images = np.random.default_rng(0).uniform(0, 255, (3, 18, 18, 1)).astype("float32")
    outputs = np.asarray(with_projections(network)(images))
    assert outputs.shape == (3, len(TREE.columns) + WIDTH)
    np.testing.assert_allclose(outputs[:, :-WIDTH], network(images), rtol=1e-5)


def test_the_two_views_of_a_galaxy_follow_each_other(stored):
    store, _ = train.open_store(*train_files(stored), TREE, IMAGE)
    (pixels, votes), *_ = datasets.training_batches(store, PAPER, 8, 5, range(1), 16, views=2)[0]
    assert pixels.shape == (16, 18, 18, 1)
    np.testing.assert_array_equal(votes[::2], votes[1::2])
    # The images are noise around a brightness of their own: views are different, their mean is not.
    assert np.abs(pixels[::2] - pixels[1::2]).max() > 1
    np.testing.assert_allclose(*(np.mean(pixels[view::2], axis=(1, 2, 3)) for view in (0, 1)), atol=8)
    (first, _), *_ = datasets.training_batches(store, PAPER, 8, 5, range(1), 16)[0]
    np.testing.assert_array_equal(first, pixels[::2])


def train_files(stored):
    stems = [stored / "train" / str(shard) for shard in range(2)]
    return [f"{stem}.tfrecord" for stem in stems], [f"{stem}.json" for stem in stems]


def test_beside_the_votes_it_learns_to_answer_too(stored, tmp_path):
    model = train_member(stored, tmp_path, pretext="vicreg", epochs=3)
    assert model.kind == "concentrations" and model.columns == TREE.columns
    assert model.about["training"]["pretext"] == "vicreg"
    assert [layer.name for layer in model.network.layers] == ["image", "backbone", "head"]
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["loss"].is_monotonic_decreasing
    assert {"loss_a", "val_loss_a", "loss_b", "views_loss", "val_views_loss"} <= set(history)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 1},
            "train.batch_size is 1, and 12 galaxies decide when training stops, expected 2 or",
        ),
        (
            {"augmentation": {"name": "none", "steps": []}},
            "train.augmentation has no steps, so the two views",
        ),
    ],
)
def test_what_cannot_be_compared_is_a_message(stored, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train_member(stored, tmp_path, pretext="vicreg", **changes)


def test_nearly_all_validation_galaxies_are_compared(stored):
    store, _ = train.open_store(*train_files(stored), TREE, IMAGE)
    for batch_size, shares, expected in (
        (39, 1, [20, 20]),
        (40, 1, [40]),
        (24, 4, [20, 20]),
        (16, 2, [12] * 3),
    ):
        views = validation_views(store, PAPER, batch_size, 5, shares)
        assert [len(pixels) // 2 for pixels, _ in views] == expected
