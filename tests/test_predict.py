"""Prediction: samples that differ and can be repeated, whatever the chunks; bad images; Python's way in."""

import errno
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stored import IMAGE, TREE, files, train_member
from zoolib import predict
from zoolib.data import layout
from zoolib.data.images import BadImage
from zoolib.data.listing import list_galaxies
from zoolib.job.logs import MachineError, UserError, log
from zoolib.learning import chunks, datasets, models
from zoolib.learning.augment import PAPER
from zoolib.learning.familiar import Familiar
from zoolib.posteriors.unfamiliar import read_unfamiliar


def predict_all(stored, folder, out, of=1, samples=3, views=0, galaxies=None):
    values, ids = [], []
    for chunk in range(of):
        output = SimpleNamespace(predictions=out / f"{chunk}.hdf5", rejected=out / f"{chunk}.csv")
        predict.predict_chunk(
            galaxies or files(stored, "train")[1],
            [folder],
            (chunk, of),
            samples,
            views,
            seed=3,
            output=output,
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
    monkeypatch.setattr(layout, "BLOCK", 7)
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


@pytest.fixture
def sky(stored, tmp_path):
    """Five images in a folder of their own."""
    (tmp_path / "sky").mkdir()
    for number in range(5):
        (tmp_path / "sky" / f"{number}.png").write_bytes((stored / f"{number}.png").read_bytes())
    return tmp_path / "sky"


def predict_listed(kind, source, folder, out):
    list_galaxies(kind, [str(source)], out / "list.parquet")
    for image in out.glob("sky/*.png"):
        image.unlink()
    output = SimpleNamespace(predictions=out / "0.hdf5", rejected=out / "0.csv")
    predict.predict_chunk([out / "list.parquet"], [folder], (0, 1), 1, 0, 3, output)


@pytest.mark.parametrize("kind", ["images", "catalog"])
def test_a_folder_that_is_away_after_it_was_listed_ends_the_job(sky, model_folder, tmp_path, kind):
    places = [str(path) for path in sorted(sky.iterdir())]
    pd.DataFrame({"id_str": list("abcde"), "file_loc": places}).to_csv(tmp_path / "own.csv", index=False)
    source = sky if kind == "images" else tmp_path / "own.csv"
    with pytest.raises(MachineError, match="sky/.*the image is gone, but it was there when"):
        predict_listed(kind, source, model_folder, tmp_path)
    assert not list(tmp_path.glob("*.hdf5")) and not (tmp_path / "0.csv").exists()


def test_rows_that_never_had_an_image_are_bad_rows_in_their_order(stored, model_folder, tmp_path):
    missing = [stored / "mistyped.png", *(tmp_path / "nowhere" / f"{number}.png" for number in range(60))]
    names = [f"galaxy {number}" for number in range(len(missing))]
    table = pd.DataFrame({"id_str": ["good", *names], "file_loc": [stored / "1.png", *missing]})
    table.to_csv(tmp_path / "own.csv", index=False)
    predict_listed("catalog", tmp_path / "own.csv", model_folder, tmp_path)
    assert list(pd.read_csv(tmp_path / "0.csv")["id_str"]) == names


def test_an_error_of_the_system_keeps_its_sentence_through_tensorflow(
    sky, model_folder, tmp_path, monkeypatch
):
    read = Path.read_bytes

    def fails(path):
        if path.name == "3.png":
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    list_galaxies("images", [str(sky)], tmp_path / "list.parquet")
    with pytest.raises(MachineError, match="sky/3.png: cannot be read or written .Stale file handle"):
        predict_all(None, model_folder, tmp_path, galaxies=[tmp_path / "list.parquet"])
    # Python users see the same.
    with pytest.raises(MachineError, match="3.png: cannot be read"):
        predict.load(model_folder).predict(sorted(sky.iterdir()))


def test_python_users_predict_one_image(stored, model_folder):
    described = predict.load(model_folder).predict(stored / "3.png", samples=5)
    assert list(described["id_str"]) == ["3"]
    assert described[["a_x_fraction", "a_y_fraction"]].sum(axis=1).iloc[0] == pytest.approx(1)
    assert described["a_x_low"].iloc[0] < described["a_x_fraction"].iloc[0] < described["a_x_high"].iloc[0]


def test_models_that_do_not_fit_together_are_a_message(stored, model_folder, tmp_path):
    about = json.loads((model_folder / "model.json").read_text())
    about["columns"] = about["columns"][::-1]
    del about["checksums"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    (tmp_path / "model.keras").write_bytes((model_folder / "model.keras").read_bytes())
    with pytest.raises(
        UserError,
        match="has other answers or another input than .*, expected the same for all models of an ensemble",
    ):
        predict.predict_chunk(
            files(stored, "val")[1], [model_folder, tmp_path], (0, 1), 1, 0, 1, SimpleNamespace()
        )


def test_samples_are_ordered_by_member_then_view_then_draw(stored, tmp_path):
    # Without dropout every draw is the answer for its member and view.
    folders = [tmp_path / "one", tmp_path / "two"]
    for epochs, folder in enumerate(folders, start=1):
        train_member(stored, folder, epochs=epochs, dropout=0.0)
    output = SimpleNamespace(predictions=tmp_path / "all.hdf5", rejected=tmp_path / "all.csv")
    predict.predict_chunk(files(stored, "val")[1], folders, (0, 1), 3, 2, seed=3, output=output)
    with h5py.File(output.predictions) as file:
        values = file["predictions"][:]
    assert values.shape == (12, 4, 2 * 2 * 3)
    batches, _, _, _ = chunks.open_galaxies(files(stored, "val")[1], IMAGE, 0, 1, None)
    names, pixels, _ = next(iter(batches))
    for number, folder in enumerate(folders):
        for view in range(2):
            cut = datasets.cut_views(pixels, names, PAPER, IMAGE, 3, view)
            expected = models.load_model(folder).network.predict(cut, verbose=0)
            for draw in range(3):
                found = values[:, :, (number * 2 + view) * 3 + draw]
                np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_python_users_get_messages(model_folder, tmp_path):
    predictor = predict.load(model_folder)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(BadImage, match="empty.png"):
        predictor.predict(tmp_path / "empty.png", strict=True)
    with pytest.raises(BadImage, match=r"gone.png: the image cannot be read \(No such file or directory\)"):
        predictor.predict([tmp_path / "gone.png"], strict=True)
    with pytest.raises(UserError, match="No image is given"):
        predictor.predict([])
    with pytest.raises(UserError, match="No model folder is given"):
        predict.load()
    with pytest.raises(UserError, match=re.escape("no model.keras")):
        predict.load(tmp_path)


def test_a_bad_image_is_a_row_with_its_reason(stored, model_folder, tmp_path, capfd):
    (tmp_path / "empty.png").write_bytes(b"")
    images = [stored / "3.png", tmp_path / "empty.png", tmp_path / "gone.png", stored / "4.png"]
    table = predict.load(model_folder).predict(images, samples=2)
    assert list(table["id_str"]) == ["3", "empty", "gone", "4"]
    assert table["reason"].isna().tolist() == [True, False, False, True]
    assert "empty (0 bytes)" in table["reason"][1] and "No such file" in table["reason"][2]
    columns = [name for name in table if name not in ("id_str", "reason")]
    assert table.loc[1:2, columns].isna().all(axis=None)
    alone = predict.load(model_folder).predict(stored / "3.png", samples=2)
    pd.testing.assert_series_equal(table.loc[0, columns], alone.loc[0, columns], check_exact=False, rtol=1e-5)
    assert "Traceback" not in capfd.readouterr().err


def test_images_may_be_files_folders_arrays_or_pictures(stored, model_folder, tmp_path):
    predictor, path = predict.load(model_folder), stored / "3.png"
    (tmp_path / "some" / "below").mkdir(parents=True)
    for name in ("some/a.png", "some/below/b.png"):
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "some" / "notes.txt").write_text("no image")
    picture, pixels = Image.open(path), np.asarray(Image.open(path))
    colours = np.repeat(pixels[..., None], 3, axis=2)
    given = {
        "path": (path, ["3"]),
        "text": (str(path), ["3"]),
        "folder": (tmp_path / "some", ["a", "b"]),
        "picture": (picture, ["0"]),
        "array": (pixels, ["0"]),
        "floats in colour": (colours.astype(float), ["0"]),
        "arrays": (np.stack([pixels, pixels]), ["0", "1"]),
        "a batch": (np.stack([colours, colours]), ["0", "1"]),
        "mixed": ([path, picture, pixels, tmp_path / "some"], ["3", "1", "2", "a", "b"]),
    }
    expected = predictor.predict(path, samples=1)["a_x_fraction"][0]
    for name, (images, ids) in given.items():
        # Dropout differs between rows, so each row is alone with its mask only in the first place.
        table = predictor.predict(images, samples=1)
        assert list(table["id_str"]) == ids, name
        assert table["a_x_fraction"][0] == pytest.approx(expected, rel=1e-5), name
        assert table["reason"].isna().all()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((4, 5, 6, 7)), "shape"),
        (np.full((8, 8), 300), "from 300 to 300, expected 0 to 255"),
        (np.full((8, 8), np.nan), "expected 0 to 255"),
        (np.full((8, 8), 0.5), "multiply it by 255"),
        (["a.png", 3], "image 1 is int"),
        (7, "images is int, expected a path"),
        ("notes.txt", "notes.txt"),
        ([], "No image is given"),
    ],
)
def test_what_is_no_image_is_a_sentence(model_folder, images, said):
    with pytest.raises(UserError, match=said):
        predict.load(model_folder).predict(images)


