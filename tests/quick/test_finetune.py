"""`make finetune`: what it makes of the typed settings, its messages, and one complete run."""

import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from pipeline import copy_of_the_repository, dry_run
from snakemake.utils import update_config
from zoolib import api, predict
from zoolib.config.run import read_run
from zoolib.data.catalogs import SPLITS
from zoolib.job.logs import UserError
from zoolib.quick import finetune as quick_finetune
from zoolib.quick.finetune import plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with labels and images in every form."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for index in range(60):
        place = tmp_path / "by_class" / ("dark", "bright")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.normal(60 + 80 * (index % 2), 20, (24, 24)).clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(place / f"g{index}.png")
    table = pd.DataFrame({"id_str": [f"g{index}" for index in range(60)], "ring": np.arange(60) % 2})
    table.to_csv("rings.csv", index=False)
    table.assign(file_loc="by_class/dark/g0.png").to_parquet("places.parquet")
    table.drop(columns="id_str").to_csv("nameless.csv", index=False)
    table.assign(split=["train", "train", "Val", "test"] * 15).to_csv("own_split.csv", index=False)
    table.assign(split=["north", "train"] * 30).to_csv("wrong_split.csv", index=False)
    several = table.assign(size=random.random(60), arms=[1, 2, 3] * 20, note="")
    several.to_csv("several.csv", index=False)
    with zipfile.ZipFile("images.zip", "w") as archive:
        for path in (tmp_path / "by_class").rglob("*.png"):
            archive.write(path, path.name)
    return tmp_path


def task_of(**given):
    overlay, _ = plan(given)
    return overlay["finetune"]["tasks"][0]


def test_the_only_column_is_the_label(folder):
    task = task_of(LABELS="rings.csv", IMAGES="by_class")
    assert (task["table"], task["images"]) == ("./rings.csv", "by_class")
    assert (task["name"], task["label"], task["kind"]) == ("ring", "ring", "binary")
    assert task["pretrained"] == quick_finetune.DEMO


@pytest.mark.parametrize(
    ("label", "kind"), [("ring", "binary"), ("size", "regression"), ("arms", "multiclass")]
)
def test_the_kind_is_seen_in_the_cells(folder, label, kind):
    assert task_of(LABELS="several.csv", IMAGES="images.zip", LABEL=label)["kind"] == kind


def test_a_zip_of_images_and_a_model_are_taken(folder):
    (folder / "mine/model").mkdir(parents=True)
    for file in ("model.keras", "model.json"):
        (folder / "mine/model" / file).touch()
    task = task_of(
        LABELS="rings.csv", IMAGES="images.zip", MODEL="mine/model", NAME="mine", KIND="regression"
    )
    assert task["archives"] == ["./images.zip"] and "images" not in task
    assert (task["pretrained"], task["name"], task["kind"]) == ("mine/model", "mine", "regression")


def test_folders_are_labels_and_images_in_one(folder):
    task = task_of(LABELS="by_class")
    assert (task["folders"], task["label"], task["name"]) == ("by_class", "by_class", "by_class")
    assert "kind" not in task and "table" not in task


def test_a_table_that_says_where_images_are_needs_no_folder(folder):
    assert "images" not in task_of(LABELS="places.parquet")


def test_the_columns_of_names_and_files_may_have_any_name(folder):
    table = pd.read_parquet("places.parquet").rename(columns={"id_str": "who", "file_loc": "where"})
    table.to_csv("own.csv", index=False)
    task = task_of(LABELS="own.csv", ID="who", LOCATION="where")
    assert (task["id"], task["location"], task["label"]) == ("who", "where", "ring")
    assert "id" not in task_of(LABELS="places.parquet")
    overlay, _ = plan({"LABELS": "own.csv", "ID": "who", "LOCATION": "where"})
    quick_finetune.write_target(overlay, folder / "predict.yaml")
    assert yaml.safe_load((folder / "predict.yaml").read_text())["predict"]["targets"][0]["images"]


