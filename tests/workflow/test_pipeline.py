"""The complete pipeline on simulated galaxies; test_reruns.py tests what runs again after a change."""

import json
import shutil
import zipfile

import h5py
import pandas as pd
import pytest
from pipeline import REPO, TEST, dry_run, overlay, planned, snakemake


def test_every_stage_left_its_results(completed):
    results = completed / "results" / "test"
    with h5py.File(results / "predict" / "test" / "predictions.hdf5") as file:
        galaxies = file["predictions"].shape[0]
        assert file["predictions"].shape == (galaxies, 34, 5)
        assert file["predictions"][:].min() >= 1
        assert list(file["label_cols"].asstr())[0] == "smooth-or-featured_smooth"
        assert len(file["id_str"]) == galaxies > 50
    flat = pd.read_parquet(results / "predict" / "test" / "catalog")
    assert len(flat) == galaxies
    assert {"bar_strong_fraction", "bar_strong_low", "bar_asked", "bar_entropy"} <= set(flat.columns)
    about = json.loads((results / "train" / "metrics" / "0" / "model.json").read_text())
    assert about["versions"]["keras"]
    learning = pd.read_csv(results / "evaluate" / "learning.csv")
    loss = learning.iloc[0]
    assert loss["truth"] < loss["constant"]
    assert set(pd.read_csv(results / "evaluate" / "ring" / "scores.csv")["label"]) == {"ring"}
    assert len(list((results / "evaluate" / "gallery").glob("*.png"))) == 10


def test_logs_show_what_was_done_and_benchmarks_what_it_took(completed):
    log = (completed / "logs" / "test" / "train_member" / "metrics-0.log").read_text()
    assert "epoch 2: loss" in log
    assert not list((completed / "logs").rglob("*.traceback"))
    benchmark = pd.read_csv(completed / "benchmarks/test/train_member/metrics-0.tsv", sep="\t")
    assert benchmark["s"][0] > 1


def test_nothing_changed_nothing_runs(completed):
    assert planned(completed, *TEST) == {}


def test_the_configuration_of_a_report_is_the_same_run(completed, tmp_path):
    settings = completed / "results/test/report/configuration.yaml"
    assert planned(completed, "--configfile", settings) == {}
    # In an empty folder it plans the same jobs as the files that the run was started with.
    run = planned(completed, *TEST, "--directory", tmp_path)
    again = planned(completed, "--configfile", settings, "--directory", tmp_path)
    assert run == again and run["train_member"] == 1
    shown = pd.read_csv(completed / "results/test/report/configuration.csv", index_col="key")["value"]
    assert shown["finetune.tasks[0].label"] == "ring" and "finetune.tasks[0].start" not in shown


def test_a_deleted_shard_is_rebuilt_alone(edited):
    (edited / "results/test/shards/train/0.tfrecord").unlink()
    assert planned(edited, "shards", *TEST) == {"write_shard": 1, "check_rejected": 1}
    snakemake(edited, "shards", *TEST)
    assert planned(edited, "shards", *TEST) == {}
    # The new shard has the same bytes. Snakemake compares checksums of small files: nothing trains again.
    assert planned(edited, *TEST) == {}


def test_without_shards_training_reads_the_images(edited, tmp_path):
    direct = overlay(tmp_path, "direct", {"run": "direct", "shards": {"enabled": False}})
    target = "results/direct/predict/test/predictions.hdf5"
    shutil.copytree(edited / "results/test/download", edited / "results/direct/download")
    snakemake(edited, target, *TEST, direct)
    assert not list((edited / "results/direct").rglob("*.tfrecord"))
    histories = [
        pd.read_csv(edited / f"results/{run}/train/metrics/0/history.csv") for run in ("test", "direct")
    ]
    pd.testing.assert_frame_equal(*(history.drop(columns="seconds") for history in histories))


