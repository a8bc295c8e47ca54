"""The study of the doors: what it types, which galaxies it compares, and what it concludes."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import study_doors as study
import yaml
from labelled import Task
from zoolib.config.labels import Label
from zoolib.data.fits import read_fit

NAMES = [f"J{number:03d}" for number in range(40)]


@pytest.fixture
def here(tmp_path, repo, monkeypatch):
    """A repository with nothing but the guide, in which commands are noted and not run."""
    monkeypatch.setattr(study, "REPO", tmp_path)
    (tmp_path / "docs").symlink_to(repo / "docs")
    (tmp_path / study.DATA).mkdir(parents=True)
    typed = []
    monkeypatch.setattr(study, "call", lambda *words: typed.append([str(word) for word in words]))
    return SimpleNamespace(folder=tmp_path, typed=typed)


def write_task(models, scores, of_model, of_probe, fits=("",), told=None):
    """The files of a task whose model and probe are right about some galaxies."""
    truth = np.arange(40) % 2
    fit = np.resize(np.array(fits, object), 40)
    predicted = {"ring_predicted": np.where(of_model, truth, 1 - truth) * 0.8 + 0.1}
    table = pd.DataFrame({"id_str": NAMES, "split": "test", "fit": fit, "ring": truth, **predicted})
    # What has been learned from does not count.
    table = pd.concat([table, table.assign(split="train", id_str=table["id_str"] + "t", ring_predicted=0.5)])
    for folder in (models, scores):
        folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(scores / ("predicted.parquet" if models == scores else "galaxies.parquet"))
    probe = pd.DataFrame({"id_str": NAMES, "fit": fit, "ring": np.where(of_probe, truth, 1 - truth) * 1.0})
    # The probe of another fold has learned from the galaxy.
    probe = pd.concat([probe, probe.assign(fit="other", ring=truth)])
    probe.to_parquet(models / "probe.parquet")
    value, beside = told or (np.mean(of_model), np.mean(of_probe))
    rows = [["test", "accuracy", value, beside], ["train", "accuracy", 1, np.nan], ["test", "auc", 0.1, 0.1]]
    scores_table = pd.DataFrame(rows, columns=["split", "score", "value", "probe"])
    scores_table.to_csv(scores / "scores.csv", index=False)
    return models, scores


def test_yaml_is_typed_as_the_guide_does(here):
    folders = study.open_yaml("doors", study.DATA / "rings.csv", study.DATA / "images")
    (words,) = here.typed
    assert words[0] == "snakemake" and words[-2] == "--configfile"
    config = yaml.safe_load(Path(words[-1]).read_text())
    (task,) = config["finetune"]["tasks"]
    # No head, no strategy, no seed: what is measured are the defaults.
    assert set(task) == {"name", "table", "images", "label", "pretrained"} and "seed" not in config
    assert folders == [
        here.folder / "results" / "doors" / stage / "ring" for stage in ("finetune", "evaluate")
    ]
    study.open_yaml("doors_1", "rings.csv", "images", 1, folds=5)
    other = yaml.safe_load(Path(here.typed[1][-1]).read_text())
    assert other["seed"] == 1 and other["finetune"]["tasks"][0]["folds"] == 5


def test_make_finetune_gets_words_that_it_knows(here, monkeypatch):
    from zoolib.quick import finetune as quick_finetune

    folders = study.open_make("doors", study.DATA / "rings.csv", study.REAL)
    (words,) = here.typed
    assert words[0] == "make" and "finetune" in words
    assert {word.partition("=")[0] for word in words if "=" in word} <= set(quick_finetune.KEYS)
    assert folders[0] == here.folder / "results" / "doors" / "finetune" / "doors"


def test_what_was_typed_for_the_study_is_no_setting_of_make_finetune(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "REPO", tmp_path)
    monkeypatch.setenv("MAKEFLAGS", " -- REAL_DATA=there")
    (tmp_path / "Makefile").write_text("all:\n\t@echo '$(origin REAL_DATA)$(A)' >found\n")
    study.call("make", "A=1")
    assert (tmp_path / "found").read_text() == "undefined1\n" and "MAKEFLAGS" in os.environ
    with pytest.raises(subprocess.CalledProcessError):
        study.call("make", "nothing")


def test_a_door_without_seed_and_folds_gets_the_split_of_another(here, tmp_path):
    (tmp_path / "task").mkdir()
    task = Task(tmp_path / "task", 24)
    labels = task.galaxies.assign(ring=np.arange(24) % 2)
    labels.to_csv(here.folder / study.DATA / "rings.csv", index=False)
    task.build([Label("ring")], labels, folds=4)
    path = study.with_split(study.DATA / "rings.csv", task.out, "fold1", "fold1.csv")
    found = pd.read_csv(here.folder / path).set_index("id_str")
    for split, catalog in read_fit(task.out / "galaxies.parquet", "fold1").items():
        assert set(found.index[found["split"] == split]) == set(catalog.table["id_str"])
    assert found["ring"].equals(labels.set_index("id_str")["ring"].loc[found.index])
    # The second call leaves the file as it is, so that nothing trains again.
    before = (here.folder / path).stat().st_mtime_ns
    study.with_split(study.DATA / "rings.csv", task.out, "fold1", "fold1.csv")
    assert (here.folder / path).stat().st_mtime_ns == before


@pytest.mark.parametrize("fits", [("",), ("fold0", "fold1")], ids=["split", "folds"])
@pytest.mark.parametrize("together", [True, False], ids=["python", "snakemake"])
def test_the_model_and_its_probe_are_compared_on_the_same_galaxies(here, fits, together):
    of_model, of_probe = np.arange(40) % 4 > 0, np.arange(40) % 5 > 0
    models, scores = (here.folder / name for name in ("m", "m" if together else "s"))
    right = study.right_answers(*write_task(models, scores, of_model, of_probe, fits)).loc[NAMES]
    assert (right["model"] == of_model).all() and (right["probe"] == of_probe).all()
    write_task(models, scores, of_model, of_probe, fits, told=(0.75, 0.7))
    with pytest.raises(ValueError, match="other accuracies"):
        study.right_answers(models, scores)


def right_of(model, probe, count=40):
    """Both are right about so many of the galaxies, and about the same ones as far as possible."""
    number = np.arange(count)
    names = [f"J{galaxy:03d}" for galaxy in number]
    return pd.DataFrame({"model": number < model, "probe": number < probe}, index=names).astype(float)


def of_seeds(model, probe):
    return {
        seed: right_of(*both, 100)
        for seed, both in zip(study.SEEDS, zip(model, probe, strict=True), strict=False)
    }


def test_a_galaxy_is_resampled_with_all_its_rows():
    mean, low, high = study.difference(right_of(36, 34, 40))
    error = 196 * np.sqrt(0.05 * 0.95 / 40)
    assert mean == pytest.approx(5) and (high - low) / 2 == pytest.approx(error, rel=0.2)
    # The same galaxies twice say no more than once.
    twice = study.difference(pd.concat([right_of(36, 34, 40)] * 2))
    assert twice == pytest.approx((mean, low, high))


def test_the_verdict_names_the_doors_that_fail():
    good, equal = of_seeds([85, 86, 87], [84, 86, 88]), right_of(36, 36)
    both = {door: good for door in study.DOORS}, {door: equal for door in study.DOORS}
    assert study.verdict(*both).startswith("**All doors give 80 % or more")
    assert "**No door is below its own linear probe by more than the spread.**" in study.verdict(*both)
    assert study.lines_of_simulated(both[0])[2].startswith(
        "| YAML | 85.0 | 86.0 | 87.0 | 86.0 ± 1.0 | 86.0 ± 2.0 | +0.0 ± 1.0 (-"
    )
    assert study.lines_of_real(both[1])[2] == "| YAML | 40 | 90.0 | 90.0 | +0.0 (+0.0 to +0.0) |"
    few = {**both[0], "Python": of_seeds([79, 80, 80], [84, 85, 85])}
    said = study.verdict(few, {**both[1], "YAML": right_of(20, 40)})
    assert "**Below 80 % on the demo's rings: Python.**" in said
    assert "spread: Python (demo), YAML (real galaxies).**" in said


def test_one_division_has_no_spread():
    one = {"YAML": {42: right_of(85, 86, 100)}}
    assert study.lines_of_simulated(one)[2].startswith(
        "| YAML | 85.0 | 85.0 ± 0.0 | 86.0 ± 0.0 | -1.0 ± 0.0 (-"
    )
    assert "spread: YAML (demo).**" in study.verdict(one, {})
