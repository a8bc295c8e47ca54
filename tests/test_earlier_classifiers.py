"""Faults of earlier galaxy classifiers in thirteen groups, and the tests that would find each of them here.

 1. galaxies at another scale at prediction
      learning/test_augment.py::test_training_and_prediction_see_a_galaxy_at_the_same_scale
      test_earlier_classifiers.py::test_a_model_predicts_at_the_scale_that_it_was_trained_at
 2. one crop for all images of a batch
      test_earlier_classifiers.py::test_the_same_image_is_cut_differently_within_a_batch
 3. dropout that does nothing at prediction
      learning/test_models.py::test_the_reloaded_head_draws_and_the_backbone_does_not
      test_predict.py::test_samples_differ_and_can_be_repeated
 4. test galaxies decide when to stop, nothing is seeded
      test_earlier_classifiers.py::test_votes_of_test_galaxies_change_nothing
      test_earlier_classifiers.py::test_two_runs_give_the_same_bytes
      test_earlier_classifiers.py::test_no_rule_lets_training_see_test_galaxies
      test_catalog.py::test_new_galaxies_and_another_order_move_no_galaxy_to_another_split
 5. options that are ignored or misspelt
      test_earlier_classifiers.py::test_every_key_is_read_by_some_code
      config/test_schema.py::test_a_wrong_configuration_is_one_message
 6. empty last shard
      test_earlier_classifiers.py::test_no_shard_is_empty_where_galaxies_divide_evenly
    images upside down in shards, but not elsewhere
      test_earlier_classifiers.py::test_shards_and_images_have_one_orientation
    a wrong image size is reshaped
      test_shards.py::test_reading_stops_at_an_unexpected_shard
    labels of some number types are refused
      test_shards.py::test_labels_are_kept_as_numbers
 7. one image format for a complete run
      test_earlier_classifiers.py::test_one_catalogue_mixes_formats
    names in another order than their predictions
      test_predict.py::test_the_number_of_chunks_changes_nothing
 8. a new head that is frozen with the backbone
      test_finetune.py::test_each_stage_moves_just_its_layers
    a finetuned model that sees other images than its backbone (colour instead of grey)
      test_finetune.py::test_without_augmentation_a_frozen_backbone_runs_once
 9. questions that follow the wrong answer
      config/test_trees.py::test_what_leads_to_what
    several answers that lead to a question
      posteriors/test_summary.py::test_a_question_with_two_parents_is_reached_by_either
10. concentrations that cannot be below 1 or very large
      learning/test_models.py::test_the_outputs_of_a_head_reach_its_ends_and_stay_finite
    float16 answers
      learning/test_models.py::test_outputs_are_float32_under_mixed_precision
    a loss that grows with the number of GPUs
      learning/test_devices.py::test_two_devices_train_like_one
    no loss of each question
      learning/test_likelihood.py::test_each_question_is_logged_as_its_mean_over_the_galaxies_asked
11. models that need code to be loaded
      learning/test_models.py::test_a_model_saves_and_loads_whole_in_safe_mode
12. dependencies that keep all other packages old
      test_earlier_classifiers.py::test_dead_ends_are_not_depended_on
13. no resuming
      test_train.py::test_an_interrupted_training_ends_with_the_same_weights
    no FITS
      data/test_images.py::test_fits_is_stretched_as_galaxy_zoo_decals_did
"""

import json
import re
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from pipeline import dry_run
from scipy.ndimage import map_coordinates
from stored import IMAGE, SETTINGS, TREE, train_member
from zoolib import catalog, predict, shards, train
from zoolib.config.schema import known_keys
from zoolib.learning import datasets
from zoolib.learning.augment import PAPER
from zoolib.learning.fitting import Job

SPLITS = ("train", "val", "test")


def test_the_table_names_tests_that_exist(repo):
    named = re.findall(r"([\w/]+\.py)::(test_\w+)", __doc__)
    assert len(named) > 20
    for file, name in named:
        assert f"\ndef {name}(" in (repo / "tests" / file).read_text(), f"{file}::{name}"
    assert re.findall(r"^ ?(\d+)\. ", __doc__, re.M) == [str(group) for group in range(1, 14)]


def paths(folder, *names, **files):
    return SimpleNamespace(**{name: folder / name for name in names}, **files)


