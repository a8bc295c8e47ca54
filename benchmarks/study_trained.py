"""The study of recipes, its second part: what it gives to let the backbone learn too.

Writes the section "Frozen or not" of docs/finetuning.md from the run results/study_recipes/. The galaxies,
labels and scores are those of study_recipes.py, and so are the cells of a frozen backbone. Each finished
training is a file of the run, so that an interrupted study goes on where it was.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import study_recipes as frozen
import yaml
from pages import REPO, machine, write_section
from zoolib.config.run import read_run
from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.data.locations import PLACES
from zoolib.finetune import finetune_task
from zoolib.learning.datasets import central_batches
from zoolib.learning.fitting import Job
from zoolib.learning.models import load_model

RUN = "study_recipes"
# Keys of a task. With more patience a thousand labels would take minutes a training.
STRATEGIES = {
    "two_stage": {
        "strategy": {"name": "two_stage", "learning_rate": 0.0003, "epochs": 20, "patience": 10},
    },
    "no_freeze": {"strategy": "no_freeze", "learning_rate": 0.0003, "patience": 10},
}
HEADS = ("recommended", "published")
# The columns of the table: the name of a cell, and what it is.
FROZEN = {f"`{head}`": f"`freeze`, `{head}`" for head in HEADS}
TRAINED = {f"`{strategy}`, `{head}`": (strategy, head) for strategy in STRATEGIES for head in HEADS}


def settings_of(strategy, head):
    """What a task trains with, as the configuration completes it; any other name gives the usual strategy."""
    config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
    # Any folder: no training depends on where its labels are, and its start is given to it.
    task = {"name": "study", "folders": str(REPO / "docs"), "head": head}
    config["finetune"]["tasks"] = [{**task, **STRATEGIES.get(strategy, {})}]
    return read_run(config, REPO).training_of("study")


class Trainer:
    """Finetunes the model of a run for labels of its test galaxies.

    Args:
        run: folder of the run.
        start: the model, below `train/`.
    """

    def __init__(self, run, start="metrics/0"):
        self.start = run / "train" / start
        table = read_catalog(run / "catalog" / "test.parquet").table.set_index("id_str")[list(PLACES)]
        # A path of a catalogue counts from the root of the repository.
        archives = [str(run.parents[1] / path) if path else "" for path in table["archive"]]
        self.places = table.assign(archive=archives)
        about = load_model(self.start).about
        store, names = frozen.stored(run, about["image"])
        views = central_batches(store, about["training"]["augmentation"], 256)
        self.views = np.concatenate([batch.numpy() for batch, _ in views])
        self.rows = pd.Index(names)

    def learn(self, settings, label, parts, seed, scratch=False):
        """What a finetuned model gives for the test galaxies, without dropout as in the frozen part."""
        keras.utils.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            files = {"model": "model.keras", "about": "model.json", "history": "history.csv"}
            output = SimpleNamespace(**{name: Path(folder) / file for name, file in files.items()})
            galaxies = Path(folder) / "galaxies.parquet"
            write_catalog(self._catalog(label, parts), galaxies)
            finetune_task(galaxies, self.start, settings, seed, Job(output), scratch)
            network = load_model(folder).network
        network.compile(jit_compile=False)
        tested = self.rows.get_indexer(parts["test"]["id_str"])
        return network.predict(self.views[tested], batch_size=256, verbose=0)

    def _catalog(self, label, parts):
        """The galaxies as a task has them; those that are tested on are predicted elsewhere."""
        seen = pd.concat(
            [parts[split].assign(part=number) for number, split in enumerate(("train", "val"))],
            ignore_index=True,
        )
        about = {"labels": [label.to_dict()], "folds": None, "balance": "none"}
        return Catalog(seen.join(self.places, on="id_str"), label.targets, label.tree, about)


def cells(run, tasks, counts, seeds):
    """The score of each training, for each task, count and seed; as `study_recipes.cells`."""
    galaxies, trainer, rows = frozen.read_galaxies(run), Trainer(run), []
    settings = {name: settings_of(*of) for name, of in TRAINED.items()}
    for task in tasks:
        label, table = frozen.LABELS[task], frozen.labelled(galaxies, task)
        for count in counts:
            for seed in range(seeds):
                parts = frozen.parts_of(table, label, count, seed)
                for name, chosen in settings.items():
                    row = {"task": task, "labels": count, "seed": seed, "recipe": name}

                    def give(chosen=chosen, label=label, parts=parts, seed=seed):
                        return trainer.learn(chosen, label, parts, seed)

                    made_from = [row, chosen, galaxies.checksum]
                    found = frozen.remembered(run, made_from, label, parts["test"], give)
                    rows.append({**row, "score": found})
    return pd.DataFrame(rows)


def study(results, tasks, counts, seeds, write):
    """Train what has not been trained, and write the section."""
    run = results / RUN
    known = frozen.cells(run, tasks, counts, seeds).replace({"recipe": FROZEN})
    table = pd.concat([known, cells(run, tasks, counts, seeds)], ignore_index=True)
    section = [
        machine("study-recipes"),
        "",
        "The same galaxies, labels and scores as in [Which recipe](#which-recipe), with the backbone `tiny`"
        f" of 128 features: mean and standard deviation over {seeds} draws of the labels. The columns of"
        " `freeze` are those of that section. The others are trained as a task is, and see each image turned,"
        " mirrored and cropped differently in each epoch. `two_stage` has a learning rate of 0.0003 for all"
        " blocks, and at most 20 epochs and a patience of 10 in its second stage. `no_freeze` has a learning"
        " rate of 0.0003 and a patience of 10. All else is the default.",
        "",
        *frozen.lines_of(table, ["linear probe", *FROZEN.values(), *TRAINED]),
    ]
    write_section("finetuning.md", "Frozen or not", section, write)


if __name__ == "__main__":
    frozen.command_line(__doc__, study)
