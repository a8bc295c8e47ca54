"""From a table of labels to a classifier without writing YAML: `make finetune LABELS=… IMAGES=…`.

It writes the YAML, runs Snakemake, and says how good the classifier is and how to use it.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from zoolib.config.labels import KINDS, WORDS
from zoolib.config.sources import kind_of_source
from zoolib.config.tasks import RESERVED, TABLES
from zoolib.data.catalogs import SPLITS
from zoolib.data.class_folders import list_labelled
from zoolib.data.partition import read_split
from zoolib.data.tables import IDS, LOCATIONS, read_table
from zoolib.job.logs import UserError, whole

KEYS = ("LABELS", "IMAGES", "LABEL", "KIND", "NAME", "MODEL")
DEMO = "results/demo/train/metrics/0"
DEMO_MINUTES = 5
# A column of more different numbers than this is one of numbers, not of classes.
MOST_CLASSES = 20
# What of a row of scores is no score.
ABOUT = ("label", "split", "score", "galaxies")
# What a few hundred labels are trained with; measured on 240 real rings, see docs/finetuning.md.
RECIPE = {
    "split": {"train": 0.6, "val": 0.2, "test": 0.2},
    "head": {"units": [64], "dropout": 0.3},
    "batch_size": 32,
    "patience": 20,
    "strategy": {"name": "two_stage", "learning_rate": 0.0003, "epochs": 40, "patience": 10},
}


def plan(given):
    """Turn what was typed into a configuration.

    Args:
        given: {a name of `KEYS`: text}; only LABELS is needed.

    Returns:
        (overlay for `snakemake --configfile`, a list of sentences that say what was found).

    Raises:
        UserError: a wrong or missing value, or a label that is not clear.
    """
    strange = sorted(set(given) - set(KEYS))
    if strange:
        raise UserError(f"{strange[0]} is no setting of make finetune; it has {', '.join(KEYS)}.")
    given = {key: os.path.expanduser(given.get(key, "").strip()) for key in KEYS}
    source = given["LABELS"]
    if not source:
        raise UserError(
            "LABELS is not given, expected a table (.csv, .parquet), or a folder or zip with one folder of"
            " images a class; type make finetune LABELS=labels.csv IMAGES=folder."
        )
    if not Path(source).exists():
        raise UserError(f"LABELS is '{source}', expected a table, folder or zip that is there; fix the path.")
    model = given["MODEL"] or DEMO
    if given["MODEL"]:
        kind_of_source(model, "MODEL")
    if not re.fullmatch("([A-Za-z0-9][A-Za-z0-9_-]*)?", given["NAME"]):
        raise UserError(
            f"NAME is '{given['NAME']}', expected letters, digits, - and _, a letter or digit first; choose"
            " another name."
        )
    if given["KIND"] and given["KIND"] not in KINDS[:3]:
        raise UserError(
            f"KIND is '{given['KIND']}', expected {', '.join(KINDS[:3])}; votes on a tree need a YAML file,"
            " see docs/finetuning.md."
        )
    find = _of_table if source.lower().endswith(TABLES) else _of_folders
    task, told = find(given)
    name = given["NAME"] or re.sub(r"[^A-Za-z0-9_-]+", "_", str(task["label"])).strip("_-") or "task"
    if name == "demo":
        raise UserError("NAME is 'demo', which is the run that makes the demo's model; choose another name.")
    if Path(model).resolve().is_relative_to(Path("results", name, "finetune", name).resolve()):
        raise UserError(
            f"MODEL is '{model}', which the task '{name}' would overwrite while it learns from it; choose"
            f" another name, such as NAME={name}2."
        )
    recipe = {key: value for key, value in RECIPE.items() if key not in task}
    task = {"name": name, **task, "pretrained": model, **recipe}
    overlay = {
        "run": name,
        "predict": {"samples": 30, "views": 0, "chunks": 1, "targets": []},
        "evaluate": {"target": None},
        "finetune": {"tasks": [task]},
    }
    return overlay, told


def _of_table(given):
    """The task's source, label and kind where the labels are a column of a table."""
    source, images = given["LABELS"], given["IMAGES"]
    table = read_table(source)
    if not set(IDS) & set(table.columns):
        raise UserError(
            f"{source}: has no column of the galaxies' names, expected {' or '.join(IDS)}; rename the one"
            " that has them."
        )
    known = [*IDS, *LOCATIONS, *RESERVED]
    candidates = [
        column for column in table.columns if column not in known and not table[column].isna().all()
    ]
    label = given["LABEL"] or (candidates[0] if len(candidates) == 1 else None)
    if label in known:
        raise UserError(
            f"LABEL is '{label}', which is kept for names, files or splits; expected the column that is to be"
            " learned; give or rename it."
        )
    if label not in table.columns:
        found = f"there is no column '{label}'" if label else "the label is not clear"
        more = ", …" if len(candidates) > 8 else ""
        raise UserError(
            f"{source}: {found}, as it has {', '.join(map(str, candidates[:8])) or 'no columns'}{more}"
            " besides names and files; say which with LABEL=column."
        )
    if not images and not set(LOCATIONS) & set(table.columns):
        raise UserError(
            f"{source}: has no column {LOCATIONS[0]} that says where the images are, and IMAGES is not given;"
            " type IMAGES=folder, or a zip of images."
        )
    if images and not Path(images).exists():
        raise UserError(
            f"IMAGES is '{images}', expected a folder or zip of images that is there; fix the path."
        )
    if Path(images).is_file() and not images.lower().endswith(".zip"):
        raise UserError(
            f"IMAGES is '{images}', expected a folder of images, or a file that ends in .zip; unpack it, or"
            " give its folder."
        )
    kind = given["KIND"] or _kind_of(table[label].dropna())
    task = {"table": _path(source), "label": label, "kind": kind}
    if images:
        task |= {"archives": [_path(images)]} if Path(images).is_file() else {"images": images}
    told = [f"{label}: {kind}, {table[label].notna().sum()} labels in {source}"]
    if "split" in table and table["split"].notna().any():
        places = [f"{source}, row {row}" for row in range(1, len(table) + 1)]
        told.append(f"split: the table's own, {_counted(read_split(table['split'], places))}")
        task["split"] = "split"
    return task, told


