# What every stage needs: the checked configuration, the trees, and where files are.

import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

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
    raise WorkflowError(str(error))

RUN = config["run"]
RESULTS = Path("results") / RUN
SPLITS = ["train", "val", "test"]
ZENODO = config["zenodo"]
TREE = TREES[config["catalogs"][0]["name"]].to_dict()
ENSEMBLES = {entry["name"]: entry for entry in config["train"]["ensembles"]}
TARGETS = {entry["name"]: entry for entry in config["predict"]["targets"]}
TASKS = {entry["name"]: entry for entry in config["finetune"]["tasks"]}


wildcard_constraints:
    run="[A-Za-z0-9_-]+",
    split="train|val|test",
    shard=r"\d+",
    ensemble="[A-Za-z0-9_-]+",
    member=r"\d+",
    target="[A-Za-z0-9_-]+",
    task="[A-Za-z0-9_-]+",
    chunk=r"\d+",


def record_file(name):
    """Where a table or archive lies: on disk, in a local record, or where a rule puts it."""
    if "/" in name:
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
    if not names and not entry["images"] and "tree" not in entry and "/" not in entry["table"]:
        names = config["catalogs"][0]["archives"]
    return list(dict.fromkeys(record_file(name) for name in names))


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