def test_training_is_as_typed_and_else_the_default(folder):
    given = {"LABELS": "by_class", "FOLDS": "3", "STRATEGY": "two_stage", "SEED": "7", "VIEWS": "2"}
    overlay, _ = plan(given)
    (task,) = overlay["finetune"]["tasks"]
    assert (task["folds"], task["strategy"]) == (3, {"name": "two_stage"})
    assert (overlay["seed"], overlay["predict"]["views"]) == (7, 2)
    quick_finetune.write_target(overlay, folder / "predict.yaml")
    (target,) = yaml.safe_load((folder / "predict.yaml").read_text())["predict"]["targets"]
    assert target["models"] == [f"results/by_class/finetune/by_class/fold{fold}" for fold in range(3)]
    overlay, _ = plan({"LABELS": "by_class"})
    assert not {"folds", "strategy"} & set(overlay["finetune"]["tasks"][0]) and "seed" not in overlay


def test_a_second_round_does_not_overwrite_the_model_it_starts_from(folder):
    model = folder / "results/ring/finetune/ring"
    model.mkdir(parents=True)
    for file in ("model.keras", "model.json"):
        (model / file).touch()
    given = {"LABELS": "rings.csv", "IMAGES": "by_class"}
    for spelled in ("results/ring/finetune/ring", "./results/ring/finetune/ring/", str(model)):
        with pytest.raises(
            UserError, match="would overwrite .*; choose another name for the task, such as NAME=ring2"
        ):
            plan({**given, "MODEL": spelled})
    assert task_of(**given, MODEL="results/ring/finetune/ring", NAME="ring2")["name"] == "ring2"


def test_a_run_of_another_configuration_is_not_written_into(folder):
    (folder / "results/mine/predict/mine").mkdir(parents=True)
    given = {"LABELS": "rings.csv", "IMAGES": "by_class"}
    with pytest.raises(UserError, match="NAME is 'mine', but results/mine has the results of another run"):
        plan({**given, "NAME": "mine"})
    # The same without NAME, as the label gives the name; and a second call is no other run.
    quick_finetune.write_overlay(plan(given)[0])
    assert task_of(**given)["name"] == "ring"
    (folder / "results/ring/task.yaml").rename(folder / "results/ring/model.json")
    with pytest.raises(UserError, match="NAME is 'ring', but results/ring has the results of another run"):
        plan(given)


def test_the_split_is_that_of_all_doors_or_the_user_s_own(folder):
    assert "split" not in task_of(LABELS="by_class")
    assert "split" not in task_of(LABELS="rings.csv", IMAGES="by_class")
    for split in ("train", "val", "test"):
        shutil.copytree("by_class", f"divided/{split}")
    overlay, messages = plan({"LABELS": "divided"})
    assert overlay["finetune"]["tasks"][0]["split"] is None
    assert messages[1] == "Split from the folders: 60 of test, 60 of train, 60 of val"
    overlay, messages = plan({"LABELS": "own_split.csv", "IMAGES": "by_class"})
    task = overlay["finetune"]["tasks"][0]
    assert (task["label"], task["split"]) == ("ring", "split")
    assert messages[1] == "Split from the table: 30 of train, 15 of val, 15 of test"


def test_all_doors_resolve_to_the_same_task(folder, repo, monkeypatch):
    """What `make finetune` writes, the shortest YAML of the guide, and the Python function."""
    (folder / "mine").mkdir()
    for file in ("model.keras", "model.json"):
        (folder / "mine" / file).touch()
    source = {"table": "./rings.csv", "images": "by_class", "label": "ring", "pretrained": "./mine"}
    by_hand = {
        "run": "ring",
        "evaluate": {"target": None},
        "finetune": {"tasks": [{"name": "ring", **source}]},
    }
    by_hand["predict"] = {"samples": 30, "views": 0, "chunks": 1, "targets": []}
    by_make, _ = plan({"LABELS": "rings.csv", "IMAGES": "by_class", "MODEL": "./mine"})
    found = []
    for overlay in (by_hand, by_make):
        config = yaml.safe_load((repo / "config/config.yaml").read_text())
        update_config(config, overlay)
        found.append(read_run(config, repo))
    found.append(api._run_of({"name": "ring", **source}))
    trainings = [run.training_of("ring") for run in found]
    assert trainings[0] == trainings[1] == trainings[2]
    tasks = [{**run.tasks["ring"], "kind": None} for run in found]
    paths = ("table", "images", "pretrained", "start")
    for task in tasks:
        task |= {key: os.path.abspath(task[key]) for key in paths}
    assert tasks[0] == tasks[1] == tasks[2]


