"""What follows from a configuration: tasks, encoders, trainings, and where files lie."""

import copy
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config
from zoolib.config.files import Files
from zoolib.config.run import TRAINING, fit_of, read_run
from zoolib.config.schema import known_keys
from zoolib.config.sources import encoder_name
from zoolib.job.logs import UserError

SHA = "ab" * 32
HUB = "hf://mwalmsley/zoobot-encoder-convnext_nano"


@pytest.fixture
def run_of(repo, tmp_path, monkeypatch):
    """Make the `Run` of the paper's configuration with some YAML laid over it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "E").mkdir(parents=True)
    for name in ("labels.csv", "model.keras", "model.json"):
        (tmp_path / "mine" / name).touch()

    def make(text=""):
        config = yaml.safe_load((repo / "config/config.yaml").read_text())
        update_config(config, yaml.safe_load(text) or {})
        return read_run(config, repo)

    return make


def tasks(*lines):
    """A configuration with some tasks."""
    return f"finetune: {{tasks: [{', '.join(f'{{{line}}}' for line in lines)}]}}"


RING = "name: ring, table: mine/labels.csv, images: mine, label: ring"


def test_the_configuration_keeps_its_own_keys_and_can_be_read_again(run_of, repo):
    lines = [
        f"{RING}, pretrained: {HUB}",
        f"name: far, images: mine, label: x, url: {{address: 'https://a.org/x.csv', sha256: {SHA}}}",
    ]
    run = run_of(tasks(*lines) + f"\ntrain: {{pretrained: '{HUB}'}}")
    before = copy.deepcopy(run.config)
    assert run.tasks["ring"]["start"] and run.tasks["far"]["table"] and run.training and run.encoders
    assert run.config == before
    again = yaml.safe_load(yaml.safe_dump(before, sort_keys=False))
    assert read_run(again, repo).config == before


def test_a_task_is_completed(run_of):
    run = run_of(
        tasks(
            f"{RING}, pretrained: {HUB}",
            "name: plain, table: mine/labels.csv, images: mine, label: ring",
            f"name: far, label: x, images: mine, url: {{address: 'https://a.org/x.csv?y=1', sha256: {SHA}}}",
            f"name: zip, url: {{address: 'https://a.org/x.zip', sha256: {SHA}}}, pretrained: mine",
        )
    )
    ring, plain, far, zipped = run.tasks.values()
    (settings,) = run.encoders.values()
    assert settings == {"source": HUB, "image": None, "backbone": None}
    assert ring["start"] == f"results/gz_decals/pretrained/{encoder_name(settings)}"
    assert ring["ensemble"] is None and plain["ensemble"] == "metrics" and plain["start"] is None
    assert [label["name"] for label in ring["labels"]] == ["ring"]
    assert far["table"] == f"data/labels/{SHA[:12]}/x.csv" and far["folders"] is None
    assert zipped["folders"] == f"data/labels/{SHA[:12]}/x.zip" and zipped["start"] == "mine"


def test_the_training_starts_from_a_folder_and_has_the_steps_of_its_augmentation(run_of):
    run = run_of(f"train: {{pretrained: '{HUB}'}}")
    (settings,) = run.encoders.values()
    assert settings["image"] == run.config["image"]
    assert run.training["pretrained"] == f"results/gz_decals/pretrained/{encoder_name(settings)}"
    assert run.training["augmentation"]["steps"] and "ensembles" not in run.training
    # Only a mixture has components, so another number of them trains no other head again.
    assert set(run.training) == set(run.config["train"]) - {"ensembles", "components"}
    mixture = run_of("train: {head: dirichlet_mixture, components: 2}")
    assert set(mixture.training) == set(mixture.config["train"]) - {"ensembles"}
    assert mixture.training["components"] == 2


def test_a_model_that_the_run_makes_is_a_model_before_it_is_there(run_of):
    run = run_of(
        tasks(
            RING, f"{RING.replace('name: ring', 'name: next')}, pretrained: results/gz_decals/finetune/ring"
        )
    )
    assert run.tasks["next"]["start"] == "results/gz_decals/finetune/ring" and run.encoders == {}


def test_every_key_of_a_task_is_of_its_galaxies_or_of_its_training(repo):
    schema = yaml.safe_load((repo / "workflow/schemas/config.schema.yaml").read_text())
    known = {key.split(".")[2] for key in known_keys(schema) if key.startswith("finetune.tasks[].")}
    start = {"pretrained", "ensemble", "scratch", "compare_scratch"}
    galaxies = {"table", "folders", "url", "archives", "images", "id", "location", "query", "tree", "group"}
    galaxies |= {"label", "labels[]", "labels", "kind", "classes", "bounds", "yes_above", "no_below"}
    galaxies |= {"missing", "balance", "split", "test", "folds", "label_counts", "label_count_seeds"}
    # A new key has to be put into one of these, or its change would train nothing again.
    assert known == {"name"} | set(TRAINING) | start | galaxies


def test_what_a_finetuning_depends_on(run_of):
    scratch = "compare_scratch: true"
    run = run_of(
        tasks(
            f"{RING}, folds: 3, epochs: 7",
            f"{RING.replace('ring,', 'few,')}, label_counts: [20], label_count_seeds: 1, {scratch}",
            f"{RING.replace('ring,', 'both,')}, folds: 3, {scratch}",
        )
    )
    settings = run.training_of("ring/fold1")
    assert settings["name"] == "ring/fold1" and settings["epochs"] == 7
    assert set(settings) == {"name", *TRAINING}
    assert run.scored_fits("ring") == ["fold0", "fold1", "fold2"] and run.counted_fits("ring") == []
    assert run.scored_fits("few") == [""] and run.counted_tasks == ["few"]
    assert run.scratch_fits("few") == ["all-scratch"] and run.scratch_fits("ring") == []
    assert run.scored_fits("both") == ["fold0", "fold1", "fold2"]
    assert run.scratch_fits("both") == ["fold0-scratch", "fold1-scratch", "fold2-scratch"]
    assert run.starts_from_scratch("both/fold1-scratch") and not run.starts_from_scratch("both/fold1")
    assert run.counted_fits("few") == ["labels20-0-finetuned", "labels20-0-scratch"]
    of_folds = [f"{name}/fold{fold}" for name in ("ring", "both") for fold in range(3)]
    assert run.fits == [*of_folds[:3], "few", *of_folds[3:]]
    assert fit_of("few", "") == "few" and fit_of("few", "fold0") == "few/fold0"
    assert run.starts_from_scratch("few/labels20-0-scratch") and not run.starts_from_scratch("few")
    assert run.task_of("nobody") is None


def test_only_ensembles_that_somebody_needs_are_trained(run_of):
    assert set(run_of().used_ensembles) == {"metrics", "catalog"}
    run = run_of("predict: {targets: [{name: a, models: [mine], images: mine}]}\nevaluate: {target: null}")
    assert run.used_ensembles == {}


@pytest.mark.parametrize(
    ("zenodo", "table", "archive"),
    [
        ("record: 5", "data/zenodo/5/a.csv", "data/zenodo/5/a.zip"),
        ("local: mine", "mine/a.csv", "mine/a.zip"),
        ("sample: 7", "results/gz_decals/download/a.csv", "results/gz_decals/download/sample.zip"),
        ("simulate: {galaxies: 60}", "results/gz_decals/download/a.csv", "results/gz_decals/download/a.zip"),
    ],
)
def test_where_files_of_the_record_lie(run_of, zenodo, table, archive):
    run = run_of()
    run.config["zenodo"] |= {"record": 5} | yaml.safe_load(f"{{{zenodo}}}")
    files = Files(run)
    assert (files.of_record("a.csv"), files.of_record("a.zip")) == (table, archive)
    assert files.of_record("./a.csv") == "./a.csv"


def test_where_a_target_s_galaxies_and_pixels_lie(run_of):
    text = """