def test_models_are_given_in_any_form(model_folder, tmp_path):
    for name in ("folds/fold0", "folds/fold1", "folds/fold10", "folds/labels20-0", "members/0", "members/1"):
        shutil.copytree(model_folder, tmp_path / name)
    one = Path(model_folder)
    for given, count in {
        (one,): 1,
        (str(one), one): 2,
        (tmp_path / "folds",): 3,
        (str(tmp_path / "members"),): 2,
    }.items():
        assert len(predict.load(*given).members) == count
    assert len(predict.load([one, one]).members) == 2
    folders = predict.models_in(tmp_path / "folds")
    assert [folder.name for folder in folders] == ["fold0", "fold1", "fold10"]


def test_a_table_in_zoobots_convention_is_predicted(stored, model_folder, tmp_path):
    table = pd.DataFrame({"id_str": ["a", "b"], "file_loc": [str(stored / "1.png"), str(stored / "2.png")]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    list_galaxies("catalog", [tmp_path / "mine.csv"], tmp_path / "list.parquet")
    values, ids = predict_all(stored, model_folder, tmp_path, galaxies=[tmp_path / "list.parquet"], of=3)
    assert ids == ["a", "b"]
    assert values.shape == (2, len(TREE.columns), 3)


def test_galaxies_unlike_the_training_are_found(stored, model_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", "zoolib")
    rng = np.random.default_rng(1)
    for number in range(4):
        Image.fromarray((rng.random((24, 24)) < 0.5).astype("uint8") * 255).save(
            tmp_path / f"bad{number}.png"
        )
    images = [*(stored / f"{number}.png" for number in range(40, 52)), *sorted(tmp_path.glob("bad*.png"))]
    shares = predict.load(model_folder).predict(images, samples=1)["unfamiliar"]
    # The validation galaxies themselves have all ranks, and what is no galaxy is farther than all of them.
    np.testing.assert_allclose(np.sort(shares[:12]), np.arange(12) / 12, atol=1e-6)
    assert (shares[12:] == 1).all()
    # An older member says nothing; two that are the same say the same.
    old = tmp_path / "old"
    old.mkdir()
    about = json.loads((model_folder / "model.json").read_text())
    del about["familiar"], about["checksums"]
    (old / "model.json").write_text(json.dumps(about))
    (old / "model.keras").write_bytes((model_folder / "model.keras").read_bytes())
    for folders, expected in (([old], np.full(16, np.nan)), ([model_folder, old, model_folder], shares)):
        found = predict.load(*folders).predict(images, samples=1)["unfamiliar"]
        np.testing.assert_array_equal(found, expected)
    # The file of predictions, for any number of chunks, and the last line of its log.
    table = pd.DataFrame({"id_str": [path.stem for path in images], "file_loc": list(map(str, images))})
    table.to_csv(tmp_path / "mine.csv", index=False)
    list_galaxies("catalog", [tmp_path / "mine.csv"], tmp_path / "list.parquet")
    monkeypatch.setattr(layout, "BLOCK", 8)
    for of in (1, 2):
        predict_all(stored, model_folder, tmp_path / str(of), of=of, galaxies=[tmp_path / "list.parquet"])
        assert caplog.messages[-1].startswith("25 % of these" if of == 1 else "50 % of these")
        parts = [tmp_path / str(of) / f"{chunk}.hdf5" for chunk in range(of)]
        found = []
        for part in parts:
            with h5py.File(part) as file:
                found.append(read_unfamiliar(file))
        np.testing.assert_allclose(np.concatenate(found), shares, atol=1e-6)


def test_the_distance_is_the_mean_of_the_views(stored, model_folder, tmp_path):
    predict_all(stored, model_folder, tmp_path, samples=1, views=2, galaxies=files(stored, "val")[1])
    with h5py.File(tmp_path / "0.hdf5") as file:
        found = file["distance"][:]
    batches, _, _, _ = chunks.open_galaxies(files(stored, "val")[1], IMAGE, 0, 1, None)
    names, pixels, _ = next(iter(batches))
    model = models.load_model(model_folder)
    features = [
        model.backbone.predict(datasets.cut_views(pixels, names, PAPER, IMAGE, 3, view), verbose=0)
        for view in range(2)
    ]
    expected = np.mean([Familiar(model.about).distances(one) for one in features], axis=0)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)
