"""docs/finetuning.md: its YAML, commands and Python are run or checked."""

import re
import shlex
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pipeline import dry_run
from zoolib import api
from zoolib.config.strategies import find_strategy
from zoolib.config.tasks import fit_names
from zoolib.data.fits import read_fit
from zoolib.data.tasks import build_task
from zoolib.learning import models
from zoolib.learning.blocks import blocks_of
from zoolib.quick import finetune as quick_finetune

GALAXIES = 300


def blocks(repo, language):
    """The guide's blocks of a language; "" are the commands and what they show."""
    text = (repo / "docs/finetuning.md").read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [block for name, block in found if name == language]


def commands(repo):
    """The command lines of the guide, without their comments."""
    lines = [line.split("  #")[0] for block in blocks(repo, "") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if re.match(r"(\w+=\S+ )*(snakemake|make) ", line)]


@pytest.fixture(scope="module")
def folder(repo, model_folder, tmp_path_factory):
    """A working folder with the files that the guide reads, and those that it shows."""
    folder = tmp_path_factory.mktemp("guide")
    mine = folder / "mine"
    (mine / "images").mkdir(parents=True)
    random = np.random.default_rng(1)
    number = np.arange(GALAXIES)
    for index in number:
        pixels = random.normal(60 + 80 * (index % 2), 20, (24, 24)).clip(0, 255).astype("uint8")
        Image.fromarray(pixels).save(mine / "images" / f"g{index}.png")
    table = pd.DataFrame({"id_str": [f"g{index}" for index in number], "ring": number % 2})
    table["ring_fraction"] = np.where(number % 2, 0.6, 0.02)
    table["log_mass"] = 9.5 + number % 2 + random.random(GALAXIES)
    table["type"] = np.array(["elliptical", "spiral", "irregular"])[number % 3]
    table["field"] = number // 3
    votes = {"shape_smooth": 8, "shape_disc": 12, "arms_yes": 5, "arms_no": 7}
    table = table.assign(**votes)
    table["my_split"] = np.array(["train", "train", "train", "val", "test"])[number // 2 % 5]
    table.to_csv(mine / "rings.csv", index=False)
    table[["id_str", *votes]].to_csv(mine / "votes.csv", index=False)
    for index in range(60):
        place = mine / "by_class" / ("elliptical", "spiral")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(mine / "images" / f"g{index}.png", place)
    shutil.copytree(model_folder, mine / "model")
    shutil.copytree(model_folder, folder / "results/rings/finetune/ring")
    (folder / "results/rings/finetune/ring/history.csv").unlink()
    for block in blocks(repo, "yaml") + blocks(repo, "python"):
        named = re.match(r"# (mine/\S+)\n", block)
        if named:
            (folder / named.group(1)).write_text(block)
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    """The working folder as the current one, with its Python files on the path."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder / "mine"))
    return folder


def pieces(repo):
    """The blocks that are keys of a task, not whole files."""
    found = [yaml.safe_load(block) for block in blocks(repo, "yaml")]
    return [content for content in found if not {"run", "questions"} & set(content)]


def ring(folder):
    """The guide's own task."""
    (task,) = yaml.safe_load((folder / "mine/ring.yaml").read_text())["finetune"]["tasks"]
    return task


def completed(task):
    """A task as a run completes it."""
    return api._run_of(task).tasks[task["name"]]


def test_the_guide_s_keys_make_catalogues_and_plan_trainings(repo, inside, tmp_path, model_folder):
    backbone = models.load_model(model_folder).backbone
    found = pieces(repo)
    assert len(found) >= 18
    seen = set()
    for number, keys in enumerate(found):
        task = completed({**ring(inside), **keys})
        names = {"galaxies": "galaxies.parquet", "rejected": "rejected.csv", "summary": "summary.csv"}
        output = SimpleNamespace(**{name: tmp_path / str(number) / file for name, file in names.items()})
        fits = fit_names(task)
        build_task(task, fits, 1, output, 0.0)
        assert len(read_fit(output.galaxies, fits[0])["train"].table) > 15
        assert find_strategy(task["strategy"]).stages(blocks_of(backbone), task)
        seen.add(str(task["strategy"]))
    assert len(seen) == 8


def test_the_guide_s_files_are_planned_by_its_commands(repo, inside):
    typed = [words for words in commands(repo) if "snakemake" in words]
    # PYTHONPATH is left out: a dry run does not import the strategy.
    typed = {" ".join(words[words.index("snakemake") :]).replace(" -n", "") for words in typed}
    assert len(typed) >= 2
    for line in typed:
        _, shown = dry_run(inside, *line.split()[1:], "--snakefile", repo / "Snakefile")
        assert "finetune_task" in shown or "predict_chunk" in shown


def test_every_file_of_the_guide_is_a_configuration(repo, inside):
    named = [path for path in sorted((inside / "mine").glob("*.yaml")) if path.name != "tree.yaml"]
    assert {path.stem for path in named} == {"ring", "predict", "votes", "folders", "address"}
    for path in named:
        content = yaml.safe_load(path.read_text())
        for task in content.get("finetune", {}).get("tasks", []):
            assert completed(task)["labels"]


def test_make_finetune_understands_the_guide_s_commands(repo, inside):
    typed = [words[2:] for words in commands(repo) if words[:2] == ["make", "finetune"]]
    assert len(typed) == 2
    for settings in typed:
        overlay, told = quick_finetune.plan(dict(word.split("=", 1) for word in settings))
        (task,) = overlay["finetune"]["tasks"]
        assert task["pretrained"] in ("mine/model", quick_finetune.DEMO)
        assert told and completed({**task, "pretrained": "mine/model"})


def test_the_guide_s_python_runs(repo, inside, monkeypatch, capsys):
    (code,) = [block for block in blocks(repo, "python") if "zoolib.api" in block]
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = {}
    exec(code, names)
    assert set(names["rings"].scores["label"]) == {"ring"}
    assert "accuracy" in capsys.readouterr().out
    history = pd.read_csv("mine/finetuned/history.csv")
    assert set(history["stage"]) == {"head", "unfrozen"} and len(history) == 15


def test_the_guide_s_own_strategy_unfreezes_from_the_top(repo, inside, tmp_path, model_folder):
    (keys,) = [keys for keys in pieces(repo) if "my_strategies" in str(keys)]
    names = blocks_of(models.load_model(model_folder).backbone)
    task = completed({**ring(inside), **keys})
    stages = find_strategy(task["strategy"]).stages(names, task)
    top = [tuple(name for block in names[len(names) - count :] for name in block) for count in range(3)]
    assert [stage.layers for stage in stages] == top
    assert [stage.epochs for stage in stages] == [3, 3, 3]
    given = {**ring(inside), **keys, "strategy": {**keys["strategy"], "each": 1}}
    result = api.finetune(folder=tmp_path, **given)
    assert list(pd.read_csv(tmp_path / "history.csv")["stage"]) == ["top 0", "top 1", "top 2"]
    assert result.load().predict("mine/images/g0.png", samples=3)["ring"].between(0, 1).all()
