"""Training: the order of the data, continuing bit for bit, and the files of a member."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from stored import IMAGE, SETTINGS, TREE, files, train_member
from zoolib import train
from zoolib.config.trees import DecisionTree
from zoolib.data.learned import NEITHER, OWN, Learned
from zoolib.data.tfrecords import write_sidecar
from zoolib.job.logs import UserError
from zoolib.learning import checkpoints, datasets
from zoolib.learning.augment import PAPER
from zoolib.posteriors.files import open_predictions
from zoolib.predict import predict_chunk
from zoolib.shards import write_shard


def batches_of(store, first_epoch=0, epochs=3, **changes):
    settings = {"batch_size": 8, "seed": 5, "shuffle": 16, **changes}
    batches, steps = datasets.training_batches(store, PAPER, epochs=range(first_epoch, epochs), **settings)
    return [(pixels.numpy(), labels.numpy()) for pixels, labels in batches], steps


def weights_of(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.network.weights]


def largest_difference(one, other):
    return max(np.abs(a - b).max() for a, b in zip(weights_of(one), weights_of(other), strict=True))


def test_batches_follow_from_seed_and_epoch_alone(stored):
    store, _ = train.open_store(*files(stored, "train"), TREE, IMAGE)
    whole, steps = batches_of(store)
    assert (steps, len(whole)) == (5, 15)
    assert whole[0][0].shape == (8, 18, 18, 1)
    late, _ = batches_of(store, first_epoch=2)
    for (pixels, labels), (again, labels_again) in zip(whole[10:], late, strict=True):
        np.testing.assert_array_equal(pixels, again)
        np.testing.assert_array_equal(labels, labels_again)
    other, _ = batches_of(store, seed=6)
    assert np.abs(whole[0][0] - other[0][0]).max() > 1
    assert np.abs(whole[0][1] - whole[5][1]).max() > 0


def test_every_galaxy_is_seen_once_an_epoch(stored):
    store, _ = train.open_store(*files(stored, "train"), TREE, IMAGE)
    seen, _ = batches_of(store, epochs=1, batch_size=12, keep_last=True)
    votes = np.concatenate([labels for _, labels in seen])
    expected = pd.read_parquet(stored / "train.parquet")[TREE.columns].to_numpy("float32")
    assert sorted(map(tuple, votes)) == sorted(map(tuple, expected))


def test_without_shards_the_batches_are_the_same(stored):
    shards, _ = train.open_store(*files(stored, "train"), TREE, IMAGE)
    lists, _ = train.open_store(*files(stored, "train", ".parquet"), TREE, IMAGE)
    for (pixels, labels), (again, labels_again) in zip(
        batches_of(shards)[0], batches_of(lists)[0], strict=True
    ):
        np.testing.assert_array_equal(pixels, again)
        np.testing.assert_array_equal(labels, labels_again)


@pytest.mark.parametrize(("encoding", "tolerance"), [("jpeg", 12), ("raw", 0.51)])
def test_other_encodings_train_on_the_same_pixels(stored, tmp_path, encoding, tolerance):
    image = IMAGE | {"encoding": encoding}
    output = SimpleNamespace(
        shard=tmp_path / "0.tfrecord", about=tmp_path / "0.json", rejected=tmp_path / "0.rejected.csv"
    )
    write_shard(stored / "val.parquet", 0, 1, image, output)
    other, _ = train.open_store([output.shard], [output.about], TREE, image)
    lossless, _ = train.open_store(*files(stored, "val"), TREE, IMAGE)
    pairs = zip(*(datasets.central_batches(store, PAPER, 4) for store in (other, lossless)), strict=True)
    differences = [np.abs(one[0].numpy() - two[0].numpy()) for one, two in pairs]
    assert np.mean(differences) < tolerance
    assert len(differences) == 3


def test_a_member_learns_and_describes_itself(stored, tmp_path):
    model = train_member(stored, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert model.about["scores"]["val_loss"] == pytest.approx(history["val_loss"].min())
    assert model.about["columns"] == TREE.columns
    assert model.about["training"]["galaxies"] == 40
    # To learn from and to validate on.
    assert list(Learned(model.about).codes(["J0", "J39", "J51", "J52"])) == [OWN, OWN, OWN, NEITHER]
    assert not (tmp_path / "checkpoint.npz").exists()
    # All galaxies have votes on the first question; those with votes for x have votes on the second, too.
    table = pd.read_parquet(stored / "val.parquet")
    asked = (table[["b_u", "b_v"]].sum(axis=1) > 0).mean()
    sums = history["val_loss_a"] + asked * history["val_loss_b"]
    np.testing.assert_allclose(sums, history["val_loss"], rtol=1e-5)
    assert (history["loss_a"] < history["loss"]).all()


@pytest.mark.parametrize("head", ["dirichlet_wide", "multinomial"])
def test_other_heads_learn_and_name_their_kind_of_outputs(stored, tmp_path, head):
    model = train_member(stored, tmp_path, head=head, epochs=3)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert (model.kind == "probabilities") == (head == "multinomial")
    assert model.about["training"]["head"] == head
    with pytest.raises(UserError, match=f"train.head is dirichlet, but .* has {head}; set train.head"):
        train.build_network(TREE, IMAGE, {**SETTINGS, "start_from": str(tmp_path)})


def test_the_same_training_gives_the_same_predictions_and_another_member_others(stored, tmp_path):
    def predicted(name, **changes):
        train_member(stored, tmp_path / name, epochs=2, **changes)
        output = SimpleNamespace(predictions=tmp_path / f"{name}.hdf5", rejected=tmp_path / f"{name}.csv")
        sidecars = files(stored, "val")[1]
        predict_chunk(sidecars, [tmp_path / name], (0, 1), samples=3, views=2, seed=1, output=output)
        with open_predictions(output.predictions) as opened:
            return opened.values[:]

    one, again, other = predicted("one"), predicted("again"), predicted("other", member=1)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.01


def test_tensorboard_shows_one_training_and_its_questions(stored, tmp_path):
    train_member(stored, tmp_path, epochs=1)
    first = set((tmp_path / "tensorboard").rglob("events.*"))
    train_member(stored, tmp_path, epochs=1, learning_rate=0.02)
    second = set((tmp_path / "tensorboard").rglob("events.*"))
    assert len(first) == len(second) == 2
    assert not first & second
    tags = set()
    for event in tf.data.TFRecordDataset([str(path) for path in second]):
        tags.update(value.tag for value in tf.compat.v1.Event.FromString(event.numpy()).summary.value)
    assert {"epoch_loss", "epoch_loss_a", "epoch_loss_b"} <= tags


def test_the_best_weights_are_kept(stored, tmp_path):
    model = train_member(stored, tmp_path, patience=2, learning_rate=0.1, epochs=12)
    history = pd.read_csv(tmp_path / "history.csv")
    store, _ = train.open_store(*files(stored, "val"), TREE, IMAGE)
    model.network.compile(loss=train.TreeLoss(TREE), jit_compile=False)
    loss = model.network.evaluate(datasets.central_batches(store, PAPER, 8), verbose=0)
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-5)


class Interrupted(Exception):
    pass


LAST = -1


@pytest.mark.parametrize(
    ("changes", "cuts"),
    [
        ({"patience": 1, "learning_rate": 0.2, "epochs": 10}, [0, LAST]),
        ({"schedule": "cosine", "optimizer": "adamw", "warmup_epochs": 2, "clip_norm": 1.0}, [1]),
        (
            {
                "schedule": "plateau",
                "optimizer": "adamw",
                "warmup_epochs": 1,
                "learning_rate": 0.2,
                "patience": 4,
            },
            [0, LAST],
        ),
        ({"pretext": "vicreg"}, [1]),
    ],
)
def test_an_interrupted_training_ends_with_the_same_weights(stored, tmp_path, monkeypatch, changes, cuts):
    """After each cut, the next call goes on to the next one, or to the end."""
    whole = train_member(stored, tmp_path / "whole", **changes)

    def stop_after(callback, epoch):
        saved = checkpoints.Checkpoint.on_epoch_end

        def on_epoch_end(self, number, logs=None):
            saved(self, number, logs)
            if number == epoch:
                raise Interrupted

        monkeypatch.setattr(callback, "on_epoch_end", on_epoch_end)
        with pytest.raises(Interrupted):
            train_member(stored, tmp_path / "cut", **changes)
        monkeypatch.setattr(callback, "on_epoch_end", saved)

    epochs = range(len(pd.read_csv(tmp_path / "whole" / "history.csv")))
    for place in cuts:
        stop_after(checkpoints.Checkpoint, epochs[place])
    cut = train_member(stored, tmp_path / "cut", **changes)
    assert largest_difference(whole, cut) == 0
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*(history.drop(columns="seconds") for history in histories))
    # The constant rate is really constant, and the others are not.
    assert (histories[0]["learning_rate"].nunique() > 1) == ("schedule" in changes)


def test_other_settings_start_from_scratch(stored, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    train_member(stored, folder, epochs=1)
    monkeypatch.setattr(Path, "unlink", lambda *args, **keywords: None)
    train_member(stored, folder, epochs=2)
    assert (folder / "checkpoint.npz").exists()
    model = train_member(stored, folder, epochs=2, learning_rate=0.02)
    fresh = train_member(stored, tmp_path / "fresh", epochs=2, learning_rate=0.02)
    assert largest_difference(model, fresh) == 0


def test_training_starts_from_a_model_folder(stored, tmp_path):
    first = train_member(stored, tmp_path / "first", epochs=4)
    more = train_member(
        stored, tmp_path / "more", epochs=1, learning_rate=1e-6, start_from=str(tmp_path / "first")
    )
    pairs = zip(first.network.trainable_weights, more.network.trainable_weights, strict=True)
    moved = max(np.abs(one.numpy() - other.numpy()).max() for one, other in pairs)
    assert 0 < moved < 1e-4
    assert more.about["learned_from"] == first.about["learned_from"]
    other = DecisionTree.from_dict({"name": "other", "questions": {"c": {"answers": ["p", "q"]}}})
    with pytest.raises(UserError, match="answers 't'"):
        train.build_network(other, IMAGE, {**SETTINGS, "start_from": str(tmp_path / "first")})


def test_fewer_galaxies_than_a_batch_end_with_a_message(stored, tmp_path):
    with pytest.raises(UserError, match="40 galaxies are fewer than one batch of 64"):
        train_member(stored, tmp_path, batch_size=64)


def test_whatever_a_sidecar_says_belongs_to_the_data(stored, tmp_path):
    shards, (sidecar, _) = files(stored, "train")
    about = json.loads(Path(sidecar).read_text())

    def data_of(**changes):
        path = tmp_path / "0.json"
        write_sidecar(path, about | changes)
        return train.open_store(shards[:1], [path], TREE, IMAGE)[1]

    first = data_of()
    assert data_of(versions={"python": "3.99"}) == first
    # The second is any key that says more about the pixels.
    assert len({first, data_of(source="f" * 64), data_of(pixels="f" * 64)}) == 3


def test_shards_of_another_tree_end_with_a_message(stored):
    other = DecisionTree.from_dict({"name": "other", "questions": {"c": {"answers": ["p", "q"]}}})
    with pytest.raises(UserError, match="the tree 't'"):
        train.open_store(*files(stored, "train"), other, IMAGE)


def test_training_does_not_continue_from_a_checkpoint_of_other_code(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", lambda *args, **keywords: None)
    train_member(stored, tmp_path / "changed", epochs=1, code="old")
    monkeypatch.setattr(keras.Model, "fit", refuse_to_train)
    train_member(stored, tmp_path / "changed", epochs=1, code="old")
    with pytest.raises(Interrupted):
        train_member(stored, tmp_path / "changed", epochs=1, code="new")


def refuse_to_train(*args, **keywords):
    raise Interrupted


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut"])
def test_a_broken_checkpoint_is_ignored(stored, tmp_path, content):
    tmp_path.joinpath("checkpoint.npz").write_bytes(content)
    train_member(stored, tmp_path, epochs=1)
    assert (tmp_path / "model.keras").exists()


def test_mixed_precision_trains_and_is_checked_in_start_from(stored, tmp_path, monkeypatch):
    # Also where the processor of the tests would take float32.
    monkeypatch.setattr(train, "mixed_policy", lambda: "mixed_bfloat16")
    try:
        first = train_member(stored, tmp_path / "first", epochs=1, mixed_precision=True)
        start = {"start_from": str(tmp_path / "first")}
        train_member(stored, tmp_path / "more", epochs=1, mixed_precision=True, **start)
        with pytest.raises(UserError, match="train.mixed_precision is False, but the model"):
            train_member(stored, tmp_path / "other", epochs=1, **start)
    finally:
        keras.config.set_dtype_policy("float32")
    assert any(layer.compute_dtype == "bfloat16" for layer in first.backbone.layers)
    assert first.network.outputs[0].dtype == "float32"


def test_an_image_that_is_missing_after_it_was_listed_ends_with_a_message(stored, tmp_path):
    (list_of_half, *_), (sidecar, *_) = files(stored, "train", ".parquet")
    table = pd.read_parquet(list_of_half)
    table.loc[2, "file_loc"] = str(tmp_path / "gone.png")
    table.to_parquet(tmp_path / "0.parquet")
    about = json.loads(Path(sidecar).read_text()) | {"bytes": (tmp_path / "0.parquet").stat().st_size}
    write_sidecar(tmp_path / "0.json", about)
    with pytest.raises(UserError, match="gone.png"):
        train_member(stored, tmp_path, ".parquet", shards=([tmp_path / "0.parquet"], [tmp_path / "0.json"]))
