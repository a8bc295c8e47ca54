"""What a configuration must agree on beyond its schema: names, files, models and trees."""

from pathlib import Path

from zoolib.config.sources import IMAGENET, kind_of_source
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
# Where a run puts the models that it trains.
MODELS = ("train", "finetune")
KINDS_OF_TARGET = ("split", "catalog", "images", "archives", "shards")


def wrong(sentence):
    """Make the error that tells what is wrong with a configuration.

    Args:
        sentence: starts with the key.

    Returns:
        `UserError`, to be raised.
    """
    return UserError(f"Configuration: {sentence}")


def is_path(name):
    """Whether a table or archive is a path on disk: it has a slash; files of a record have none.

    Args:
        name: as the configuration has it.

    Returns:
        bool.
    """
    return "/" in name


def load_tree(name, trees_folder, key="the tree"):
    """Load a tree by its name in `config/trees/`, or by the path of a YAML file.

    Args:
        name: e.g. `gz2` or `my_survey/tree.yaml`.
        trees_folder: where a tree is looked up by name.
        key: what an error message calls it.

    Returns:
        The `DecisionTree`.

    Raises:
        UserError: no such tree, or not a tree.
    """
    named = not is_path(name) and not name.endswith((".yaml", ".yml"))
    path = Path(trees_folder) / f"{name}.yaml" if named else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in Path(trees_folder).glob("*.yaml")))
        raise wrong(
            f"{key} is '{name}', but there is no file {path}; config/trees/ has {known}, or name the path of"
            " a YAML file."
        )
    return DecisionTree.load(path)