shards: {count: {train: 1, val: 1, test: 2}}
predict:
  chunks: 2
  targets:
    - {name: test, ensemble: metrics, split: test}
    - {name: all, ensemble: catalog, archives: all}
    - {name: mine, models: [mine], images: mine}
""" + tasks(f"{RING}, folds: 3", "name: class, folders: mine, pretrained: mine")
    run = run_of(text)
    files, here = Files(run), "results/gz_decals"
    assert files.galaxies("test") == [f"{here}/shards/test/0.json", f"{here}/shards/test/1.json"]
    assert files.pixels("test") == [f"{here}/shards/test/0.tfrecord", f"{here}/shards/test/1.tfrecord"]
    assert files.galaxies("all") == [f"{here}/predict/all/galaxies.parquet"]
    assert files.pixels("all") == files.listed("all") == files.catalog_archives() != []
    assert files.pixels("mine") == files.listed("mine") == [] and run.listed_images("mine") == "mine"
    assert (run.listed_kind("all"), run.listed_kind("mine")) == ("archives", "images")
    assert files.galaxies("ring/fold1") == [f"{here}/finetune/ring/galaxies.parquet"]
    assert files.models("test") == files.members("metrics") == [f"{here}/train/metrics/{n}" for n in range(3)]
    assert files.models("ring/fold1") == [f"{here}/finetune/ring/fold1"]
    assert files.model_files("mine") == ["mine/model.keras"] and files.model_abouts("mine") == [
        "mine/model.json"
    ]
    assert files.fit_start("ring/fold1") == [
        f"{here}/train/metrics/0/model.{end}" for end in ("keras", "json")
    ]
    assert files.fit_start("class") == ["mine/model.keras", "mine/model.json"]
    # The times of folders change with the files in them.
    assert files.task_labels("class") == ["mine", "mine/E"] and files.task_labels("ring") == [
        "mine/labels.csv"
    ]
    assert files.scored_chunks("ring")[:3] == [
        f"{here}/predict/ring/fold0/chunks/0.hdf5",
        f"{here}/predict/ring/fold0/chunks/1.hdf5",
        f"{here}/predict/ring/fold1/chunks/0.hdf5",
    ]
    run.config["shards"]["enabled"] = False
    files = Files(run)
    assert files.galaxies("test") == [f"{here}/shards/test/0.parquet", f"{here}/shards/test/1.parquet"]
    assert files.pixels("test") == files.catalog_archives()


def test_where_the_votes_of_a_target_lie(run_of):
    text = """
