"""What Python users import: `finetune` for a classifier of their own, `load` to predict with a model.

`represent`, `similar`, `find_more` and `find_odd` are about galaxies that look alike.

import zoolib.api

rings = zoolib.api.finetune(name="ring", table="rings.csv", label="ring", pretrained="…", folder="mine")
zoolib.api.load("mine").predict(["one.jpg"])
"""

import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import yaml

from zoolib import predict
from zoolib.config.agreement import wrong
from zoolib.config.run import fit_of, read_run
from zoolib.config.sources import (
    MODEL_FILES,
    absolute,
    encoder_name,
    files_of_source,
    import_settings,
    kind_of_source,
)
from zoolib.config.tasks import file_of_url
from zoolib.data.decoders import limit_pixels
from zoolib.data.tasks import build_task
from zoolib.download import download_url
from zoolib.finetune import finetune_task
from zoolib.job.logs import UserError, log, whole
from zoolib.job.provenance import hash_of, hash_of_file, versions
from zoolib.learning.fitting import Job
from zoolib.likeness.representations import read_representations
from zoolib.pretrained import import_backbone
from zoolib.recalibrate import recalibrate_task
from zoolib.represent import represent
from zoolib.scores.linear_probe import probe_task
from zoolib.scores.tasks import evaluate_label_counts, evaluate_task
from zoolib.search import find_more, find_odd, similar

ROOT = Path(__file__).parents[3]
load = predict.load
# Galaxies that look alike: docs/search.md.
__all__ = [
    "Finetuned",
    "finetune",
    "find_more",
    "find_odd",
    "load",
    "read_representations",
    "represent",
    "similar",
]
# Keys that are paths; in a notebook none of them is a file of the record.
PATHS = ("table", "folders", "images")
# The folders of a task's finetunings that are not the task itself.
FITS = re.compile(r"fold\d+|labels\d+-.*|.*-scratch")
# Beside a model: what it was trained from.
MADE_FROM = "made_from.json"


@dataclass(frozen=True)
class Finetuned:
    """What came out of a finetuning.

    Attributes:
        folders: model folders; with folds one a fold, which predict together.
        scores: a row for each label, split and score, with intervals, as `scores.csv` of the pipeline.
        label_counts: scores against the number of labels, or None.
        galaxies: a row for each galaxy: its split, label and prediction.
    """

    folders: list
    scores: pd.DataFrame
    label_counts: pd.DataFrame | None
    galaxies: pd.DataFrame

    def load(self):
        """The model, or those of all folds as one ensemble, ready to predict.

        Returns:
            A `predict.Predictor`.
        """
        return predict.load(*self.folders)


