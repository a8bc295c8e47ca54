"""Checks beyond the schema: whether a configuration's names, files, models and trees fit together."""

import os
import re
from pathlib import Path

from zoolib.config.queries import Query
from zoolib.config.questions import featured_answers
from zoolib.config.sources import own_path
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError

# The files of a simulated record.
SIMULATED = (
    "gz_decals_volunteers_5.parquet",
    "gz_decals_volunteers_5.csv",
    "gz_decals_dr5_png_part1.zip",
    "gz_decals_dr5_png_part2.zip",
    "rings.csv",
    "truth.parquet",
    "record.json",
)


def wrong(message):
    """Make the error for a wrong configuration.

    Args:
        message: one sentence that starts with the key.

    Returns:
        `UserError`, to be raised.
    """
    return UserError(f"Configuration: {message}")


def check_query(query, key):
    """Check that a query, if there is one, has only what queries may have.

    Args:
        query: text or None.
        key: its key, for the message.

    Raises:
        UserError: it has anything else.
    """
    if query is not None:
        try:
            Query(query, key)
        except UserError as error:
            raise wrong(str(error)) from None


def is_path(name):
    """Whether a table or archive is a path on disk: a path has a slash, the name of a record's file has none.

    Args:
        name: as written in the configuration.

    Returns:
        bool.
    """
    return "/" in name


def load_tree(name, trees_folder, key="the tree"):
    """Load a tree by its name in `config/trees/`, or by the path of a YAML file.

    Args:
        name: e.g. `gz2` or `my_survey/tree.yaml`.
        trees_folder: where a tree is looked up by name.
        key: the key that names the tree, for error messages.

    Returns:
        The `DecisionTree`.

    Raises:
        UserError: there is no such tree, or its file is wrong.
    """
    named = not is_path(name) and not name.endswith((".yaml", ".yml"))
    path = Path(trees_folder) / f"{name}.yaml" if named else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in Path(trees_folder).glob("*.yaml")))
        raise wrong(
            f"{key} is '{name}', but there is no file {path}; config/trees/ has {known}; choose one of these,"
            " or give the path of a YAML file."
        )
    return DecisionTree.load(path)


def check_agreement(config, trees_folder):
    """Check that the parts of a configuration fit together, and that the files it names exist.

    Args:
        config: a configuration that is valid by its schema, with its defaults.
        trees_folder: where a tree is looked up by name.

    Returns:
        {name of a catalogue: its `DecisionTree`}.

    Raises:
        UserError: names the key, what was found and what is allowed.
    """
    _check_names(config)
    trees = _load_trees(config, trees_folder)
    _check_shares(config)
    _check_source(config["zenodo"], config)
    _check_exports(config)
    _check_places(config)
    _check_ensembles(config)
    _check_training(config["train"])
    _check_acquisition(config["predict"], trees)
    return trees


def _entries(config):
    """(key, entry) of each catalogue and task: these have a table and images."""
    for section, entries in (
        ("catalogs", config["catalogs"]),
        ("finetune.tasks", config["finetune"]["tasks"]),
    ):
        for number, entry in enumerate(entries):
            yield f"{section}[{number}]", entry