def _of_folders(given):
    """The task's source, label and kind where the labels are the names of folders."""
    source = given["LABELS"]
    extra = next((key for key in ("IMAGES", "LABEL") if given[key]), None)
    if extra:
        raise UserError(
            f"{extra} is for labels in a table, and '{source}' holds the images in one folder a class; leave"
            f" {extra} out."
        )
    if given["KIND"] not in ("", "multiclass"):
        raise UserError(f"KIND is '{given['KIND']}', and folders of '{source}' are classes; leave KIND out.")
    if Path(source).is_file() and not source.lower().endswith(".zip"):
        raise UserError(
            f"LABELS is '{source}', expected a table ({', '.join(TABLES)}), or a folder or .zip with one"
            " folder of images a class."
        )
    label = given["NAME"] or Path(source).resolve().stem
    table = list_labelled(source, label)
    task, told = {"folders": source, "label": label}, [f"{label}: multiclass, {_counted(table[label])}"]
    if table["split"].notna().any():
        told.append(f"split: the folders' own, {_counted(table['split'])}")
        task["split"] = None
    return task, told


def _counted(words):
    return ", ".join(f"{count} of {word}" for word, count in words.value_counts().items())


def _kind_of(cells):
    """The kind of label that a column looks like."""
    words = set(cells.astype(str).str.strip().str.lower())
    if words <= set(WORDS):
        return "binary"
    numbers = pd.to_numeric(cells, errors="coerce")
    if numbers.notna().all() and (len(words) > MOST_CLASSES or (numbers % 1 != 0).any()):
        return "regression"
    return "multiclass"


def _path(path):
    """A path of the configuration has a slash; what has none is a file of a record."""
    return path if "/" in path else f"./{path}"


def write_overlay(overlay):
    """Write the configuration to `results/<name>/task.yaml`; another one there is kept beside it.

    Args:
        overlay: what `plan` gives.

    Returns:
        The path.
    """
    path = Path("results") / overlay["run"] / "task.yaml"
    text = (
        "# Written by make finetune. All keys: config/README.md. Edit a copy and run it with\n"
        f"#   snakemake --configfile {path}\n"
        f"{_yaml(overlay)}"
    )
    if path.is_file() and path.read_text() != text:
        path.replace(path.with_name("task.before.yaml"))
        say(f"{path} was there; it is {path.with_name('task.before.yaml')} now.")
    with whole(path) as partial:
        partial.write_text(text)
    return path


def run_snakemake(target, overlay):
    """Run Snakemake for one target, its output to the terminal.

    Args:
        target: a rule or file.
        overlay: path of the configuration.

    Raises:
        UserError: it failed; the sentence of the job that did, where there is one.
    """
    begun = time.time()
    command = [sys.executable, "-m", "snakemake", str(target)]
    if subprocess.run([*command, "--quiet", "rules", "--configfile", str(overlay)]).returncode == 0:
        return
    run = yaml.safe_load(Path(overlay).read_text())["run"]
    traces = [path for path in Path("logs", run).rglob("*.traceback") if path.stat().st_mtime >= begun]
    if traces:
        lines = traces[0].with_suffix("").read_text().strip().splitlines()
        raise UserError(lines[-1].partition(" ")[2])
    raise UserError(f"Snakemake stopped; what it says stands above, and {overlay} is what it ran.")


