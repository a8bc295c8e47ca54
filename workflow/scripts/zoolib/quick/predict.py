"""From a folder of images and a model to a table of posteriors: `make predict IMAGES=… MODEL=…`."""

import os
import sys
from pathlib import Path

import pandas as pd
import yaml

from zoolib.config.folders import walk
from zoolib.config.starts import models_in
from zoolib.config.tasks import TABLES
from zoolib.data.tables import read_batches
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
from zoolib.scores.final_message import scored
from zoolib.zenodo.archives import SUFFIXES

KEYS = ("IMAGES", "MODEL", "NAME", "ID", "LOCATION", "SAMPLES", "VIEWS", "SEED", "TEST")
# Galaxies of a chunk: the start of a job costs 15 seconds, and a lost job of this size an hour at most.
CHUNK = 10_000
# Columns of the flat catalogue that are no answers.
ABOUT = ("id_str", "unfamiliar")
SHOWN = 6


def plan(given):
    """Turn the typed settings into a configuration.

    Args:
        given: {a name of `KEYS`: text}; IMAGES and MODEL are required.

    Returns:
        Overlay for `snakemake --configfile`.

    Raises:
        UserError: a value is wrong or missing.
    """
    given = read_settings(given, KEYS, "make predict")
    source = given["IMAGES"]
    if not source:
        raise UserError(
            "IMAGES is missing, expected a folder of images, or a table with a column of their paths; type,"
            " for example, make predict IMAGES=folder MODEL=results/demo/train/metrics/0."
        )
    if not Path(source).exists():
        raise UserError(f"IMAGES is '{source}', expected an existing folder or table; fix the path.")
    is_folder = Path(source).is_dir()
    if not is_folder and not source.lower().endswith(TABLES):
        raise UserError(
            f"IMAGES is '{source}', expected a folder of images or a table ({', '.join(TABLES)}); unpack an"
            " archive first."
        )
    name = given["NAME"] or name_of(Path(source).resolve().name.partition(".")[0]) or "images"
    check_folder(name, "predict*.yaml")
    target = {"name": "galaxies", "models": _models(given["MODEL"])}
    target |= {"images" if is_folder else "catalog": source}
    target |= {key.lower(): given[key] for key in ("ID", "LOCATION") if given[key]}
    if given["TEST"]:
        if not Path(given["TEST"]).is_file() or not given["TEST"].lower().endswith(TABLES):
            raise UserError(
                f"TEST is '{given['TEST']}', expected an existing table of labels ({', '.join(TABLES)}); fix"
                " the path."
            )
        target["labels"] = given["TEST"]
    numbers = {
        key: read_number(given, key, least) for key, least in (("SAMPLES", 1), ("VIEWS", 0), ("SEED", 0))
    }
    predict = {"samples": numbers["SAMPLES"] or 30, "views": numbers["VIEWS"] or 0}
    return {
        "run": name,
        **({} if numbers["SEED"] is None else {"seed": numbers["SEED"]}),
        # The last message counts the bad images, so a few of a small folder stop nothing.
        "shards": {"max_rejected": 0.5},
        "predict": {**predict, "chunks": _chunks(name, source, is_folder), "targets": [target]},
        "evaluate": {"target": None},
    }


def _models(typed):
    if not typed:
        raise UserError(
            "MODEL is missing, expected a folder with model.keras, such as results/demo/train/metrics/0, or a"
            " folder of folds or members; several, separated by commas, predict together."
        )
    models = []
    for folder in filter(None, (part.strip() for part in typed.split(","))):
        found = models_in(Path(folder))
        if not found:
            raise UserError(
                f"MODEL is '{folder}', expected a folder with model.keras and model.json, or a folder of"
                " folds or members; fix the path."
            )
        models += map(str, found)
    return models


def _chunks(name, source, is_folder):
    """The number of chunks; it stays what it was, because with another one everything is predicted again."""
    path = Path("results", name, "predict.yaml")
    if path.is_file():
        before = yaml.safe_load(path.read_text())["predict"]
        if source in (before["targets"][0].get("images"), before["targets"][0].get("catalog")):
            return before["chunks"]
    if is_folder:
        count = sum(kind == "file" and each.lower().endswith(SUFFIXES) for each, kind in walk(source))
    else:
        count = sum(map(len, read_batches(source, lambda columns: columns[:1], (), CHUNK)))
    return max(1, -(-count // CHUNK))


def final_message(overlay, path):
    """The text at the end: where the table is, what is in it, what could not be used, and what to do next.

    Args:
        overlay: from `plan`.
        path: the file of the overlay.

    Returns:
        text.
    """
    (target,) = overlay["predict"]["targets"]
    folder = Path("results", overlay["run"], "predict", target["name"])
    rejected = pd.read_csv(folder / "rejected.csv")
    found = pd.read_csv(folder / "unfamiliar.csv").iloc[0]
    table = pd.read_parquet(next(folder.glob("catalog/*.parquet")))
    answers = [column for column in table if column not in ABOUT]
    lines = [
        f"Posteriors of {found['galaxies']:,.0f} galaxies: {folder}/catalog/ (Parquet, a row each), with"
        f" {len(answers)} columns such as {', '.join(answers[:SHOWN])} (docs/outputs.md#the-flat-catalogue).",
        f"Every sample: {folder}/predictions.hdf5. What to label next: {folder}/label_next.csv.",
    ]
    if len(rejected):
        lines.append(
            f"Images that could not be read: {len(rejected)} ({folder}/rejected.csv); the first one:"
        )
        lines.append(f"  {rejected['reason'].iloc[0]}")
    if found["known"]:
        lines.append(
            f"{found['unlike']:,.0f} of {found['known']:,.0f} galaxies look unlike the training set (about"
            " 1 % is normal; docs/unfamiliar.md): do not trust their posteriors."
        )
    if target.get("labels"):
        scores = pd.read_csv(folder / "scores.csv")
        lines += ["", *scored(scores), f"{folder}/confusion.png and curves.png show them.", ""]
    lines += [
        "To read the table in Python:",
        f'  import pandas as pd; pd.read_parquet("{folder}/catalog")',
        f"After new images, type the same command again. To change anything else, edit a copy of {path}.",
    ]
    return "\n".join(lines)


def main(names):
    """Run `make predict`.

    Args:
        names: names of the environment variables that are settings, such as `IMAGES`.

    Returns:
        Exit status: 0, or 1 after an error message.
    """
    return ended(lambda: _predict({name: os.environ[name] for name in names}))


def _predict(given):
    overlay = plan(given)
    path = Path("results") / overlay["run"] / "predict.yaml"
    heading = (
        "# Written by make predict; config/README.md explains all keys. Edit a copy of it and run it with\n"
        f"#   snakemake predict --configfile {path}"
    )
    write_yaml(path, heading, overlay)
    say(f"The configuration was written to {path}.")
    run_snakemake("predict", path)
    say("\n" + final_message(overlay, path))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
