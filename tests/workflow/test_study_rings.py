"""The study of the real rings: its folds, what each model may see, and its statistics for known answers."""

import json

import numpy as np
import pandas as pd
import pytest
import study_rings as study
import study_rings_data as data
import yaml
from inject_rings import to_image
from labelled import Task
from PIL import Image
from zoolib import api
from zoolib.config.run import read_run
from zoolib.config.trees import DecisionTree
from zoolib.learning import models
from zoolib.simulation import survey

NAMES = [f"J{number:03d}" for number in range(240)]
LABELS = pd.Series(np.arange(240) % 2, index=NAMES)


@pytest.fixture(scope="module")
def folds():
    table = pd.DataFrame({"id_str": NAMES, "ring": LABELS.to_numpy()})
    return data.with_folds(table.sample(frac=1, random_state=1))


def probabilities(right):
    """(galaxies, seeds) probabilities that are right or wrong as asked."""
    ring = LABELS.to_numpy()[:, None]
    return pd.DataFrame(np.where(right, ring, 1 - ring) * 0.8 + 0.1, index=NAMES)


def test_each_galaxy_is_tested_once_for_each_seed(folds):
    for seed in data.SEEDS:
        words = folds[[f"seed{seed}_fold{fold}" for fold in range(data.FOLDS)]]
        for word, count in {"test": 1, "val": 1, "train": 3}.items():
            assert ((words == word).sum(axis=1) == count).all()
        assert (folds["ring"].groupby(words.iloc[:, 0]).mean() == 0.5).all()
    assert (folds["seed1_fold0"] != folds["seed2_fold0"]).any()


@pytest.fixture
def drawn(folds, tmp_path):
    """The table of drawn rings; the second galaxy without a ring is only sky."""
    table = folds.assign(file_loc=folds["id_str"] + ".png").head(40)
    y, x = np.indices((80, 80)) - 40
    light = 30 * np.exp(-np.hypot(x, y) / 6) + 0.3 * np.random.default_rng(1).standard_normal((80, 80))
    for number, name in enumerate(table["file_loc"]):
        pixels = light if number != 2 else np.random.default_rng(2).standard_normal((80, 80))
        Image.fromarray(to_image(np.repeat(pixels[..., None], 3, axis=2))).save(tmp_path / name)
    data.draw_rings_into(table, tmp_path, tmp_path)
    return table.set_index("id_str"), pd.read_csv(tmp_path / "injected.csv")


def test_rings_are_drawn_only_into_galaxies_that_a_fold_learns_from(drawn, tmp_path):
    table, found = drawn
    host = found["id_str"].str.rsplit("_", n=1).str[0]
    assert (table.loc[host, "ring"] == 0).all() and len(found) == 19 * 4 and "J002" not in set(host)
    assert (found.groupby(host)["injected"].sum() == data.COPIES).all()
    for column in (column for column in table if column.startswith("seed")):
        of_host = table.loc[host, column].to_numpy()
        # Its images have no part at all in the models that are tested on the galaxy.
        assert found[column].isna().equals(pd.Series(of_host == "test"))
        assert set(found[column][of_host == "val"]) == {"val"}
        assert set(found[column][of_host == "train"]) <= {"train", "test"}
    data.draw_sheet(found, tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (10 * 102, 3 * 102)
    first = Image.open(found["file_loc"][0])
    assert (np.asarray(first) != np.asarray(Image.open(found["file_loc"][1]))).any()


def test_volunteers_are_asked_about_rings(tmp_path, repo):
    survey.write_record(tmp_path, galaxies=60, size=32, seed=1)
    votes, truth = (pd.read_parquet(tmp_path / survey.FILES[name]) for name in ("table", "truth"))
    # The same galaxies many times: the votes have the mean that the probabilities say.
    votes, truth = (pd.concat([table] * 300, ignore_index=True) for table in (votes, truth))
    found = data.ask_about_rings(votes, truth, np.random.default_rng(1))
    assert (found["ring_yes"] + found["ring_no"] == votes["disk-edge-on_no"]).all()
    visible = data.visible_strengths(truth)["ring"]
    expected = (1 - truth["lapses"]) / (1 + np.exp(-9 * (visible - 0.3))) + truth["lapses"] / 2
    assert found["ring_yes"].sum() == pytest.approx((expected * votes["disk-edge-on_no"]).sum(), rel=0.02)
    tree = DecisionTree.load(repo / "benchmarks/study_rings_tree.yaml")
    usual = DecisionTree.load(repo / "config/trees/gz_decals_5.yaml")
    assert tree.columns == [*usual.columns, "ring_yes", "ring_no"]


def test_the_interval_counts_galaxies_and_seeds():
    rng = np.random.default_rng(1)
    # Nothing differs between seeds: the interval is that of 240 galaxies.
    values = np.repeat(rng.integers(0, 2, (240, 1)), 3, axis=1).astype(float)
    mean, low, high = study.mixed_interval(values)
    assert (high - low) / 2 == pytest.approx(196 * values.std() / np.sqrt(240), rel=0.05)
    assert low < mean < high
    # Nothing differs between galaxies: it is that of the seeds alone.
    mean, low, high = study.mixed_interval(np.tile([[0.0, 0.5, 1.0]], (240, 1)))
    assert (mean, low, high) == pytest.approx((50, 0, 100), abs=20) and high - low > 60


def test_arms_are_compared_galaxy_by_galaxy():
    number = np.arange(240)[:, None] + np.zeros(3, int)
    scratch = probabilities(number % 2 == 0)
    better = probabilities((number % 2 == 0) | (number % 5 == 0))
    arms = {"scratch": (scratch, None, LABELS), "injected": (better, scratch, LABELS)}
    lines = study.table_lines(arms)
    assert lines[2].startswith("| `scratch` | from scratch | 50.0 (43.") and lines[2].endswith(
        "|  |  |  | 50.0 |"
    )
    assert "| 60.0 (5" in lines[3] and "| +10.0 (+6." in lines[3] and lines[3].endswith("| 60.0 |")
    assert "| 50.0 | +10.0 (+6." in lines[3]
    assert study.verdict(arms).startswith("**Simulations help.**") and "+10.0 points" in study.verdict(arms)
    equal = {"scratch": (better, None, LABELS), "injected": (better, None, LABELS)}
    assert study.verdict(equal).startswith("**It is not established")
    assert study.verdict({"scratch": arms["scratch"]}) == "The comparison that decides has not ended."


def test_galaxies_that_were_not_tested_are_no_comparison():
    right = probabilities(np.ones((240, 3), bool))
    with pytest.raises(ValueError, match="tested once for each seed"):
        study.right_answers(right.iloc[1:], LABELS)
    right.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match="tested once for each seed"):
        study.right_answers(right, LABELS)


