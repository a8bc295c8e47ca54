"""One job of many: what it reads and holds in memory does not grow with the galaxies of the other jobs."""

import os
import random
import resource
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import study_scale
from drawn import SMALL, some_concentrations
from pipeline import copy_of_the_repository, jobs_of, overlay, planned, snakemake
from stored import IMAGE, TREE, files
from zoolib import predict
from zoolib.data import image_folder, layout, listing
from zoolib.data.disk_sort import in_order
from zoolib.data.listing import list_galaxies
from zoolib.job.logs import UserError
from zoolib.learning import chunks, datasets
from zoolib.posteriors.collect import collect_predictions
from zoolib.posteriors.files import describe_posteriors
from zoolib.posteriors.ranking import rank_galaxies
from zoolib.posteriors.writer import predictions_file

MANY, CHUNKS = 100_000, 1000


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of many galaxies; their images do not exist."""
    folder = tmp_path_factory.mktemp("listed")
    names = [f"J{number:06d}" for number in range(MANY)]
    places = {"archive": "", "member": "", "file_loc": [f"/nowhere/{name}.png" for name in names]}
    pd.DataFrame({"id_str": names, **places}).to_csv(folder / "survey.csv", index=False)
    list_galaxies("catalog", [folder / "survey.csv"], folder / "galaxies.parquet")
    return folder / "galaxies.parquet"


def test_a_chunk_reads_its_own_rows_of_the_list(listed, monkeypatch):
    rows = []
    read = pq.ParquetFile.read_row_group

    def counted(self, *arguments, **settings):
        table = read(self, *arguments, **settings)
        rows.append(len(table))
        return table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for name in ("read", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, name, None)
    stores = []
    monkeypatch.setattr(datasets, "from_catalog", lambda frames, *rest, **more: stores.extend(frames))
    monkeypatch.setattr(datasets, "stored_batches", lambda *rest: None)
    seen = []
    for chunk in (0, 500, 999):
        _, begin, end, _ = chunks.open_galaxies([listed], IMAGE, chunk, CHUNKS, None)
        assert 0 <= end - begin <= 2 * layout.BLOCK
        seen.append(stores[-1]["id_str"].tolist())
        assert seen[-1] == [f"J{number:06d}" for number in range(begin, end)]
    assert sum(map(len, seen)) > 0
    assert sum(rows) <= 3 * 2 * image_folder.GROUP < MANY / 2


def test_rows_are_found_across_files_and_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "GROUP", 7)
    paths, names = [], [f"J{number:03d}" for number in range(50)]
    for part, rows in enumerate((names[:20], names[20:23], names[23:])):
        table = pd.DataFrame({"id_str": rows, "file_loc": [f"/x/{name}.png" for name in rows]})
        table.to_parquet(tmp_path / f"{part}.parquet")
        paths.append(tmp_path / f"{part}-list.parquet")
        list_galaxies("catalog", [tmp_path / f"{part}.parquet"], paths[-1])
    assert pq.ParquetFile(paths[0]).num_row_groups == 3
    assert listing.count_images(paths) == 50
    for start, stop in ((0, 50), (6, 8), (19, 24), (20, 23), (49, 50), (30, 30)):
        found = listing.read_images(paths, start, stop)
        assert list(found.columns) == ["id_str", "archive", "member", "file_loc", "seen"]
        assert found["id_str"].tolist() == names[start:stop]


def test_a_folder_is_listed_in_order_and_a_group_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "GROUP", 8)
    names = [f"J{number}{letter}" for number in range(15) for letter in "bÅa"]
    random.Random(1).shuffle(names)
    for number, name in enumerate(names):
        folder = tmp_path / "images" / str(number % 4) / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").touch()
    (folder / "notes.txt").touch()
    list_galaxies("images", [str(tmp_path / "images")], tmp_path / "list.parquet")
    table = pd.read_parquet(tmp_path / "list.parquet")
    assert table["id_str"].tolist() == sorted(names)
    assert all((tmp_path / place).is_file() for place in table["file_loc"])
    groups = pq.ParquetFile(tmp_path / "list.parquet").metadata
    assert max(groups.row_group(group).num_rows for group in range(groups.num_row_groups)) == 8
    (tmp_path / "images" / f"{names[0]}.jpg").touch()
    with pytest.raises(UserError, match=f"1 name is that of several images.*'{names[0]}'"):
        list_galaxies("images", [str(tmp_path / "images")], tmp_path / "again.parquet")
    assert not (tmp_path / "again.parquet").exists()


def test_links_to_folders_are_followed_each_folder_once(tmp_path):
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for folder in (images / "own", elsewhere):
        folder.mkdir(parents=True)
        (folder / f"{folder.name}.png").touch()
    # Links to other images, to the same images under another name, and in a circle.
    links = {"linked": elsewhere, "twice": images / "own", "own/up": images, "self": images / "self"}
    for name, goal in links.items():
        (images / name).symlink_to(goal)
    list_galaxies("images", [str(images)], tmp_path / "list.parquet")
    assert pd.read_parquet(tmp_path / "list.parquet")["id_str"].tolist() == ["elsewhere", "own"]
    # What this one leads to may be a folder of images on a disk that is away.
    (images / "gone").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="images/gone: is a link to something that is not there"):
        list_galaxies("images", [str(images)], tmp_path / "again.parquet")


def test_sorting_is_pythons():
    draw = random.Random(2)
    rows = [(draw.choice([0.5, 1e-9, 3.25]), "".join(draw.choices("aåZ𝄞é", k=3))) for _ in range(500)]
    assert list(in_order(iter(rows), ["a", "b"], "a desc, b")) == sorted(
        rows, key=lambda row: (-row[0], row[1])
    )
    assert list(in_order([(1.0,), (np.nan,)], ["a"], "a desc")) == [(1.0,), (None,)]


def test_a_chunk_opens_the_shards_that_it_lies_in(stored, tmp_path, monkeypatch):
    _, sidecars = files(stored, "train")
    list_galaxies("shards", sidecars, tmp_path / "list.parquet")
    opened = []
    read = chunks.read_sidecar
    monkeypatch.setattr(chunks, "read_sidecar", lambda path, *rest: opened.append(path) or read(path, *rest))
    monkeypatch.setattr(layout, "BLOCK", 5)
    names = []
    for chunk in range(4):
        batches, begin, end, _ = chunks.open_galaxies([tmp_path / "list.parquet"], IMAGE, chunk, 4, None)
        names += [name.decode() for ids, _, _ in batches for name in ids.numpy()]
        assert (begin, end) == (10 * chunk, 10 * chunk + 10)
    assert opened == [str(sidecars[0])] * 2 + [str(sidecars[1])] * 2
    assert names == pd.read_parquet(stored / "train.parquet")["id_str"].tolist()
    with pytest.raises(UserError, match="no shard is found"):
        list_galaxies("shards", [], tmp_path / "none.parquet")


def test_a_chunk_is_written_block_by_block(stored, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "BLOCK", 8)
    written_at_once = []
    write = h5py.Dataset.__setitem__

    def counted(self, rows, values):
        written_at_once.append(len(values))
        write(self, rows, values)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", counted)
    table = pd.read_parquet(stored / "train.parquet")
    (tmp_path / "empty.png").touch()
    table.loc[[3, 4, 39], "file_loc"] = str(tmp_path / "empty.png")
    table.to_parquet(tmp_path / "catalog.parquet")
    output = SimpleNamespace(predictions=tmp_path / "0.hdf5", rejected=tmp_path / "0.csv")
    predict.predict_chunk([tmp_path / "catalog.parquet"], [model_folder], (0, 1), 2, 0, 3, output)
    assert written_at_once == [6, 8, 8, 8, 7]
    with h5py.File(output.predictions) as file:
        assert file["predictions"].shape == (37, len(TREE.columns), 2)
        assert (file["predictions"][:] >= 1).all()
        kept = table["id_str"].drop([3, 4, 39]).tolist()
        assert list(file["id_str"].asstr()) == kept
    assert sorted(pd.read_csv(output.rejected)["id_str"]) == sorted(table["id_str"][[3, 4, 39]])


@pytest.fixture
def parts(tmp_path):
    """Three chunks of 30 galaxies and one without any, with their flat catalogues."""
    (tmp_path / "chunks").mkdir()
    found = []
    for number, galaxies in enumerate((30, 30, 0, 30)):
        path = tmp_path / "chunks" / f"{number}.hdf5"
        about = {"kind": "concentrations", "tree": SMALL.to_dict(), "columns": SMALL.columns}
        values = some_concentrations(galaxies, SMALL, 4, seed=number).astype("float32")
        names = [f"J{number}-{galaxy}" for galaxy in range(galaxies)]
        with predictions_file(path, len(names), about, 1, 4, 0, 0) as append:
            append(names, values)
        path.with_suffix(".csv").write_text(f"id_str,reason\nbad{number},none\n")
        describe_posteriors(path, path.with_suffix(".parquet"), 0.9)
        found.append(path)
    return found


def test_collecting_reads_names_a_chunk_at_a_time_and_no_numbers(parts, tmp_path, monkeypatch):
    read, at_once = h5py.Dataset.__getitem__, []

    def counted(self, rows):
        found = read(self, rows)
        at_once.append((self.name, np.size(found)))
        return found

    names = {"predictions": "all.hdf5", "rejected": "rejected.csv", "unfamiliar": "unfamiliar.csv"}
    output = SimpleNamespace(**{name: tmp_path / file for name, file in names.items()})
    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "__getitem__", counted)
        collect_predictions(parts, [path.with_suffix(".csv") for path in parts], 0.1, output)
    assert {name for name, _ in at_once} <= {"/id_str", "/label_cols"}
    assert max(size for _, size in at_once) == 30
    with h5py.File(output.predictions) as whole:
        expected = [h5py.File(path)["predictions"][:] for path in parts]
        np.testing.assert_array_equal(whole["predictions"][:], np.concatenate(expected))
        names = [f"J{number}-{galaxy}" for number in (0, 1, 3) for galaxy in range(30)]
        assert list(whole["id_str"].asstr()) == names
    assert list(pd.read_csv(output.rejected)["id_str"]) == ["bad0", "bad1", "bad2", "bad3"]


def test_ranking_reads_a_block_at_a_time(parts, tmp_path, monkeypatch):
    read, at_once = h5py.Dataset.__getitem__, []

    def counted(self, rows):
        found = read(self, rows)
        at_once.append((self.name, len(found) if self.name == "/predictions" else 0))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "__getitem__", counted)
        rank_galaxies(parts, tmp_path / "label_next.csv")
    # Three chunks, each smaller than a block.
    assert [rows for _, rows in at_once if rows] == [30] * 3


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A copy of the repository, and a configuration that predicts a folder in many chunks."""
    folder = tmp_path_factory.mktemp("survey")
    repo = copy_of_the_repository(folder / "repo")
    model = folder / "model"
    for name in ("model.keras", "model.json", "a.json", "a.tfrecord"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).touch()
        # Older than the predictions that are made with it.
        os.utime(model / name, (1.6e9, 1.6e9))
    target = {"name": "sky", "models": [str(model)], "images": str(model)}
    content = {"run": "sky", "evaluate": {"target": None, "published": None}}
    content["predict"] = {"chunks": CHUNKS, "targets": [target]}
    return SimpleNamespace(repo=repo, model=model, content=content, config=overlay(folder, "sky", content))


