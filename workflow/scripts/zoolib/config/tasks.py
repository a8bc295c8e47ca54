"""The tasks of a configuration: checks of their keys, and the labels and trainings that follow from them."""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from zoolib.config.agreement import check_query, load_tree, wrong
from zoolib.config.labels import RESERVED, Label, check_names
from zoolib.config.strategies import find_strategy
from zoolib.job.logs import UserError

SOURCES = ("table", "folders", "url")
TABLES = (".parquet", ".csv", ".csv.gz")
# Keys that describe a label, besides its name and the tree of votes.
ASPECTS = ("kind", "classes", "bounds", "yes_above", "no_below")


def check_tasks(tasks, trees_folder):
    """Check that the keys of each task fit together.

    Args:
        tasks: the entries of `finetune.tasks`, with their defaults.
        trees_folder: where a tree is looked up by name.

    Raises:
        UserError: names the key, what was found and what is allowed.
    """
    for number, task in enumerate(tasks):
        key = f"finetune.tasks[{number}]"
        _check_source(task, key)
        _check_division(task, key)
        labels = task_labels(task, trees_folder, key)
        for label in labels:
            _check_label(label, key)
        _check_together(task, labels, key)
        _check_training(task, key)


def task_labels(task, trees_folder, key):
    """What a task learns, as plain values.

    Args:
        task: an entry of `finetune.tasks`, with its defaults.
        trees_folder: where a tree is looked up by name.
        key: the task's key in error messages.

    Returns:
        A list of mappings as `labels.Label.to_dict` gives them; classes are empty if they are to be read from
        the table.

    Raises:
        UserError: `label` and `labels` are both missing or both given, or a tree is missing or not expected.
    """
    if task["label"] and task["labels"]:
        raise wrong(f"{key} has both label and labels, expected only one; move the label into labels.")
    if bool(task["tree"]) != (task["kind"] == "votes"):
        raise wrong(
            f"{key}.tree is {task['tree'] or 'null'} and its kind is {task['kind'] or 'not given'}, expected"
            " a tree with the kind votes, and with no other kind; fix one of the two keys."
        )
    if task["tree"]:
        if task["label"] or task["labels"] or labelled_by_folders(task):
            raise wrong(
                f"{key}.kind is votes, so the tree names the columns of a table and no other label is"
                " possible; remove label and labels, and give a table."
            )
        tree = load_tree(task["tree"], trees_folder, f"{key}.tree")
        blank = {**dict.fromkeys(ASPECTS), "kind": "votes", "classes": []}
        return [{"name": tree.name, **blank, "tree": tree.to_dict(published=True)}]
    if task["labels"]:
        given = next((aspect for aspect in ASPECTS if task[aspect] is not None), None)
        if given:
            raise wrong(
                f"{key} has both labels and {given}, expected {given} in each entry of labels; move it there."
            )
        found = task["labels"]
    else:
        name = task["label"] or (task["name"] if labelled_by_folders(task) else None)
        if not name:
            raise wrong(f"{key}.label is missing, expected the column of the table to learn; add it.")
        found = [{"name": name, **{aspect: task[aspect] for aspect in ASPECTS}}]
    usual = "multiclass" if labelled_by_folders(task) else "binary"
    return [
        {
            **{aspect: label[aspect] for aspect in ("name", *ASPECTS)},
            "kind": label["kind"] or usual,
            "classes": [str(name) for name in label["classes"] or ()],
            "tree": _tree_of(label, trees_folder, f"{key}.labels[{number}].tree"),
        }
        for number, label in enumerate(found)
    ]


def _tree_of(label, trees_folder, key):
    """The tree of an entry of `labels`, as plain values; None where the label is no votes."""
    name = label.get("tree")
    if bool(name) != (label["kind"] == "votes"):
        raise wrong(
            f"{key} is {name or 'null'} and the label '{label['name']}' is {label['kind'] or 'binary'},"
            " expected a tree with the kind votes, and with no other kind; fix one of the two keys."
        )
    return load_tree(name, trees_folder, key).to_dict(published=True) if name else None


def fit_names(task):
    """Names of a task's trainings; "" is the training on all labels.

    Args:
        task: an entry of `finetune.tasks`, with its defaults.

    Returns:
        A list of text: with folds `fold0`, …; without, "" and `labels{count}-{seed}-{finetuned or scratch}`
        for each of `label_counts`. With `compare_scratch`, each fold also as `fold0-scratch`, and "" as
        `all-scratch`.
    """
    scored = [f"fold{number}" for number in range(task["folds"])] if task["folds"] else [""]
    names = scored + [f"{name or 'all'}-scratch" for name in scored if task["compare_scratch"]]
    if task["folds"]:
        return names
    return names + [
        f"labels{count}-{seed}-{start}"
        for count in task["label_counts"]
        for seed in range(task["label_count_seeds"])
        for start in ("finetuned", "scratch")
    ]


def is_scored(fit):
    """Whether a finetuning's model is to be used: it is not from scratch for comparison, nor of few labels.

    Args:
        fit: its name, from `fit_names`.

    Returns:
        bool.
    """
    return label_count_of(fit) is None and not fit.endswith("-scratch")


def label_count_of(fit):
    """The number of labels that a finetuning learns from, and the seed that chooses them.

    Args:
        fit: its name, from `fit_names`.

    Returns:
        (count, seed), or None if it learns from all labels.
    """
    found = re.fullmatch(r"labels(\d+)-(\d+)-\w+", fit)
    return (int(found[1]), int(found[2])) if found else None


def file_of_url(url):
    """The file name of a download: the last part of its address with the suffix of a table or a zip.

    Args:
        url: {"address", "sha256"}.

    Returns:
        A base name, or None if no part has such a suffix.
    """
    parts = PurePosixPath(unquote(urlsplit(url["address"]).path)).parts
    return next((part for part in reversed(parts) if part.lower().endswith((".zip", *TABLES))), None)


