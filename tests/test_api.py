"""What Python users call: the same guards as a configuration, nothing overwritten, nothing trained twice."""

import copy
import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from labelled import Task
from zoolib import api
from zoolib.config.run import read_run
from zoolib.figures.task_gallery import draw_task_gallery
from zoolib.job.logs import UserError
from zoolib.posteriors.files import describe_posteriors, read_described
from zoolib.posteriors.ranking import rank_galaxies

LABEL = {"label": "ring"}
FOLDERS = {"table": None, "images": None, "folders": "mine/by_class"}
NO_TABLE = {"table": None, "images": None}
SHA = "0123456789abcdef" * 4
URL = {"address": "https://example.org/x.csv", "sha256": SHA}
NO_STAGES = {"name": "freeze", "decay": 0.5}
# What is wrong with a task, in keys beside `DEFAULTS`, and what both doors say of it.
GUARDS = {
    "unknown key": ({"labls": "ring"}, "unknown key 'labls' in finetune.tasks[0] (did you mean 'labels'?)"),
    "name": ({"name": "../ring"}, "finetune.tasks[0].name is '../ring', expected letters, digits"),
    "number for text": ({"label": 3}, "finetune.tasks[0].label is 3, expected the name of one column"),
    "no source": (NO_TABLE | LABEL, "needs its labels from one of table, folders, url, found none"),
    "two sources": ({"folders": "mine/by_class"}, "from one of table, folders, url, found table and folders"),
    "images beside folders": (FOLDERS | {"images": "mine/images"}, "which hold the images, and images"),
    "no table": ({"table": "mine/nothing.csv"}, "nothing.csv', expected an existing table (CSV or Parquet)"),
    "no images": (
        {"images": "mine/nothing"},
        "nothing', expected an existing folder of images; fix the path",
    ),
    "no archive": ({"images": None, "archives": ["mine/a.zip"]}, "a.zip', expected an existing zip; fix"),
    "text for a list": ({"images": None, "archives": "mine/a.zip"}, "mine/a.zip', expected a list"),
    "archives and images": (
        {"archives": ["mine/by_class.zip"]},
        "has both archives and images, expected only",
    ),
    "no folders": (FOLDERS | {"folders": "mine/no"}, "no', expected an existing folder, or a zip, with one"),
    "no label": ({"label": None}, "finetune.tasks[0].label is missing, expected the column of the table"),
    "label and labels": ({"labels": [{"name": "a"}]}, "has both label and labels, expected only one"),
    "two labels of one name": (
        {"label": None, "labels": [{"name": "a"}, {"name": "a"}]},
        "has two labels called 'a', expected different names",
    ),
    "reserved label": ({"label": "split"}, "no label can be called 'split'"),
    "kind": ({"kind": "ordinal"}, "finetune.tasks[0].kind is 'ordinal', expected one of binary, multiclass"),
    "classes": ({"kind": "regression", "classes": ["a", "b"]}, "is regression and has 2 classes, expected"),
    "bounds": ({"kind": "regression", "bounds": [1, 0]}, "has the bounds [1, 0], expected [lowest, highest]"),
    "thresholds": ({"yes_above": 0.5}, "has yes_above 0.5 and no_below null, expected both or none"),
    "votes without a tree": ({"label": None, "kind": "votes"}, "tree is null and its kind is votes"),
    "no such tree": (
        {"label": None, "kind": "votes", "tree": "gz77"},
        "tree is 'gz77', but there is no file",
    ),
    "balance": ({"kind": "regression", "balance": "repeat"}, "balance is repeat, which works only for the"),
    "shares": (
        {"split": {"train": 0.5}},
        "the shares of finetune.tasks[0].split (train 0.5, val 0.1, test 0",
    ),
    "folds and split": ({"folds": 5, "split": "part"}, "has both folds and split, expected only one"),
    "folds and counts": ({"folds": 5, "label_counts": [9]}, "has both folds and label_counts, but"),
    "two folds": ({"folds": 2}, "finetune.tasks[0].folds is 2, expected 3 or more"),
    "query": (
        {"query": "@pd.io.common.os.system('touch ran') == 0"},
        "query: '@pd.io.common.os.system' is not",
    ),
    "half a query": ({"query": "z <"}, "finetune.tasks[0].query: pandas cannot apply 'z <'"),
    "no checksum": (
        NO_TABLE | {"url": {"address": URL["address"]}},
        "finetune.tasks[0].url.sha256 is missing",
    ),
    "wrong checksum": (NO_TABLE | {"url": URL | {"sha256": "abc"}}, "url.sha256 is 'abc', expected 64 hexa"),
    "address": (
        NO_TABLE | {"url": URL | {"address": "ftp://a/x.csv"}},
        "url.address is 'ftp://a/x.csv', exp",
    ),
    "no such file": (
        NO_TABLE | {"url": URL | {"address": "https://a.org/x"}},
        "address of a table (.parquet",
    ),
    "no start": ({"pretrained": "mine/nothing"}, "nothing', expected a model folder (a folder with model.k"),
    "a pickle": (
        {"pretrained": "mine/pickled"},
        "the weights are in a pickle (weights.pt), which can run any",
    ),
    "hub": ({"pretrained": "hf:nobody"}, "pretrained is 'hf:nobody', expected hf://organisation/name"),
    "strategy": ({"strategy": "melt"}, "finetune.tasks[0]: strategy: there is no 'melt', expected one of"),
    "program": (
        {"strategy": "os.system"},
        "'os.system' is not a subclass of zoolib.config.strategies.Strategy",
    ),
    "strategy key": ({"strategy": NO_STAGES}, "strategy freeze: has no key 'decay', expected one of name"),
    "warmup": ({"warmup_epochs": 80}, "warmup_epochs is 80, expected less than the 80 epochs"),
    "head": ({"head": {"dropout": 1}}, "finetune.tasks[0].head.dropout is 1, expected less than 1"),
    "epochs": ({"epochs": 0}, "finetune.tasks[0].epochs is 0, expected 1 or more"),
    "rate": ({"learning_rate": float("nan")}, "finetune.tasks[0].learning_rate is 'nan', expected a number"),
    "seed": ({"seed": -1}, "seed is -1, expected 0 or more"),
    "seed of text": ({"seed": "one"}, "seed is 'one', expected a whole number"),
    "samples": ({"samples": 0}, "predict.samples is 0, expected 1 or more"),
    "views": ({"views": -1}, "predict.views is -1, expected 0 or more"),
    "output is start": ({"pretrained": "{own}"}, "and would overwrite the model that it starts from"),
    "output linked to start": ({"pretrained": "link"}, "and would overwrite the model that it starts from"),
    "start in output": (
        {"pretrained": "{own}/fold0", "folds": 3},
        "and would overwrite the model that it starts from",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with labels, images and a model, and a model in the output of each door."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine/model", "own", "own/fold0", "results/gz_decals/finetune/ring/fold0"):
        _model(tmp_path / name)
    _model(tmp_path / "results/gz_decals/finetune/ring")
    for name in (
        "mine/pickled/weights.pt",
        "mine/by_class/a/1.png",
        "mine/by_class.zip",
        "mine/images/1.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine/rings.csv").write_text("id_str,ring,z,part\n1,1,2,train\n")
    return tmp_path


def _model(folder, name="ring"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.keras").touch()
    (folder / "model.json").write_text(json.dumps({"training": {"name": name}}))


def _by_configuration(repo, folder, given):
    config = yaml.safe_load((repo / "config/config.yaml").read_text())
    config |= {key: given.pop(key) for key in ("seed",) if key in given}
    config["predict"] |= {key: given.pop(key) for key in ("samples", "views") if key in given}
    config["finetune"]["tasks"] = [given]
    read_run(config, repo)
    return "results/gz_decals/finetune/ring"


def _by_python(repo, folder, given):
    api.finetune(folder="own", **given)


@pytest.mark.parametrize("door", [_by_configuration, _by_python])
@pytest.mark.parametrize("case", GUARDS)
def test_both_doors_have_the_same_guards(repo, folder, door, case):
    keys, expected = GUARDS[case]
    own = {"_by_configuration": "results/gz_decals/finetune/ring", "_by_python": "own"}[door.__name__]
    (folder / "link").symlink_to(folder / own)
    given = {"name": "ring", "table": "mine/rings.csv", "images": "mine/images", **LABEL}
    given |= {"pretrained": "mine/model"} | copy.deepcopy(keys)
    given["pretrained"] = given["pretrained"].format(own=own)
    before = _content(folder)
    with pytest.raises(UserError) as caught:
        door(repo, folder, given)
    message = str(caught.value)
    assert message.startswith("Configuration: ") and expected in message, message
    assert "\n" not in message and message.endswith(".")
    assert _content(folder) == before


def _content(folder):
    """All files of a folder, and what they hold."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def rings(tmp_path):
    """The arguments of a small task of its own."""
    task = Task(tmp_path, 12)
    task.galaxies.assign(ring=np.arange(12) % 2).to_csv(tmp_path / "rings.csv", index=False)
    return {"name": "ring", "table": tmp_path / "rings.csv", "images": tmp_path / "images", "label": "ring"}


@pytest.fixture
def trained(monkeypatch):
    """The names of the finetunings that were trained."""
    names, train = [], api.finetune_task

    def told(galaxies, model, task, *others):
        names.append(task["name"])
        return train(galaxies, model, task, *others)

    monkeypatch.setattr(api, "finetune_task", told)
    return names


def test_the_same_call_trains_once_and_another_one_says_that_it_trains_again(
    tmp_path, model_folder, rings, trained, caplog
):
    given = rings | {"pretrained": model_folder, "folder": tmp_path / "out", "epochs": np.int64(1)}
    given |= {"split": {"train": 0.5, "val": 0.25, "test": 0.25}, "samples": 2, "augment": False}
    log = logging.getLogger("zoolib")
    log.addHandler(caplog.handler)
    try:
        first = api.finetune(**given)
        model = (tmp_path / "out/model.keras").read_bytes()
        second = api.finetune(**given)
        # Jobs of other tests may have left the log's level at INFO.
        own = [record for record in caplog.records if record.name == "zoolib"]
        # Few galaxies decide here when a training stops, which is said.
        own = [record for record in own if "decide when the training stops" not in record.msg]
        assert trained == ["ring"] and not [record for record in own if record.levelno > logging.INFO]
        assert (tmp_path / "out/model.keras").read_bytes() == model
        pd.testing.assert_frame_equal(first.scores, second.scores)
        pd.testing.assert_frame_equal(first.galaxies, second.galaxies)
        api.finetune(**given | {"learning_rate": 0.01})
        assert trained == ["ring"] * 2 and "out/model.keras: was trained with other" in caplog.text
        # A damaged model is trained again, and so is one of other images under the same names.
        (tmp_path / "out/model.keras").write_bytes(model[:-1])
        api.finetune(**given | {"learning_rate": 0.01})
        assert trained == ["ring"] * 3
        names = sorted((tmp_path / "images").iterdir())
        shutil.copy(names[0], tmp_path / "other.png")
        for old, new in zip(names, names[1:], strict=False):
            shutil.copy(new, old)
        shutil.copy(tmp_path / "other.png", names[-1])
        api.finetune(**given | {"learning_rate": 0.01})
        assert trained == ["ring"] * 4
    finally:
        log.removeHandler(caplog.handler)
    # A model that is being used is never written to.
    with pytest.raises(UserError, match="is of another training than those of the task 'bar'"):
        api.finetune(**given | {"name": "bar"})
    with pytest.raises(UserError, match="is of another training than those of the task 'ring'"):
        api.finetune(**given | {"folds": 3, "split": None})
    assert trained == ["ring"] * 4


def test_votes_and_other_labels_in_one_model(tmp_path, model_folder, rings):
    """Every step: galaxies, training, predictions, scores, figures, what to label next, one image."""
    tree = tmp_path / "bars.yaml"
    tree.write_text("questions: {bar: {answers: ['yes', 'no']}}")
    table = pd.read_csv(rings["table"]).assign(log_mass=np.linspace(8, 11, 12), bar_yes=3, bar_no=2)
    table.to_csv(rings["table"], index=False)
    labels = [{"name": "votes", "kind": "votes", "tree": tree}, {"name": "ring"}]
    labels += [{"name": "log_mass", "kind": "regression"}]
    given = rings | {"label": None, "labels": labels, "pretrained": model_folder, "epochs": 1}
    given |= {"split": {"train": 0.5, "val": 0.25, "test": 0.25}, "samples": 2, "augment": False}
    found = api.finetune(**given, folder=tmp_path / "out")
    assert set(found.scores["label"]) == {"bar", "all questions", "ring", "log_mass"}
    assert json.loads((tmp_path / "out/model.json").read_text())["kind"] == "mixed"
    one = found.load().predict(next((tmp_path / "images").iterdir()), samples=3)
    columns = {"bar_yes_fraction", "bar_no_low", "bar_asked", "bar_entropy", "ring", "ring_low", "log_mass"}
    assert len(one) == 1 and columns <= set(one) and one["bar_yes_fraction"].between(0, 1).all()
    predictions = tmp_path / "out/predictions.hdf5"
    describe_posteriors(predictions, tmp_path / "described.parquet", 0.9)
    assert columns <= set(read_described([tmp_path / "described.parquet"])[0])
    rank_galaxies([predictions], tmp_path / "label_next.csv")
    ranked = pd.read_csv(tmp_path / "label_next.csv")
    assert list(ranked)[3:] == ["bar_information", "ring_information", "log_mass_information"]
    assert ranked["information"].notna().all()
    draw_task_gallery(tmp_path / "out/predicted.parquet", "mine", tmp_path / "gallery.png")


@pytest.mark.parametrize("start", ["model", "model/", "../{name}/model", "link", "linked", "model/below/it"])
def test_a_model_is_not_overwritten_however_its_folder_is_written(tmp_path, monkeypatch, rings, start):
    monkeypatch.chdir(tmp_path)
    _model(tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    # Another folder whose files are links to those of the model.
    (tmp_path / "linked").mkdir()
    for name in ("model.keras", "model.json"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "model" / name)
    start = start.format(name=tmp_path.name)
    pretrained, folder = ("model", start) if start == "model/below/it" else (start, "model")
    before = _content(tmp_path)
    with pytest.raises(UserError, match="would overwrite the model that it starts from; choose another"):
        api.finetune(pretrained=pretrained, folder=folder, **rings)
    assert _content(tmp_path) == before


def test_a_model_that_this_function_did_not_make_is_not_overwritten(tmp_path, rings):
    _model(tmp_path / "start")
    for text in ("{", "[]", '{"training": {}}', '{"training": {"name": "ring/fold1"}}'):
        _model(tmp_path / "other")
        (tmp_path / "other/model.json").write_text(text)
        with pytest.raises(UserError, match="other/model.json is of another training"):
            api.finetune(pretrained=tmp_path / "start", folder=tmp_path / "other", **rings)


def test_the_labels_are_not_overwritten(tmp_path, rings):
    _model(tmp_path / "start")
    (tmp_path / "mine").mkdir()
    shutil.copy(rings["table"], tmp_path / "mine/scores.csv")
    given = rings | {"table": tmp_path / "mine/scores.csv", "pretrained": tmp_path / "start"}
    with pytest.raises(UserError, match="would overwrite the labels; choose another folder"):
        api.finetune(folder=tmp_path / "mine", **given)


def test_a_download_is_known_by_its_checksum(tmp_path, monkeypatch, rings):
    _model(tmp_path / "start")
    fetched, tables = [], []

    def download(address, sha256, output):
        fetched.append(sha256)
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_bytes(contents[sha256])

    def build(task, *others):
        tables.append(Path(task["table"]).read_bytes())
        raise UserError("enough.")

    contents = {hashlib.sha256(text).hexdigest(): text for text in (b"first", b"second")}
    monkeypatch.setattr(api, "download_url", download)
    monkeypatch.setattr(api, "build_task", build)
    first, second = contents
    # As earlier versions left it there.
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x.csv").write_bytes(b"of another time")
    for sha256 in (first, first, second, first):
        with pytest.raises(UserError, match="enough"):
            url = {"address": "https://example.org/x.csv", "sha256": sha256}
            given = rings | {"table": None, "images": rings["images"], "url": url}
            api.finetune(pretrained=tmp_path / "start", folder=tmp_path / "out", **given)
    assert tables == [b"first", b"first", b"second", b"first"] and fetched == [first, second]
    (damaged,) = [path for path in (tmp_path / "out").rglob("x.csv") if path.read_bytes() == b"first"]
    damaged.write_bytes(b"fi")
    with pytest.raises(UserError, match="enough"):
        given["url"]["sha256"] = first
        api.finetune(pretrained=tmp_path / "start", folder=tmp_path / "out", **given)
    assert tables[-1] == b"first"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"table": pd.DataFrame({"a": [1]})}, "table is a DataFrame, expected what a YAML file can hold"),
        ({"pretrained": None}, "pretrained is None, expected a model to start from"),
        ({"pretrained": ""}, "pretrained is '', expected a model to start from"),
        ({"ensemble": "metrics"}, "ensemble is for runs of Snakemake"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"bounds": (1, 0), "kind": "regression"}, "has the bounds [1, 0], expected [lowest, highest]"),
    ],
)
def test_what_only_python_can_give(tmp_path, rings, keys, expected):
    _model(tmp_path / "start")
    with pytest.raises(UserError) as caught:
        api.finetune(**{"pretrained": tmp_path / "start", "folder": tmp_path / "out", **rings, **keys})
    assert expected in str(caught.value) and "\n" not in str(caught.value)
