"""Every key of the configuration, and the rules that run first when it changes; no key is forgotten."""

import copy
import json
import re

import pytest
import yaml
from pipeline import REPO, copy_of_the_repository, overlay, pretend, shown_by_each
from zoolib.config.schema import known_keys

# A run that uses every key: the paper's record, each kind of target, and tasks with labels of each kind.
BASE = """
run: keys
catalogs:
  - {name: a, tree: gz_decals_5, table: gz_decals_volunteers_5.parquet,
     archives: [gz_decals_dr5_png_part1.zip]}
shards: {count: {train: 1, val: 1, test: 1}}
train: {head: dirichlet_mixture, ensembles: [{name: metrics}, {name: other, splits: [train, test]}]}
predict:
  chunks: 1
  catalog: {format: [fits]}
  samples: 5
  targets:
    - {name: test, ensemble: metrics, split: test}
    - {name: listed, ensemble: metrics, catalog: mine/a.csv}
    - {name: folder, ensemble: metrics, images: mine/a, labels: mine/a.csv}
    - {name: all, ensemble: other, archives: all}
    - {name: foreign, models: [mine/a], shards: mine/a}
search:
  - {name: wanted, target: folder, how: more, examples: mine/a.csv, answers: mine/a.csv}
  - {name: sky, target: all, how: map}
finetune:
  tasks:
    - {name: ring, table: mine/a.csv, label: ring, images: mine/a, ensemble: metrics, label_counts: [10],
       label_count_seeds: 1, strategy: {name: layer_decay}}
    - {name: folders, folders: mine/a, pretrained: mine/a}
    - {name: far, url: {address: "https://a.org/a.csv", sha256: "SHA"}, label: ring, images: mine/a}
    - {name: both, table: mine/a.csv, images: mine/a, labels: [{name: ring}, {name: size, kind: regression}]}
""".replace("SHA", "ab" * 32)
FILES = [
    f"mine/{name}{file}" for name in "ab" for file in (".csv", "/model.keras", "/model.json", "/c/1.png")
]
FILES += ["mine/local/gz_decals_volunteers_5.parquet", "mine/local/gz_decals_dr5_png_part1.zip"]
RING, FOLDERS, FAR, BOTH = (f"finetune.tasks[{number}]" for number in range(4))
EXPORT = {"catalogs[0].table": "mine/a.csv", "catalogs[0].zooniverse": {"workflow": 1}}
YES_OR_NO = {"name": "ring", "kind": "binary", "yes_above": 0.7, "no_below": 0.2}


def of_ring(**keys):
    """The task ring with other labels."""
    kept = {"name": "ring", "table": "mine/a.csv", "images": "mine/a", "label_counts": [10]}
    return {RING: {**kept, "label_count_seeds": 1, "strategy": {"name": "layer_decay"}, **keys}}


