"""The study of the real rings: its configuration, and its tables for known answers."""

import json

import numpy as np
import pandas as pd
import pytest
import study_rings as study
import yaml
from labelled import Task
from zoolib import api

FOLDS = np.repeat(["fold0", "fold1", "fold2", "fold3"], 60)


def answers(run, task, right):
    """Write the galaxies of a task as the pipeline does, and let the study read them."""
    ring = np.arange(240) % 2
    predicted = np.where(right, ring, 1 - ring) * 0.8 + 0.1
    names = [f"J{number:03d}" for number in range(240)]
    table = pd.DataFrame({"id_str": names, "fit": FOLDS, "ring": ring, "ring_predicted": predicted})
    table = pd.concat([table.assign(split="test"), table.assign(split="train", ring_predicted=0.0)])
    (run / "evaluate" / task).mkdir(parents=True)
    table.sample(frac=1, random_state=1).to_parquet(run / "evaluate" / task / "galaxies.parquet")
    return study.right_answers(run, task)


def test_differences_are_taken_galaxy_by_galaxy(tmp_path):
    number = np.arange(240)
    scratch = answers(tmp_path, "scratch", number % 2 == 0)
    # The same errors, except for every fifth galaxy: better by a tenth, and never worse.
    frozen = answers(tmp_path, "frozen", (number % 2 == 0) | (number % 5 == 0))
    lines = study.compare({"scratch": scratch, "frozen": frozen})
    assert len(lines) == 4
    assert lines[2].startswith("| from scratch | 50.0 (43.") and lines[2].endswith("50, 50, 50, 50 |  |  |")
    assert lines[3].startswith("| pretrained, frozen | 60.0 (53.")
    *_, difference, folds = lines[3].strip(" |").split(" | ")
    assert difference.startswith("+10.0 (+6.") and folds == "+10, +10, +10, +10"


def test_galaxies_of_other_tasks_are_not_compared(tmp_path):
    scratch = answers(tmp_path, "scratch", np.ones(240, bool))
    frozen = answers(tmp_path, "frozen", np.ones(240, bool)).iloc[1:]
    with pytest.raises(ValueError, match="the same galaxies in the same folds"):
        study.compare({"scratch": scratch, "frozen": frozen})


def test_the_study_s_tasks_are_those_of_its_configuration(repo):
    tasks = yaml.safe_load((repo / "config/study_rings.yaml").read_text())["finetune"]["tasks"]
    tasks = {task["name"]: task for task in tasks}
    assert {*study.TASKS, study.COUNTED} < set(tasks)
    compared = [tasks[name] for name in study.TASKS]
    assert {(task["table"], task["folds"], task["pretrained"]) for task in compared} == {
        ("data/real/rings.csv", 5, "results/study_rings/finetune/shapes")
    }
    assert [task.get("scratch", False) for task in compared] == [True, False, False]


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
