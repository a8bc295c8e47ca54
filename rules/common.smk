# What every stage needs: the checked configuration, the trees, and where files are.

import sys

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from zoolib.agreement import is_path
from zoolib.configuration import check_configuration
from zoolib.logs import UserError
from zoolib.provenance import fingerprint

try:
    TREES = check_configuration(
        config,
        schema_path=Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml",
        trees_folder=Path(workflow.basedir) / "config" / "trees",
    )
except UserError as error:
    # Snakemake would put its own exception's name and line around the sentence.
    sys.exit(str(error))

RUN = config["run"]
SPLITS = ["train", "val", "test"]
ZENODO = config["zenodo"]
TREE = TREES[config["catalogs"][0]["name"]].to_dict()
ENSEMBLES = {entry["name"]: entry for entry in config["train"]["ensembles"]}
TARGETS = {entry["name"]: entry for entry in config["predict"]["targets"]}
TASKS = {entry["name"]: entry for entry in config["finetune"]["tasks"]}
for task in TASKS.values():
    if not task["model"]:
        task["ensemble"] = task["ensemble"] or next(iter(ENSEMBLES))
# Nothing is trained, and no votes are fetched, for who only predicts with models that are there.
USED = {entry["ensemble"] for entry in [*TARGETS.values(), *TASKS.values()]}
TRAINED = {name: entry for name, entry in ENSEMBLES.items() if name in USED}


wildcard_constraints:
    # Results of other runs are inputs like any file: no rule here may make them anew.
    run=RUN,
    split="train|val|test",
    shard=r"\d+",
    ensemble="[A-Za-z0-9_-]+",
    member=r"\d+",
    target="[A-Za-z0-9_-]+",
    task="[A-Za-z0-9_-]+",
    chunk=r"\d+",


def record_file(name):
    """Where a table or archive lies: on disk, in a local record, or where a rule puts it."""
    if is_path(name):
        return name
    if ZENODO["simulate"]:
        return f"results/{RUN}/download/{name}"
    if ZENODO["sample"]:
        return f"results/{RUN}/download/{'sample.zip' if name.endswith('.zip') else name}"
    return downloaded_file(name)


def downloaded_file(name):
    """Where a file of the real record lies: in the folder of `zenodo.local`, or in data/zenodo/."""
    if ZENODO["local"]:
        return f"{ZENODO['local']}/{name}"
    return f"data/zenodo/{ZENODO['record']}/{name}"


def archives_of(entry):
    """The image archives of a catalogue or a task; a task's are its catalogue's, if it names none."""
    names = entry["archives"]
    if not names and not entry["images"] and not is_path(entry["table"]):
        names = config["catalogs"][0]["archives"]
    return list(dict.fromkeys(record_file(name) for name in names))


def catalog_archives():
    """The image archives of all catalogues."""
    return list(dict.fromkeys(path for entry in config["catalogs"] for path in archives_of(entry)))


def resolved(entry):
    """A catalogue's or a task's entry with paths instead of names."""
    source = {key: entry[key] for key in ("name", "images", "id", "location", "query")}
    source["table"] = record_file(entry["table"])
    source["archives"] = archives_of(entry)
    return source


def shard_files(suffix, *splits):
    """One kind of file of all shards of some splits."""
    count = config["shards"]["count"]
    return [
        f"results/{RUN}/shards/{split}/{shard}{suffix}" for split in splits for shard in range(count[split])
    ]


# Shards hold pixels, or where they are disabled a list of the images that could be read.
SHARD_SUFFIX = ".tfrecord" if config["shards"]["enabled"] else ".parquet"


def model_files(folders, name):
    """One file of each of some model folders."""
    return [f"{folder}/{name}" for folder in folders]


def ensemble_folders(ensemble):
    """The model folders of an ensemble."""
    members = range(ENSEMBLES[ensemble]["members"])
    return expand("results/{run}/train/{ensemble}/{member}", run=RUN, ensemble=ensemble, member=members)


def learning_shards(wildcards):
    """Shards that an ensemble learns from."""
    return shard_files(SHARD_SUFFIX, *ENSEMBLES[wildcards.ensemble]["splits"])


def learning_sidecars(wildcards):
    """Sidecars of the shards that an ensemble learns from."""
    return shard_files(".json", *ENSEMBLES[wildcards.ensemble]["splits"])


def model_folders(wildcards):
    """The models that a target is predicted with: an ensemble's members, or a finetuned model."""
    if wildcards.target in TASKS:
        return [f"results/{RUN}/finetune/{wildcards.target}"]
    target = TARGETS[wildcards.target]
    return target["models"] or ensemble_folders(target["ensemble"])


def target_models(wildcards):
    """Files of the models that a target is predicted with."""
    return model_files(model_folders(wildcards), "model.keras")


def target_abouts(wildcards):
    """Descriptions of the models that a target is predicted with."""
    return model_files(model_folders(wildcards), "model.json")


def target_galaxies(wildcards):
    """What a target's galaxies are read from: one catalogue, or the sidecars of shards."""
    if wildcards.target in TASKS:
        return [f"results/{RUN}/finetune/{wildcards.target}/test.parquet"]
    target = TARGETS[wildcards.target]
    if "split" in target:
        return shard_files(".json" if config["shards"]["enabled"] else ".parquet", target["split"])
    if "catalog" in target:
        return [target["catalog"]]
    if "shards" in target:
        return sorted(str(path) for path in Path(target["shards"]).glob("*.json"))
    return [f"results/{RUN}/predict/{wildcards.target}/galaxies.parquet"]


def target_pixels(wildcards):
    """The files that hold the pixels, where a rule makes or downloads them."""
    target = TARGETS.get(wildcards.target, {})
    if target.get("split") and config["shards"]["enabled"]:
        return shard_files(".tfrecord", target["split"])
    if wildcards.target in TASKS:
        return archives_of(TASKS[wildcards.target])
    return [] if {"images", "catalog", "shards"} & set(target) else catalog_archives()


def listed_sources(wildcards):
    """The archives whose images a target wants all of."""
    return catalog_archives() if "archives" in TARGETS[wildcards.target] else []


def start_folder(wildcards):
    """The model that a task starts from: its own choice, or the first member of an ensemble."""
    task = TASKS[wildcards.task]
    return task["model"] or ensemble_folders(task["ensemble"])[0]


def start_model(wildcards):
    """Files of the model that a task starts from."""
    return [f"{start_folder(wildcards)}/model.keras", f"{start_folder(wildcards)}/model.json"]


def task_settings(wildcards):
    """What of a task's entry says how to train."""
    data = ("table", "archives", "images", "id", "location", "query", "split", "model", "ensemble")
    return {key: value for key, value in TASKS[wildcards.task].items() if key not in data}
