# What every stage needs: the checked configuration, the trees, and where files are.

import os
import sys
import uuid
from functools import cache

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from zoolib.config.agreement import is_path
from zoolib.job.attempts import CALL
from zoolib.config.augmentations import load_augmentations
from zoolib.config.schema import check_configuration
from zoolib.job.logs import UserError
from zoolib.job.provenance import fingerprint
from zoolib.config.published import changed_rules, other_galaxies, read_checks, read_published
from zoolib.config.sources import encoder_name, files_of_source, import_settings, kind_of_source
from zoolib.config.tasks import file_of_url, fit_names, task_labels
from zoolib.config.trees import DecisionTree

# Jobs inherit it, SLURM's too: by it an attempt knows what stopped another one of the same call for good.
os.environ.setdefault(CALL, uuid.uuid4().hex)

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


def untitled(tree):
    """A tree as results depend on it: who fixes its title or its source trains nothing anew."""
    return {key: value for key, value in tree.items() if key not in ("title", "source")}


RUN = config["run"]
SPLITS = ["train", "val", "test"]
ZENODO = config["zenodo"]
# The campaigns' trees in one, where catalogues have different ones.
UNION = DecisionTree.union(list(TREES.values()))
TREE = untitled(UNION.to_dict())
CUT_TREE = untitled(UNION.to_dict(published=True))
ENSEMBLES = {entry["name"]: entry for entry in config["train"]["ensembles"]}
TARGETS = {entry["name"]: entry for entry in config["predict"]["targets"]}
TASKS = {entry["name"]: entry for entry in config["finetune"]["tasks"]}
for task in TASKS.values():
    task["labels"] = task_labels(task, TREES_FOLDER, f"finetune.tasks.{task['name']}")
    if task["url"]:
        path = f"data/labels/{task['url']['sha256'][:12]}/{file_of_url(task['url'])}"
        task["folders" if path.lower().endswith(".zip") else "table"] = path
    if not task["pretrained"]:
        task["ensemble"] = task["ensemble"] or next(iter(ENSEMBLES))
# Pretrained backbones to import: {name of the folder: what it takes}.
ENCODERS = {}


def pretrained_folder(source, image=None):
    """The model folder of a pretrained backbone, one that is there or one that a rule makes."""
    if kind_of_source(source, "pretrained", own=f"results/{RUN}/") == "model":
        return source
    settings = import_settings(source, config, image)
    ENCODERS[encoder_name(settings)] = settings
    return f"results/{RUN}/pretrained/{encoder_name(settings)}"


for task in TASKS.values():
    task["start"] = task["pretrained"] and pretrained_folder(task["pretrained"])
# The settings of a training, in which the sources of weights are model folders.
TRAIN = {**config["train"], "augmentation": AUGMENTATIONS[0]}
if TRAIN["pretrained"]:
    TRAIN["pretrained"] = pretrained_folder(TRAIN["pretrained"], config["image"])
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


# What rules ask for is what their jobs took of the demo's 8,000 galaxies (`make resources`), scaled up: who reads
# whole tables by the growth from 400 galaxies on to the paper's 314,000 (build_catalog: 3.4 GB), others to a shard
# or a chunk of theirs; then to the next of 1, 2, 4, 8 and 16 GB. SLURM counts 0.35 GB for Snakemake itself too.
def doubled(megabytes):
    """A rule's memory: twice as much from the second attempt on, and never more."""

    def memory(wildcards, attempt):
        return megabytes * min(attempt, 2)

    return memory


def environment_of(name):
    """Conda's environment of a rule: the one for GPUs where the profile asks for one."""

    def environment(wildcards):
        asked = workflow.get_rule(name).resources
        return "../envs/gpu.yaml" if "gpu" in asked or "gres" in asked else "../envs/cpu.yaml"

    return environment


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
    return {**untitled(TREES[name].to_dict()), "published": TREES[name].published}


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
    """What a target's galaxies are read from: its list, catalogues, or the sidecars of the run's shards."""
    if task_of(wildcards.target):
        # The scores are about every split, and a pass over all galaxies costs less than an epoch did.
        return [f"results/{RUN}/finetune/{wildcards.target}/{split}.parquet" for split in SPLITS]
    target = TARGETS[wildcards.target]
    if "split" in target:
        return shard_files(".json" if config["shards"]["enabled"] else ".parquet", target["split"])
    return [f"results/{RUN}/predict/{wildcards.target}/galaxies.parquet"]


def target_pixels(wildcards):
    """The files that hold the pixels, where a rule makes or downloads them."""
    target = TARGETS.get(wildcards.target, {})
    if target.get("split") and config["shards"]["enabled"]:
        return shard_files(".tfrecord", target["split"])
    if task_of(wildcards.target):
        return archives_of(task_of(wildcards.target))
    return [] if {"images", "catalog", "shards"} & set(target) else catalog_archives()


def listed_kind(wildcards):
    """What a target names: images, archives, a catalog or shards."""
    kinds = ("images", "archives", "catalog", "shards")
    return next(kind for kind in kinds if kind in TARGETS[wildcards.target])


def listed_sources(wildcards):
    """The files that a target's galaxies are listed from; a folder of images is none."""
    target = TARGETS[wildcards.target]
    if "archives" in target:
        return catalog_archives()
    if "shards" in target:
        return sorted(str(path) for path in Path(target["shards"]).glob("*.json"))
    return [target["catalog"]] if "catalog" in target else []


def model_to_start_from():
    """Files of the model whose backbone, and with `start_from` its head, an ensemble starts from."""
    folder = TRAIN["start_from"] or TRAIN["pretrained"]
    return [f"{folder}/model.keras", f"{folder}/model.json"] if folder else []


def start_folder(wildcards):
    """The model that a task starts from: its own choice, or the first member of an ensemble."""
    task = task_of(wildcards.fit)
    return task["start"] or ensemble_folders(task["ensemble"])[0]


def start_model(wildcards):
    """Files of the model that a task starts from."""
    return [f"{start_folder(wildcards)}/model.keras", f"{start_folder(wildcards)}/model.json"]


def from_scratch(wildcards):
    """Whether a training forgets what its model has learned."""
    return task_of(wildcards.fit)["scratch"] or wildcards.fit.endswith("-scratch")


def task_settings(wildcards):
    """What of a task's entry says how to train; a training's own name seeds it."""
    data = ("table", "folders", "url", "archives", "images", "id", "location", "query", "missing", "balance")
    data += ("split", "folds", "label_counts", "label_count_seeds")
    data += ("pretrained", "start", "ensemble", "scratch")
    kept = {key: value for key, value in task_of(wildcards.fit).items() if key not in data}
    return {**kept, "name": wildcards.fit}


@cache
def is_comparable():
    """Whether the run scores the questions and answers that the published numbers are about."""
    if not PUBLISHED or not config["evaluate"]["target"]:
        return False
    tree = DecisionTree.load(TREES_FOLDER / f"{PUBLISHED['tree']}.yaml")
    return tree.to_dict()["questions"] == TREE["questions"]


def why_not_comparable():
    """What sets the run's scores apart from the published ones; empty where only the models do."""
    return other_galaxies(PUBLISHED, config) or changed_rules(
        PUBLISHED, config["evaluate"], config["catalogs"]
    )


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
    if not is_comparable() or other_galaxies(PUBLISHED, config):
        return []
    path = checked_tables().get(name)
    return [path] if path else []
