"""What Python users import: `finetune` for a classifier of their own, `load` to predict with a model.

import zoolib.api

rings = zoolib.api.finetune(name="ring", table="rings.csv", label="ring", pretrained="…", folder="mine")
zoolib.api.load("mine").predict(["one.jpg"])
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import yaml

from zoolib import predict
from zoolib.config.run import fit_of, read_run
from zoolib.config.sources import absolute, import_settings, kind_of_source
from zoolib.config.tasks import file_of_url
from zoolib.data.tasks import build_task
from zoolib.download import download_url
from zoolib.finetune import finetune_task
from zoolib.job.logs import UserError
from zoolib.learning.fitting import Job
from zoolib.pretrained import import_backbone
from zoolib.scores.tasks import evaluate_label_counts, evaluate_task

ROOT = Path(__file__).parents[3]
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
    run = _run_of({"name": name, "pretrained": pretrained, **keys})
    task, folder = run.tasks[name], Path(folder)
    task["start"] = _start(task["pretrained"], run.config, folder / "pretrained")
    if task["url"]:
        path = folder / file_of_url(task["url"])
        if not path.is_file():
            download_url(**task["url"], output=path)
        task["folders" if path.name.lower().endswith(".zip") else "table"] = str(path)
    files = {"galaxies": "galaxies.parquet", "rejected": "rejected.csv", "summary": "summary.csv"}
    output = SimpleNamespace(**{key: folder / file for key, file in files.items()})
    build_task(task, run.fit_names(name), seed, output, run.config["shards"]["max_rejected"])
    scored, counted = (
        {
            fit: _learn(run, fit_of(name, fit), folder / fit, output.galaxies, seed, samples, views)
            for fit in fits
        }
        for fits in (run.scored_fits(name), run.counted_fits(name))
    )
    scores = {"galaxies": "predicted.parquet", "scores": "scores.csv", "confusion": "confusion.csv"}
    scores = SimpleNamespace(**{key: folder / file for key, file in scores.items()})
    evaluate_task(output.galaxies, scored, seed, scores)
    if counted:
        evaluate_label_counts(output.galaxies, counted, folder / "label_counts.csv")
    return Finetuned(
        [str(folder / fit) for fit in scored],
        pd.read_csv(scores.scores),
        pd.read_csv(folder / "label_counts.csv") if counted else None,
        pd.read_parquet(scores.galaxies),
    )


def _learn(run, fit, folder, galaxies, seed, samples, views):
    """Train one finetuning of a task and predict all galaxies of the task; returns its predictions."""
    made = {"model": "model.keras", "about": "model.json", "history": "history.csv"}
    made |= {"predictions": "predictions.hdf5", "rejected": "predictions.rejected.csv"}
    output = SimpleNamespace(**{key: folder / file for key, file in made.items()})
    finetune_task(
        galaxies=galaxies,
        model=run.task_of(fit)["start"],
        task=run.training_of(fit),
        seed=seed,
        job=Job(output),
        scratch=run.starts_from_scratch(fit),
    )
    predict.predict_chunk([galaxies], [folder], 0, 1, samples, views, seed, output)
    return output.predictions


def _start(source, config, folder):
    """The model folder to start from; what is none is imported."""
    if kind_of_source(source, "pretrained") == "model":
        return source
    output = SimpleNamespace(model=folder / "model.keras", about=folder / "model.json")
    import_backbone(**import_settings(source, config), output=output)
    return folder


def _run_of(task):
    """A run of nothing but this task, checked as Snakemake's runs are."""
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
    # No folder below results/ is this run's own: the models in them are used as they are.
    config["run"] = uuid.uuid4().hex
    config["predict"]["targets"], config["evaluate"]["target"] = [], None
    config["finetune"]["tasks"] = [task]
    return read_run(config, ROOT)
