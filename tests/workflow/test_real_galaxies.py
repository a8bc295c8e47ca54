"""The complete pipeline on real galaxies, downloaded from an HTTP server with Zenodo's API."""

import os
import shutil

import h5py
import pandas as pd
import pytest
from pipeline import copy_of_the_repository, overlay, planned, snakemake
from zenodo_server import ZenodoServer
from zoolib.posteriors.files import open_predictions

ARCHIVES = ["gz_decals_dr5_png_part1.zip", "gz_decals_dr5_png_part2.zip"]
SMALL = {
    "image": {"size": 64, "crop": 0.75, "final_size": 48},
    "shards": {"count": {"train": 1, "val": 1, "test": 1}},
    "train": {
        "backbone": "tiny",
        "batch_size": 8,
        "epochs": 2,
        "ensembles": [{"name": "metrics", "members": 1}],
    },
    "predict": {
        "samples": 2,
        "views": 0,
        "chunks": 1,
        "targets": [{"name": "test", "ensemble": "metrics", "split": "test"}],
    },
    "evaluate": {"min_votes": 5},
}


def catalog(**changes):
    entry = {"name": "decals", "tree": "gz_decals_5", "table": "gz_decals_volunteers_5.csv"}
    return entry | {"archives": ARCHIVES, "min_votes": 1} | changes


@pytest.fixture(scope="module")
def repo_copy(tmp_path_factory):
    return copy_of_the_repository(tmp_path_factory.mktemp("real") / "repo")


@pytest.fixture(scope="module")
def server(real_data):
    with ZenodoServer(real_data / "gz_decals_record") as running:
        yield running


def test_from_download_to_report(repo_copy, server, real_data, tmp_path):
    task = {"name": "ring", "table": str(real_data / "rings.csv"), "images": str(real_data), "label": "ring"}
    configuration = overlay(
        tmp_path,
        "real",
        SMALL
        | {
            "run": "real",
            "zenodo": {"record": 99990001},
            "catalogs": [catalog()],
            "predict": {
                "samples": 4,
                "views": 2,
                "chunks": 1,
                "targets": [
                    {"name": "test", "ensemble": "metrics", "split": "test"},
                    {"name": "everything", "ensemble": "metrics", "archives": "all"},
                ],
            },
            "finetune": {"tasks": [task | {"epochs": 2, "strategy": {"name": "two_stage", "epochs": 1}}]},
        },
    )
    _, shown = snakemake(repo_copy, "--configfile", configuration, ZENODO_URL=server.url)
    assert "Traceback" not in shown
    record = repo_copy / "data/zenodo/99990001"
    assert sorted(path.name for path in record.iterdir() if not path.name.startswith(".")) == [
        *ARCHIVES,
        "gz_decals_volunteers_5.csv",
    ]
    results = repo_copy / "results/real"
    summary = pd.read_csv(results / "catalog/summary.csv")
    counts = dict(zip(summary.iloc[:, -2], summary.iloc[:, -1], strict=True))
    assert 1457 in counts.values()
    assert 56 in counts.values()
    assert (
        sum(len(pd.read_parquet(results / f"catalog/{split}.parquet")) for split in ("train", "val", "test"))
        == 56
    )
    with h5py.File(results / "predict/everything/predictions.hdf5") as file:
        assert file["predictions"].shape == (68, 34, 8)
    assert len(pd.read_parquet(results / "predict/everything/catalog")) == 68
    rings = pd.read_csv(results / "evaluate/ring/scores.csv").query("split == 'test'")
    assert rings["galaxies"].unique() == [48]
    assert planned(repo_copy, "--configfile", configuration, ZENODO_URL="http://127.0.0.1:9") == {}


def test_a_sample_reads_single_images_out_of_the_remote_archives(repo_copy, server, tmp_path):
    configuration = overlay(
        tmp_path,
        "sample",
        SMALL
        | {
            "run": "sampled",
            "zenodo": {"record": 99990001, "sample": 12},
            "catalogs": [catalog()],
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            # Images are read and checked without shards, too.
            "shards": {"enabled": False, **SMALL["shards"]},
        },
    )
    server.forget()
    snakemake(repo_copy, "shards", "--configfile", configuration, ZENODO_URL=server.url)
    splits = [repo_copy / f"results/sampled/catalog/{split}.parquet" for split in ("train", "val", "test")]
    assert sum(len(pd.read_parquet(path)) for path in splits) == 12
    sample = repo_copy / "results/sampled/download/sample.zip"
    assert 12 * 60_000 < sample.stat().st_size < 12 * 400_000
    read = sum(count for name, count in server.served.items() if name.endswith(".zip"))
    assert sample.stat().st_size * 0.9 < read < sample.stat().st_size * 1.5