def finetune(name, pretrained, folder, seed=42, samples=30, views=0, **keys):
    """Finetune a model for a new label, and score it on galaxies that it has not seen.

    The steps are those of the pipeline's stage of this name, one after the other in this process: the
    catalogues, the training, predictions of all galaxies, scores. Called again with the same arguments, it
    trains only what has not ended; with other ones, it trains again and replaces the models of the task.

    Args:
        name: of the task.
        pretrained: what to start from: a model folder, a published encoder, or whatever else the key of this
            name takes; what is no model folder yet becomes one in `folder`.
        folder: where all files go; not where the model to start from is, and only one task's.
        seed: everything random follows from it.
        samples: dropout draws a view.
        views: augmented views at prediction; 0 is the upright, central one alone.
        keys: the other keys of a task of the configuration (`finetune.tasks[]` in config/README.md), such as
            table, images, label, kind and strategy, with the same meanings and defaults.

    Returns:
        `Finetuned`.

    Raises:
        UserError: a key, table, image, label or model that is wrong, or a folder that holds other models.
    """
    run = _run_of({"name": name, "pretrained": pretrained, **keys}, seed, samples, views)
    task, folder, seed = run.tasks[name], Path(folder), run.config["seed"]
    _check_folder(folder, task, run.fit_names(name))
    if task["url"]:
        path = _downloaded(task["url"], folder)
        task["folders" if path.name.lower().endswith(".zip") else "table"] = str(path)
    files = {"galaxies": "galaxies.parquet", "rejected": "rejected.csv", "summary": "summary.csv"}
    output = SimpleNamespace(**{key: folder / file for key, file in files.items()})
    limit_pixels(run.config["shards"]["max_pixels"])
    build_task(task, run.fit_names(name), seed, output, run.config["shards"]["max_rejected"])
    task["start"] = _start(task["pretrained"], run.config, folder / "pretrained")
    scored, counted, scratch = (
        {fit: _learn(run, fit_of(name, fit), folder / fit, output.galaxies) for fit in fits}
        for fits in (run.scored_fits(name), run.counted_fits(name), run.scratch_fits(name))
    )
    scores = {"galaxies": "predicted.parquet", "scores": "scores.csv", "confusion": "confusion.csv"}
    scores = SimpleNamespace(
        **{key: folder / file for key, file in (scores | {"advice": "advice.csv"}).items()}
    )
    probe = folder / "probe.parquet"
    abouts = {fit: folder / fit / "model.json" for fit in scored}
    probe_task(output.galaxies, task["start"], run.fit_names(name), abouts, probe)
    corrections = [folder / fit / "recalibration.json" for fit in scored]
    for (fit, predictions), path in zip(scored.items(), corrections, strict=True):
        recalibrate_task(predictions, folder / fit / "model.keras", output.galaxies, fit, seed, path)
    evaluate_task(output.galaxies, scored, seed, scores, probe, corrections, list(scratch.values()))
    if counted:
        evaluate_label_counts(output.galaxies, counted, folder / "label_counts.csv", probe)
    return Finetuned(
        [str(folder / fit) for fit in scored],
        pd.read_csv(scores.scores),
        pd.read_csv(folder / "label_counts.csv") if counted else None,
        pd.read_parquet(scores.galaxies),
    )


def _learn(run, fit, folder, galaxies):
    """Train one finetuning of a task and predict all galaxies of the task; returns its predictions."""
    made = {"model": "model.keras", "about": "model.json", "history": "history.csv"}
    made |= {"predictions": "predictions.hdf5", "rejected": "predictions.rejected.csv"}
    output = SimpleNamespace(**{key: folder / file for key, file in made.items()})
    seed, drawn = run.config["seed"], run.config["predict"]
    start, training, scratch = run.task_of(fit)["start"], run.training_of(fit), run.starts_from_scratch(fit)
    made_from = hash_of(
        {
            "training": training,
            "plans": run.plans_of(fit),
            "seed": seed,
            "scratch": scratch,
            "start": hash_of_file(Path(start) / "model.keras"),
            "galaxies": hash_of_file(galaxies),
            "versions": versions(),
        }
    )
    if not _is_trained(output, made_from):
        finetune_task(galaxies, start, training, seed, Job(output), scratch)
        with whole(folder / MADE_FROM) as partial:
            partial.write_text(json.dumps({"made_from": made_from, "model": hash_of_file(output.model)}))
    predict.predict_chunk([galaxies], [folder], (0, 1), drawn["samples"], drawn["views"], seed, output)
    return output.predictions


def _is_trained(output, made_from):
    """Whether a training has ended before; if it was another one, say that it is trained again."""
    files = [Path(path) for path in (output.model, output.about, output.history)]
    record = files[0].with_name(MADE_FROM)
    if not all(file.is_file() for file in files):
        return False
    found = json.loads(record.read_text()) if record.is_file() else {}
    if found == {"made_from": made_from, "model": hash_of_file(output.model)}:
        log.info("%s: this training has ended before (delete %s to train again)", files[0], record)
        return True
    log.warning("%s: was trained with other settings, data or software; it is trained again", files[0])
    return False


