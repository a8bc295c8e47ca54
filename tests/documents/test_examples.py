"""The examples: each is a valid overlay, learns from a simulated survey, and its model predicts."""

import json
import logging
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pipeline import dry_run, snakemake
from zoolib import api, finetune
from zoolib.job.provenance import imported_modules
from zoolib.learning import models
from zoolib.learning.blocks import blocks_of
from zoolib.simulation import survey

EXAMPLES = {
    "minimal": ("rings", ["ring"], "freeze"),
    "advanced": ("bars", ["bar_strong_fraction"], "two_stage"),
    "classes": ("arms", [f"arms_{count}" for count in range(1, 6)], "freeze_unfreeze"),
    "regression": ("inclination", ["axis_ratio"], "layer_decay"),
    "tree": ("bar_votes", ["bar_strong", "bar_weak", "bar_no"], "unfreeze_milestones"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory, model_folder):
    """The demo's results in small: a survey and a model, in the demo's folders."""
    folder = tmp_path_factory.mktemp("clone") / "results/demo"
    survey.write_record(folder / "download", 1200, 32, seed=2, threads=2)
    shutil.copytree(model_folder, folder / "train/metrics/0")
    return folder


def example(repo, name):
    """The task of an example."""
    content = yaml.safe_load((repo / f"examples/finetune_{name}.yaml").read_text())
    assert list(content) == ["finetune"]
    (task,) = content["finetune"]["tasks"]
    return task


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_learned_and_its_model_predicts(repo, demo, monkeypatch, tmp_path, name):
    monkeypatch.chdir(repo)
    task = example(repo, name)
    called, columns, strategy = EXAMPLES[name]
    asked = task.get("strategy", "freeze")
    named = asked if isinstance(asked, str) else asked["name"]
    assert (task["name"], named) == (called, strategy)
    small = {"batch_size": 32, "patience": 3}
    # These two unfreeze layers in a later epoch.
    small["epochs"] = 9 if strategy in ("freeze_unfreeze", "unfreeze_milestones") else 3
    archives = sorted((demo / "download").glob("*.zip"))
    table = demo / "download" / task["table"]
    sources = {"table": table, "archives": archives, "pretrained": demo / "train/metrics/0"}
    result = api.finetune(folder=tmp_path, **{**task, **small, **sources})
    scores = result.scores[result.scores["split"] == "test"].set_index("score")["value"]
    assert {"log_loss", "rmse"} & set(scores.index)
    assert len(result.galaxies) > 50
    # The model predicts every output, with a spread over the draws of dropout.
    image = tmp_path / "one.png"
    image.write_bytes(_one_image(archives[0]))
    predicted = result.load().predict(image, samples=8)
    ending = "_fraction" if name == "tree" else ""
    values = predicted[[f"{column}{ending}" for column in columns]].to_numpy()
    assert np.isfinite(values).all()
    widths = [predicted[f"{column}_high"] - predicted[f"{column}_low"] for column in columns]
    assert all((width > 0).all() for width in widths)
    if name in ("classes", "tree"):
        assert abs(values.sum() - 1) < 1e-5
    if name == "regression":
        assert 0 <= values.item() <= 1


def test_a_strategy_of_one_s_own_is_used(repo, demo, monkeypatch, tmp_path):
    """It trains the last two blocks of the backbone and no others; the usual strategy trains none."""
    monkeypatch.syspath_prepend(repo / "examples")
    (task,) = yaml.safe_load((repo / "examples/own_strategy.yaml").read_text())["finetune"]["tasks"]
    start = demo / "train/metrics/0"
    sources = {"table": demo / "download/rings.csv", "archives": sorted((demo / "download").glob("*.zip"))}
    blocks, trained, freeze_others = blocks_of(models.load_model(start).backbone), [], finetune.set_trainable

    def watched(backbone, names, batchnorm=False):
        trained.append(set(names))
        freeze_others(backbone, names, batchnorm)

    monkeypatch.setattr(finetune, "set_trainable", watched)
    given = {**task, **sources, "pretrained": start, "epochs": 1, "samples": 2}
    api.finetune(**given | {"strategy": task["strategy"] | {"each": 1}}, folder=tmp_path / "own")
    # At the end of a finetuning all layers are set free again.
    everything = {name for block in blocks for name in block}
    own, after = trained[:-1], trained.pop()
    assert own == [set(), set(blocks[-1]), set(blocks[-1]) | set(blocks[-2])] and everything <= after
    history = pd.read_csv(tmp_path / "own/history.csv")
    assert list(history["stage"]) == ["top 0", "top 1", "top 2"]
    trained.clear()
    api.finetune(**given | {"strategy": "freeze"}, folder=tmp_path / "usual")
    assert trained[:-1] == [set()]


def _one_image(archive):
    with zipfile.ZipFile(archive) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith(".png")))