def labelled_by_folders(task):
    """Whether the labels of a task are the names of folders.

    Args:
        task: an entry of `finetune.tasks`, with its defaults.

    Returns:
        bool.
    """
    of_url = task["url"] and (file_of_url(task["url"]) or "").lower().endswith(".zip")
    return bool(task["folders"] or of_url)


def _check_source(task, key):
    given = [source for source in SOURCES if task[source]]
    if len(given) != 1:
        raise wrong(
            f"{key} ('{task['name']}') needs its labels from one of {', '.join(SOURCES)}, found"
            f" {' and '.join(given) or 'none'}; give exactly one of them."
        )
    if task["url"] and not file_of_url(task["url"]):
        raise wrong(
            f"{key}.url.address is '{task['url']['address']}', expected the address of a table"
            f" ({', '.join(TABLES)}) or of a .zip with one folder per class; fix the address."
        )
    check_query(task["query"], f"{key}.query")
    if labelled_by_folders(task):
        extra = next((name for name in ("archives", "images", "id", "location", "group") if task[name]), None)
        if extra:
            raise wrong(
                f"{key} has both folders of classes, which hold the images, and {extra}, which is only for"
                f" tables; remove {extra}."
            )


def _check_division(task, key):
    if task["folds"] and task["split"]:
        raise wrong(f"{key} has both folds and split, expected only one; set the other to null.")
    if task["folds"] and task["label_counts"]:
        raise wrong(
            f"{key} has both folds and label_counts, but all trainings of label_counts need the same test"
            " split; set folds to null, or add a second task."
        )
    other = next(
        (name for name in ("folds", "split") if task[name] and not isinstance(task[name], dict)), None
    )
    if task["test"] and (other or labelled_by_folders(task)):
        found = f"also {other}" if other else "its labels in folders"
        raise wrong(
            f"{key} has test, a table whose galaxies are all scored, and {found}; remove test, or give the"
            " labels in a table without folds and without a split of their own."
        )
    if isinstance(task["split"], str) and labelled_by_folders(task):
        raise wrong(
            f"{key}.split is '{task['split']}', the name of a column, but the labels are in folders, not in a"
            " table; put the images into folders train, val and test, or give shares."
        )


def _check_label(label, key):
    name, kind = label["name"], label["kind"]
    about = f"{key}: the label '{name}' is {kind}"
    if name in RESERVED:
        raise wrong(
            f"{key}: no label can be called '{name}', because tables of the pipeline have a column of this"
            " name; rename the label."
        )
    if label["classes"] and (
        kind not in ("binary", "multiclass") or (kind == "binary" and len(label["classes"]) > 2)
    ):
        raise wrong(
            f"{about} and has {len(label['classes'])} classes, expected classes only for a multiclass label,"
            " or two (no and yes) for a binary one; fix classes or kind."
        )
    if label["bounds"] and (kind != "regression" or label["bounds"][0] >= label["bounds"][1]):
        raise wrong(
            f"{about} and has the bounds {label['bounds']}, expected [lowest, highest], only for a"
            " regression; fix bounds or kind."
        )
    above, below = label["yes_above"], label["no_below"]
    if above is None and below is None:
        return
    if kind != "binary" or label["classes"] or above is None or below is None or below > above:
        raise wrong(
            f"{about} and has yes_above {_number(above)} and no_below {_number(below)}, expected both or"
            " none, only for a binary label without classes, and no_below at most yes_above; fix them."
        )


def _number(value):
    return "null" if value is None else f"{value:g}"


def _check_together(task, labels, key):
    names = [label["name"] for label in labels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise wrong(f"{key} has two labels called '{twice}', expected different names; remove one.")
    trees = [label["name"] for label in labels if label["kind"] == "votes"]
    if len(trees) > 1:
        raise wrong(
            f"{key} has the votes '{trees[0]}' and '{trees[1]}', expected the votes of one tree at most; put"
            " all questions into one tree."
        )
    try:
        check_names([Label.from_dict(label) for label in labels], key)
    except UserError as error:
        raise wrong(str(error)) from None
    if len(labels) > 1 and labelled_by_folders(task):
        raise wrong(
            f"{key} has {len(labels)} labels, but folders of classes are only one label; give a table."
        )
    if task["balance"] != "none" and (len(labels) > 1 or labels[0]["kind"] not in ("binary", "multiclass")):
        raise wrong(
            f"{key}.balance is {task['balance']}, which works only for the classes of a single binary or"
            " multiclass label; set it to none."
        )


def _check_training(task, key):
    blocks = [[f"layer{number}"] for number in range(20)]
    try:
        stages = find_strategy(task["strategy"]).stages(blocks, task)
    except UserError as error:
        raise wrong(f"{key}: {error}") from None
    # A user's own strategy may fail in any way.
    except Exception as error:
        raise wrong(
            f"{key}.strategy cannot plan its stages ({type(error).__name__}: {error}); fix its 'stages'."
        ) from None
    if not stages:
        raise wrong(f"{key}.strategy has planned no stages, expected one or more; fix its 'stages'.")
    shortest = min(stage.epochs for stage in stages)
    if shortest < 1:
        raise wrong(
            f"{key}.strategy has planned a stage of {shortest} epochs, expected 1 or more; fix its keys or"
            " its 'stages'."
        )
    if task["warmup_epochs"] >= shortest:
        raise wrong(
            f"{key}.warmup_epochs is {task['warmup_epochs']}, expected less than the {shortest} epochs of the"
            " strategy's shortest stage; decrease it, or increase epochs."
        )