def _check_folder(folder, task, fits):
    """Stop where models would be overwritten: the one to start from, or those of another task."""
    source, own = task["pretrained"], folder.resolve()
    if absolute(source) == str(Path(source).absolute()):
        for place in (Path(source).resolve(), (Path(source) / "model.keras").resolve().parent):
            if own == place or own in place.parents or place in own.parents:
                raise wrong(
                    f"folder is '{folder}' and pretrained is '{source}', but this task writes its own model"
                    " there and would overwrite the model that it starts from; choose another folder."
                )
    written = ("galaxies.parquet", "predicted.parquet")
    written += ("rejected.csv", "summary.csv", "scores.csv", "confusion.csv", "label_counts.csv")
    written += ("advice.csv", "probe.parquet")
    if task["table"] and Path(task["table"]).resolve() in {own / name for name in written}:
        raise wrong(
            f"table is '{task['table']}', but this task writes a table of its own there and would overwrite"
            " the labels; choose another folder."
        )
    others = [path for path in folder.iterdir() if FITS.fullmatch(path.name)] if folder.is_dir() else []
    for place in (folder, *others):
        fit = "" if place == folder else place.name
        about = place / "model.json"
        if about.is_file() and not (fit in fits and _task_of(about) == fit_of(task["name"], fit)):
            raise wrong(
                f"folder is '{folder}', but {about} is of another training than those of the task"
                f" '{task['name']}', which would replace it or leave it there; choose another folder, or"
                " delete it."
            )


def _task_of(about):
    """The finetuning that a `model.json` is about; None where it is about another kind of model."""
    try:
        return json.loads(about.read_text())["training"].get("name")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _downloaded(url, folder):
    """The file of labels at an address. A file of the same name with other bytes has another path."""
    path = folder / "labels" / url["sha256"][:12] / file_of_url(url)
    if not path.is_file() or hash_of_file(path) != url["sha256"]:
        download_url(**url, output=path)
    return path


def _start(source, config, folder):
    """The model folder to start from; what is none is imported, once for the same settings and files."""
    if kind_of_source(source, "pretrained") == "model":
        return source
    settings = import_settings(source, config)
    content = hash_of([hash_of_file(path) for path in files_of_source(source)])
    folder = folder / f"{encoder_name(settings)}-{content[:8]}"
    files = [folder / name for name in MODEL_FILES]
    if all(file.is_file() for file in files):
        return folder
    import_backbone(**settings, output=SimpleNamespace(model=files[0], about=files[1]))
    return folder


def _run_of(task, seed=42, samples=30, views=0):
    """A run of nothing but this task, checked as Snakemake's runs are."""
    task = _plain(task, "the task")
    for key in PATHS:
        if task.get(key) and isinstance(task[key], str):
            task[key] = str(Path(task[key]).absolute())
    if not isinstance(task["pretrained"], str) or not task["pretrained"]:
        raise wrong(f"pretrained is {task['pretrained']!r}, expected a model to start from; give its folder.")
    task["pretrained"] = absolute(task["pretrained"])
    if isinstance(task.get("archives"), list):
        task["archives"] = [str(Path(path).absolute()) for path in task["archives"]]
    if task.get("ensemble"):
        raise UserError("ensemble is for runs of Snakemake; name a model folder in pretrained.")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    # No folder below results/ is this run's own: the models in them are used as they are.
    config["run"], config["seed"] = uuid.uuid4().hex, _plain(seed, "seed")
    drawn = {"samples": _plain(samples, "samples"), "views": _plain(views, "views")}
    config["predict"] |= {**drawn, "targets": []}
    config["evaluate"]["target"] = None
    config["finetune"]["tasks"] = [task]
    return read_run(config, ROOT)


def _plain(value, key):
    """A value as YAML would give it; Python users also have paths, tuples and NumPy's numbers."""
    if isinstance(value, dict):
        return {name: _plain(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, key) for inner in value]
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise wrong(
        f"{key} is a {type(value).__name__}, expected what a YAML file can hold, such as text, a number or a"
        " list; write a data frame to a file, and give its path."
    )
