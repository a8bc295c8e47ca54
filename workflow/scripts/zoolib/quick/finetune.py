"""From a table of labels to a classifier without writing YAML: `make finetune LABELS=… IMAGES=…`.

It writes the YAML, runs Snakemake, and prints how good the classifier is and how to use it.
"""

import os
import sys
from pathlib import Path

import pandas as pd

from zoolib.config.labels import KINDS, WORDS, as_word
from zoolib.config.sources import kind_of_source
from zoolib.config.strategies import STRATEGIES
from zoolib.config.tasks import RESERVED, TABLES
from zoolib.data.class_folders import list_labelled
from zoolib.data.partition import read_split
from zoolib.data.tables import IDS, LOCATIONS, find_column, place_of, read_table
from zoolib.job.logs import UserError
from zoolib.quick.terminal import (
    check_folder,
    ended,
    name_of,
    read_number,
    read_settings,
    run_snakemake,
    say,
    write_yaml,
)
from zoolib.scores.final_message import final_message

KEYS = ("LABELS", "IMAGES", "LABEL", "ID", "LOCATION", "KIND", "NAME", "MODEL")
KEYS += ("FOLDS", "STRATEGY", "SEED", "VIEWS", "TEST")
DEMO = "results/demo/train/metrics/0"
DEMO_MINUTES = 5
# A column with more different numbers than this is a regression, not a classification.
MOST_CLASSES = 20
# With fewer labels, or fewer of a class, the user is told what to expect.
FEW, RARE = 100, 20


def plan(given):
    """Turn the typed settings into a configuration.

    Args:
        given: {a name of `KEYS`: text}; only LABELS is required.

    Returns:
        (overlay for `snakemake --configfile`, a list of messages about the labels that were found).

    Raises:
        UserError: a value is wrong or missing, or the label is not clear.
    """
    given = read_settings(given, KEYS, "make finetune")
    source = given["LABELS"]
    if not source:
        raise UserError(
            "LABELS is missing, expected a table (.csv, .parquet), or a folder or zip with one folder of"
            " images per class; type, for example, make finetune LABELS=labels.csv IMAGES=folder."
        )
    if not Path(source).exists():
        raise UserError(f"LABELS is '{source}', expected an existing table, folder or zip; fix the path.")
    model = given["MODEL"] or DEMO
    if given["MODEL"]:
        kind_of_source(model, "MODEL")
    if given["KIND"] and given["KIND"] not in KINDS[:3]:
        raise UserError(
            f"KIND is '{given['KIND']}', expected one of {', '.join(KINDS[:3])}; for votes write a YAML file"
            " (see docs/finetuning.md)."
        )
    find = _of_table if source.lower().endswith(TABLES) else _of_folders
    task, messages = find(given)
    name = given["NAME"] or name_of(str(task["label"])) or "task"
    _check_start(name, model)
    check_folder(name, "task*.yaml")
    # No recipe of its own: the same labels give the same model by whatever door they come in.
    task = {"name": name, **task, **_training(given), "pretrained": model}
    seed = read_number(given, "SEED", 0)
    views = read_number(given, "VIEWS", 0) or 0
    overlay = {
        "run": name,
        **({} if seed is None else {"seed": seed}),
        "predict": {"samples": 30, "views": views, "chunks": 1, "targets": []},
        "evaluate": {"target": None},
        "finetune": {"tasks": [task]},
    }
    return overlay, messages


def _training(given):
    """The keys of the task that say how it is trained; without them it has the defaults."""
    training, folds = {}, read_number(given, "FOLDS", 3)
    if folds is not None:
        training["folds"] = folds
    if given["STRATEGY"]:
        if given["STRATEGY"] not in STRATEGIES:
            raise UserError(
                f"STRATEGY is '{given['STRATEGY']}', expected one of {', '.join(STRATEGIES)}; for its"
                " arguments, or one of your own, write a YAML file (docs/finetuning.md)."
            )
        training["strategy"] = {"name": given["STRATEGY"]}
    return training


def _check_start(name, model):
    """Stop where a task of this name would write over the model that it starts from."""
    if Path(model).resolve().is_relative_to(Path("results", name, "finetune", name).resolve()):
        raise UserError(
            f"MODEL is '{model}', but the task '{name}' would overwrite this model; choose another name for"
            f" the task, such as NAME={name}2."
        )


