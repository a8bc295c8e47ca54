"""`make predict`: from a folder and a model to a table of posteriors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pipeline import copy_of_the_repository
from zoolib.job.logs import UserError
from zoolib.quick import predict
from zoolib.quick.predict import plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with images, a table of them, models and folds."""
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        add(Path("sky") / f"{number}.png")
    for place in ("model", "folds/fold0", "folds/fold1", "folds/fold10"):
        add(Path(place) / "model.keras")
    pd.DataFrame({"who": ["a"], "where": ["sky/0.png"]}).to_csv("mine.csv", index=False)
    return tmp_path


def add(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def target_of(**given):
    return plan(given)["predict"]["targets"][0]


def test_a_folder_and_a_model_are_enough(folder):
    overlay = plan({"IMAGES": "sky", "MODEL": "model"})
    assert overlay["run"] == "sky" and "seed" not in overlay and overlay["evaluate"] == {"target": None}
    assert overlay["predict"] == {
        "samples": 30,
        "views": 0,
        "chunks": 1,
        "targets": [{"name": "galaxies", "models": ["model"], "images": "sky"}],
    }


def test_models_may_be_folds_or_several(folder):
    folds = ["folds/fold0", "folds/fold1", "folds/fold10"]
    assert target_of(IMAGES="sky", MODEL="folds")["models"] == folds
    assert target_of(IMAGES="sky", MODEL="model, folds/fold1")["models"] == ["model", "folds/fold1"]


def test_a_table_and_other_settings_are_taken(folder):
    settings = {"ID": "who", "LOCATION": "where", "SAMPLES": "5", "VIEWS": "2", "SEED": "0", "NAME": "mine2"}
    overlay = plan({"IMAGES": "mine.csv", "MODEL": "model", **settings})
    assert (overlay["run"], overlay["seed"]) == ("mine2", 0)
    (target,) = overlay["predict"]["targets"]
    assert (target["catalog"], target["id"], target["location"]) == ("mine.csv", "who", "where")
    assert (overlay["predict"]["samples"], overlay["predict"]["views"]) == (5, 2)
    assert target_of(IMAGES="sky", MODEL="model", ID="path")["id"] == "path"


def test_labels_to_score_the_predictions_with(folder):
    assert target_of(IMAGES="sky", MODEL="model", TEST="mine.csv")["labels"] == "mine.csv"
    with pytest.raises(UserError, match="TEST is 'no.csv', expected an existing table of labels"):
        plan({"IMAGES": "sky", "MODEL": "model", "TEST": "no.csv"})


def test_the_number_of_chunks_stays_what_it_was(folder, monkeypatch):
    monkeypatch.setattr(predict, "CHUNK", 3)
    overlay = plan({"IMAGES": "sky", "MODEL": "model"})
    assert overlay["predict"]["chunks"] == 2
    Path("results/sky").mkdir(parents=True)
    Path("results/sky/predict.yaml").write_text(yaml.safe_dump(overlay))
    for number in range(10):
        add(Path("sky/later") / f"new{number}.png")
    assert plan({"IMAGES": "sky", "MODEL": "model"}) == overlay
    assert plan({"IMAGES": "sky/later", "MODEL": "model", "NAME": "sky"})["predict"]["chunks"] == 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "IMAGES is missing, expected a folder of images, or a table"),
        ({"IMAGES": "nowhere"}, "IMAGES is 'nowhere', expected an existing folder or table"),
        (
            {"IMAGES": "sky/0.png"},
            "IMAGES is 'sky/0.png', expected a folder of images or a table (",
        ),
        ({"IMAGES": "sky"}, "MODEL is missing, expected a folder with model.keras"),
        (
            {"IMAGES": "sky", "MODEL": "sky"},
            "MODEL is 'sky', expected a folder with model.k",
        ),
        (
            {"IMAGES": "sky", "MODEL": "model", "SAMPLES": "0"},
            "SAMPLES is '0', expected a whole number of 1",
        ),
        ({"IMAGES": "sky", "MODEL": "model", "VIEWS": "x"}, "VIEWS is 'x', expected a whole number of 0 or"),
        ({"IMAGES": "sky", "MODEL": "model", "NAME": "demo"}, "NAME is 'demo', but this is the name"),
        ({"IMAGES": "sky", "MODEL": "model", "NAME": "other"}, "has the results of another run"),
        ({"IMAGE": "sky"}, "IMAGE is not a setting of make predict, expected one of IMAGES, MODEL"),
    ],
)
def test_what_is_wrong_is_one_message(folder, given, expected):
    add(Path("results/other/task.yaml"))
    with pytest.raises(UserError) as caught:
        plan(given)
    message = str(caught.value)
    assert expected in message and "\n" not in message and message.endswith(".")


def test_from_a_folder_to_a_table(tmp_path, stored, model_folder):
    repo = copy_of_the_repository(tmp_path / "repo")
    shutil.copytree(model_folder, repo / "mine/model")
    (repo / "mine/sky").mkdir()
    for number in range(4):
        shutil.copy(stored / f"{number}.png", repo / "mine/sky")
    (repo / "mine/sky/broken.png").write_bytes(b"no image")

    def call(**given):
        command = [sys.executable, "-m", "zoolib.quick.predict", *given]
        path = {"PYTHONPATH": str(repo / "workflow/scripts")}
        done = subprocess.run(
            command, cwd=repo, env={**os.environ, **path, **given}, capture_output=True, text=True
        )
        return done.returncode, done.stdout

    given = {"IMAGES": "mine/sky", "MODEL": "mine/model"}
    status, shown = call(**given)
    assert status == 0 and "Posteriors of 4 galaxies: results/sky/predict/galaxies/catalog/" in shown
    assert "Images that could not be read: 1" in shown and "broken.png" in shown and "Traceback" not in shown
    table = pd.read_parquet(repo / "results/sky/predict/galaxies/catalog")
    assert sorted(table["id_str"]) == ["0", "1", "2", "3"]