predict:
  posterior_with_votes: true
  targets:
    - {name: test, ensemble: metrics, split: test}
    - {name: all, ensemble: catalog, archives: all}
    - {name: mine, ensemble: metrics, images: mine}
    - {name: listed, ensemble: metrics, catalog: mine/labels.csv}
""" + tasks(f"{RING}, folds: 3", "name: seen, table: mine/labels.csv, images: mine, kind: votes, tree: gz2")
    run = run_of(text)
    files, catalogs = Files(run), "results/gz_decals/catalog"
    found = {name: files.votes(name) for name in (*run.targets, "ring/fold1", "seen")}
    assert found == {
        "test": [f"{catalogs}/test.parquet"],
        "all": [f"{catalogs}/{split}.parquet" for split in ("train", "val", "test")],
        "mine": [],
        "listed": ["mine/labels.csv"],
        "ring/fold1": [],
        "seen": ["results/gz_decals/finetune/seen/galaxies.parquet"],
    }
    run.config["predict"]["posterior_with_votes"] = False
    assert not any(files.votes(name) for name in found)


def test_which_recalibrations_belong_to_a_target(run_of):
    """As `load` finds them: of each model, and of the ensemble which all of them are."""
    members, here = [f"mine/run/metrics/{member}" for member in range(3)], "results/gz_decals/train/metrics"
    for folder in ("mine/run/metrics", *members):
        Path(folder).mkdir(parents=True)
        Path(folder, "recalibration.json").write_text('{"models": ["a", "b", "c"]}')
        for name in ("model.keras", "model.json"):
            Path(folder, name).touch()
    text = f"""
evaluate: {{target: null, published: null}}
predict:
  targets:
    - {{name: own, ensemble: metrics, images: mine}}
    - {{name: named, models: [{here}/2, {here}/0, {here}/1], images: mine}}
    - {{name: some, models: [{here}/0, {here}/1], images: mine}}
    - {{name: other, models: {members}, images: mine}}
    - {{name: two, models: {members[:2]}, images: mine}}
    - {{name: one, models: {members[:1]}, images: mine}}
"""
    files = Files(run_of(text))
    found = {name: files.recalibrations(name) for name in files.run.targets}
    own = [f"{here}/{folder}recalibration.json" for folder in ("0/", "1/", "2/", "")]
    other = [f"{folder}/recalibration.json" for folder in (*members, "mine/run/metrics")]
    expected = {"own": own, "named": own, "some": own[:2], "other": other, "two": other[:2], "one": other[:1]}
    assert found == expected
    # A damaged file is an input: the job that reads it has the message.
    Path(other[3]).write_text("{")
    assert files.recalibrations("two") == [*other[:2], other[3]]


def test_what_earlier_settings_have_left_is_no_input(run_of):
    """With fewer members or folds, models stay where they are, hours of work; nothing reads them."""
    text = """
shards: {count: {train: 2, val: 1, test: 1}}
predict: {chunks: 2, targets: [{name: test, ensemble: metrics, split: test}]}
""" + tasks(f"{RING}, folds: 3", f"{RING.replace('ring', 'counted')}, label_counts: [50]")
    run = run_of(text)

    def inputs():
        files = Files(run)
        fits = [
            fit for task in run.tasks for fit in files.of_fits("finetune/{fit}", task, run.fit_names(task))
        ]
        scored = [files.scored_chunks(task) for task in run.tasks]
        targets = [files.models(name) + files.chunks(name, "catalog/{chunk}.parquet") for name in run.targets]
        return fits, scored, targets, files.members("metrics"), files.learning_sidecars("metrics")

    before = inputs()
    stale = ["train/metrics/9", "finetune/ring/fold7", "predict/ring/fold7/chunks", "predict/test/catalog"]
    for folder in [*stale, "finetune/counted/labels9-0-pretrained", "shards/train"]:
        for name in ("model.keras", "model.json", "9.hdf5", "9.parquet", "9.json", "9.tfrecord"):
            file = Path("results/gz_decals") / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    assert inputs() == before


def test_a_wrong_file_that_the_configuration_names_is_one_sentence(run_of):
    with pytest.raises(UserError, match="evaluate.published is 'nobody'"):
        run_of("evaluate: {published: nobody}")
    with pytest.raises(UserError, match="train.augmentation"):
        run_of("train: {augmentation: nobody}")