def check_agreement(config, trees_folder):
    """Stop where the parts of a configuration do not agree with each other or with the disk.

    Args:
        config: a configuration that its schema allows, with its defaults.
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
    _check_places(config)
    _check_pretrained(config)
    _check_ensembles(config)
    _check_targets(config)
    return trees


def _entries(config):
    """(key, entry) of all that has a table and images: catalogues and tasks."""
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
        "predict.targets and finetune.tasks": config["predict"]["targets"] + config["finetune"]["tasks"],
    }
    for where, entries in lists.items():
        names = [entry["name"] for entry in entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise wrong(
                f"two entries of {where} have the name '{twice}', expected different ones; rename one."
            )


def _check_shares(config):
    tasks = enumerate(config["finetune"]["tasks"])
    splits = {"split": config["split"]}
    splits |= {f"finetune.tasks[{number}].split": task["split"] for number, task in tasks}
    for where, shares in splits.items():
        # A task may name a column, or leave the choice to its folders.
        if not isinstance(shares, dict):
            continue
        total = sum(shares.values())
        if abs(total - 1) > 1e-6:
            found = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise wrong(f"the shares of {where} ({found}) add up to {total:g}, expected exactly 1.")


def _check_source(zenodo, config):
    given = [key for key in ("local", "sample", "simulate") if zenodo[key]]
    if len(given) > 1:
        raise wrong(f"zenodo.{given[0]} and zenodo.{given[1]} exclude each other; set one to null.")
    names = [(f"{key}.table", entry["table"]) for key, entry in _entries(config) if entry["table"]]
    names += [(f"{key}.archives", name) for key, entry in _entries(config) for name in entry["archives"]]
    of_record = [(key, name) for key, name in names if not is_path(name)]
    if not of_record:
        return
    key, name = of_record[0]
    if not given and not zenodo["record"]:
        raise wrong(
            f"{key} is '{name}', a file of a record, but zenodo.record is null; give the record's number, or"
            f" write a path with a slash ('./{name}') for a file on disk."
        )
    if zenodo["simulate"]:
        for key, name in of_record:
            if name not in SIMULATED:
                raise wrong(
                    f"{key} is '{name}', which the simulated record does not have; it has"
                    f" {', '.join(SIMULATED)}."
                )
    if zenodo["sample"]:
        _check_sample(zenodo, of_record, config["catalogs"])
    if zenodo["local"]:
        _check_local(Path(zenodo["local"]), of_record)


def _check_sample(zenodo, of_record, catalogs):
    if not zenodo["record"]:
        raise wrong("zenodo.sample needs a record to draw from, but zenodo.record is null; give its number.")
    for key, name in of_record:
        if key.endswith(".table") and name != catalogs[0]["table"]:
            raise wrong(
                f"{key} is '{name}', but zenodo.sample draws from the first catalogue's table alone"
                f" ('{catalogs[0]['table']}'); name that one, or a path with a slash for a file on disk."
            )
    if not catalogs[0]["archives"]:
        raise wrong("zenodo.sample reads images out of catalogs[0].archives, which is empty; name the zips.")


def _check_local(folder, of_record):
    if not folder.is_dir():
        raise wrong(f"zenodo.local is '{folder}', expected a folder that is there, or null to download.")
    for key, name in of_record:
        if not (folder / name).is_file():
            raise wrong(
                f"the folder zenodo.local ('{folder}') has no file '{name}', which {key} names; copy it"
                " there, or set zenodo.local to null to download it."
            )


def _check_places(config):
    """Stop where a path of the configuration leads nowhere, unless this run is to make it."""

    def check(key, path, is_there, expected):
        if not path or path.startswith(f"results/{config['run']}/") or is_there(Path(path)):
            return
        raise wrong(f"{key} is '{path}', expected {expected}; fix the path.")

    table, archive = "a table (CSV or Parquet) that is there", "a zip that is there"
    images, model = "a folder of images that is there", "a folder with model.keras and model.json"
    for key, entry in _entries(config):
        check(f"{key}.table", entry["table"] if is_path(entry["table"] or "") else "", Path.is_file, table)
        folders = "a folder with one folder of images a class, or a zip of it, that is there"
        check(f"{key}.folders", entry.get("folders"), Path.exists, folders)
        for name in entry["archives"]:
            check(f"{key}.archives", name if is_path(name) else "", Path.is_file, archive)
        if entry["archives"] and entry["images"]:
            raise wrong(f"{key} has both archives and images, expected one; set images to null.")
        check(f"{key}.images", entry["images"], Path.is_dir, images)
        own = Path(f"results/{config['run']}/finetune/{entry['name']}")
        start = entry.get("pretrained")
        if start and own.resolve() in (Path(start) / "model.keras").resolve().parents:
            raise wrong(
                f"{key}.pretrained is '{start}', where this very task writes its own model; give the task"
                " or the run another name, or the training would overwrite what it starts from."
            )
    check("train.start_from", config["train"]["start_from"], _is_model, model)
    for number, entry in enumerate(config["predict"]["targets"]):
        key = f"predict.targets[{number}]"
        check(f"{key}.images", entry.get("images"), Path.exists, images)
        for folder in entry["models"]:
            check(f"{key}.models", folder, _is_model, model)
        check(f"{key}.catalog", entry.get("catalog"), Path.is_file, "a Parquet catalogue that is there")
        shards = "a folder of shards with their .json sidecars"
        check(f"{key}.shards", entry.get("shards"), lambda path: any(path.glob("*.json")), shards)


def _check_pretrained(config):
    """Stop at a source of weights that is none, and at two sources for one training."""
    tasks = enumerate(config["finetune"]["tasks"])
    sources = {"train.pretrained": config["train"]["pretrained"]}
    sources |= {f"finetune.tasks[{number}].pretrained": task["pretrained"] for number, task in tasks}
    for key, source in sources.items():
        try:
            kind = source and kind_of_source(source, key, own=f"results/{config['run']}/")
        except UserError as error:
            raise wrong(str(error)) from None
        if kind == "imagenet" and key.startswith("train") and not config["image"]["color"]:
            raise wrong(
                f"{key} is {IMAGENET}, whose networks see colour images, and image.color is false; set"
                " image.color to true."
            )
    start, own = config["train"]["pretrained"], Path(f"results/{config['run']}")
    if start and any((own / part).resolve() in Path(start, "x").resolve().parents for part in MODELS):
        raise wrong(
            f"train.pretrained is '{start}', a model that this very run trains, expected one that is there"
            " before; name that of another run."
        )
    if start and config["image"]["encoding"] == "raw":
        raise wrong(
            "image.encoding is raw, which is not clipped to 0-255, and the backbone of train.pretrained"
            " expects that; set image.encoding to png."
        )
    if start and config["train"]["start_from"]:
        raise wrong(
            "train has both pretrained (a backbone that gets a new head) and start_from (a model that keeps"
            " its head), expected one; set the other to null."
        )


def _is_model(folder):
    return all((folder / name).is_file() for name in ("model.keras", "model.json"))


def _check_ensembles(config):
    known = [entry["name"] for entry in config["train"]["ensembles"]]
    targets, tasks = config["predict"]["targets"], config["finetune"]["tasks"]
    for section, entries in (("predict.targets", targets), ("finetune.tasks", tasks)):
        for number, entry in enumerate(entries):
            if entry["ensemble"] and entry["ensemble"] not in known:
                raise wrong(
                    f"{section}[{number}].ensemble is '{entry['ensemble']}', which is no ensemble;"
                    f" train.ensembles has {', '.join(known)}."
                )
    for number, target in enumerate(targets):
        if bool(target["ensemble"]) == bool(target["models"]):
            raise wrong(
                f"predict.targets[{number}] ('{target['name']}') needs either ensemble, trained by this run,"
                " or models, folders of trained ones; give one of them."
            )
    for number, task in enumerate(tasks):
        if task["ensemble"] and task["pretrained"]:
            raise wrong(
                f"finetune.tasks[{number}] has both ensemble and pretrained, expected one; drop the other."
            )


def _check_targets(config):
    targets = config["predict"]["targets"]
    for number, entry in enumerate(targets):
        given = [kind for kind in KINDS_OF_TARGET if kind in entry]
        if len(given) != 1:
            raise wrong(
                f"predict.targets[{number}] ('{entry['name']}') has {' and '.join(given) or 'none'} of"
                f" {', '.join(KINDS_OF_TARGET)}; expected exactly one."
            )
        if "archives" in entry and not any(catalog["archives"] for catalog in config["catalogs"]):
            raise wrong(
                f"predict.targets[{number}].archives is 'all', but no catalogue has archives; name the folder"
                f" of images in predict.targets[{number}].images instead."
            )
    splits = {entry["name"]: entry for entry in targets if entry.get("split")}
    evaluated = config["evaluate"]["target"]
    if evaluated is None:
        return
    if evaluated not in splits:
        raise wrong(
            f"evaluate.target is '{evaluated}', expected a target of a split, or null; predict.targets has"
            f" {', '.join(splits) or 'none'}."
        )
    target = splits[evaluated]
    if not target["ensemble"]:
        return
    learned = {entry["name"]: entry["splits"] for entry in config["train"]["ensembles"]}[target["ensemble"]]
    if target["split"] in learned:
        raise wrong(
            f"evaluate.target is '{evaluated}', whose galaxies (split {target['split']}) the ensemble"
            f" '{target['ensemble']}' learned from ({', '.join(learned)}); choose a target it has not seen."
        )


def _load_trees(config, trees_folder):
    trees = {}
    for number, entry in enumerate(config["catalogs"]):
        trees[entry["name"]] = load_tree(entry["tree"], trees_folder, f"catalogs[{number}].tree")
    try:
        DecisionTree.union(list(trees.values()))
    except UserError as error:
        raise wrong(f"catalogs: {error}") from None
    names = list(dict.fromkeys(tree.name for tree in trees.values()))
    if config["zenodo"]["simulate"] and len(names) > 1:
        raise wrong(
            f"catalogs have the trees {', '.join(names)}, but zenodo.simulate knows the truth of one campaign"
            " alone; list catalogues of one tree, or the files of another run's simulation by their paths."
        )
    return trees
