"""What the tasks of a configuration must agree on, and what follows from them: labels and trainings."""

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from zoolib.config.agreement import load_tree, wrong
from zoolib.config.strategies import find_strategy
from zoolib.job.logs import UserError

SOURCES = ("table", "folders", "url")
TABLES = (".parquet", ".csv", ".csv.gz")
# What describes a label, beside its name.
ASPECTS = ("kind", "classes", "bounds", "yes_above", "no_below")
# Columns of catalogues that no label may be called like.
RESERVED = (
    "id_str",
    "archive",
    "member",
    "file_loc",
    "location",
    "place",
    "position",
    "repeats",
    "split",
    "fit",
)


def check_tasks(tasks, trees_folder):
    """Stop where the keys of a task do not agree with each other.

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
        key: what sentences call the task.

    Returns:
        A list of mappings as `labels.Label.to_dict` gives them; classes are empty where the table is to say
        them.

    Raises:
        UserError: neither or both of `label` and `labels`, or a tree that is missing or not wanted.
    """
    if task["label"] and task["labels"]:
        raise wrong(f"{key} has both label and labels, expected one; put all into labels.")
    if bool(task["tree"]) != (task["kind"] == "votes"):
        raise wrong(
            f"{key}.tree is {task['tree'] or 'null'} and its kind is {task['kind'] or 'not given'}; expected"
            " a tree for votes, and for nothing else."
        )
    if task["tree"]:
        if task["label"] or task["labels"] or labelled_by_folders(task):
            raise wrong(
                f"{key}.kind is votes, which are found in a table by the tree and learned by themselves; drop"
                " label and labels, and give a table."
            )
        tree = load_tree(task["tree"], trees_folder, f"{key}.tree")
        blank = {**dict.fromkeys(ASPECTS), "kind": "votes", "classes": []}
        return [{"name": tree.name, **blank, "tree": tree.to_dict(published=True)}]
    if task["labels"]:
        given = next((aspect for aspect in ASPECTS if task[aspect] is not None), None)
        if given:
            raise wrong(
                f"{key} has both labels and {given}, expected {given} in each of the labels; move it."
            )
        found = task["labels"]
    else:
        names = [task["label"]] if isinstance(task["label"], str) else task["label"] or []
        if not names and labelled_by_folders(task):
            names = [task["name"]]
        found = [{"name": name, **{aspect: task[aspect] for aspect in ASPECTS}} for name in names]
    if not found:
        raise wrong(f"{key}.label is missing; name the table's column that is to be learned.")
    usual = "multiclass" if labelled_by_folders(task) else "binary"
    return [
        {
            **{aspect: label[aspect] for aspect in ("name", *ASPECTS)},
            "kind": label["kind"] or usual,
            "classes": [str(name) for name in label["classes"] or ()],
            "tree": None,
        }
        for label in found
    ]


def fit_names(task):
    """Names of a task's trainings; "" is the task itself.

    Args:
        task: an entry of `finetune.tasks`, with its defaults.

    Returns:
        A list of text: `fold0`, … with folds; else "" and `labels{count}-{seed}-{finetuned or scratch}` for
        each of `label_counts`.
    """
    if task["folds"]:
        return [f"fold{number}" for number in range(task["folds"])]
    return [""] + [
        f"labels{count}-{seed}-{start}"
        for count in task["label_counts"]
        for seed in range(task["label_count_seeds"])
        for start in ("finetuned", "scratch")
    ]


def file_of_url(url):
    """What a download is called: the last part of its address that ends like a table or a zip.

    Args:
        url: {"address", "sha256"}.

    Returns:
        A base name, or None where no part does.
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
            f"{key} ('{task['name']}') has {' and '.join(given) or 'none'} of {', '.join(SOURCES)}; expected"
            " exactly one, where its labels are."
        )
    if task["url"] and not file_of_url(task["url"]):
        raise wrong(
            f"{key}.url.address is '{task['url']['address']}', expected the address of a table"
            f" ({', '.join(TABLES)}) or of a .zip of folders named by class."
        )
    if labelled_by_folders(task):
        extra = next((name for name in ("archives", "images", "id", "location") if task[name]), None)
        if extra:
            raise wrong(
                f"{key} has both folders named by class and {extra}, which is for tables: the folders hold"
                f" the images; drop {extra}."
            )


def _check_division(task, key):
    if task["folds"] and task["split"]:
        raise wrong(f"{key} has both folds and split, expected one; set the other to null.")
    if task["folds"] and task["label_counts"]:
        raise wrong(
            f"{key} has both folds and label_counts, whose trainings share one test split; set folds to null,"
            " or make a second task."
        )
    if isinstance(task["split"], str) and labelled_by_folders(task):
        raise wrong(
            f"{key}.split is '{task['split']}', a column of a table, and the labels are in folders; put the"
            " images into folders train, val and test, or give shares."
        )


def _check_label(label, key):
    name, kind = label["name"], label["kind"]
    about = f"{key}: the label '{name}' is {kind}"
    if kind == "votes" and not label["tree"]:
        raise wrong(f"{about}, and votes are learned by themselves; set kind and tree of the task.")
    if name in RESERVED:
        raise wrong(f"{key}: no label can be called '{name}', as catalogues have such a column; rename it.")
    if label["classes"] and (
        kind not in ("binary", "multiclass") or (kind == "binary" and len(label["classes"]) > 2)
    ):
        raise wrong(
            f"{about} and has {len(label['classes'])} classes; expected classes of a multiclass label, or two"
            " of a binary one, no and yes."
        )
    if label["bounds"] and (kind != "regression" or label["bounds"][0] >= label["bounds"][1]):
        raise wrong(
            f"{about} and has the bounds {label['bounds']}; expected [lowest, highest] of a regression."
        )
    above, below = label["yes_above"], label["no_below"]
    if above is None and below is None:
        return
    if kind != "binary" or label["classes"] or above is None or below is None or below > above:
        raise wrong(
            f"{about} and has yes_above {_number(above)} and no_below {_number(below)}; expected both, of a"
            " binary label that is a fraction, and no_below not above yes_above."
        )


def _number(value):
    return "null" if value is None else f"{value:g}"


def _check_together(task, labels, key):
    names = [label["name"] for label in labels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise wrong(f"{key} has two labels called '{twice}', expected different ones; drop one.")
    if len(labels) > 1 and labelled_by_folders(task):
        raise wrong(f"{key} has {len(labels)} labels, and folders named by class are one; give a table.")
    if task["balance"] != "none" and (len(labels) > 1 or labels[0]["kind"] not in ("binary", "multiclass")):
        raise wrong(
            f"{key}.balance is {task['balance']}, which is for the classes of one binary or multiclass label;"
            " set it to none."
        )


def _check_training(task, key):
    blocks = [[f"layer{number}"] for number in range(20)]
    try:
        stages = find_strategy(task["strategy"]).stages(blocks, task)
    except UserError as error:
        raise wrong(f"{key}: {error}") from None
    # A strategy of somebody's own may fail in any way.
    except Exception as error:
        raise wrong(f"{key}.strategy plans no stages ({type(error).__name__}: {error}); fix it.") from None
    if not stages:
        raise wrong(f"{key}.strategy plans no stages, expected one or more; fix its 'stages'.")
    shortest = min(stage.epochs for stage in stages)
    if task["warmup_epochs"] >= shortest:
        raise wrong(
            f"{key}.warmup_epochs is {task['warmup_epochs']}, but a stage of the strategy has {shortest}"
            " epochs; expected fewer; lower it or raise epochs."
        )
