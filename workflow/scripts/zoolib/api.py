"""What Python users import: `finetune` for a classifier of their own, `load` to predict with a model.

import zoolib.api

rings = zoolib.api.finetune(name="ring", table="rings.csv", label="ring", pretrained="…", folder="mine")
zoolib.api.load("mine").predict(["one.jpg"])
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import yaml

from zoolib import predict
from zoolib.config.schema import check_configuration
from zoolib.config.sources import absolute, import_settings, kind_of_source
from zoolib.config.tasks import file_of_url, fit_names, task_labels
from zoolib.data.catalogs import SPLITS
from zoolib.data.tasks import build_task
from zoolib.download import download_url
from zoolib.finetune import finetune_task
from zoolib.job.logs import UserError
from zoolib.pretrained import import_backbone
from zoolib.scores.tasks import evaluate_label_counts, evaluate_task

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
TREES = ROOT / "config" / "trees"
load = predict.load
# Keys that are paths; in a notebook none of them is a file of the record.
PATHS = ("table", "folders", "images")


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
    catalogues, the training, predictions of all galaxies, scores. Called again, it does all of them again.

    Args:
        name: of the task.
        pretrained: what to start from: a model folder, a published encoder, or whatever else the key of this
            name takes; what is no model folder yet becomes one in `folder`.
        folder: where all files go.
        seed: everything random follows from it.
        samples: dropout draws a view.
        views: augmented views at prediction; 0 is the upright, central one alone.
        keys: the other keys of a task of the configuration (`finetune.tasks[]` in config/README.md), such as
            table, images, label, kind and strategy, with the same meanings and defaults.

    Returns:
        `Finetuned`.

    Raises:
        UserError: a key, table, image, label or model that is wrong.
    """
    task, config = _completed({"name": name, "pretrained": pretrained, **keys})
    folder = Path(folder)
    task["start"] = _start(task["pretrained"], config, folder / "pretrained")
    if task["url"]:
        path = folder / file_of_url(task["url"])
        if not path.is_file():
            download_url(**task["url"], output=path)
        task["folders" if path.name.lower().endswith(".zip") else "table"] = str(path)
    fits = fit_names(task)
    places = [_Fit(folder / fit, fit) for fit in fits]
    catalogs = [place.catalogs[split] for place in places for split in SPLITS]
    tables = {"rejected": folder / "rejected.csv", "summary": folder / "summary.csv"}
    build_task(task, fits, seed, catalogs, **tables, max_rejected=config["shards"]["max_rejected"])
    for place in places:
        place.learn(task, seed, samples, views)
    counted = [place.about for place in places if place.name.startswith("labels")]
    scored = [place for place in places if not place.name.startswith("labels")]
    output = SimpleNamespace(
        galaxies=folder / "galaxies.parquet", scores=folder / "scores.csv", confusion=folder / "confusion.csv"
    )
    evaluate_task([place.about for place in scored], seed, output)
    if counted:
        own = scored[0].catalogs
        evaluate_label_counts(counted, own["train"], own["test"], folder / "label_counts.csv")
    return Finetuned(
        [str(place.folder) for place in scored],
        pd.read_csv(output.scores),
        pd.read_csv(folder / "label_counts.csv") if counted else None,
        pd.read_parquet(output.galaxies),
    )


class _Fit:
    """One training of a task and the files that it has."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.catalogs = {split: folder / f"{split}.parquet" for split in SPLITS}

    @property
    def about(self):
        """What scores need of it."""
        return {"name": self.name, "predictions": self.folder / "predictions.hdf5", **self.catalogs}

    def learn(self, task, seed, samples, views):
        """Train, and predict the galaxies of all splits."""
        made = {"model": "model.keras", "about": "model.json", "history": "history.csv"}
        made |= {"predictions": "predictions.hdf5", "rejected": "predictions.rejected.csv"}
        output = SimpleNamespace(**{key: self.folder / file for key, file in made.items()})
        finetune_task(
            train=self.catalogs["train"],
            validation=self.catalogs["val"],
            model=task["start"],
            # A training's own name seeds it.
            task={**task, "name": f"{task['name']}/{self.name}" if self.name else task["name"]},
            seed=seed,
            output=output,
            folder=self.folder,
            scratch=task["scratch"] or self.name.endswith("-scratch"),
        )
        galaxies = list(self.catalogs.values())
        predict.predict_chunk(galaxies, [self.folder], 0, 1, samples, views, seed, output)


def _start(source, config, folder):
    """The model folder to start from; what is none is imported."""
    if kind_of_source(source, "pretrained") == "model":
        return source
    output = SimpleNamespace(model=folder / "model.keras", about=folder / "model.json")
    import_backbone(**import_settings(source, config), output=output)
    return folder


def _completed(task):
    """The task with all keys and its labels, and the configuration around it; checked as in a run."""
    for key in PATHS:
        if task.get(key):
            task[key] = str(Path(task[key]).absolute())
    if task.get("pretrained"):
        task["pretrained"] = absolute(str(task["pretrained"]))
    if task.get("archives"):
        task["archives"] = [str(Path(path).absolute()) for path in task["archives"]]
    if task.get("ensemble"):
        raise UserError("ensemble is for runs of Snakemake; name a model folder in pretrained.")
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["predict"]["targets"], config["evaluate"]["target"] = [], None
    config["finetune"]["tasks"] = [task]
    check_configuration(config, SCHEMA, TREES)
    (task,) = config["finetune"]["tasks"]
    task["labels"] = task_labels(task, TREES, f"finetune.tasks.{task['name']}")
    return task, config
