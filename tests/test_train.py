"""Training: the data order, resuming bit for bit, and what a member leaves behind."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from zoolib import datasets, models, predict, train
from zoolib.catalog import Catalog, write_catalog
from zoolib.logs import UserError
from zoolib.shards import write_shard
from zoolib.trees import DecisionTree

TREE = DecisionTree.from_dict(
    {"name": "t", "questions": {"a": {"answers": ["x", "y"]}, "b": {"answers": ["u", "v"], "after": "a_x"}}}
)
IMAGE = {"size": 24, "crop": 0.75, "final_size": 18, "color": False, "encoding": "png"}
SETTINGS = {
    "backbone": "tiny",
    "dropout": 0.3,
    "learning_rate": 0.01,
    "batch_size": 8,
    "epochs": 6,
    "patience": 10,
    "shuffle": 16,
    "mixed_precision": False,
    "start_from": None,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The same 40 galaxies as shards, as lists of images, and 12 more to validate on."""
    folder = tmp_path_factory.mktemp("stored")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(52):
        bright = number % 2
        pixels = rng.normal(60 + 80 * bright, 20, (24, 24)).clip(0, 255).astype("uint8")
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        votes = rng.multinomial(20, [0.9, 0.1] if bright else [0.2, 0.8])
        rows.append([f"J{number}", "", "", str(path), *votes, *rng.multinomial(votes[0], [0.5, 0.5])])
    table = pd.DataFrame(rows, columns=["id_str", "archive", "member", "file_loc", *TREE.columns])
    for name, part in {"train": table[:40], "val": table[40:]}.items():
        catalog = folder / f"{name}.parquet"
        write_catalog(Catalog(part, TREE.columns, TREE), catalog)
        for shard in range(2):
            for enabled, suffix in ((True, ".tfrecord"), (False, ".parquet")):
                stem = folder / name / f"{shard}"
                output = SimpleNamespace(
                    shard=f"{stem}{suffix}", about=f"{stem}.json", rejected=f"{stem}.rejected.csv"
                )
                write_shard(catalog, shard, 2, IMAGE, output, enabled=enabled)
    return folder


def files(folder, split, suffix=".tfrecord"):
    stems = [folder / split / str(shard) for shard in range(2)]
    return [f"{stem}{suffix}" for stem in stems], [f"{stem}.json" for stem in stems]


def batches_of(store, first_epoch=0, epochs=3, **changes):
    settings = {"batch_size": 8, "seed": 5, "shuffle": 16, **changes}
    batches, steps = datasets.training_batches(store, epochs=epochs, first_epoch=first_epoch, **settings)
    return [(pixels.numpy(), labels.numpy()) for pixels, labels in batches], steps


def train_member(stored, folder, suffix=".tfrecord", **changes):
    output = SimpleNamespace(
        model=folder / "model.keras", about=folder / "model.json", history=folder / "history.csv"
    )
    train.train_member(
        train=files(stored, "train", suffix),
        validation=files(stored, "val", suffix),
        tree=TREE.to_dict(),
        image=IMAGE,
        settings={**SETTINGS, **changes},
        seed=1,
        ensemble="metrics",
        member=0,
        output=output,
        folder=folder,
    )
    return models.load_model(folder)


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


def test_a_member_learns_and_describes_itself(stored, tmp_path):
    model = train_member(stored, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert model.about["scores"]["val_loss"] == pytest.approx(history["val_loss"].min())
    assert model.about["columns"] == TREE.columns
    assert model.about["training"]["galaxies"] == 40
    assert not (tmp_path / "checkpoint.npz").exists()
    assert list((tmp_path / "tensorboard").rglob("events.*"))


def test_the_best_weights_are_kept(stored, tmp_path):
    model = train_member(stored, tmp_path, patience=2, learning_rate=0.1, epochs=12)
    history = pd.read_csv(tmp_path / "history.csv")
    store, _ = train.open_store(*files(stored, "val"), TREE, IMAGE)
    model.network.compile(loss=train.TreeLoss(TREE), jit_compile=False)
    loss = model.network.evaluate(datasets.central_batches(store, 8), verbose=0)
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-5)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("changes", [{}, {"patience": 1, "learning_rate": 0.2, "epochs": 10}])
def test_an_interrupted_training_ends_with_the_same_weights(stored, tmp_path, monkeypatch, changes):
    whole = train_member(stored, tmp_path / "whole", **changes)

    def stop_after(callback, epoch):
        saved = train.fitting.Checkpoint.on_epoch_end

        def on_epoch_end(self, number, logs=None):
            saved(self, number, logs)
            if number == epoch:
                raise Interrupted

        monkeypatch.setattr(callback, "on_epoch_end", on_epoch_end)
        with pytest.raises(Interrupted):
            train_member(stored, tmp_path / "cut", **changes)
        monkeypatch.setattr(callback, "on_epoch_end", saved)

    last = len(pd.read_csv(tmp_path / "whole" / "history.csv")) - 1
    for epoch in sorted({0, 1, last} & set(range(last + 1))):
        stop_after(train.fitting.Checkpoint, epoch)
    cut = train_member(stored, tmp_path / "cut", **changes)
    assert largest_difference(whole, cut) == 0
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*(history.drop(columns="seconds") for history in histories))


