# What every stage needs: the checked configuration, the trees, and where files are.

import sys
from functools import cache

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from zoolib.agreement import is_path
from zoolib.augmentations import load_augmentations
from zoolib.configuration import check_configuration
from zoolib.logs import UserError
from zoolib.provenance import fingerprint
from zoolib.published import changed_rules, read_checks, read_published
from zoolib.task_agreement import file_of_url, fit_names, task_labels
from zoolib.trees import DecisionTree

TREES_FOLDER = Path(workflow.basedir) / "config" / "trees"
try:
    TREES = check_configuration(
        config,
        schema_path=Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml",
        trees_folder=TREES_FOLDER,
    )
    # The run's own comes first.
    AUGMENTATIONS = load_augmentations(
        config["train"]["augmentation"], Path(workflow.basedir) / "config" / "augmentations"
    )
    PUBLISHED_FOLDER = Path(workflow.basedir) / "config" / "published"
    PUBLISHED = config["evaluate"]["published"] and read_published(
        config["evaluate"]["published"], PUBLISHED_FOLDER
    )
except UserError as error:
    # Snakemake would put its own exception's name and line around the sentence.
    sys.exit(str(error))

RUN = config["run"]
SPLITS = ["train", "val", "test"]
ZENODO = config["zenodo"]
# The campaigns' trees in one, where catalogues have different ones.
TREE = DecisionTree.union(list(TREES.values())).to_dict()
CUT_TREE = DecisionTree.union(list(TREES.values())).to_dict(published=True)
ENSEMBLES = {entry["name"]: entry for entry in config["train"]["ensembles"]}
TARGETS = {entry["name"]: entry for entry in config["predict"]["targets"]}
TASKS = {entry["name"]: entry for entry in config["finetune"]["tasks"]}
# Files that labels are downloaded to: {first 12 digits of the checksum: where from}.
URLS = {task["url"]["sha256"][:12]: task["url"] for task in TASKS.values() if task["url"]}
for task in TASKS.values():
    task["labels"] = task_labels(task, TREES_FOLDER, f"finetune.tasks.{task['name']}")
    if task["url"]:
        path = f"data/labels/{task['url']['sha256'][:12]}/{file_of_url(task['url'])}"
        task["folders" if path.lower().endswith(".zip") else "table"] = path
    if not task["model"]:
        task["ensemble"] = task["ensemble"] or next(iter(ENSEMBLES))
# The trainings whose models are to be used: each task itself, or its folds.
FITS = [
    f"{task}/{fit}" if fit else task
    for task in TASKS
    for fit in fit_names(TASKS[task])
    if not fit.startswith("labels")
]
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
    # A task's name, and after it, where there are several, that of one of its trainings.
    target=r"[A-Za-z0-9_-]+(/(fold|labels)[a-z0-9-]+)?",
    fit=r"[A-Za-z0-9_-]+(/(fold|labels)[a-z0-9-]+)?",
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
    if entry.get("folders"):
        return [entry["folders"]] if entry["folders"].lower().endswith(".zip") else []
    names = entry["archives"]
    if not names and not entry["images"] and not is_path(entry["table"]):
        names = config["catalogs"][0]["archives"]
    return list(dict.fromkeys(record_file(name) for name in names))


def table_tree(name):
    """A catalogue's tree, as far as reading its table needs it: its cuts have no part in the votes."""
    return {**TREES[name].to_dict(), "published": TREES[name].published}


def catalog_archives():
    """The image archives of all catalogues."""
    return list(dict.fromkeys(path for entry in config["catalogs"] for path in archives_of(entry)))


def resolved(entry):
    """A catalogue's or a task's entry with paths instead of names."""
    source = {key: entry[key] for key in ("name", "images", "id", "location", "query")}
    source["table"] = entry["table"] and record_file(entry["table"])
    source["archives"] = archives_of(entry)
    return source


def labelled_files(task):
    """What the labels of a task are read from: a table, a zip, or folders, whose times change with them."""
    if task["table"]:
        return record_file(task["table"])
    folder = Path(task["folders"])
    below = [path for path in folder.rglob("*") if path.is_dir()] if folder.is_dir() else []
    return [str(path) for path in [folder, *sorted(below)]]


def task_of(fit):
    """The task that a training such as ring/fold0, or a target, belongs to; None where it is none's."""
    return TASKS.get(fit.partition("/")[0])


def fit_catalogs(task):
    """The catalogues of a task's trainings: train, val and test of each."""
    folder = f"results/{RUN}/finetune/{task['name']}"
    fits = [f"{folder}/{name}" if name else folder for name in fit_names(task)]
    return [f"{fit}/{split}.parquet" for fit in fits for split in SPLITS]


def scored_fits(wildcards):
    """The trainings that a task's scores are about: its folds, or itself ("")."""
    return [name for name in fit_names(TASKS[wildcards.task]) if not name.startswith("labels")]