# Rules: keys and another value of each, or {path: value} where more than the key has to change.
FIRST = {
    "build_catalog": {
        "catalogs[].id": "x",
        "catalogs[].location": "x",
        "catalogs[].min_votes": 4,
        "catalogs[].query": "redshift < 0.1",
        "catalogs[].images": {
            "catalogs[0].archives": [],
            "catalogs[0].images": "mine/a",
            "predict.targets[3]": {"name": "all", "ensemble": "other", "split": "val"},
        },
        "split.train": {"split": {"train": 0.6, "val": 0.2, "test": 0.2}},
        "split.val": {"split": {"train": 0.65, "val": 0.15, "test": 0.2}},
        "split.test": {"split": {"train": 0.6, "val": 0.1, "test": 0.3}},
        "split.group": "x",
    },
    "build_catalog describe_posteriors draw_trees": {"catalogs[].tree": "gz_decals_1_2"},
    "build_catalog count_votes": {
        "catalogs[].zooniverse.workflow": EXPORT,
        "catalogs[].zooniverse.versions": EXPORT | {"catalogs[0].zooniverse.versions": [1, 2]},
        "catalogs[].zooniverse.subjects": EXPORT | {"catalogs[0].zooniverse.subjects": "mine/b.csv"},
    },
    "write_manifest": {"predict.manifest": 10},
    "build_catalog download_file": {"catalogs[].table": "b.parquet"},
    "build_catalog download_file list_galaxies": {
        "catalogs[].archives": ["b.zip"],
        "zenodo.record": 5,
    },
    "build_catalog list_galaxies": {"zenodo.local": "mine/local"},
    "build_catalog list_galaxies sample_record": {"zenodo.sample": 100},
    "build_catalog compare_with_truth list_galaxies simulate_record": {
        "zenodo.simulate.galaxies": {"zenodo.simulate": {"galaxies": 60}},
        "zenodo.simulate.size": {"zenodo.simulate": {"size": 60}},
        "zenodo.simulate.volunteers": {"zenodo.simulate": {"volunteers": "identical"}},
    },
    "build_catalog build_task_catalog_* predict_chunk": {"seed": 7},
    "write_shard": {
        "image.size": 200,
        "image.color": True,
        "image.encoding": "jpeg",
        "image.grey": "luma",
        "image.interpolation": "bicubic",
        "shards.count.train": 2,
        "shards.count.val": 2,
        "shards.count.test": 2,
    },
    "draw_augmentations train_member write_shard": {"shards.enabled": False},
    "build_task_catalog_* check_rejected collect_predictions": {"shards.max_rejected": 0.5},
    "build_task_catalog_* predict_chunk write_shard": {"shards.max_pixels": 1000},
    "draw_augmentations train_member": {
        "image.crop": 0.5,
        "image.final_size": 100,
        "train.augmentation": "zoobot1",
    },
    "train_member": {
        "train.backbone": "tiny",
        "train.head": "multinomial",
        "train.components": 2,
        "train.dropout": 0.3,
        "train.learning_rate": 0.1,
        "train.batch_size": 4,
        "train.epochs": 2,
        "train.patience": 3,
        "train.shuffle": 5,
        "train.optimizer": "adamw",
        "train.schedule": "cosine",
        "train.warmup_epochs": 1,
        "train.weight_decay": 0.1,
        "train.clip_norm": 1.0,
        "train.mixed_precision": True,
        "train.pretrained": "mine/a",
        "train.normalise": {"train.pretrained": "mine/a", "train.normalise": "unit"},
        "train.start_from": "mine/a",
        "train.ensembles[].splits": {"train.ensembles[1].splits": ["train"]},
        "train.ensembles[].pretext": {"train.ensembles[1].pretext": "vicreg"},
    },
    "draw_learning_curves predict_chunk recalibrate_ensemble recalibrate_member train_member": {
        "train.ensembles[].members": 2,
    },
    "draw_learning_curves recalibrate_member train_member": {
        # `predict_chunk` follows: its models are trained first.
        "train.ensembles[].name": {
            "train.ensembles[1].name": "third",
            "predict.targets[3].ensemble": "third",
        },
    },
    "draw_survey draw_trees predict_chunk": {
        # Galaxies that decide when a training stops are not scored.
        "predict.targets[].split": {"predict.targets[0].split": "val", "evaluate.target": None},
    },
    "predict_chunk recalibrate_member": {
        # As many samples as chunks: Snakemake compares values without their names.
        "predict.samples": 1,
        "predict.views": 2,
    },
    "predict_chunk": {
        "predict.targets[].representations": {"predict.targets[2].representations": "features"},
        "predict.targets[].ensemble": {"predict.targets[1].ensemble": "other"},
        "predict.targets[].models": {"predict.targets[4].models": ["mine/b"]},
    },
    "describe_posteriors list_galaxies predict_chunk": {"predict.chunks": 2},
    "collect_predictions": {"predict.collect": "copy"},
    "write_catalog": {
        "predict.catalog.format": ["fits", "csv"],
        "predict.catalog.keep": {"predict.catalog": {"format": ["fits"], "keep": ["redshift"]}},
    },
    "describe_posteriors": {"predict.posterior_with_votes": True, "predict.credible_level": 0.5},
    "rank_galaxies": {"predict.acquisition": "paper"},
    "calibrate describe_posteriors evaluate_predictions evaluate_task rank_galaxies score_target": {
        "predict.recalibrate": False,
    },
    "search_galaxies": {
        "search[].examples": "mine/b.csv",
        "search[].answers": "mine/b.csv",
        "search[].count": 5,
        "search[].how": {"search[0].how": "odd", "search[0].examples": []},
        "search[].target": "all",
    },
    "draw_search search_galaxies": {"search[].name": "renamed"},
    "list_galaxies": {
        "predict.targets[].catalog": {"predict.targets[1].catalog": "mine/b.csv"},
        "predict.targets[].images": {"predict.targets[2].images": "mine/b"},
        "predict.targets[].shards": {"predict.targets[4].shards": "mine/b"},
        "predict.targets[].id": {"predict.targets[1].id": "x"},
        "predict.targets[].location": {"predict.targets[1].location": "x"},
        "predict.targets[].archives": {
            "predict.targets[2]": {"name": "folder", "ensemble": "metrics", "archives": "all"}
        },
    },
    "score_target": {"predict.targets[].labels": {"predict.targets[2].labels": "mine/b.csv"}},
    "collect_predictions describe_posteriors draw_survey list_galaxies predict_chunk rank_galaxies"
    " write_catalog write_first_page": {"predict.targets[].name": {"predict.targets[1].name": "renamed"}},
    "build_task_catalog_ring": {
        "finetune.tasks[].table": "mine/b.csv",
        "finetune.tasks[].test": "mine/b.csv",
        "finetune.tasks[].images": "mine/b",
        "finetune.tasks[].archives": {f"{RING}.images": None, f"{RING}.archives": [FILES[-1]]},
        "finetune.tasks[].id": "x",
        "finetune.tasks[].location": "x",
        "finetune.tasks[].query": "redshift < 0.1",
        "finetune.tasks[].label": "x",
        "finetune.tasks[].kind": "multiclass",
        "finetune.tasks[].classes": ["a", "b"],
        "finetune.tasks[].bounds": of_ring(label="ring", kind="regression", bounds=[0, 1]),
        "finetune.tasks[].yes_above": of_ring(label="ring", **YES_OR_NO | {"yes_above": 0.8}),
        "finetune.tasks[].no_below": of_ring(label="ring", **YES_OR_NO),
        "finetune.tasks[].tree": of_ring(tree="gz_decals_5", kind="votes"),
        "finetune.tasks[].missing": "refuse",
        "finetune.tasks[].balance": "weights",
        "finetune.tasks[].split.train": {f"{RING}.split": {"train": 0.6, "val": 0.2, "test": 0.2}},
        "finetune.tasks[].split.val": {f"{RING}.split": {"train": 0.65, "val": 0.15, "test": 0.2}},
        "finetune.tasks[].split.test": {f"{RING}.split": {"train": 0.6, "val": 0.1, "test": 0.3}},
        "finetune.tasks[].group": "x",
    },
    "build_task_catalog_both": {
        "finetune.tasks[].labels[].name": {f"{BOTH}.labels[0].name": "x"},
        "finetune.tasks[].labels[].tree": {
            f"{BOTH}.labels[1]": {"name": "said", "kind": "votes", "tree": "gz2"}
        },
        "finetune.tasks[].labels[].kind": {f"{BOTH}.labels[0].kind": "regression"},
        "finetune.tasks[].labels[].bounds": {f"{BOTH}.labels[1].bounds": [0, 1]},
        "finetune.tasks[].labels[].classes": {f"{BOTH}.labels[0].classes": ["a", "b"]},
        "finetune.tasks[].labels[].yes_above": {f"{BOTH}.labels[0]": YES_OR_NO | {"yes_above": 0.8}},
        "finetune.tasks[].labels[].no_below": {f"{BOTH}.labels[0]": YES_OR_NO},
    },
    "build_task_catalog_folders": {"finetune.tasks[].folders": {f"{FOLDERS}.folders": "mine/b"}},
    "build_task_catalog_far download_labels": {
        "finetune.tasks[].url.sha256": {f"{FAR}.url.sha256": "cd" * 32},
    },
    "": {
        # What messages call it.
        "catalogs[].name": "b",
        # Only `snakemake export` writes cards.
        "export.licence": "CC-BY-4.0",
        # The same bytes from another server.
        "finetune.tasks[].url.address": {f"{FAR}.url.address": "https://b.org/a.csv"},
    },
    "finetune_task": {
        "finetune.tasks[].ensemble": "other",
        "finetune.tasks[].pretrained": {f"{FOLDERS}.pretrained": "mine/b"},
        "finetune.tasks[].head.units": [3],
        "finetune.tasks[].head.dropout": 0.1,
        "finetune.tasks[].learning_rate": 0.1,
        "finetune.tasks[].batch_size": 3,
        "finetune.tasks[].epochs": 3,
        "finetune.tasks[].patience": 3,
        "finetune.tasks[].strategy.name": "no_freeze",
        "finetune.tasks[].strategy.learning_rate": {
            f"{RING}.strategy": {"name": "two_stage", "learning_rate": 0.1}
        },
        "finetune.tasks[].strategy.decay": 0.5,
        **{
            f"finetune.tasks[].strategy.{key}": {
                f"{RING}.strategy": {"name": "adamw_layer_decay", key: 0.1},
            }
            for key in ("layer_decay", "weight_decay")
        },
        "finetune.tasks[].scratch": True,
        "finetune.tasks[].train_bn": True,
        "finetune.tasks[].augment": False,
        "finetune.tasks[].smoothing": 0.1,
        "finetune.tasks[].optimizer": "sgd",
        "finetune.tasks[].schedule": "cosine",
        "finetune.tasks[].warmup_epochs": 1,
        "finetune.tasks[].weight_decay": 0.1,
        "finetune.tasks[].clip_norm": 1.0,
        "finetune.tasks[].normalise": "unit",
    },
    "build_task_catalog_ring collect_predictions finetune_task predict_chunk": {
        "finetune.tasks[].label_counts": [20],
        "finetune.tasks[].label_count_seeds": 2,
        "finetune.tasks[].compare_scratch": True,
    },
    "build_task_catalog_both collect_predictions describe_posteriors finetune_task predict_chunk"
    " recalibrate_task": {
        "finetune.tasks[].folds": {f"{BOTH}.folds": 3},
    },
    "build_task_catalog_renamed collect_predictions compare_label_counts describe_posteriors draw_task"
    " evaluate_task finetune_task predict_chunk probe_task recalibrate_task write_first_page": {
        "finetune.tasks[].name": "renamed"
    },
    "draw_paper_predictions evaluate_predictions": {"evaluate.min_votes": 3, "evaluate.relevant": "asked"},
    "evaluate_predictions": {"evaluate.confident": 0.5},
    # Without a comparison, the tree that only the paper has is not drawn.
    "draw_survey draw_trees write_first_page": {"evaluate.target": None},
    "draw_trees write_first_page": {"evaluate.published": None},
}
ROWS = {key: (rules, value) for rules, keys in FIRST.items() for key, value in keys.items()}