def test_fits_cutouts_and_galaxy_zoo_2(repo_copy, real_data, tmp_path):
    columns = pd.read_csv(real_data / "gz2_stripe82.csv").columns
    votes = [column for column in columns if column.endswith("_count")]
    fits = sorted((real_data / "fits").iterdir())
    # Galaxy Zoo 2 never classified these five: the votes are invented, as if a campaigner had them.
    own = pd.DataFrame(
        {"id_str": [path.name.split(".")[0] for path in fits], "file_loc": list(map(str, fits))}
    )
    own[votes] = 1
    own.to_csv(tmp_path / "fits.csv", index=False)
    configuration = overlay(
        tmp_path,
        "gz2",
        SMALL
        | {
            "run": "gz2",
            "zenodo": {"record": None},
            "catalogs": [
                {
                    "name": "stripe82",
                    "tree": "gz2",
                    "table": str(real_data / "gz2_stripe82.csv"),
                    "images": str(real_data),
                },
                {"name": "fits", "tree": "gz2", "table": str(tmp_path / "fits.csv")},
            ],
            "split": {"train": 0.6, "val": 0.2, "test": 0.2},
            "image": SMALL["image"] | {"encoding": "raw", "color": True},
            "predict": {
                "samples": 2,
                "views": 0,
                "chunks": 1,
                "targets": [
                    {"name": "test", "ensemble": "metrics", "split": "test"},
                    {"name": "cutouts", "ensemble": "metrics", "images": str(real_data / "fits")},
                ],
            },
        },
    )
    snakemake(repo_copy, "predict", "--configfile", configuration)
    results = repo_copy / "results/gz2"
    tables = [pd.read_parquet(results / f"catalog/{split}.parquet") for split in ("train", "val", "test")]
    assert sum(map(len, tables)) == 33 + 5
    assert "spiral-arm-count_cant-tell" in tables[0].columns
    cutouts = pd.read_parquet(results / "predict/cutouts/catalog")
    assert sorted(cutouts["id_str"]) == sorted(own["id_str"])
    assert cutouts["bulge-size_no_fraction"].between(0, 1).all()


def test_a_trained_model_predicts_a_folder_and_what_comes_later(repo_copy, real_data, tmp_path):
    model, folder = repo_copy / "results/gz2/train/metrics/0", tmp_path / "fits"
    shutil.copytree(real_data / "fits", folder)
    target = {"name": "cutouts", "models": [str(model)], "images": str(folder)}
    configuration = overlay(
        tmp_path,
        "survey",
        {
            "run": "survey",
            "predict": {"samples": 3, "views": 0, "chunks": 2, "targets": [target]},
            "evaluate": {"target": None},
        },
    )
    jobs = planned(repo_copy, "predict", "--configfile", configuration)
    assert jobs == {
        "list_galaxies": 1,
        "predict_chunk": 2,
        "describe_posteriors": 2,
        "collect_predictions": 1,
        "rank_galaxies": 1,
    }
    snakemake(repo_copy, "predict", "--configfile", configuration)
    path = repo_copy / "results/survey/predict/cutouts/predictions.hdf5"
    with open_predictions(path) as before:
        first = dict(zip(before.id_str, before.values[()], strict=True))
    assert {values.shape for values in first.values()} == {(30, 3)} and len(first) == 5
    (folder / "later").mkdir()
    shutil.copy(real_data / "fits" / "example_a.fits", folder / "later" / "again.fits")
    jobs |= {"predict_chunk": 1, "describe_posteriors": 1}
    assert planned(repo_copy, "predict", "--configfile", configuration) == jobs
    _, shown = snakemake(repo_copy, "predict", "--configfile", configuration)
    assert "1 new images, 0 changed, 0 gone" in shown
    assert planned(repo_copy, "predict", "--configfile", configuration) == {}
    with open_predictions(path) as after:
        then = dict(zip(after.id_str, after.values[()], strict=True))
    assert set(then) == {*first, "again"}
    assert all((then[name] == first[name]).all() for name in first)
    # Only its own chunk is predicted again.
    os.utime(folder / "later" / "again.fits", (1, 1))
    chunks = [path.parent / "chunks" / f"{chunk}.hdf5" for chunk in range(3)]
    times = [chunk.stat().st_mtime_ns for chunk in chunks]
    _, shown = snakemake(repo_copy, "predict", "--configfile", configuration)
    assert "0 new images, 1 changed, 0 gone" in shown
    assert [chunk.stat().st_mtime_ns > time for chunk, time in zip(chunks, times, strict=True)] == [
        False,
        False,
        True,
    ]
    assert "Posteriors: results/survey/predict/cutouts/catalog" in shown


def test_a_missing_record_is_one_message(repo_copy, server, tmp_path):
    configuration = overlay(
        tmp_path, "missing", SMALL | {"run": "missing", "zenodo": {"record": 12345}, "catalogs": [catalog()]}
    )
    status, shown = snakemake(
        repo_copy,
        "catalog",
        "--configfile",
        configuration,
        check=False,
        ZENODO_URL=server.url,
    )
    assert status == 1
    assert "Traceback" not in shown
    # Two downloads run at a time, in any order; the first failure ends the run.
    logs = list((repo_copy / "logs/download/12345").glob("*.log"))
    assert logs
    for log in logs:
        assert "record 12345 is not there" in log.read_text().splitlines()[-1]
    assert not list((repo_copy / "data/zenodo/12345").glob("gz_*"))