def test_other_settings_start_afresh(stored, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    train_member(stored, folder, epochs=1)
    monkeypatch.setattr(train.Path, "unlink", lambda *args, **keywords: None)
    train_member(stored, folder, epochs=2)
    assert (folder / "checkpoint.npz").exists()
    model = train_member(stored, folder, epochs=2, learning_rate=0.02)
    fresh = train_member(stored, tmp_path / "fresh", epochs=2, learning_rate=0.02)
    assert largest_difference(model, fresh) == 0


def test_training_goes_on_from_a_model_folder(stored, tmp_path):
    first = train_member(stored, tmp_path / "first", epochs=4)
    more = train_member(
        stored, tmp_path / "more", epochs=1, learning_rate=1e-6, start_from=str(tmp_path / "first")
    )
    pairs = zip(first.network.trainable_weights, more.network.trainable_weights, strict=True)
    moved = max(np.abs(one.numpy() - other.numpy()).max() for one, other in pairs)
    assert 0 < moved < 1e-4
    other = DecisionTree.from_dict({"name": "other", "questions": {"c": {"answers": ["p", "q"]}}})
    with pytest.raises(UserError, match="answers 't'"):
        train.build_network(other, IMAGE, {**SETTINGS, "start_from": str(tmp_path / "first")})


def test_fewer_galaxies_than_a_batch_end_in_a_sentence(stored, tmp_path):
    with pytest.raises(UserError, match="40 galaxies are fewer than one batch of 64"):
        train_member(stored, tmp_path, batch_size=64)


def test_shards_of_another_tree_end_in_a_sentence(stored):
    other = DecisionTree.from_dict({"name": "other", "questions": {"c": {"answers": ["p", "q"]}}})
    with pytest.raises(UserError, match="the tree 't'"):
        train.open_store(*files(stored, "train"), other, IMAGE)


@pytest.fixture(scope="module")
def model_folder(stored, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    train_member(stored, folder, epochs=2)
    return folder


def predict_all(stored, folder, out, of=1, samples=3, views=0, galaxies=None):
    import h5py

    values, ids = [], []
    for chunk in range(of):
        output = SimpleNamespace(predictions=out / f"{chunk}.hdf5", rejected=out / f"{chunk}.csv")
        predict.predict_chunk(
            galaxies or files(stored, "train")[1], [folder], chunk, of, samples, views, seed=3, output=output
        )
        with h5py.File(output.predictions) as file:
            values.append(file["predictions"][:])
            ids += list(file["id_str"].asstr())
    return np.concatenate(values), ids


def test_samples_differ_and_can_be_repeated(stored, model_folder, tmp_path):
    values, ids = predict_all(stored, model_folder, tmp_path)
    assert values.shape == (40, 4, 3)
    assert ids == pd.read_parquet(stored / "train.parquet")["id_str"].tolist()
    assert np.abs(values[:, :, 0] - values[:, :, 1]).max() > 0
    np.testing.assert_array_equal(predict_all(stored, model_folder, tmp_path / "again")[0], values)


def test_the_number_of_chunks_changes_nothing(stored, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 7)
    one, ids = predict_all(stored, model_folder, tmp_path / "one", views=2)
    assert one.shape[2] == 6
    for of in (2, 5, 9):
        several, ids_again = predict_all(stored, model_folder, tmp_path / str(of), of=of, views=2)
        assert ids == ids_again
        np.testing.assert_array_equal(one, several)


def test_images_and_shards_give_the_same_posteriors(stored, model_folder, tmp_path):
    from_shards, _ = predict_all(stored, model_folder, tmp_path / "shards")
    catalog = [str(stored / "train.parquet")]
    from_images, _ = predict_all(stored, model_folder, tmp_path / "images", galaxies=catalog)
    np.testing.assert_allclose(from_shards, from_images, rtol=1e-5)


def test_a_bad_image_is_a_line_in_the_rejects(stored, model_folder, tmp_path):
    table = pd.read_parquet(stored / "train.parquet")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    table.loc[3, "file_loc"] = str(broken)
    table.to_parquet(tmp_path / "catalog.parquet")
    values, ids = predict_all(
        stored, model_folder, tmp_path, galaxies=[str(tmp_path / "catalog.parquet")], of=2
    )
    assert len(values) == len(ids) == 39
    assert table["id_str"][3] not in ids
    rejected = pd.concat([pd.read_csv(tmp_path / f"{chunk}.csv") for chunk in range(2)])
    assert list(rejected["id_str"]) == [table["id_str"][3]]
    assert "broken.png" in rejected["reason"].iloc[0]


def test_python_users_predict_one_image(stored, model_folder):
    described = predict.load(model_folder).predict(stored / "3.png", samples=5)
    assert list(described["id_str"]) == ["3"]
    assert described[["a_x_fraction", "a_y_fraction"]].sum(axis=1).iloc[0] == pytest.approx(1)
    assert described["a_x_low"].iloc[0] < described["a_x_fraction"].iloc[0] < described["a_x_high"].iloc[0]


def test_models_that_do_not_belong_together_end_in_a_sentence(stored, model_folder, tmp_path):
    import json

    about = json.loads((model_folder / "model.json").read_text())
    about["columns"] = about["columns"][::-1]
    (tmp_path / "model.json").write_text(json.dumps(about))
    (tmp_path / "model.keras").write_bytes((model_folder / "model.keras").read_bytes())
    with pytest.raises(UserError, match="an ensemble has one tree"):
        predict.predict_chunk(
            files(stored, "val")[1], [model_folder, tmp_path], 0, 1, 1, 0, 1, SimpleNamespace()
        )