def _of_table(given):
    """The task's source, label and kind, for labels in a column of a table."""
    source, images = given["LABELS"], given["IMAGES"]
    table = read_table(source)
    own = {key.lower(): given[key] for key in ("ID", "LOCATION") if given[key]}
    names = find_column(table.columns, own.get("id"), IDS, source, "ID")
    files = find_column(table.columns, own.get("location"), LOCATIONS, source, "LOCATION")
    if names is None:
        raise UserError(
            f"{source}: has no column with the galaxies' names, expected {' or '.join(IDS)}, found"
            f" {', '.join(map(str, table.columns[:6]))}; name the column with ID=column."
        )
    known = [*IDS, *LOCATIONS, *RESERVED, *own.values()]
    candidates = [
        column for column in table.columns if column not in known and not table[column].isna().all()
    ]
    label = given["LABEL"] or (candidates[0] if len(candidates) == 1 else None)
    if label in known:
        raise UserError(
            f"LABEL is '{label}', but this column name is reserved for names, files or splits; choose the"
            " column to learn, or rename it."
        )
    if label not in table.columns:
        found = f"there is no column '{label}'" if label else "the label is not clear"
        more = ", …" if len(candidates) > 8 else ""
        raise UserError(
            f"{source}: {found}, and besides names and files the table has"
            f" {', '.join(map(str, candidates[:8])) or 'no columns'}{more}; choose one with LABEL=column."
        )
    if not images and files is None:
        raise UserError(
            f"{source}: has no column {LOCATIONS[0]} with the paths of the images, and IMAGES is missing;"
            " name the column with LOCATION=column, or add IMAGES= with a folder or a zip of images."
        )
    if images and not Path(images).exists():
        raise UserError(f"IMAGES is '{images}', expected an existing folder or zip of images; fix the path.")
    if Path(images).is_file() and not images.lower().endswith(".zip"):
        raise UserError(
            f"IMAGES is '{images}', expected a folder of images or a .zip; give the folder that the images"
            " are in."
        )
    kind = given["KIND"] or _kind_of(table[label].dropna())
    task = {"table": _path(source), **own, "label": label, "kind": kind}
    if images:
        task |= {"archives": [_path(images)]} if Path(images).is_file() else {"images": images}
    messages = _labelled(source, label, kind, table[label], "split" in table)
    if "split" in table and table["split"].notna().any():
        places = [place_of(source, row) for row in range(1, len(table) + 1)]
        messages.insert(1, f"Split from the table: {_counted(read_split(table['split'], places))}")
        task["split"] = "split"
    if given["TEST"]:
        task["test"] = _test_of(given, label, task)
        messages.append(f"Scored are all galaxies of {given['TEST']}; those of {source} are learned from.")
    return task, messages


def _test_of(given, label, task):
    """The path of the table whose galaxies are scored."""
    path = given["TEST"]
    if not Path(path).is_file() or not path.lower().endswith(TABLES):
        raise UserError(f"TEST is '{path}', expected an existing table ({', '.join(TABLES)}); fix the path.")
    if "split" in task:
        raise UserError(
            f"TEST is '{path}', but {given['LABELS']} has a column split, which says what is scored; remove"
            " one of the two."
        )
    if label not in read_table(path).columns:
        raise UserError(
            f"{path}: has no column '{label}', the label of {given['LABELS']}; add it to the table."
        )
    return _path(path)


def _of_folders(given):
    """The task's source, label and kind, for labels that are the names of folders."""
    source = given["LABELS"]
    extra = next((key for key in ("IMAGES", "LABEL", "ID", "LOCATION", "TEST") if given[key]), None)
    if extra:
        raise UserError(
            f"{extra} is for labels in a table, but '{source}' has the images in one folder per class; remove"
            f" {extra}."
        )
    if given["KIND"] not in ("", "multiclass"):
        raise UserError(f"KIND is '{given['KIND']}', but the folders of '{source}' are classes; remove KIND.")
    if Path(source).is_file() and not source.lower().endswith(".zip"):
        raise UserError(
            f"LABELS is '{source}', expected a table ({', '.join(TABLES)}), or a folder or .zip with one"
            " folder of images per class; fix the path."
        )
    label = given["NAME"] or Path(source).resolve().stem
    table = list_labelled(source, label)
    task = {"folders": source, "label": label}
    own = table["split"].notna().any()
    messages = _labelled(source, label, "multiclass", table[label], own)
    if own:
        messages.insert(1, f"Split from the folders: {_counted(table['split'])}")
        task["split"] = None
    return task, messages


