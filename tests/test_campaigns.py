"""Several campaigns in one model, and docs/campaigns.md, whose example is run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pipeline import called, copy_of_the_repository, jobs_of, overlay, snakemake
from zoolib.catalog import build_catalog
from zoolib.config import trees
from zoolib.data.catalogs import SPLITS, read_catalog
from zoolib.evaluate import _compare, _scored
from zoolib.posteriors.files import open_predictions

SPLIT = {"train": 0.6, "val": 0.2, "test": 0.2}
OLD = {
    "name": "old",
    "questions": {
        "shape": {"answers": ["smooth", "disk"]},
        "bar": {"answers": ["yes", "no"], "after": "shape_disk"},
    },
}
NEW = {"name": "new", "suffix": "n", "questions": {"shape": {"answers": ["round", "flat", "star"]}}}
BOTH = ["shape-old_smooth", "shape-old_disk", "bar-old_yes", "bar-old_no"]
BOTH += ["shape-n_round", "shape-n_flat", "shape-n_star"]


def entry(folder, tree, rows, images="images", **more):
    """A catalogue of some galaxies: {name: votes}, with images for those whose name begins with J."""
    tree = trees.DecisionTree.from_dict(tree)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=tree.columns).rename_axis("id_str")
    path = folder / f"{len(list(folder.glob('*.csv')))}.csv"
    table.to_csv(path)
    (folder / images).mkdir(exist_ok=True)
    for name in rows:
        if name.startswith("J"):
            Image.new("L", (4, 4)).save(folder / images / f"{name}.png")
    source = {"name": path.stem, "table": str(path), "images": str(folder / images)}
    return {**source, "tree": tree.to_dict(published=True), "min_votes": 0, **more}


@pytest.fixture
def build(tmp_path):
    files = ("train.parquet", "val.parquet", "test.parquet", "rejected.csv", "summary.csv")
    output = SimpleNamespace(**{file.split(".")[0]: tmp_path / "out" / file for file in files})

    def run(*entries):
        build_catalog(entries, SPLIT, 1, output)
        parts = [read_catalog(getattr(output, split)) for split in SPLITS]
        table = pd.concat([part.table for part in parts]).set_index("id_str")
        summary = pd.read_csv(output.summary).set_index("step")["galaxies"]
        return table, pd.read_csv(output.rejected), summary, parts[0].tree

    return run


def names(first, last):
    return [f"J{number:02d}" for number in range(first, last)]


def test_a_galaxy_of_two_campaigns_is_one_row_with_the_votes_of_both(tmp_path, build):
    old = entry(tmp_path, OLD, {name: [3, 7, 6, 1] for name in names(0, 30)})
    new = entry(tmp_path, NEW, {name: [1, 2, 3] for name in names(20, 50)})
    table, rejected, summary, tree = build(old, new)
    assert list(table.columns[3:]) == BOTH == tree.columns
    assert len(table) == 50 and table.index.is_unique and rejected.empty
    # Galaxies of one campaign have no votes for questions of the other.
    assert table.loc["J05", BOTH].tolist() == [3, 7, 6, 1, 0, 0, 0]
    assert table.loc["J45", BOTH].tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert table.loc["J25", BOTH].tolist() == [3, 7, 6, 1, 1, 2, 3]
    assert summary["listed once"] == 60
    assert summary["galaxies of all campaigns together"] == summary["with an image"] == 50


def test_the_order_of_the_catalogues_moves_no_galaxy(tmp_path, build):
    old = entry(tmp_path, OLD, {name: [3, 7, 6, 1] for name in names(0, 30)})
    new = entry(tmp_path, NEW, {name: [1, 2, 3] for name in names(20, 50)})
    there, back = build(old, new)[0], build(new, old)[0]
    pd.testing.assert_frame_equal(there[BOTH], back[BOTH])


def test_min_votes_are_each_campaigns_own(tmp_path, build):
    rows = {name: [3, 7, 6, 1] for name in names(0, 30)} | {"J00": [1, 1, 0, 0], "J01": [1, 1, 0, 0]}
    old = entry(tmp_path, OLD, rows, min_votes=5)
    new = entry(tmp_path, NEW, {"J00": [1, 0, 1]}, min_votes=2)
    table, rejected, _, _ = build(old, new)
    # Two votes are too few for the one campaign and enough for the other.
    assert table.loc["J00", BOTH].tolist() == [0, 0, 0, 0, 1, 0, 1]
    assert "J01" not in table.index and len(table) == 29 and rejected.empty


def test_the_image_of_either_campaign_is_enough(tmp_path, build):
    rows = {name: [3, 7, 6, 1] for name in names(0, 30)} | {"none": [1, 1, 1, 0]}
    new = entry(tmp_path, NEW, {"J00": [1, 0, 1], "none": [1, 0, 1]}, images="elsewhere")
    old = entry(tmp_path, OLD, rows)
    (tmp_path / "images" / "J00.png").unlink()
    table, rejected, _, _ = build(old, new)
    assert table.loc["J00", BOTH].tolist() == [3, 7, 6, 1, 1, 0, 1]
    assert table.loc["J00", "file_loc"].endswith("elsewhere/J00.png")
    assert rejected["id_str"].tolist() == ["none"]


def test_contradictions_are_within_a_campaign(tmp_path, build):
    old = entry(tmp_path, OLD, {name: [3, 7, 6, 1] for name in names(0, 30)})
    again = entry(tmp_path, OLD, {"J00": [3, 7, 6, 1], "J01": [9, 9, 9, 0]})
    new = entry(tmp_path, NEW, {"J00": [1, 0, 1], "J01": [2, 0, 0]})
    table, rejected, _, _ = build(old, again, new)
    assert table.loc["J00", BOTH].tolist() == [3, 7, 6, 1, 1, 0, 1]
    # Both rows of the old campaign are rejected; the votes of the new one stay.
    assert table.loc["J01", BOTH].tolist() == [0, 0, 0, 0, 2, 0, 0]
    assert rejected["id_str"].tolist().count("J01") == 2


def test_the_miniature_record_s_two_campaigns(repo, real_data, build):
    record = real_data / "gz_decals_record"
    tables = {
        "gz_decals_1_2": "gz_decals_volunteers_1_and_2.csv",
        "gz_decals_5": "gz_decals_volunteers_5.csv",
    }
    entries = [
        {
            "name": name,
            "tree": trees.DecisionTree.load(repo / "config" / "trees" / f"{name}.yaml").to_dict(
                published=True
            ),
            "table": str(record / file),
            "archives": [str(record / f"gz_decals_dr5_png_part{part}.zip") for part in (1, 2)],
            "min_votes": 3,
        }
        for name, file in tables.items()
    ]
    table, rejected, summary, tree = build(*entries)
    assert len(tree.columns) == 64 and table.index.is_unique
    raw = {name: pd.read_csv(record / file).set_index("iauname") for name, file in tables.items()}
    together = set(raw["gz_decals_1_2"].index) | set(raw["gz_decals_5"].index)
    # 56 of GZD-5 have images, and all six of GZD-1 and 2.
    assert summary["with an image"] == len(table) == 56 + 6
    assert set(table.index) | set(rejected["id_str"]) <= together
    for name, suffix in (("gz_decals_1_2", "dr12"), ("gz_decals_5", "dr5")):
        found = table[f"smooth-or-featured-{suffix}_smooth"]
        asked = raw[name]["smooth-or-featured_total-votes"].reindex(table.index)
        expected = raw[name]["smooth-or-featured_smooth"].reindex(table.index).where(asked >= 3, 0).fillna(0)
        assert found.tolist() == expected.tolist()


def test_scores_count_the_volunteers_of_the_question_s_campaign():
    tree = trees.DecisionTree.union([trees.DecisionTree.from_dict(OLD), trees.DecisionTree.from_dict(NEW)])
    # Ten volunteers of the old campaign, of whom eight were asked for a bar; three of the new one.
    votes = np.array(
        [[2, 8, 7, 1, 0, 0, 0], [9, 1, 1, 0, 1, 2, 0], [0, 0, 0, 0, 4, 6, 0], [0, 0, 0, 0, 1, 1, 0]]
    )
    fractions = np.tile([0.4, 0.6, 0.9, 0.1, 0.1, 0.8, 0.1], (4, 1))
    scored = _scored(tree, votes, min_votes=3, confident=0.8, origin="test")
    scores, _ = _compare(tree, votes, fractions, scored, "product")
    of_all = scores[scores["subset"] == "all"].set_index("question")
    assert of_all["count"].to_dict() == {"shape-old": 2, "bar-old": 1, "shape-n": 2}
    assert of_all["accuracy"].tolist() == [0.5, 1.0, 1.0]


# Where the page's example says nothing, the paper's settings hold, which would take hours.
SMALLER = {
    "image": {"size": 32, "final_size": 24},
    "shards": {"count": {"train": 1}},
    "train": {"backbone": "tiny", "epochs": 2, "batch_size": 16, "ensembles": [{"name": "metrics"}]},
    "predict": {"samples": 3, "views": 0},
}


def blocks(page, language):
    """{name of a file that the page shows: its text}."""
    found = re.findall(rf"^`(my_survey/\S+)`:\n\n```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return dict(found)


def a_survey(repo, page):
    """Write the files that the page shows, with more galaxies, their images and a second table."""
    random = np.random.default_rng(0)
    for name, text in blocks(page, "(?:yaml|csv)").items():
        (repo / name).parent.mkdir(exist_ok=True)
        (repo / name).write_text(text)
    header = pd.read_csv(repo / "my_survey/votes.csv")
    ids = [f"g{number:03d}" for number in range(1, 101)]
    tides = trees.DecisionTree.load(repo / "my_survey/tides.yaml")
    decals = trees.DecisionTree.load(repo / "config/trees/gz_decals_5.yaml")
    assert list(header.columns) == ["id_str", "file_loc", *tides.columns]
    (repo / "my_survey/images").mkdir()
    for name in ids:
        pixels = random.integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(pixels).save(repo / "my_survey/images" / f"{name}.png")
    for tree, chosen, file in ((tides, ids[:70], "votes.csv"), (decals, ids[40:], "decals.parquet")):
        votes = random.integers(5, 20, (len(chosen), len(tree.columns)))
        table = pd.DataFrame(votes, columns=tree.columns)
        table.insert(0, "id_str", chosen)
        table.insert(1, "file_loc", [f"{name}.png" for name in chosen])
        path = repo / "my_survey" / file
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)


@pytest.fixture(scope="module")
def page(repo):
    return (repo / "docs" / "campaigns.md").read_text()


@pytest.fixture(scope="module")
def followed(page, tmp_path_factory):
    """A copy of the repository in which the commands of the page were run."""
    repo = copy_of_the_repository(tmp_path_factory.mktemp("campaign") / "repo")
    a_survey(repo, page)
    smaller = overlay(repo, "smaller", SMALLER)
    commands = re.findall(r"^snakemake (.*)$", page, re.MULTILINE)
    assert len(commands) == 3 and commands[0] == f"-n {commands[1]}"
    status, shown = called(repo, *shlex.split(commands[0]))
    assert status == 0, shown
    assert re.search(r"train_member +3\n", shown)
    # The third does all that the second does, for two campaigns.
    snakemake(repo, *shlex.split(commands[2]), smaller)
    return repo


def test_the_page_s_tree_prints_as_shown(page, repo, tmp_path):
    (tmp_path / "workflow").symlink_to(repo / "workflow")
    (tmp_path / "my_survey").mkdir()
    (tmp_path / "my_survey/tides.yaml").write_text(blocks(page, "yaml")["my_survey/tides.yaml"])
    command = re.search(r"^PYTHONPATH=.*tides.yaml$", page, re.MULTILINE)[0]
    command = command.replace(" python ", f" {shlex.quote(sys.executable)} ")
    shown = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"```\n{shown.stdout}```" in page


def test_the_page_s_further_keys_belong_to_its_tree(page):
    content = yaml.safe_load(blocks(page, "yaml")["my_survey/tides.yaml"])
    pieces = re.findall(r"```yaml\n# in the tree's file\n(.*?)```", page, re.DOTALL)
    assert len(pieces) == 2
    for piece in pieces:
        content |= yaml.safe_load(piece)
    tree = trees.DecisionTree.from_dict(content)
    assert len(tree.cuts) == 2 and "q1_smooth_count" in tree.published["my_export"].values()


def test_a_model_of_two_campaigns_from_the_page_alone(followed, page):
    results = followed / "results/tides_and_decals"
    train, test = (
        read_catalog(results / "catalog/train.parquet"),
        pd.read_parquet(results / "catalog/test.parquet"),
    )
    tree = train.tree
    assert tree.name == "tides+gz_decals_5" and len(tree.columns) == 8 + 34
    assert sum(len(read_catalog(results / f"catalog/{split}.parquet").table) for split in SPLITS) == 100
    with open_predictions(results / "predict/test/predictions.hdf5") as opened:
        assert opened.columns == tree.columns and len(opened.id_str) == len(test)
        assert opened.tree.questions == tree.questions and opened.tree.name == tree.name
    flat = pd.read_parquet(results / "predict/test/catalog/0.parquet")
    assert (flat[["shape-tides_asked", "smooth-or-featured-dr5_asked"]] == 1).all(axis=None)
    # Two answers lead to the question; no answer of the other campaign does.
    ways = flat["shape-tides_smooth_fraction"] + flat["shape-tides_featured_fraction"]
    np.testing.assert_allclose(flat["tidal-feature-tides_asked"], ways, rtol=1e-5)
    scores = pd.read_csv(results / "evaluate/scores.csv").query("subset == 'all'").set_index("question")
    assert scores.loc["shape-tides", "count"] == (test["shape-tides_smooth"] > 0).sum() < len(test)
    assert scores.loc["merging-dr5", "count"] == (test["merging-dr5_none"] > 0).sum() < len(test)
    galleries = {path.stem for path in (results / "evaluate/gallery").glob("*.png")}
    assert galleries >= {question.name for question in tree.questions}
    assert not list((followed / "logs").rglob("*.traceback"))
    for path in re.findall(r"^\| `([\w/.-]+)`", page, re.MULTILINE):
        path = path.replace("tidal-feature.png", "tidal-feature-tides.png")
        assert (results / path).exists(), path


def test_the_loop_with_volunteers_on_zooniverse(followed, repo):
    """The commands of docs/zooniverse.md: new galaxies to volunteers, and their votes into the catalogue."""
    page = (repo / "docs/zooniverse.md").read_text()
    for name, text in blocks(page, "yaml").items():
        (followed / name).write_text(text)
    (of_tree,) = re.findall(r"```yaml\n# in the tree's file\n(.*?)```", page, re.DOTALL)
    tree = followed / "my_survey/tides.yaml"
    tree.write_text(f"{tree.read_text()}{of_tree}")
    for number in range(12):
        shutil.copy(
            followed / f"my_survey/images/g{number + 1:03d}.png", followed / f"my_survey/images/n{number}.png"
        )
    forward, only_count, everything = re.findall(r"^snakemake (.*)$", page, re.MULTILINE)
    # The run of both campaigns has a model already.
    arguments = [
        *shlex.split(forward),
        "my_survey/both.yaml",
        followed / "smaller.yaml",
        "my_survey/next.yaml",
    ]
    folder = followed / "results/tides_and_decals/predict/survey/manifest"
    snakemake(followed, folder.relative_to(followed) / "manifest.csv", *arguments)
    manifest = pd.read_csv(folder / "manifest.csv", dtype=str)
    # All other galaxies have votes.
    assert sorted(manifest["id_str"]) == sorted(f"n{number}" for number in range(12))
    for row in manifest.itertuples():
        assert (folder / f"{row.id_str}.png").read_bytes() == (
            followed / f"my_survey/images/{row.id_str}.png"
        ).read_bytes()
    assert manifest.columns.tolist() == re.search(r"^(id_str,#.*)$", page, re.MULTILINE)[1].split(",")
    an_export(manifest, followed / "my_survey/classifications.csv")
    snakemake(followed, *shlex.split(only_count))
    results = followed / "results/tides/catalog"
    galaxies = pd.concat([read_catalog(results / f"{split}.parquet").table for split in SPLITS])
    galaxies = galaxies.set_index("id_str")
    assert len(galaxies) == 70 + 12
    # Four volunteers: two texts that mean the same, one answer of the next task each.
    assert (galaxies.loc[manifest["id_str"], ["shape_featured", "shape_problem"]] == [3, 1]).all(axis=None)
    assert (galaxies.loc[manifest["id_str"], ["tidal-feature_yes", "tidal-feature_no"]] == [1, 2]).all(
        axis=None
    )
    rejected = pd.read_csv(results / "volunteers/rejected.csv")
    assert len(rejected) == 12 and set(rejected["reason"].str[:50]) == {
        "the same volunteer has classified this galaxy alre"
    }
    status, shown = called(followed, "-n", *shlex.split(everything))
    assert status == 0 and "count_votes" not in jobs_of(shown) and jobs_of(shown)["train_member"] == 3


def an_export(manifest, path):
    """An export of classifications of a manifest: four volunteers each, of whom the first comes back."""
    given = [("Features or disk", "Yes"), ("features or disk", "No"), ("Features or Disk", "No")]
    given += [("Star or artifact", None), ("Smooth", None)]
    rows = []
    for subject, about in enumerate(manifest.to_dict("records")):
        for number, (shape, feature) in enumerate(given):
            annotations = [{"task": "T0", "task_label": "Which shape?", "value": shape}]
            annotations += [{"task": "T1", "task_label": "Any tides?", "value": feature}] if feature else []
            rows.append(
                {
                    "classification_id": 5 * subject + number,
                    "user_name": f"volunteer {number % 4}",
                    "user_id": number % 4,
                    "user_ip": "f00d",
                    "workflow_id": 1234,
                    "workflow_name": "Tides",
                    "workflow_version": "7.3",
                    "created_at": f"2026-11-0{number + 1} 10:00:00 UTC",
                    "gold_standard": "",
                    "expert": "",
                    "metadata": "{}",
                    "annotations": json.dumps(annotations),
                    "subject_data": json.dumps({subject: {"retired": None, **about}}),
                    "subject_ids": subject,
                }
            )
    pd.DataFrame(rows).to_csv(path, index=False)