def test_a_broken_image_is_rejected_and_too_many_stop_the_run(edited, tmp_path):
    results = edited / "results/test"
    table = pd.read_parquet(results / "catalog/test.parquet")
    folder = tmp_path / "images"
    folder.mkdir()
    own = table.iloc[:40].assign(file_loc=[f"{name}.png" for name in table["id_str"][:40]])
    for row in own.itertuples():
        with zipfile.ZipFile(edited / row.archive) as archive:
            (folder / row.file_loc).write_bytes(archive.read(row.member))
    (folder / own["file_loc"].iloc[0]).write_bytes(b"")
    own.drop(columns=["archive", "member"]).to_csv(tmp_path / "own.csv", index=False)
    entry = {"name": "own", "tree": "gz_decals_5", "table": str(tmp_path / "own.csv"), "images": str(folder)}
    content = {"run": "own", "zenodo": {"simulate": None}, "catalogs": [entry], "finetune": {"tasks": []}}
    # With the same seed all of them would be test galaxies again. Images are checked without shards, too.
    content |= {"seed": 7, "shards": {"enabled": False}}
    strict = overlay(tmp_path, "strict", content)
    status, shown = snakemake(edited, "shards", *TEST, strict, check=False)
    assert status == 1
    assert "Traceback" not in shown
    assert "1 of 40 images (2.5%) cannot be read, expected 1.0% or less" in shown
    last = (edited / "logs/own/check_rejected.log").read_text().strip().splitlines()[-1]
    assert "shards.max_rejected" in last
    lenient = overlay(tmp_path, "lenient", {"shards": {"max_rejected": 0.1}})
    snakemake(edited, "shards", *TEST, strict, lenient)
    rejected = pd.read_csv(edited / "results/own/shards/rejected.csv")
    assert list(rejected["id_str"]) == [own["id_str"].iloc[0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": {"epocs": 3}}, "unknown key 'epocs' in train"),
        (
            {"catalogs": [{"name": "a", "tree": "gz9", "table": "gz_decals_volunteers_5.csv"}]},
            "config/trees/ has gz2, gz_candels, gz_cosmic_dawn",
        ),
        ({"zenodo": {"simulate": None, "local": "nowhere"}}, "expected an existing folder"),
    ],
)
def test_a_wrong_configuration_is_one_message(completed, tmp_path, content, message):
    wrong = overlay(tmp_path, "wrong", content)
    status, shown = dry_run(completed, *TEST, wrong, check=False)
    assert status == 1
    assert "Traceback" not in shown
    assert message in shown


PLANNED = sorted(path.stem for path in (REPO / "config").glob("*.yaml"))


@pytest.mark.parametrize("name", PLANNED)
def test_every_configuration_is_planned_without_the_network(completed, tmp_path, name):
    jobs = planned(
        completed,
        *("--configfile", f"config/{name}.yaml", "--directory", tmp_path),
        ZENODO_URL="http://127.0.0.1:9",
    )
    if name == "config":
        assert jobs["train_member"] == 3 + 5
        # The table and the zips, and two tables for the paper's figures.
        assert jobs["download_file"] == 1 + 4 + 2
    assert jobs["train_member"] >= 1


def test_another_runs_model_is_taken_as_it_is(completed, tmp_path):
    target = {"name": "more", "models": ["results/test/train/metrics/0"], "images": str(tmp_path)}
    survey = overlay(
        tmp_path,
        "survey",
        {"run": "survey", "predict": {"targets": [target], "chunks": 1}, "evaluate": {"target": None}},
    )
    jobs = {"list_galaxies": 1, "predict_chunk": 1, "describe_posteriors": 1, "collect_predictions": 1}
    jobs |= {"rank_galaxies": 1, "draw_survey": 1}
    report = {"describe_run": 1, "show_tables": 1, "write_first_page": 1}
    assert planned(completed, "--configfile", survey) == jobs | report


def test_every_profile_is_planned(completed, tmp_path):
    profiles = sorted(path.parent for path in (completed / "profiles").glob("*/config.yaml"))
    assert profiles
    for profile in profiles:
        jobs = planned(completed, "--profile", profile, "--workflow-profile", "none", "--directory", tmp_path)
        assert jobs["train_member"] == 8