def _labelled(source, label, kind, cells, own_split):
    """What the user is told of the labels: how many, of which class, and what to expect of few.

    Raises:
        UserError: nothing can be learned or scored from them.
    """
    words = cells.dropna().map(as_word).astype(str)
    words = words[words != ""]
    if kind == "binary":
        words = words.str.lower().map(WORDS).fillna(words)
    count, sizes, numbers = len(words), words.value_counts(), kind == "regression"
    if count and len(sizes) == 1:
        raise UserError(
            f"{source}: all {count} labels in {label} are '{sizes.index[0]}', so there is nothing to learn;"
            f" label galaxies {'with other values' if numbers else 'of another class'}, too."
        )
    # One to learn from, one that decides when to stop, one to score; a split of one's own may be another.
    few = 0 if numbers or own_split or not count else sizes.min()
    if count < 3 or 0 < few < 3:
        of_class = "" if count < 3 else f" of the class '{sizes.index[-1]}'"
        raise UserError(
            f"{source}: the number of labels{of_class} in {label} is {few if of_class else count}, expected 3"
            " or more, one each for train, val and test; label more galaxies."
        )
    told = f"{count} labels in {source}" + ("" if numbers else f": {_counted(words)}")
    messages = [f"Label {label}: {kind}, {told}"]
    if count < FEW or (not numbers and sizes.min() < RARE):
        tested = max(count // 5, 1)
        # The standard error where half of the answers are right.
        sure = "the scores are" if numbers else f"an accuracy is by {50 / tested**0.5:.0f} points"
        messages.append(
            f"WARNING: These are few labels. Only a fifth of them ({tested}) is scored, so {sure} uncertain,"
            f" and another training can be much better or worse. {FEW} labels or more"
            f"{'' if numbers else f', with {RARE} or more of each class,'} are a good beginning."
        )
    return messages


def _counted(words):
    return ", ".join(f"{count} of {word}" for word, count in words.value_counts().items())


def _kind_of(cells):
    """The kind of label, guessed from the cells of its column."""
    words = set(cells.astype(str).str.strip().str.lower())
    if words <= set(WORDS):
        return "binary"
    numbers = pd.to_numeric(cells, errors="coerce")
    if numbers.notna().all() and (len(words) > MOST_CLASSES or (numbers % 1 != 0).any()):
        return "regression"
    return "multiclass"


def _path(path):
    """The path with a slash: a name without one would be a file of a record in the configuration."""
    return path if "/" in path else f"./{path}"


def write_overlay(overlay):
    """Write the configuration to `results/<name>/task.yaml`; a different file there is kept as a copy.

    Args:
        overlay: from `plan`.

    Returns:
        The path.
    """
    path = Path("results") / overlay["run"] / "task.yaml"
    heading = (
        "# Written by make finetune; config/README.md explains all keys. Edit a copy of it and run it with\n"
        f"#   snakemake --configfile {path}"
    )
    write_yaml(path, heading, overlay)
    return path


def write_target(overlay, path):
    """Write a configuration that predicts all images in the folder of the labelled ones.

    Nothing is written if they are not all in one folder below the working directory; `report` says so.

    Args:
        overlay: from `plan`.
        path: file to write; an existing file is kept, because it may have been edited.
    """
    if path.is_file():
        return
    (task,) = overlay["finetune"]["tasks"]
    images = task.get("images") or task.get("folders") or next(iter(task.get("archives", [])), None)
    images = images or _common_folder(task["table"], task.get("location"))
    if not images:
        return
    model = f"results/{overlay['run']}/finetune/{task['name']}"
    models = [f"{model}/fold{fold}" for fold in range(task.get("folds", 0))] or [model]
    target = {"name": "mine", "models": models, "images": images}
    run = f"{overlay['run']}_predictions"
    content = {"run": run, **{key: overlay[key] for key in ("predict", "evaluate")}}
    content["predict"] = {**overlay["predict"], "targets": [target]}
    heading = f"# Predictions for the images of a folder go to results/{run}/predict/mine/"
    write_yaml(path, heading, content)


def _common_folder(path, location):
    """The folder below the working directory that holds all images of a table, or None."""
    table = read_table(path)
    column = find_column(table.columns, location, LOCATIONS, path, "LOCATION")
    files = table[column].dropna().astype(str)
    folders = {os.path.dirname(os.path.abspath(Path(path).parent / file)) for file in files if file}
    if not folders:
        return None
    # The working directory itself would also include the results and the environment.
    common, here = Path(os.path.commonpath(folders)), Path.cwd()
    return str(common.relative_to(here)) if here in common.parents else None


def main(names):
    """Run `make finetune`.

    Args:
        names: names of the environment variables that are settings, such as `LABELS`.

    Returns:
        Exit status: 0, or 1 after an error message.
    """
    return ended(lambda: _finetune({name: os.environ[name] for name in names}))


def _finetune(given):
    overlay, messages = plan(given)
    (task,) = overlay["finetune"]["tasks"]
    for message in messages:
        say(message)
    if task["pretrained"] == DEMO:
        say(
            "MODEL is missing, so the training starts from the demo's model, which has seen only"
            " simulated galaxies. This is good for a first try. For science, give a model that was"
            " trained on real galaxies, such as"
            " MODEL=hf://mwalmsley/zoobot-encoder-convnext_nano@refs/pr/1 (docs/pretrained.md)."
        )
        if not Path(DEMO, "model.keras").is_file():
            say(f"The demo's model is trained first, in about {DEMO_MINUTES} minutes on two cores.")
            run_snakemake(f"{DEMO}/model.keras", "config/demo.yaml")
    path = write_overlay(overlay)
    say(f"The task was written to {path}.")
    run_snakemake("finetune", path)
    write_target(overlay, path.with_name("predict.yaml"))
    say("\n" + final_message(overlay, path))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