def run_everything(table, folder):
    """Go from a table of votes to predictions of the test galaxies; returns (their bytes, the ids)."""
    folder.mkdir()
    table.to_csv(folder / "votes.csv", index=False)
    splits = {split: folder / f"{split}.parquet" for split in SPLITS}
    output = paths(folder, rejected=folder / "rejected.csv", summary=folder / "summary.csv", **splits)
    entry = {"name": "a", "table": str(folder / "votes.csv"), "tree": TREE.to_dict(published=True)}
    entry |= {"archives": [], "images": table.attrs["images"], "id": None, "location": None}
    entry |= {"query": None, "min_votes": 1}
    catalog.build_catalog([entry], {"train": 0.6, "val": 0.2, "test": 0.2}, 7, output)
    written = {}
    for split in SPLITS:
        stem = folder / "shards" / split / "0"
        made = SimpleNamespace(
            shard=f"{stem}.tfrecord", about=f"{stem}.json", rejected=f"{stem}.rejected.csv"
        )
        shards.write_shard(splits[split], 0, 1, IMAGE, made)
        written[split] = [made.shard], [made.about]
    model = paths(folder, model=folder / "model.keras", about=folder / "model.json", history=folder / "h.csv")
    train.train_member(
        train.Member(TREE, IMAGE, SETTINGS | {"epochs": 2}, "metrics", 0, run_seed=7),
        train=written["train"],
        validation=written["val"],
        job=Job(model),
    )
    made = SimpleNamespace(predictions=folder / "p.hdf5", rejected=folder / "p.csv")
    predict.predict_chunk(written["test"][1], [folder], (0, 1), 3, 2, 7, made)
    with h5py.File(made.predictions) as file:
        return file["predictions"][:].tobytes(), list(file["id_str"].asstr())


@pytest.fixture(scope="module")
def first_run(stored, tmp_path_factory):
    """The stored galaxies as a table of votes, and the predictions of a run on it."""
    folder = tmp_path_factory.mktemp("runs")
    found = pd.concat([pd.read_parquet(stored / f"{name}.parquet") for name in ("train", "val")])
    table = found[["id_str", "file_loc", *TREE.columns]].reset_index(drop=True)
    table.attrs["images"] = str(stored)
    return SimpleNamespace(table=table, folder=folder, made=run_everything(table, folder / "first"))


def test_two_runs_give_the_same_bytes(first_run):
    """Group 4: nothing was seeded, and no result could be repeated."""
    shuffled = first_run.table.sample(frac=1, random_state=1)
    again, names = run_everything(shuffled, first_run.folder / "again")
    assert len(names) > 5 and names == first_run.made[1]
    assert again == first_run.made[0]


def test_votes_of_test_galaxies_change_nothing(first_run):
    """Group 4: the galaxies that decided when to stop were those of the reported scores."""
    table = first_run.table.copy()
    table.attrs = first_run.table.attrs
    tested = table["id_str"].isin(first_run.made[1])
    assert 0 < tested.sum() < len(table) / 2
    table.loc[tested, TREE.columns] = table.loc[tested, TREE.columns[::-1]].to_numpy() + 3
    changed, _ = run_everything(table, first_run.folder / "changed")
    assert changed == first_run.made[0]
    histories = [pd.read_csv(first_run.folder / name / "h.csv") for name in ("first", "changed")]
    pd.testing.assert_frame_equal(*(history.drop(columns="seconds") for history in histories))


def test_no_rule_lets_training_see_test_galaxies(repo, tmp_path):
    """Group 4: each ensemble validates on the validation split; metrics trains on the split train alone."""
    _, shown = dry_run(repo, "train", "--directory", tmp_path)
    jobs = re.findall(
        r"rule train_member:\n    input: (.*)\n(?:.*\n)*?    wildcards: .*ensemble=(\w+)", shown
    )
    assert {name for _, name in jobs} == {"metrics", "catalog"}
    for inputs, name in jobs:
        assert "/shards/val/" in inputs and "/shards/train/" in inputs
        assert ("/shards/test/" in inputs) == (name == "catalog")


def test_a_model_predicts_at_the_scale_that_it_was_trained_at(stored, tmp_path):
    """Group 1: galaxies were 0.75 times as large at prediction as in training."""
    twice = {"name": "twice", "steps": [{"zoom": {"factor": [2.0, 2.0]}}]}
    model = train_member(stored, tmp_path, epochs=1, dropout=0.0, augmentation=twice)
    assert model.about["training"]["augmentation"] == twice
    table = pd.read_parquet(stored / "val.parquet")
    table.to_parquet(tmp_path / "galaxies.parquet")

    def predicted(name):
        output = SimpleNamespace(predictions=tmp_path / f"{name}.hdf5", rejected=tmp_path / f"{name}.csv")
        predict.predict_chunk([tmp_path / "galaxies.parquet"], [tmp_path], (0, 1), 1, 0, 1, output)
        with h5py.File(output.predictions) as file:
            return file["predictions"][:, :, 0]

    def expected(share):
        """The same predictions with the interpolation of another library."""
        places = 11.5 + (np.arange(18) - 8.5) * 24 * share / 18
        grid = np.meshgrid(places, places, indexing="ij")
        pixels = [np.asarray(Image.open(path), "float32") for path in table["file_loc"]]
        views = [map_coordinates(galaxy, grid, order=1, mode="mirror") for galaxy in pixels]
        return model.network.predict(np.stack(views)[..., None], verbose=0)

    np.testing.assert_allclose(predicted("new"), expected(0.5), rtol=1e-3)
    # An older model has no such key: it was trained with the paper's augmentation.
    about = json.loads((tmp_path / "model.json").read_text())
    del about["training"]["augmentation"]
    del about["checksums"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    np.testing.assert_allclose(predicted("old"), expected(0.75), rtol=1e-3)
    assert np.abs(expected(0.5) - expected(0.75)).max() > 1e-2


def test_the_same_image_is_cut_differently_within_a_batch():
    """Group 2: Keras's RandomCrop once drew one offset for a whole batch."""
    pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (24, 24, 1)), tf.uint8)
    labels = tf.zeros([1])
    store = datasets.Store(
        (16,), lambda _: tf.data.Dataset.range(16), lambda n: (tf.strings.as_string(n), pixels, labels), IMAGE
    )
    batches, _ = datasets.training_batches(store, PAPER, 16, 1, epochs=range(2))
    first, second = (batch.numpy().reshape(16, -1) for batch, _ in batches)
    everything = np.concatenate([first, second])
    apart = np.abs(everything[:, None] - everything[None]).max(axis=2)
    assert (apart + 255 * np.eye(32)).min() > 1


