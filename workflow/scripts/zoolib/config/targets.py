"""Checks of the targets of predictions and of the searches in them."""

from zoolib.config.agreement import wrong
from zoolib.config.sources import own_path

KINDS_OF_TARGET = ("split", "catalog", "images", "archives", "shards")


def check_targets(config):
    """Check that each target says in one way which galaxies it has, and that `evaluate` and `search` fit.

    Args:
        config: a configuration that is valid by its schema, with its defaults.

    Raises:
        UserError: names the key, what was found and what is allowed.
    """
    _check_kinds(config)
    _check_evaluated(config)
    _check_searches(config)


def _check_kinds(config):
    targets = config["predict"]["targets"]
    for number, entry in enumerate(targets):
        given = [kind for kind in KINDS_OF_TARGET if kind in entry]
        if len(given) != 1:
            raise wrong(
                f"predict.targets[{number}] ('{entry['name']}') needs one of {', '.join(KINDS_OF_TARGET)},"
                f" found {' and '.join(given) or 'none'}; give exactly one of them."
            )
        if "archives" in entry and not any(catalog["archives"] for catalog in config["catalogs"]):
            raise wrong(
                f"predict.targets[{number}].archives is 'all', but no catalogue has archives; set"
                f" predict.targets[{number}].images to the folder of images instead."
            )
        _check_columns(f"predict.targets[{number}]", entry)
    if config["predict"]["manifest"] and all({"split", "shards"} & set(entry) for entry in targets):
        raise wrong(
            f"predict.manifest is {config['predict']['manifest']}, but no target has galaxies to label: those"
            " of a split have votes, and shards do not say where the images are; add a target with images,"
            " archives or catalog, or set it to null."
        )


def _check_columns(key, entry):
    """Check `id` and `location`: columns of a table, or for a folder what the names of its galaxies are."""
    if "images" in entry and entry["id"] not in (None, "name", "path"):
        raise wrong(
            f"{key}.id is '{entry['id']}', but images is a folder, expected 'name' (of the file) or 'path'"
            " (below the folder); fix it, or set it to null."
        )
    for name in ("id", "location"):
        if entry[name] and "catalog" not in entry and not (name == "id" and "images" in entry):
            raise wrong(
                f"{key}.{name} is '{entry[name]}', the name of a column, but this target has no catalog;"
                " remove it."
            )


def _check_evaluated(config):
    targets = config["predict"]["targets"]
    splits = {entry["name"]: entry for entry in targets if entry.get("split")}
    evaluated = config["evaluate"]["target"]
    if evaluated is None:
        return
    if evaluated not in splits:
        raise wrong(
            f"evaluate.target is '{evaluated}', expected null or a target of predict.targets that has a split"
            f" ({', '.join(splits) or 'there is none'}); fix the name, or set it to null."
        )
    target = splits[evaluated]
    if not target["ensemble"]:
        return
    if target["split"] == "val":
        raise wrong(
            f"evaluate.target is '{evaluated}', a target of the split val, which decides when each training"
            " stops; choose a target of the split test."
        )
    learned = {entry["name"]: entry["splits"] for entry in config["train"]["ensembles"]}[target["ensemble"]]
    if target["split"] in learned:
        raise wrong(
            f"evaluate.target is '{evaluated}', but the ensemble '{target['ensemble']}' learns from the"
            f" galaxies of this target (split {target['split']}); choose a target of another split than"
            f" {', '.join(learned)}."
        )


def _check_searches(config):
    targets = {entry["name"]: entry for entry in config["predict"]["targets"]}
    for number, entry in enumerate(config["search"]):
        key = f"search[{number}]"
        target = targets.get(entry["target"])
        if target is None:
            raise wrong(
                f"{key}.target is '{entry['target']}', expected a target of predict.targets"
                f" ({', '.join(targets) or 'there is none'}); fix the name."
            )
        if target["representations"] == "none":
            raise wrong(
                f"{key}.target is '{entry['target']}', whose key representations is 'none'; set it to 'pca'."
            )
        if "shards" in target:
            raise wrong(
                f"{key}.target is '{entry['target']}', a target of shards, which do not say where the images"
                " are; choose a target of a split, a catalogue, archives or images."
            )
        if bool(entry["examples"]) != (entry["how"] in ("similar", "more")):
            found = f"{len(entry['examples'])} names" if entry["examples"] else "none"
            raise wrong(
                f"{key}.examples: {entry['how']} has {found}, expected names of galaxies or the path of a"
                " table where how is 'similar' or 'more', and none where it is 'odd' or 'map'."
            )
        if entry["answers"] and entry["how"] not in ("more", "odd"):
            raise wrong(
                f"{key}.answers is '{entry['answers']}', but only how 'more' and 'odd' use answers; remove"
                " it, or change how."
            )
        folder = f"results/{config['run']}/search/"
        for name, written in (("examples", f"{folder}{entry['name']}/"), ("answers", folder)):
            path = entry[name] if isinstance(entry[name], str) else None
            if path and (own_path(path, config["run"]) or "").startswith(written):
                raise wrong(
                    f"{key}.{name} is '{entry[name]}', which a search writes again in each round; save the"
                    " file in another folder, and give that path."
                )