def test_several_labels_of_different_kinds_are_one_model(demo, tmp_path):
    truth = pd.read_parquet(demo / "download/truth.parquet").query("disc == 1").head(120)
    truth = truth.assign(bar=(truth["bar_strength"] > truth["bar_strength"].median()).astype(int))
    truth[["id_str", "bar", "arms", "axis_ratio"]].to_csv(tmp_path / "mine.csv", index=False)
    result = api.finetune(
        name="several",
        table=tmp_path / "mine.csv",
        archives=sorted((demo / "download").glob("*.zip")),
        labels=[
            {"name": "bar"},
            {"name": "axis_ratio", "kind": "regression"},
        ],
        pretrained=demo / "train/metrics/0",
        folder=tmp_path / "model",
        augment=False,
        folds=3,
        epochs=2,
    )
    assert set(result.scores["label"]) == {"bar", "axis_ratio"} and "fold_deviation" in result.scores
    assert len(result.folders) == 3
    image = tmp_path / "one.png"
    image.write_bytes(_one_image(next((demo / "download").glob("*.zip"))))
    predicted = result.load().predict([image], samples=8)
    assert predicted["bar"].between(0, 1).all() and predicted["axis_ratio_high"].notna().all()


def test_more_and_more_labels_are_scored(demo, tmp_path):
    result = api.finetune(
        name="ring",
        table=demo / "download/rings.csv",
        archives=sorted((demo / "download").glob("*.zip")),
        label="ring",
        pretrained=demo / "train/metrics/0",
        folder=tmp_path,
        augment=False,
        label_counts=[20],
        label_count_seeds=1,
        epochs=2,
    )
    assert set(result.label_counts["start"]) == {"finetuned", "scratch"}
    assert set(result.label_counts["labels"]) == {20}
    assert result.folders == [str(tmp_path)]


def test_what_python_users_import_is_no_reason_to_train_again():
    assert "api" not in imported_modules(Path(finetune.__file__).read_text())


def test_the_commands_of_the_examples_are_planned(repo, tmp_path):
    text = (repo / "examples/README.md").read_text()
    lines = re.findall(r"^snakemake finetune .*", text, re.M)
    files = re.findall(r"\]\((finetune_\w+\.yaml)\)", text)
    assert lines == [
        f"snakemake finetune --configfile config/demo.yaml examples/{name}" for name in files
    ] and len(lines) == len(EXAMPLES)
    for part in ("config", "examples"):
        (tmp_path / part).symlink_to(repo / part)
    for line in lines:
        _, shown = dry_run(tmp_path, *line.split()[1:], "--snakefile", repo / "Snakefile")
        assert "finetune_task" in shown and "simulate_record" in shown


@pytest.mark.parametrize("names", [("search",), ("search", "pretext")])
def test_the_command_of_the_searches_is_planned(repo, tmp_path, names):
    files = " ".join(f"examples/{name}.yaml" for name in names)
    line = f"snakemake search --configfile config/demo.yaml {files}"
    for page in ("README.md", f"{names[-1]}.yaml"):
        lines = (repo / "examples" / page).read_text().splitlines()
        assert line in [shown.removeprefix("#   ") for shown in lines]
    for part in ("config", "examples"):
        (tmp_path / part).symlink_to(repo / part)
    _, shown = dry_run(tmp_path, *line.split()[1:], "--snakefile", repo / "Snakefile")
    assert "search_galaxies" in shown and "draw_map" in shown


def test_the_command_of_a_strategy_of_one_s_own_is_planned(repo, tmp_path):
    line = "PYTHONPATH=examples snakemake finetune --configfile config/demo.yaml examples/own_strategy.yaml"
    assert line in (repo / "examples/README.md").read_text().splitlines()
    assert f"#   {line}\n" in (repo / "examples/own_strategy.yaml").read_text()
    for part in ("config", "examples"):
        (tmp_path / part).symlink_to(repo / part)
    words = [*line.split()[2:], "--snakefile", repo / "Snakefile"]
    _, shown = snakemake(tmp_path, "--dry-run", *words, PYTHONPATH="examples")
    assert "results/demo/finetune/rings_top_first/model.keras" in shown
    status, shown = dry_run(tmp_path, *words, check=False)
    assert status == 1 and re.search("cannot be imported .* fix the name or PYTHONPATH.$", shown, re.M)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_how_it_is_run(repo, name):
    text = (repo / f"examples/finetune_{name}.yaml").read_text()
    assert f"#   snakemake finetune --configfile config/demo.yaml examples/finetune_{name}.yaml" in text


def test_the_notebook_runs(repo, demo, monkeypatch):
    notebook = json.loads((repo / "examples/finetune.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    clone = demo.parents[1]
    (clone / "examples").mkdir(exist_ok=True)
    monkeypatch.chdir(clone / "examples")
    monkeypatch.setattr(sys, "path", list(sys.path))
    level = logging.getLogger("zoolib").level
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    logging.getLogger("zoolib").setLevel(level)
    scores = names["rings"].scores
    assert scores.query("split == 'test' and score == 'accuracy'")["galaxies"].item() > 20
    assert (clone / "results/notebook/ring/confusion.png").is_file()