def test_every_key_is_read_by_some_code(repo):
    """Group 5: options were declared, documented and ignored."""
    schema = yaml.safe_load((repo / "workflow/schemas/config.schema.yaml").read_text())
    files = [*(repo / "rules").glob("*.smk"), *(repo / "workflow/scripts").rglob("*.py")]
    code = "\n".join(file.read_text() for file in files)
    keys = {key.split(".")[-1].removesuffix("[]") for key in known_keys(schema)}
    assert {"epochs", "patience", "augmentation"} <= keys
    # A key is read by its name or as an argument of a function.
    assert not [key for key in keys if not re.search(rf"[\"']{key}[\"']|[(, ]{key}[,=)]", code)]


@pytest.mark.parametrize("of", [1, 2, 4, 8])
def test_no_shard_is_empty_where_galaxies_divide_evenly(stored, tmp_path, of):
    """Group 6: the last shard was empty if the number of galaxies was a multiple of the shards' size."""
    counts = []
    for shard in range(of):
        stem = tmp_path / str(shard)
        output = SimpleNamespace(
            shard=f"{stem}.parquet", about=f"{stem}.json", rejected=f"{stem}.rejected.csv"
        )
        shards.write_shard(stored / "train.parquet", shard, of, IMAGE, output, enabled=False)
        counts.append(json.loads((tmp_path / f"{shard}.json").read_text())["count"])
    assert counts == [40 // of] * of


def test_shards_and_images_have_one_orientation(tmp_path):
    """Group 6: images were upside down in shards, but not when they were read directly."""
    pixels = np.zeros((24, 24), "uint8")
    pixels[:12, :12], pixels[:12, 12:], pixels[12:, :12] = 250, 150, 50
    Image.fromarray(pixels).save(tmp_path / "corner.png")
    table = pd.DataFrame({"id_str": ["J1"], "archive": "", "member": ""})
    table = table.assign(file_loc=str(tmp_path / "corner.png"), **dict.fromkeys(TREE.columns, 1))
    catalog.write_catalog(catalog.Catalog(table, TREE.columns, TREE), tmp_path / "train.parquet")
    for enabled, suffix in ((True, ".tfrecord"), (False, ".parquet")):
        names = {"shard": f"0{suffix}", "about": "0.json", "rejected": "0.csv"}
        output = SimpleNamespace(**{key: str(tmp_path / name) for key, name in names.items()})
        shards.write_shard(tmp_path / "train.parquet", 0, 1, IMAGE, output, enabled=enabled)
        store, _ = train.open_store([output.shard], [output.about], TREE, IMAGE)
        ((view, _),) = datasets.central_batches(store, PAPER, 1)
        corners = view.numpy()[0, [0, 0, -1, -1], [0, -1, 0, -1], 0]
        np.testing.assert_allclose(corners, [250, 150, 50, 0], atol=0.1)


def test_one_catalogue_mixes_formats(tmp_path):
    """Group 7: all images were read as the suffix of the first one says."""
    pixels = np.kron(np.arange(0, 256, 4, dtype="uint8").reshape(8, 8), np.ones((3, 3), "uint8"))
    names = ["a.png", "b.jpg", "c.jpeg", "d.png"]
    for name in names:
        Image.fromarray(pixels).save(tmp_path / name, **({} if name.endswith("png") else {"quality": 98}))
    table = pd.DataFrame({"id_str": [name[0] for name in names], "archive": "", "member": ""})
    store = datasets.from_catalog(
        [table.assign(file_loc=[str(tmp_path / name) for name in names])], [], IMAGE
    )
    ((ids, images, _),) = datasets.stored_batches(store, 8)
    assert [name.decode() for name in ids.numpy()] == ["a", "b", "c", "d"]
    for image in images.numpy():
        assert np.abs(image[..., 0].astype(float) - pixels).mean() < 3


def test_dead_ends_are_not_depended_on(repo):
    """Group 12: packages that need an old TensorFlow kept all others at old versions."""
    locked = set(re.findall(r"^([a-z0-9_.-]+)==", (repo / "envs/cpu.lock.txt").read_text(), re.M))
    assert {"keras", "numpy"} <= locked
    assert not locked & {"tensorflow-probability", "tf-keras", "keras-applications", "tensorflow-addons"}