@pytest.mark.parametrize(
    ("labels", "kind", "expected"),
    [
        (
            [0, 1] * 3,
            None,
            "Label x: binary, 6 labels in few.csv: 3 of 0, 3 of 1|Only a fifth of them (1) is scored",
        ),
        (
            ["yes", "no"] * 20 + ["1"],
            None,
            "41 labels in few.csv: 21 of 1, 20 of 0|so an accuracy is by 18 points uncertain",
        ),
        ([0] * 150 + [1] * 10, None, "150 of 0, 10 of 1|100 labels or more, with 20 or more of each class,"),
        ([0.5, 0.25, 0.75, 0.3], None, "regression, 4 labels in few.csv|so the scores are uncertain, and"),
        ([1.0, 2.0, None, 3.0] * 60, None, "180 labels in few.csv: 60 of 1, 60 of 2, 60 of 3|"),
    ],
)
def test_few_labels_are_said(folder, labels, kind, expected):
    table = pd.DataFrame({"id_str": [f"g{index}" for index in range(len(labels))], "x": labels})
    table.to_csv("few.csv", index=False)
    _, messages = plan({"LABELS": "few.csv", "IMAGES": "by_class"})
    told, warned = expected.split("|")
    assert messages[0].endswith(told)
    assert len(messages) == 1 + bool(warned) and warned in messages[-1]
    assert not warned or messages[-1].startswith("WARNING: These are few labels")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            [1] * 6,
            "few.csv: all 6 labels in x are '1', so there is nothing to learn; label galaxies of another",
        ),
        (
            [0, 0, 0, 1, 1],
            "few.csv: the number of labels of the class '1' in x is 2, expected 3 or more, one",
        ),
        ([0.5, 0.25], "few.csv: the number of labels in x is 2, expected 3 or more, one each for train, val"),
        (
            [0.5] * 5,
            "few.csv: all 5 labels in x are '0.5', so there is nothing to learn; label galaxies with",
        ),
    ],
)
def test_labels_that_teach_nothing_stop_before_anything_runs(folder, labels, expected):
    table = pd.DataFrame({"id_str": [f"g{index}" for index in range(len(labels))], "x": labels})
    table.to_csv("few.csv", index=False)
    with pytest.raises(UserError) as caught:
        plan({"LABELS": "few.csv", "IMAGES": "by_class"})
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"kind": "binary"}, "Confusion matrix: "),
        ({"folders": "by_class"}, "Confusion matrix: "),
        ({"kind": "regression"}, "Labels against predictions: "),
        ({"kind": "votes"}, "Answers of the volunteers against those of the model: "),
        ({"labels": [{"name": "a"}, {"name": "b", "kind": "multiclass"}]}, "Confusion matrices: "),
        (
            {"labels": [{"name": "a"}, {"name": "b", "kind": "regression"}]},
            "Labels against predictions, by label",
        ),
    ],
)
def test_the_last_message_names_what_the_figure_shows(folder, keys, expected):
    names = [label["name"] for label in keys.get("labels", [{"name": "ring"}])]
    scored(folder, names)
    overlay = {"run": "ring", "finetune": {"tasks": [{"name": "ring", **keys}]}}
    lines = quick_finetune.final_message(overlay, folder / "results/ring/task.yaml").splitlines()
    assert sum(line.startswith(expected) for line in lines) == 1
    assert any(line.startswith("Confusion matri") for line in lines) == expected.startswith("Confusion")
    # The scores of several labels are told apart.
    assert [line.strip() for line in lines if line.endswith(" galaxies:")] == (
        [f"{name}, 11 galaxies:" for name in names] if len(names) > 1 else []
    )