def report(overlay, path):
    """What to read at the end: the scores, the figures, and how to predict.

    Args:
        overlay: what `plan` gives.
        path: where it was written.

    Returns:
        text.
    """
    (task,) = overlay["finetune"]["tasks"]
    run, name = overlay["run"], task["name"]
    folder = f"results/{run}/evaluate/{name}"
    scores = pd.read_csv(f"{folder}/scores.csv")
    test = scores[scores["split"] == "test"]
    count = test["galaxies"].iloc[0]
    model = f"results/{run}/finetune/{name}"
    lines = [
        *_used(model),
        "",
        f"Scores of {count} galaxies that it has not seen, 68 % interval, and those of one answer for all:",
    ]
    for row in test.to_dict("records"):
        found = {
            key: "" if pd.isna(value) else f"{value:.3f}" for key, value in row.items() if key not in ABOUT
        }
        interval = found["low_68"] and f"{found['low_68']} to {found['high_68']}"
        lines.append(f"  {row['score']:<20}{found['value']:>8}   {interval:<16}{found['constant']:>9}")
    lines += [
        "",
        f"Confusion matrix:  {folder}/confusion.png, with curves and a gallery beside it",
        f"All on one page:   make report CONFIG={path}",
        "Predict next, in Python:",
        '  import sys; sys.path.insert(0, "workflow/scripts")',
        "  import zoolib.api",
        f'  zoolib.api.load("{model}").predict("one.jpg")',
    ]
    target = path.with_name("predict.yaml")
    if target.is_file():
        lines += [
            "or all images of a folder, which that file names:",
            f"  snakemake predict --configfile {target}",
        ]
    else:
        lines.append(
            f"{target} is not written, as the table's images lie in no one folder below this one; for all"
            " images of a folder see predict.targets in config/README.md."
        )
    return "\n".join(lines)


def _used(folder):
    """How many of the labels were used, and why others could not be."""
    summary = pd.read_csv(f"{folder}/summary.csv")
    rows = summary["galaxies"].iloc[0]
    used = summary.loc[summary["step"].isin([f"split {split}" for split in SPLITS]), "galaxies"].sum()
    rejected = pd.read_csv(f"{folder}/rejected.csv")
    lines = [f"{used} of {rows} rows of labels were used, {rows - used} left out ({folder}/summary.csv)."]
    if len(rejected):
        lines.append(f"{len(rejected)} of them could not be used ({folder}/rejected.csv); the first:")
        lines.append(f"  {rejected['reason'].iloc[0]}")
    return lines


def write_target(overlay, path):
    """Write a configuration that predicts all images where the labelled ones are.

    Nothing is written where they lie in no one folder below the working directory; `report` says so.

    Args:
        overlay: what `plan` gives.
        path: file to write; one that is there is left alone, as it may have been edited.
    """
    if path.is_file():
        return
    (task,) = overlay["finetune"]["tasks"]
    images = task.get("images") or task.get("folders") or next(iter(task.get("archives", [])), None)
    images = images or _common_folder(task["table"])
    if not images:
        return
    model = f"results/{overlay['run']}/finetune/{task['name']}"
    target = {"name": "mine", "models": [model], "images": images}
    run = f"{overlay['run']}_predictions"
    content = {"run": run, **{key: overlay[key] for key in ("predict", "evaluate")}}
    content["predict"] = {**overlay["predict"], "targets": [target]}
    heading = f"# Predictions for the images of a folder go to results/{run}/predict/mine/"
    with whole(path) as partial:
        partial.write_text(f"{heading}\n{_yaml(content)}")


def _common_folder(path):
    """The folder below the working directory that holds all images which a table names, or None."""
    table = read_table(path)
    column = next(column for column in LOCATIONS if column in table)
    files = table[column].dropna().astype(str)
    folders = {os.path.dirname(os.path.abspath(Path(path).parent / file)) for file in files if file}
    if not folders:
        return None
    # All of the working directory would be a search through results and the environment too.
    common, here = Path(os.path.commonpath(folders)), Path.cwd()
    return str(common.relative_to(here)) if here in common.parents else None


def _yaml(content):
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None)


def say(text):
    """Tell the user, before what the programs that are called say."""
    print(text, flush=True)


def main(names):
    """Do what `make finetune` promises.

    Args:
        names: of the environment's variables that are settings, such as `LABELS`.

    Returns:
        Exit status: 0, or 1 after a sentence.
    """
    try:
        overlay, told = plan({name: os.environ[name] for name in names})
        (task,) = overlay["finetune"]["tasks"]
        for sentence in told:
            say(sentence)
        if task["pretrained"] == DEMO:
            say(
                "MODEL is not given, so this starts from the demo's model, which has seen only simulated"
                " galaxies: good for trying out; for science, give one that was trained on real ones, such as"
                " hf://mwalmsley/zoobot-encoder-convnext_nano@refs/pr/1 (docs/pretrained.md)."
            )
            if not Path(DEMO, "model.keras").is_file():
                say(f"It is not there yet and is built first: about {DEMO_MINUTES} minutes on two cores.")
                run_snakemake(f"{DEMO}/model.keras", "config/demo.yaml")
        path = write_overlay(overlay)
        say(f"The task is written to {path}.")
        run_snakemake("finetune", path)
        write_target(overlay, path.with_name("predict.yaml"))
        say("\n" + report(overlay, path))
    except UserError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