def changed(key, value):
    """The run's configuration with another value of a key."""
    config = yaml.safe_load(BASE)
    paths = value if isinstance(value, dict) else {key.replace("[]", "[0]"): value}
    for path, entry in paths.items():
        *parts, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", path)]
        place = config
        for part in parts:
            place = place[part] if isinstance(part, int) else place.setdefault(part, {})
        place[last] = copy.deepcopy(entry)
    return config


def rules_first(shown):
    """Rules of a dry run that have their own reason to run, not only another job that runs before them."""
    (reasons,) = re.findall(r"^Reasons:\n((?:    .*\n)+)", shown, re.M) or [""]
    told = re.findall(r"^    (\S.*):\n        (.*)$", reasons, re.M)
    found = {rule for why, rules in told if "by another job" not in why for rule in rules.split(", ")}
    if "build_task_catalog" in found:
        # Its jobs are told apart by their tasks.
        found.remove("build_task_catalog")
        jobs = re.findall(
            r"^rule build_task_catalog:\n(?:    .*\n)*?    wildcards: .*task=(\w+)", shown, re.M
        )
        found |= {f"build_task_catalog_{task}" for task in jobs}
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A repository in which Snakemake takes the run for finished."""
    repo = copy_of_the_repository(tmp_path_factory.mktemp("keys") / "repo")
    for file in FILES:
        (repo / file).parent.mkdir(parents=True, exist_ok=True)
        (repo / file).touch()
    pretend(repo, "--configfile", overlay(repo, "run", yaml.safe_load(BASE)))
    return repo


@pytest.fixture(scope="module")
def plans(run):
    """{key: the text of the dry run after its change}; "" is no change."""
    paths = {"": run / "run.yaml"}
    for number, (key, (_, value)) in enumerate(ROWS.items()):
        paths[key] = overlay(run, f"run{number}", changed(key, value))
    shown = shown_by_each([(run, ["--configfile", path]) for path in paths.values()])
    return dict(zip(paths, shown, strict=True))


def test_every_key_of_the_schema_has_its_rules():
    schema = yaml.safe_load((REPO / "workflow/schemas/config.schema.yaml").read_text())
    known = known_keys(schema)
    # Another name is another run; a section changes with its keys.
    keys = {key for key in known if not any(other.startswith((f"{key}.", f"{key}[]")) for other in known)}
    assert set(ROWS) == keys - {"run"}


def test_without_a_change_nothing_runs(plans):
    assert "Nothing to be done" in plans[""], plans[""]


@pytest.mark.parametrize("key", ROWS)
def test_a_changed_key_reruns_what_it_invalidates(plans, key):
    expected = set(ROWS[key][0].split())
    if "build_task_catalog_*" in expected:
        expected |= {f"build_task_catalog_{name}" for name in ("ring", "folders", "far", "both")}
    found = rules_first(plans[key])
    assert found - {"describe_run"} == expected - {"build_task_catalog_*"}, plans[key][-2000:]
    # The report's table has the complete configuration.
    assert "\nrule describe_run:" in plans[key]


def test_no_rule_has_two_numbers_that_could_be_exchanged(run):
    """Snakemake compares params as a set of values: 1 sample of 5 views would equal 5 samples of 1 view."""
    records = [
        json.loads(path.read_text()) for path in (run / ".snakemake/metadata").rglob("*") if path.is_file()
    ]
    assert len(records) > 100
    for record in records:
        numbers = [value for value in record["params"] if re.fullmatch(r"-?[\d.]+", value)]
        assert len(numbers) < 2, record["rule"]