def test_the_last_message_counts_galaxies_unlike_the_training_set(folder):
    place = scored(folder, ["ring"])
    overlay = {"run": "ring", "finetune": {"tasks": [{"name": "ring", "kind": "binary"}]}}
    path = folder / "results/ring/task.yaml"
    assert "unlike" not in quick_finetune.final_message(overlay, path)
    names = [f"g{index}" for index in range(230)]
    splits = ["train"] * 20 + ["val"] * 10 + ["test"] * 200
    pd.DataFrame({"id_str": names, "split": splits}).to_parquet(place / "galaxies.parquet")
    for unfamiliar, expected in (
        (1.0, "3 of these galaxies look unlike the training set (18.2 are"),
        (np.nan, None),
    ):
        shares = np.where(np.isin(np.arange(230), [5, 25, 100, 150, 229]), unfamiliar, unfamiliar * 0.5)
        described = pa.Table.from_pandas(pd.DataFrame({"id_str": names, "unfamiliar": shares}))
        described = described.replace_schema_metadata({"credible_level": "0.9"})
        (folder / "results/ring/predict/ring/catalog").mkdir(parents=True, exist_ok=True)
        pq.write_table(described, folder / "results/ring/predict/ring/catalog/0.parquet")
        shown = quick_finetune.final_message(overlay, path)
        assert expected in shown if expected else "unlike" not in shown


def scored(folder, names):
    """The files of a task that the last message reads; returns the folder of its scores."""
    model, place = folder / "results/ring/finetune/ring", folder / "results/ring/evaluate/ring"
    for new in (model, place):
        new.mkdir(parents=True)
    pd.DataFrame({"step": ["rows", "split test"], "galaxies": [60, 11]}).to_csv(
        model / "summary.csv", index=False
    )
    pd.DataFrame({"id_str": [], "reason": []}).to_csv(model / "rejected.csv", index=False)
    score = {
        "split": "test",
        "score": "log_loss",
        "galaxies": 11,
        "value": 0.9,
        "low_68": 0.8,
        "high_68": 1.0,
    }
    scores = pd.DataFrame([{"label": name, **score, "constant": 0.5, "probe": 0.7} for name in names])
    scores.to_csv(place / "scores.csv", index=False)
    advise(place)
    return place


def advise(place, *sentences):
    pd.DataFrame({"label": "ring", "advice": sentences}).to_csv(place / "advice.csv", index=False)


def test_all_images_of_the_table_s_folder_are_predicted(folder):
    def written(source):
        overlay, _ = plan({"LABELS": source})
        path = folder / "predict.yaml"
        path.unlink(missing_ok=True)
        quick_finetune.write_target(overlay, path)
        return path.is_file() and yaml.safe_load(path.read_text())["predict"]["targets"][0]["images"]

    table = pd.read_parquet("places.parquet")
    assert written("places.parquet") == "by_class/dark"
    (folder / "lists").mkdir()
    files = ["../by_class/dark/g0.png", str(folder / "by_class/bright/g1.png")] * 29 + ["", None]
    table.assign(file_loc=files).to_csv("lists/both.csv", index=False)
    assert written("lists/both.csv") == "by_class"
    # The working directory itself, and what is not below it.
    for place in ("g0.png", "../g0.png", "/elsewhere/g0.png"):
        table.assign(file_loc=["by_class/dark/g0.png", place] * 30).to_csv("no_one.csv", index=False)
        assert not written("no_one.csv")


