"""What trainings and predictions start from: a model that exists, or one that the run makes before."""

import copy
import json
import os

import pytest
import yaml
from left_behind import HALF_MADE
from snakemake.utils import update_config
from zoolib.config.files import Files
from zoolib.config.run import read_run
from zoolib.config.starts import made_models
from zoolib.job.logs import UserError

RING = "name: ring, table: mine/labels.csv, images: mine, label: ring"
TWO = "name: two, table: mine/labels.csv, images: mine, label: ring"
THREE = "name: three, table: mine/labels.csv, images: mine, label: ring"
OWN = "results/gz_decals"
# What an interrupted job, or a person, leaves in the folder of a model.
LEFT = {
    "nothing": None,
    **HALF_MADE,
    "the files of another kind of model": ["config.json", "model.safetensors"],
    "a pickle": ["model.ckpt"],
    "a complete model": ["model.keras", "model.json", "history.csv"],
}


@pytest.fixture
def run_of(repo, tmp_path, monkeypatch):
    """Make the `Run` of the paper's configuration with some YAML laid over it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine/labels.csv", "mine/encoder/config.json", "mine/encoder/model.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    base = yaml.safe_load((repo / "config/config.yaml").read_text())

    def make(text=""):
        config = copy.deepcopy(base)
        update_config(config, yaml.safe_load(text) or {})
        return read_run(config, repo)

    return make


def tasks(*lines):
    """A configuration with some tasks."""
    return f"finetune: {{tasks: [{', '.join(f'{{{line}}}' for line in lines)}]}}"


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize(
    ("ring", "start"),
    [
        ("folds: null", "finetune/ring"),
        ("folds: 3", "finetune/ring/fold1"),
        ("label_counts: [20]", "finetune/ring/labels20-0-scratch"),
        ("folds: null", "train/metrics/2"),
        ("pretrained: mine/encoder", "pretrained/encoder-{hash}"),
    ],
)
def test_what_a_rule_makes_is_a_model_whatever_is_in_its_folder(run_of, tmp_path, ring, start, left):
    if "{hash}" in start:
        start = f"pretrained/{next(iter(run_of(tasks(f'{RING}, {ring}')).encoders))}"
    start = f"{OWN}/{start}"
    if LEFT[left] is not None:
        (tmp_path / start).mkdir(parents=True)
    for name in LEFT[left] or []:
        (tmp_path / start / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / start / name).touch()
    target = f"{{name: far, images: mine, models: [{start}]}}"
    run = run_of(
        tasks(f"{RING}, {ring}", f"{TWO}, pretrained: {start}")
        + f"\npredict: {{targets: [{target}, {{name: test, split: test, ensemble: metrics}}]}}"
    )
    files = Files(run)
    assert files.fit_start("two") == [f"{start}/model.keras", f"{start}/model.json"]
    assert files.models("far") == [start] and not set(run.encoders) & {"ring", "fold1"}


@pytest.mark.parametrize(
    "written",
    [
        "./{0}",
        "{0}/",
        "results//gz_decals/finetune/ring",
        "{0}/../ring",
        "{here}/{0}",
        "link/gz_decals/finetune/ring",
    ],
)
def test_the_path_of_a_model_can_be_written_in_many_ways(run_of, tmp_path, written):
    (tmp_path / "results").mkdir()
    (tmp_path / "link").symlink_to("results")
    start = written.format(f"{OWN}/finetune/ring", here=tmp_path)
    files = Files(run_of(tasks(RING, f"{TWO}, pretrained: '{start}'")))
    # As the rule writes it: only then does Snakemake find the rule.
    assert files.fit_start("two") == [f"{OWN}/finetune/ring/model.{end}" for end in ("keras", "json")]


def test_a_file_that_the_run_makes_can_be_written_in_many_ways(run_of):
    target = "{name: val, ensemble: metrics, catalog: ./results/gz_decals/catalog/val.parquet}"
    run = run_of(f"predict: {{targets: [{target}]}}\nevaluate: {{target: null}}")
    assert Files(run).listed("val") == [f"{OWN}/catalog/val.parquet"]


def test_models_below_the_results_of_another_run_have_to_exist(run_of, tmp_path):
    text = tasks(f"{RING}, pretrained: results/gz_decals2/finetune/a")
    with pytest.raises(UserError, match="expected a model folder"):
        run_of(text)
    (tmp_path / "results/gz_decals2/finetune/a").mkdir(parents=True)
    for name in ("model.keras", "model.json"):
        (tmp_path / "results/gz_decals2/finetune/a" / name).touch()
    assert run_of(text).tasks["ring"]["start"] == "results/gz_decals2/finetune/a"


@pytest.mark.parametrize(
    ("text", "grey"),
    [
        ("", None),
        ("train: {pretrained: 'hf://owner/encoder'}", "luma"),
        ("train: {pretrained: mine/encoder}", "luma"),
        ("{image: {color: true}, train: {pretrained: 'hf://owner/encoder'}}", None),
        ("{image: {grey: mean}, train: {pretrained: 'hf://owner/encoder'}}", None),
        ("image: {grey: luma}", "luma"),
        ("train: {start_from: mine/luma}", "luma"),
        ("train: {pretrained: mine/mean}", None),
    ],
)
def test_a_tree_is_trained_on_the_grey_of_its_encoder(run_of, tmp_path, text, grey):
    for name in ("mean", "luma"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "model.keras").touch()
        # A model of an older version does not say it.
        image = {"grey": name} if name == "luma" else {}
        (tmp_path / "mine" / name / "model.json").write_text(json.dumps({"image": image}))
    run = run_of(text)
    assert run.config["image"].get("grey") == run.stored_image.get("grey") == grey
    assert set(run.stored_image) == {"size", "color", "encoding"} | ({"grey"} if grey else set())
    assert run_of("image: {interpolation: bicubic}").stored_image["interpolation"] == "bicubic"
    assert "interpolation" not in run_of("image: {interpolation: lanczos}").stored_image


def test_pixels_of_no_encoder_are_refused(run_of):
    with pytest.raises(
        UserError, match="train.normalise is for the backbone of train.pretrained, which is null"
    ):
        run_of("train: {normalise: unit}")
    with pytest.raises(UserError, match="train.normalise is 'probe', expected .*only tasks have probe"):
        run_of("train: {normalise: probe, pretrained: mine/encoder}")
    with pytest.raises(
        UserError, match=r"finetune.tasks\[0\].normalise is 'x', expected one of unit, imagenet"
    ):
        run_of(tasks(f"{RING}, normalise: x"))
    with pytest.raises(
        UserError, match=r"finetune.tasks\[0\].normalise has mean \[0\], expected mean and std, lists of"
    ):
        run_of(tasks(f"{RING}, normalise: {{mean: [0]}}"))
    assert run_of(tasks(f"{RING}, normalise: {{mean: [0], std: [1]}}")).training_of("ring")["normalise"] == {
        "mean": [0],
        "std": [1],
    }


def test_what_a_run_makes_follows_from_its_configuration(run_of):
    text = tasks(f"{RING}, folds: 3", f"{TWO}, label_counts: [9], label_count_seeds: 1")
    made = made_models(run_of(text + "\ntrain: {ensembles: [{name: metrics}, {name: catalog}]}").config)
    assert made == [
        f"{OWN}/{folder}"
        for folder in (
            *("train/metrics/0", "train/catalog/0", *(f"finetune/ring/fold{number}" for number in range(3))),
            *("finetune/two", "finetune/two/labels9-0-finetuned", "finetune/two/labels9-0-scratch"),
        )
    ]


WRONG = {
    "a task that the run has not": (
        tasks(RING, f"{TWO}, pretrained: {OWN}/finetune/rings"),
        f"finetune.tasks[1].pretrained is '{OWN}/finetune/rings', but no rule of this run makes this model;"
        f" the run makes {OWN}/finetune/ring, ",
    ),
    "a task of which the folds alone are trained": (
        tasks(f"{RING}, folds: 3", f"{TWO}, pretrained: {OWN}/finetune/ring"),
        f"finetune.tasks[1].pretrained is '{OWN}/finetune/ring', but no rule of this run makes this model;"
        f" the run makes {OWN}/finetune/ring/fold",
    ),
    "a member too many": (
        tasks(f"{TWO}, pretrained: {OWN}/train/metrics/3"),
        f"finetune.tasks[0].pretrained is '{OWN}/train/metrics/3', but no rule of this run makes this",
    ),
    "a target with the model of nobody": (
        f"predict: {{targets: [{{name: a, images: mine, models: [{OWN}/finetune/a]}}]}}\n"
        "evaluate: {target: null}",
        f"predict.targets[0].models is '{OWN}/finetune/a', but no rule of this run makes this model;",
    ),
    "a target with no model": (
        "predict: {targets: [{name: a, images: mine, models: [mine]}]}\nevaluate: {target: null}",
        "predict.targets[0].models is 'mine', expected a folder with model.keras and model.json; fix the ",
    ),
    "the folder of the results": (
        tasks(f"{TWO}, pretrained: {OWN}"),
        f"finetune.tasks[0].pretrained is '{OWN}', expected a model folder",
    ),
    "a task that starts from itself": (
        tasks(f"{RING}, pretrained: {OWN}/finetune/ring"),
        f"finetune.tasks[0].pretrained is '{OWN}/finetune/ring', but this task writes its own model there",
    ),
    "a task that starts from its fold": (
        tasks(f"{RING}, pretrained: {OWN}/finetune/ring/fold0, folds: 3"),
        f"finetune.tasks[0].pretrained is '{OWN}/finetune/ring/fold0', but this task writes its own model ",
    ),
    "two tasks in a circle": (
        tasks(f"{RING}, pretrained: {OWN}/finetune/two", f"{TWO}, pretrained: {OWN}/finetune/ring"),
        f"finetune.tasks[0].pretrained is '{OWN}/finetune/two', but these tasks start from each other in a"
        " circle (ring → two → ring), so none can be the first",
    ),
    "a task that starts from a circle": (
        tasks(
            f"{RING}, pretrained: {OWN}/finetune/two",
            f"{TWO}, pretrained: {OWN}/finetune/three/fold1",
            f"{THREE}, pretrained: {OWN}/finetune/two, folds: 3",
        ),
        f"finetune.tasks[0].pretrained is '{OWN}/finetune/two', but these tasks start from each other in a"
        " circle (two → three → two), so none can be the first",
    ),
    "an ensemble that starts from a task": (
        f"train: {{pretrained: {OWN}/finetune/ring}}\n{tasks(RING)}",
        f"train.pretrained is '{OWN}/finetune/ring', a model that this run itself trains, expected a model",
    ),
    "an ensemble that starts from itself": (
        f"train: {{start_from: {OWN}/train/metrics/0}}",
        f"train.start_from is '{OWN}/train/metrics/0', a model that this run itself trains, expected a model",
    ),
    "the run's own shards": (
        f"predict: {{targets: [{{name: a, ensemble: metrics, shards: {OWN}/shards/test}}]}}\n"
        "evaluate: {target: null}",
        f"predict.targets[0].shards is '{OWN}/shards/test', a folder of this run itself, expected a folder ",
    ),
    "a folder of images that no rule makes": (
        f"predict: {{targets: [{{name: a, ensemble: metrics, images: {OWN}/download/images}}]}}\n"
        "evaluate: {target: null}",
        f"predict.targets[0].images is '{OWN}/download/images', expected an existing folder of images;",
    ),
}


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_what_no_rule_makes_is_refused_whatever_is_on_disk(run_of, tmp_path, case, complete):
    text, expected = WRONG[case]
    if complete:
        for folder in ("finetune/ring", "finetune/rings", "finetune/ring/fold0", "train/metrics/3"):
            (tmp_path / OWN / folder).mkdir(parents=True, exist_ok=True)
            for name in ("model.keras", "model.json"):
                (tmp_path / OWN / folder / name).touch()
        (tmp_path / OWN / "shards/test").mkdir(parents=True)
        (tmp_path / OWN / "shards/test/0.json").touch()
    with pytest.raises(UserError) as caught:
        run_of(text)
    message = str(caught.value)
    assert message.startswith(f"Configuration: {expected}") and message.endswith("."), message


def test_a_long_list_of_models_shows_the_nearest(run_of):
    text = tasks(f"{RING}, label_counts: [10, 20, 40]", f"{TWO}, pretrained: {OWN}/finetune/ring/labels20-0")
    with pytest.raises(UserError, match="the run makes ") as caught:
        run_of(text)
    shown = str(caught.value).partition("the run makes ")[2]
    assert f"{OWN}/finetune/ring/labels20-0-scratch" in shown and shown.count(OWN) == 8
    # 3 + 5 members, 1 + 3 counts × 3 seeds × 2 finetunings, 1 task.
    assert " and 20 more; choose one of these, or a model of another run." in shown


def test_a_model_that_links_to_the_task_s_own_is_its_own(run_of, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/model.json").touch()
    (tmp_path / OWN / "finetune/ring").mkdir(parents=True)
    (tmp_path / OWN / "finetune/ring/model.keras").touch()
    os.symlink(tmp_path / OWN / "finetune/ring/model.keras", tmp_path / "linked/model.keras")
    with pytest.raises(UserError, match="this task writes its own model there"):
        run_of(tasks(f"{RING}, pretrained: linked"))


def test_a_table_of_the_record_that_a_rule_downloads_need_not_be_there(run_of):
    table = "data/zenodo/4573248/other.parquet"
    run = run_of(
        f"catalogs: [{{name: a, tree: gz_decals_5, table: {table}, images: mine}}]\n"
        "predict: {targets: [{name: test, ensemble: metrics, split: test}]}"
    )
    assert Files(run).catalog_tables() == [table]