def seconds_to_plan(*arguments):
    """The jobs of a dry run and its processor time, which other processes change less than wall time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, shown = snakemake(*arguments, "--dry-run")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return jobs_of(shown), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_papers_run_is_planned_in_seconds(survey, tmp_path):
    jobs, seconds = seconds_to_plan(survey.repo, "--directory", tmp_path)
    assert sum(jobs.values()) > 200
    assert seconds < 20


def test_a_thousand_chunks_are_planned_in_seconds(survey, tmp_path):
    content = survey.content
    target = {"name": "sky", "models": [str(survey.model)], "shards": str(tmp_path)}
    for shard in range(CHUNKS):
        (tmp_path / f"{shard}.json").touch()
    shards = content | {"predict": content["predict"] | {"targets": [target]}}
    configuration = overlay(tmp_path, "shards", shards)
    jobs, seconds = seconds_to_plan(survey.repo, "predict", "--configfile", configuration)
    assert jobs["predict_chunk"] == jobs["describe_posteriors"] == CHUNKS
    # It was 42 s when every sidecar was an input of every chunk.
    assert seconds < 25


def test_finished_chunks_are_not_done_again(survey):
    """As after a wall-time limit: one chunk is missing, another has no flat catalogue."""
    config = overlay(survey.repo, "fewer", {"predict": {"chunks": 50}})
    folder = survey.repo / "results/sky/predict/sky"
    endings = [
        (folder / "chunks", ".hdf5"),
        (folder / "chunks", ".rejected.csv"),
        (folder / "catalog", ".parquet"),
    ]
    made = [parent / f"{chunk}{end}" for parent, end in endings for chunk in range(50)]
    missing = {folder / "chunks/41.hdf5", folder / "chunks/41.rejected.csv"}
    missing |= {folder / "catalog/41.parquet", folder / "catalog/9.parquet"}
    for number, path in enumerate([folder / "galaxies.parquet", *made]):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path not in missing:
            path.touch()
            os.utime(path, (1.7e9 + number, 1.7e9 + number))
    jobs = planned(survey.repo, "predict", "--configfile", survey.config, config)
    assert jobs == {
        "predict_chunk": 1,
        "describe_posteriors": 2,
        "collect_predictions": 1,
        "rank_galaxies": 1,
    }


def test_tables_and_shards_are_listed_by_a_job(survey, stored):
    models = [str(survey.model)]
    targets = [
        {"name": "table", "models": models, "catalog": str(stored / "train.parquet")},
        {"name": "packed", "models": models, "shards": str(stored / "train")},
    ]
    config = overlay(survey.repo, "listed", {"run": "listed", "predict": {"chunks": 2, "targets": targets}})
    lists = [f"results/listed/predict/{name}/galaxies.parquet" for name in ("table", "packed")]
    snakemake(survey.repo, *lists, "--configfile", survey.config, config)
    own = listing.read_images([survey.repo / lists[0]], 0, 99)
    columns = ["id_str", "archive", "member", "file_loc"]
    pd.testing.assert_frame_equal(own[columns], pd.read_parquet(stored / "train.parquet")[columns])
    assert listing.shards_of([survey.repo / lists[1]]) == {path: 20 for path in files(stored, "train")[1]}


def test_the_study_says_what_ten_million_galaxies_take():
    # 10 ms a galaxy are 28 hours for ten million.
    small = {"predict": (100, 0.5, 2e8)}, {"chunks": 3000.0, "list": 50.0}
    large = {"predict": (100, 1.0, 3e8), "rank": (1000, 0.9, 1e8)}, {"chunks": 2000.0, "list": 100.0}
    surveys = {100: small, 1000: large}
    assert study_scale.step_lines(surveys)[2:] == [
        "| predict | 5.000 | 200 | 10.000 | 300 | 27.78 |",
        "| rank |  |  | 0.900 | 100 | 2.50 |",
    ]
    assert study_scale.disk_lines(surveys)[2:] == [
        "| chunks | 2,000 | 20.0 |",
        "| list | 100 | 1.0 |",
        "| together | 2,100 | 21.0 |",
    ]