def test_the_end_says_what_was_used_and_how_to_go_on(folder):
    overlay, _ = plan({"LABELS": "rings.csv", "IMAGES": "by_class"})
    path = quick_finetune.write_overlay(overlay)
    model, scored = folder / "results/ring/finetune/ring", folder / "results/ring/evaluate/ring"
    for place in (model, scored):
        place.mkdir(parents=True)
    steps = ["rows of rings.csv", "with a label", "with an image", "split train", "split val", "split test"]
    summary = pd.DataFrame({"step": steps, "galaxies": [60, 58, 55, 33, 11, 11]})
    summary.to_csv(model / "summary.csv", index=False)
    rejected = pd.DataFrame({"id_str": list("abc"), "reason": ["no image 'a.png'.", "second", "third"]})
    rejected.to_csv(model / "rejected.csv", index=False)
    score = {"label": "ring", "split": "test", "score": "accuracy", "galaxies": 11, "value": 0.9}
    pd.DataFrame([{**score, "low_68": 0.8, "high_68": 1.0, "constant": 0.5, "probe": 0.7}]).to_csv(
        scored / "scores.csv", index=False
    )
    advise(scored, "ring: on test the model is not better than a linear probe.")
    shown = quick_finetune.final_message(overlay, path)
    assert ["accuracy", "0.900", "0.800", "to", "1.000", "0.500", "0.700"] in map(
        str.split, shown.splitlines()
    )
    assert "\nWARNING: ring: on test the model is not better than a linear probe.\n" in shown
    assert "Used 55 of 60 rows of labels and left out 5 (" in shown
    assert "Rejected rows: 3 (" in shown and "no image 'a.png'." in shown and "second" not in shown
    assert "predict.yaml is not written" in shown and "snakemake predict" not in shown
    quick_finetune.write_target(overlay, path.with_name("predict.yaml"))
    rejected[:0].to_csv(model / "rejected.csv", index=False)
    advise(scored)
    shown = quick_finetune.final_message(overlay, path)
    assert "ejected" not in shown and "WARNING" not in shown
    assert "snakemake predict --configfile results/ring/predict.yaml" in shown
    # With folds, each galaxy is in all of them.
    steps = ["rows of rings.csv", *(f"fold{fold} {split}" for fold in (0, 1) for split in SPLITS)]
    folds = pd.DataFrame({"step": steps, "galaxies": [60, 20, 10, 30, 20, 10, 28]})
    folds.to_csv(model / "summary.csv", index=False)
    assert "Used 58 of 60 rows of labels and left out 2 (" in quick_finetune.final_message(overlay, path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "LABELS is missing, expected a table"),
        ({"LABLES": "rings.csv"}, "LABLES is not a setting of make finetune, expected one of LABELS, IMAGES"),
        ({"LABELS": "nothing.csv"}, "LABELS is 'nothing.csv', expected an existing table, folder or zip"),
        (
            {"LABELS": "rings.csv"},
            "has no column file_loc with the paths of the images, and IMAGES is missing",
        ),
        (
            {"LABELS": "rings.csv", "IMAGES": "nowhere"},
            "IMAGES is 'nowhere', expected an existing folder or zip",
        ),
        (
            {"LABELS": "several.csv", "IMAGES": "by_class"},
            "the label is not clear, and besides names and files the table has ring, size, arms",
        ),
        (
            {"LABELS": "rings.csv", "IMAGES": "by_class", "LABEL": "rng"},
            "there is no column 'rng', and besides names and files the table has",
        ),
        (
            {"LABELS": "rings.csv", "IMAGES": "by_class", "KIND": "votes"},
            "KIND is 'votes', expected one of binary",
        ),
        ({"LABELS": "by_class", "IMAGES": "by_class"}, "IMAGES is for labels in a table"),
        (
            {"LABELS": "by_class", "KIND": "binary"},
            "KIND is 'binary', but the folders of 'by_class' are classes",
        ),
        ({"LABELS": "by_class/dark"}, "is not in the folder of a class; expected one folder for each class"),
        (
            {"LABELS": "by_class/dark/g0.png"},
            "expected a table (.parquet, .csv, .csv.gz), or a folder or .zip",
        ),
        (
            {"LABELS": "by_class", "MODEL": "by_class"},
            "MODEL is 'by_class', expected a model folder (a folder with model.k",
        ),
        (
            {"LABELS": "rings.csv", "IMAGES": "by_class", "NAME": "demo"},
            "NAME is 'demo', but this is the name",
        ),
        ({"LABELS": "by_class", "NAME": "my rings"}, "NAME is 'my rings', expected letters, digits, - and _"),
        ({"LABELS": "by_class", "NAME": "-a"}, "NAME is '-a', expected letters, digits"),
        (
            {"LABELS": "nameless.csv", "IMAGES": "by_class"},
            "nameless.csv: has no column with the galaxies' names, expected id_str or iauname, found ring;"
            " name the column with ID=column.",
        ),
        (
            {"LABELS": "rings.csv", "ID": "who"},
            "rings.csv: has no column 'who', which ID names; it has id_str, ring.",
        ),
        ({"LABELS": "by_class", "LOCATION": "where"}, "LOCATION is for labels in a table"),
        ({"LABELS": "by_class", "FOLDS": "2"}, "FOLDS is '2', expected a whole number of 3 or more"),
        ({"LABELS": "by_class", "SEED": "-1"}, "SEED is '-1', expected a whole number of 0 or more"),
        ({"LABELS": "by_class", "STRATEGY": "melt"}, "STRATEGY is 'melt', expected one of freeze, no_freeze"),
        (
            {"LABELS": "rings.csv", "IMAGES": "by_class", "LABEL": "id_str"},
            "LABEL is 'id_str', but this column name is reserved",
        ),
        (
            {"LABELS": "rings.csv", "IMAGES": "rings.csv"},
            "IMAGES is 'rings.csv', expected a folder of images",
        ),
        (
            {"LABELS": "wrong_split.csv", "IMAGES": "by_class"},
            "wrong_split.csv, line 2: the split is 'north', expected train, val or test",
        ),
    ],
)
def test_what_is_wrong_is_one_message(folder, given, expected):
    with pytest.raises(UserError) as caught:
        plan(given)
    message = str(caught.value)
    assert expected in message and "\n" not in message and message.endswith(".")