def test_an_arm_that_has_not_ended_is_no_result(tmp_path):
    for fold in range(data.FOLDS):
        place = tmp_path / "seed1" / f"fold{fold}" / "ring"
        place.mkdir(parents=True)
        chosen = slice(fold, None, data.FOLDS)
        table = pd.DataFrame(
            {"id_str": NAMES[chosen], "ring": LABELS.to_numpy()[chosen], "ring_predicted": 0.7}
        )
        table = pd.concat([table.assign(split="test"), table.assign(split="train", ring_predicted=0.1)])
        table.to_parquet(place / "predicted.parquet")
    found, probe, labels = study.read_arm(tmp_path, seeds=[1])
    assert probe is None and labels.equals(LABELS) and (found[1] == 0.7).all()
    assert study.right_answers(found, labels).mean() == 0.5
    with pytest.raises(FileNotFoundError):
        study.read_arm(tmp_path, seeds=[1, 2])


@pytest.mark.parametrize("name", sorted(study.ARMS))
def test_the_arms_are_tasks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "model"):
        (tmp_path / folder).mkdir()
    for file in ("rings.csv", "model/model.keras", "model/model.json"):
        (tmp_path / file).write_text("{}")
    arm = study.ARMS[name]
    for keys in filter(None, (arm["task"], arm.get("injected"))):
        task = {
            "label": "ring",
            **keys,
            "split": "seed1_fold0",
            "table": "./rings.csv",
            "pretrained": "./model",
        }
        run = api._run_of({"name": "ring", "images": "./images", **task})
        assert run.fit_names("ring") == [""] and "head" not in keys
    # Arms differ in what they start from; what they compare is the same.
    assert arm["task"]["label"] == "ring" and "batch_size" not in arm["task"]


@pytest.mark.parametrize("name", ["both", "asked", "noise", "votes", "colour"])
def test_the_pretrainings_differ_in_what_their_names_say(name, repo, tmp_path, monkeypatch):
    # The surveys are there when the pretraining begins.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").symlink_to(repo / "benchmarks")
    for survey_name in data.NOISE:
        (tmp_path / "data/study_rings" / survey_name).mkdir(parents=True)
        for file in ("volunteers.parquet", survey.FILES["archive_1"], survey.FILES["archive_2"]):
            (tmp_path / "data/study_rings" / survey_name / file).touch()
    files = ["config/config.yaml", "benchmarks/study_rings.yaml", f"benchmarks/study_rings_{name}.yaml"]
    config = {}
    for file in files if name != "both" else files[:2]:
        for key, value in yaml.safe_load((repo / file).read_text()).items():
            mapping = isinstance(value, dict) and isinstance(config.get(key), dict)
            config[key] = {**config[key], **value} if mapping else value
    run = read_run(config, repo)
    assert run.name == f"study_rings_{name}" and len(data.SEEDS) == run.ensembles["metrics"]["members"]
    assert ("ring_yes" in run.tree.columns) == (name in ("both", "asked", "colour"))
    folder = "noisy" if name in ("both", "noise", "colour") else "quiet"
    assert config["catalogs"][0]["table"] == f"data/study_rings/{folder}/volunteers.parquet"
    assert config["image"]["color"] == (name == "colour") and config["image"]["final_size"] == study.EDGE


def test_an_arm_from_scratch_starts_from_random_weights(tmp_path):
    folder = study.untrained(tmp_path / "tiny", "tiny", color=False)
    model = models.load_model(folder)
    assert model.kind == "features" and model.about["image"]["final_size"] == study.EDGE
    # A second call goes on with the same weights.
    before = (folder / "model.keras").stat().st_mtime_ns
    assert (study.untrained(folder, "tiny", color=False) / "model.keras").stat().st_mtime_ns == before


def test_folds_from_scratch(tmp_path, model_folder):
    task = Task(tmp_path, 12)
    galaxies = task.galaxies.assign(odd=np.arange(12) % 2)
    galaxies.to_csv(tmp_path / "odd.csv", index=False)
    keys = {"table": str(tmp_path / "odd.csv"), "images": str(tmp_path / "images"), "label": "odd"}
    for scratch in (True, False):
        folder = tmp_path / f"{scratch}"
        api.finetune("odd", model_folder, folder, samples=2, folds=3, epochs=1, scratch=scratch, **keys)
        told = json.loads((folder / "fold1" / "model.json").read_text())["training"]
        assert told["scratch"] is scratch