def _check_names(config):
    lists = {
        "catalogs": config["catalogs"],
        "train.ensembles": config["train"]["ensembles"],
        "search": config["search"],
        "predict.targets and finetune.tasks": config["predict"]["targets"] + config["finetune"]["tasks"],
    }
    for where, entries in lists.items():
        names = [entry["name"] for entry in entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise wrong(
                f"two entries of {where} have the name '{twice}', expected different names; rename one."
            )


def _check_shares(config):
    tasks = enumerate(config["finetune"]["tasks"])
    splits = {"split": config["split"]}
    splits |= {f"finetune.tasks[{number}].split": task["split"] for number, task in tasks}
    for where, split in splits.items():
        # For a task this may also be the name of a column, or null.
        if not isinstance(split, dict):
            continue
        shares = {name: share for name, share in split.items() if name != "group"}
        total = sum(shares.values())
        if abs(total - 1) > 1e-6:
            found = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise wrong(f"the shares of {where} ({found}) add up to {total:g}, expected exactly 1; fix them.")


def _check_source(zenodo, config):
    given = [key for key in ("local", "sample", "simulate") if zenodo[key]]
    if len(given) > 1:
        raise wrong(
            f"zenodo.{given[0]} and zenodo.{given[1]} are both set, expected only one; set the other to null."
        )
    names = [(f"{key}.table", entry["table"]) for key, entry in _entries(config) if entry["table"]]
    names += [(f"{key}.archives", name) for key, entry in _entries(config) for name in entry["archives"]]
    of_record = [(key, name) for key, name in names if not is_path(name)]
    if not of_record:
        return
    key, name = of_record[0]
    if not given and not zenodo["record"]:
        raise wrong(
            f"{key} is '{name}', a file of a record, but zenodo.record is null; set it to the record's"
            f" number, or write a path with a slash ('./{name}') for a file on disk."
        )
    if zenodo["simulate"]:
        for key, name in of_record:
            if name not in SIMULATED:
                raise wrong(
                    f"{key} is '{name}', but the simulated record has no such file; choose one of"
                    f" {', '.join(SIMULATED)}."
                )
    if zenodo["sample"]:
        _check_sample(zenodo, of_record, config["catalogs"])
    if zenodo["local"]:
        _check_local(Path(zenodo["local"]), of_record)


def _check_sample(zenodo, of_record, catalogs):
    if not zenodo["record"]:
        raise wrong(
            "zenodo.sample draws galaxies from a record, but zenodo.record is null; set it to the record's"
            " number."
        )
    for key, name in of_record:
        if key.endswith(".table") and name != catalogs[0]["table"]:
            raise wrong(
                f"{key} is '{name}', but zenodo.sample draws only from the first catalogue's table"
                f" ('{catalogs[0]['table']}'); use that table, or a path with a slash for a file on disk."
            )
    if not catalogs[0]["archives"]:
        raise wrong(
            "zenodo.sample reads images from the zips in catalogs[0].archives, but this list is empty; add"
            " the zips."
        )


def _check_local(folder, of_record):
    if not folder.is_dir():
        raise wrong(
            f"zenodo.local is '{folder}', expected an existing folder, or null to download the record; fix"
            " the path."
        )
    for key, name in of_record:
        if not (folder / name).is_file():
            raise wrong(
                f"the folder zenodo.local ('{folder}') has no file '{name}', but {key} needs it; copy it"
                " there, or set zenodo.local to null to download it."
            )


def _check_exports(config):
    """Check the catalogues whose votes are counted in an export of a Zooniverse project."""
    for number, entry in enumerate(config["catalogs"]):
        export, key = entry["zooniverse"], f"catalogs[{number}]"
        if export and not is_path(entry["table"]):
            raise wrong(
                f"{key}.table is '{entry['table']}', expected the path of an export of your Zooniverse"
                f" project; write it with a slash ('./{entry['table']}')."
            )
        if export and export["versions"] and export["versions"][0] > export["versions"][1]:
            raise wrong(
                f"{key}.zooniverse.versions is {export['versions']}, expected the lowest version first; swap"
                " the two numbers."
            )


def _check_places(config):
    """Check that the paths of the configuration exist, except for those that this run will make."""

    def check(key, path, is_there, expected):
        if not path or (Path(path).suffix and _is_made(path, config["run"])) or is_there(Path(path)):
            return
        raise wrong(f"{key} is '{path}', expected {expected}; fix the path.")

    table, archive = "an existing table (CSV or Parquet)", "an existing zip"
    images = "an existing folder of images"
    for key, entry in _entries(config):
        check(f"{key}.table", entry["table"] if is_path(entry["table"] or "") else "", Path.is_file, table)
        check(f"{key}.test", entry.get("test") or "", Path.is_file, table)
        folders = "an existing folder, or a zip, with one folder of images per class"
        check(f"{key}.folders", entry.get("folders"), Path.exists, folders)
        for name in entry["archives"]:
            check(f"{key}.archives", name if is_path(name) else "", Path.is_file, archive)
        subjects = (entry.get("zooniverse") or {}).get("subjects")
        check(f"{key}.zooniverse.subjects", subjects, Path.is_file, "an existing subject export (CSV)")
        if entry["archives"] and entry["images"]:
            raise wrong(f"{key} has both archives and images, expected only one; set images to null.")
        check(f"{key}.images", entry["images"], Path.is_dir, images)
    for number, entry in enumerate(config["predict"]["targets"]):
        key = f"predict.targets[{number}]"
        check(f"{key}.images", entry.get("images"), Path.exists, images)
        check(f"{key}.catalog", entry.get("catalog"), Path.is_file, "an existing Parquet catalogue")
        check(f"{key}.labels", entry["labels"], Path.is_file, "an existing table of labels (CSV or Parquet)")
        if "shards" in entry and own_path(entry["shards"], config["run"]):
            raise wrong(
                f"{key}.shards is '{entry['shards']}', a folder of this run itself, expected a folder of"
                " another run; give split (train, val or test) instead."
            )
        shards = "a folder of shards with their .json sidecars"
        check(f"{key}.shards", entry.get("shards"), lambda path: any(path.glob("*.json")), shards)


def _is_made(path, run):
    """Whether a rule may make a file: then it comes and goes while the run goes on."""
    return own_path(path, run) or re.fullmatch(r"data/zenodo/\d+/[^/]+", os.path.relpath(path))


def _check_ensembles(config):
    known = [entry["name"] for entry in config["train"]["ensembles"]]
    targets, tasks = config["predict"]["targets"], config["finetune"]["tasks"]
    for section, entries in (("predict.targets", targets), ("finetune.tasks", tasks)):
        for number, entry in enumerate(entries):
            if entry["ensemble"] and entry["ensemble"] not in known:
                raise wrong(
                    f"{section}[{number}].ensemble is '{entry['ensemble']}', but there is no such ensemble;"
                    f" train.ensembles has {', '.join(known)}; choose one of these."
                )
    for number, target in enumerate(targets):
        if bool(target["ensemble"]) == bool(target["models"]):
            found = "both" if target["ensemble"] else "none"
            raise wrong(
                f"predict.targets[{number}] ('{target['name']}') needs either ensemble, which this run"
                f" trains, or models, folders of trained models, found {found}; give exactly one of the two."
            )
    for number, task in enumerate(tasks):
        if task["ensemble"] and task["pretrained"]:
            raise wrong(
                f"finetune.tasks[{number}] has both ensemble and pretrained, expected only one; remove the"
                " other."
            )


def _check_training(train):
    if train["warmup_epochs"] >= train["epochs"]:
        raise wrong(
            f"train.warmup_epochs is {train['warmup_epochs']}, expected less than train.epochs"
            f" ({train['epochs']}); decrease it, or increase train.epochs."
        )


def _check_acquisition(predict, trees):
    # Models from elsewhere have trees of their own, which only their files say.
    if predict["acquisition"] == "paper" and any(target["ensemble"] for target in predict["targets"]):
        try:
            featured_answers(next(iter(trees.values())).questions[0])
        except UserError as error:
            raise wrong(str(error)) from None


def _load_trees(config, trees_folder):
    trees = {}
    for number, entry in enumerate(config["catalogs"]):
        check_query(entry["query"], f"catalogs[{number}].query")
        trees[entry["name"]] = load_tree(entry["tree"], trees_folder, f"catalogs[{number}].tree")
    try:
        DecisionTree.union(list(trees.values()))
    except UserError as error:
        raise wrong(f"catalogs: {error}") from None
    names = list(dict.fromkeys(tree.name for tree in trees.values()))
    if config["zenodo"]["simulate"] and len(names) > 1:
        raise wrong(
            f"catalogs have the trees {', '.join(names)}, but zenodo.simulate simulates only one campaign;"
            " list catalogues of one tree, or name the simulated files of another run by their paths."
        )
    return trees