def test_make_passes_on_what_was_typed_and_nothing_else(repo):
    command = ["make", "-n", "-o", ".venv/made-from-the-lock", "finetune", "LABELS=my table.csv", "NAME=a"]
    shown = subprocess.run(
        command, cwd=repo, env={**os.environ, "MODEL": "mine"}, capture_output=True, text=True
    )
    words = shown.stdout.split()
    assert set(words[words.index("zoolib.quick.finetune") + 1 :]) == {"LABELS", "NAME"}


def test_an_edited_task_is_kept(folder):
    overlay, _ = plan({"LABELS": "by_class"})
    path = quick_finetune.write_overlay(overlay)
    path.write_text("edited: true\n")
    quick_finetune.write_overlay(overlay)
    assert yaml.safe_load(path.read_text()) == overlay
    assert (path.parent / "task.before.yaml").read_text() == "edited: true\n"


def test_the_demo_s_model_is_made_where_there_is_none(folder, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(quick_finetune, "run_snakemake", lambda target, overlay: asked.append(target))
    monkeypatch.setattr(quick_finetune, "final_message", lambda overlay, path: "done")
    monkeypatch.setenv("LABELS", "by_class")
    assert quick_finetune.main(["LABELS"]) == 0
    assert asked == [f"{quick_finetune.DEMO}/model.keras", "finetune"]
    shown = capsys.readouterr().out
    assert "trained first, in about 5 minutes" in shown and "only simulated galaxies" in shown


def run(repo, **given):
    command = [sys.executable, "-m", "zoolib.quick.finetune", *given]
    environment = {**os.environ, **given, "PYTHONPATH": "workflow/scripts"}
    done = subprocess.run(
        command, cwd=repo, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def test_from_folders_to_a_classifier(folder, model_folder):
    repo = copy_of_the_repository(folder / "repo")
    shutil.copytree(model_folder, repo / "mine/model")
    shutil.move(folder / "by_class", repo / "mine/by_class")
    # Where the demo's model is missing too, it would be trained first.
    shutil.copytree(model_folder, repo / quick_finetune.DEMO)
    status, shown = run(repo, LABELS="mine/by_class", NAME="glow")
    assert status == 0 and "Traceback" not in shown, shown
    assert "Label glow: multiclass, 60 labels in mine/by_class: 30 of bright, 30 of dark" in shown
    assert "which has seen only simulated galaxies" in shown
    assert "results/glow/evaluate/glow/confusion.png" in shown
    assert (repo / "results/glow/evaluate/glow/confusion.png").is_file()
    scores = pd.read_csv(repo / "results/glow/evaluate/glow/scores.csv")
    accuracy = scores.query("split == 'test' and score == 'accuracy'")["value"].item()
    assert accuracy > 0.8 and f"accuracy               {accuracy:.3f}" in shown
    # What it says to do next works.
    classifier = predict.load(repo / "results/glow/finetune/glow")
    table = classifier.predict(sorted((repo / "mine/by_class/bright").glob("*.png")))
    assert (table["glow_bright"] > 0.5).mean() > 0.8
    _, shown = dry_run(repo, "predict", "--configfile", "results/glow/predict.yaml")
    assert "predict_chunk" in shown
    # The message of a job is the last line.
    (repo / "mine/few").mkdir()
    for name, image in (("a", "g1"), ("b", "g3")):
        (repo / "mine/few" / name).mkdir()
        shutil.copy(repo / f"mine/by_class/bright/{image}.png", repo / f"mine/few/{name}")
    status, shown = run(repo, LABELS="mine/few", MODEL="mine/model")
    last = shown.strip().splitlines()[-1]
    assert status == 1 and last.startswith("mine/few: the number of labels in few is 2, expected"), shown
