"""Learning from images without votes: the loss of pairs of views, and the models that it gives."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stored import IMAGE, SETTINGS, TREE, train_member
from zoolib import api, train
from zoolib.data.learned import NEITHER, OWN, Learned
from zoolib.data.locations import PLACES
from zoolib.job.logs import UserError
from zoolib.learning import datasets, models
from zoolib.learning.augment import PAPER
from zoolib.learning.fitting import Job
from zoolib.learning.likelihood import TreeLoss
from zoolib.learning.pretext import (
    BESIDE_VOTES,
    WIDTH,
    ViewsLoss,
    galaxies_of_target,
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
    alone = train.build_network(TREE, IMAGE, SETTINGS | {"pretext": "alone"})
    assert with_projections(alone)(images).shape == (3, WIDTH)


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
    model = train_member(stored, tmp_path, pretext="with_votes", epochs=3)
    assert model.kind == "concentrations" and model.columns == TREE.columns
    assert model.about["training"]["pretext"] == "with_votes"
    assert [layer.name for layer in model.network.layers] == ["image", "backbone", "head"]
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["loss"].is_monotonic_decreasing
    assert {"loss_a", "val_loss_a", "loss_b", "views_loss", "val_views_loss"} <= set(history)


def listed(stored, folder, galaxies=52):
    """The list of a target with the stored galaxies."""
    parts = [pd.read_parquet(stored / f"{split}.parquet") for split in ("train", "val")]
    table = pd.concat(parts, ignore_index=True)[["id_str", *PLACES]].head(galaxies)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "galaxies.parquet", index=False)
    return folder / "galaxies.parquet"


LIMITS = {"max_pixels": 10**6, "max_rejected": 0.1}


def learn_alone(galaxies, folder, **changes):
    names = {"model": "model.keras", "about": "model.json", "history": "history.csv"}
    output = SimpleNamespace(**{name: folder / file for name, file in names.items()})
    settings = {key: value for key, value in SETTINGS.items() if key not in ("head", "dropout")}
    settings |= {"pretext": "alone", "epochs": 2, "limits": LIMITS, **changes}
    member = train.Member(None, IMAGE, settings, "unlabelled", 0, run_seed=1)
    train.train_member(member, ([galaxies], []), ([], []), Job(output))
    return models.load_model(folder)


def test_without_votes_a_backbone_learns_from_a_target(stored, tmp_path, caplog):
    caplog.set_level("INFO", "zoolib")
    galaxies = listed(stored, tmp_path / "target")
    model = learn_alone(galaxies, tmp_path / "model")
    assert model.kind == "features" and model.tree is None and model.columns == []
    assert model.network.output_shape == (None, model.backbone.output_shape[-1])
    assert "50 galaxies to learn from, 2 to validate on" in caplog.text
    names = ["J0", "J51", "elsewhere"]
    np.testing.assert_array_equal(Learned(model.about).codes(names), [OWN, OWN, NEITHER])
    # It can be searched with, and gives a finetuning its backbone.
    found = api.represent(galaxies, tmp_path / "model", tmp_path / "found.hdf5")
    assert len(api.read_representations(found).id_str) == 52


@pytest.mark.parametrize("bad", ["damaged", "missing"])
def test_an_image_that_cannot_be_read_is_named_and_left_out(stored, tmp_path, caplog, bad):
    path = listed(stored, tmp_path)
    table = pd.read_parquet(path)
    table.loc[3, "file_loc"] = str(tmp_path / f"{bad}.png")
    # As a list of galaxies says of what it did not find.
    table["seen"] = ["file" if bad == "damaged" or row != 3 else "folder" for row in range(len(table))]
    if bad == "damaged":
        Path(table.loc[3, "file_loc"]).write_text("no image")
    table.to_parquet(path, index=False)
    model = learn_alone(path, tmp_path / "model")
    warnings = [record.message for record in caplog.records if "is left out" in record.message]
    assert len(warnings) == 1 and f"{bad}.png" in warnings[0]
    assert model.about["training"]["galaxies"] == 49
    with pytest.raises(UserError, match="shards.max_rejected: 1 of 52 images"):
        learn_alone(path, tmp_path / "strict", limits={**LIMITS, "max_rejected": 0.001})
    with pytest.raises(UserError, match="shards.max_rejected: 5[12] of 52 images"):
        learn_alone(path, tmp_path / "small", limits={**LIMITS, "max_pixels": 100})


def test_replaced_images_are_other_data(stored, tmp_path):
    path = listed(stored, tmp_path)
    table = pd.read_parquet(path)
    image = tmp_path / "own.png"
    image.write_bytes(Path(table.loc[3, "file_loc"]).read_bytes())
    table.loc[3, "file_loc"] = str(image)
    table.to_parquet(path, index=False)
    before = galaxies_of_target(path, IMAGE, tmp_path, LIMITS)[2]
    assert galaxies_of_target(path, IMAGE, tmp_path, LIMITS)[2] == before
    image.write_bytes(Path(table.loc[4, "file_loc"]).read_bytes())
    assert galaxies_of_target(path, IMAGE, tmp_path, LIMITS)[2] != before


def test_what_cannot_be_learned_from_is_a_message(stored, tmp_path):
    with pytest.raises(UserError, match="has 39 galaxies whose images can be read, expected 40 or more"):
        learn_alone(listed(stored, tmp_path / "few", 39), tmp_path / "model")
    path = listed(stored, tmp_path)
    with pytest.raises(UserError, match="train.batch_size is 1, and 2 galaxies decide when training stops"):
        learn_alone(path, tmp_path / "model", batch_size=1)
    with pytest.raises(UserError, match="train.augmentation has no steps, so the two views"):
        learn_alone(path, tmp_path / "model", augmentation={"name": "none", "steps": []})


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


def test_its_model_says_how_it_learned(stored, tmp_path):
    learn_alone(listed(stored, tmp_path), tmp_path / "model")
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert about["training"]["pretext"] == "alone" and about["scores"]["epochs"] == 2
    assert about["familiar"]["galaxies"] == 50