def counted_fits(wildcards):
    """The trainings of a task on some of its labels only."""
    return [name for name in fit_names(TASKS[wildcards.task]) if name.startswith("labels")]


def of_fits(path, fits=scored_fits):
    """An input function: one file of each of a task's trainings, such as "finetune/{fit}/train.parquet"."""

    def files(wildcards):
        names = [f"{wildcards.task}/{fit}" if fit else wildcards.task for fit in fits(wildcards)]
        return expand(f"results/{RUN}/{path}", fit=names)

    return files


def parts_of_fits(wildcards):
    """The chunks that hold the numbers of a task's predictions."""
    chunks = range(config["predict"]["chunks"])
    return [path for chunk in chunks for path in of_fits(f"predict/{{fit}}/chunks/{chunk}.hdf5")(wildcards)]


def task_data(task):
    """What of a task's entry says which galaxies it has."""
    keys = ("folders", "labels", "missing", "balance", "split", "folds")
    return {**resolved(task), **{key: task[key] for key in keys}}


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
    if task_of(wildcards.target):
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
    if task_of(wildcards.target):
        # The scores are about every split, and a pass over all galaxies costs less than an epoch did.
        return [f"results/{RUN}/finetune/{wildcards.target}/{split}.parquet" for split in SPLITS]
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
    if task_of(wildcards.target):
        return archives_of(task_of(wildcards.target))
    return [] if {"images", "catalog", "shards"} & set(target) else catalog_archives()


def listed_sources(wildcards):
    """The archives whose images a target wants all of."""
    return catalog_archives() if "archives" in TARGETS[wildcards.target] else []


def start_folder(wildcards):
    """The model that a task starts from: its own choice, or the first member of an ensemble."""
    task = task_of(wildcards.fit)
    return task["model"] or ensemble_folders(task["ensemble"])[0]


def start_model(wildcards):
    """Files of the model that a task starts from."""
    return [f"{start_folder(wildcards)}/model.keras", f"{start_folder(wildcards)}/model.json"]


def from_scratch(wildcards):
    """Whether a training forgets what its model has learned."""
    return task_of(wildcards.fit)["scratch"] or wildcards.fit.endswith("-scratch")


def task_settings(wildcards):
    """What of a task's entry says how to train; a training's own name seeds it."""
    data = ("table", "folders", "url", "archives", "images", "id", "location", "query", "missing", "balance")
    data += ("split", "folds", "label_counts", "label_count_seeds", "model", "ensemble", "scratch")
    kept = {key: value for key, value in task_of(wildcards.fit).items() if key not in data}
    return {**kept, "name": wildcards.fit}


@cache
def is_comparable():
    """Whether the run scores the questions and answers that the published numbers are about."""
    if not PUBLISHED or not config["evaluate"]["target"]:
        return False
    tree = DecisionTree.load(TREES_FOLDER / f"{PUBLISHED['tree']}.yaml")
    return tree.to_dict()["questions"] == TREE["questions"]


def why_other_galaxies():
    """What sets the run's galaxies apart from the published ones; empty where nothing does."""
    if ZENODO["simulate"]:
        return (
            "Simulated galaxies and simulated volunteers are not the paper's: this table shows that the"
            " comparison works, and says nothing about the models."
        )
    if any(is_path(entry["table"]) for entry in config["catalogs"]):
        return (
            "The votes of this run are not those of the paper's record: the two tables are of other galaxies."
        )
    if ZENODO["record"] != PUBLISHED["record"]:
        return (
            f"The votes of this run are those of record {ZENODO['record']}, the paper's of record"
            f" {PUBLISHED['record']}: the two tables are of other galaxies."
        )
    if ZENODO["sample"]:
        return (
            f"This run has a sample of {ZENODO['sample']:,} galaxies, of which its models learned from a part;"
            " the paper's learned from nearly 200,000."
        )
    return ""


def why_not_comparable():
    """What sets the run's scores apart from the published ones; empty where only the models do."""
    return why_other_galaxies() or changed_rules(PUBLISHED, config["evaluate"], config["catalogs"])


def checks_file():
    """What says how the record counts; it is there for records that somebody has written it for."""
    return PUBLISHED_FOLDER / f"zenodo_{ZENODO['record']}.yaml"


@cache
def checked_tables():
    """The tables of the record that can be counted in: {name: where it lies or is downloaded to}.

    Those that the folder of `zenodo.local` does not have are left out: the job that counts tells of them.
    """
    try:
        tables, _ = read_checks(checks_file())
    except UserError:
        # The job that counts tells what is wrong.
        return {}
    paths = {name: downloaded_file(file) for name, file in tables.items()}
    return {name: path for name, path in paths.items() if not ZENODO["local"] or Path(path).is_file()}


def more_tables(name):
    """A table that figures 2 or 20 take beside the run's own, as a list; empty where it is not to be had."""
    if not is_comparable() or why_other_galaxies():
        return []
    path = checked_tables().get(name)
    return [path] if path else []
