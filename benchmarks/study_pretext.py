"""The study of votes and views: whether learning from pairs of views beside the votes helps with few labels.

Writes the section "What votes and views give" of docs/training.md from the run results/study_pretext/.
The galaxies, labels and scores are those of study_recipes.py. Each finished training is a file of the run,
so that an interrupted study goes on where it was.
"""

from functools import partial

import pandas as pd
import study_recipes as frozen
from pages import machine, write_section
from study_trained import Trainer, settings_of
from zoolib.job.provenance import hash_of_file

RUN, TASKS, COUNTS = "study_pretext", ("rings", "classes"), (100, 750)
# The columns of the table: how the backbone learned, and the ensemble.
ARMS = {"from scratch": None, "votes": "metrics", "votes and views": "both"}


def cells(run, tasks, counts, seeds):
    """The score of each training, for each task, count and seed; a seed has a pretraining of its own."""
    galaxies, rows = frozen.read_galaxies(run), []
    for task in tasks:
        label, table = frozen.LABELS[task], frozen.labelled(galaxies, task)
        for count in counts:
            for seed in range(seeds):
                parts = frozen.parts_of(table, label, count, seed)
                for name, ensemble in ARMS.items():
                    row = {"task": task, "labels": count, "seed": seed, "recipe": name}
                    # From scratch, only the shape of the network is taken from the model.
                    start, settings = f"{ensemble or 'metrics'}/{seed}", settings_of("freeze", "recommended")
                    checksum = hash_of_file(run / "train" / start / "model.keras") if ensemble else None
                    give = partial(_learn, run, start, settings, label, parts, seed, ensemble is None)
                    found = frozen.remembered(run, [row, settings, checksum], label, parts["test"], give)
                    rows.append({**row, "score": found})
    return pd.DataFrame(rows)


def _learn(run, start, settings, label, parts, seed, scratch):
    return Trainer(run, start).learn(settings, label, parts, seed, scratch)


def gains(table):
    """Lines that say by how much each arm is better than from scratch; the spread is that of the seeds."""
    paired = table.pivot(index=["task", "labels", "seed"], columns="recipe", values="score")
    found = paired.sub(paired["from scratch"], axis=0).groupby(["task", "labels"], sort=False)
    means, spreads = found.mean(), found.std()
    lines = []
    for arm in list(ARMS)[1:]:
        cells = [
            f"{100 * means.loc[key, arm]:+.1f} ± {100 * spreads.loc[key, arm]:.1f} ({key[0]}, {key[1]:,})"
            for key in means.index
        ]
        lines.append(f"- **{arm}**: {', '.join(cells)}")
    return lines


def study(results, tasks, counts, seeds, write):
    """Train what has not been trained, and write the section."""
    table = cells(results / RUN, [task for task in tasks if task in TASKS], counts, seeds)
    section = [
        machine("study-pretext"),
        "",
        "Three pretrainings of each kind on 6,400 simulated galaxies (`tiny`, 48 px, 12 epochs): the votes of"
        " `benchmarks/study_search_tree.yaml`, which asks about spiral arms and bulges alone (*votes*), and"
        " `pretext: vicreg` (*votes and views*). Then tasks learn labels of galaxies that no pretraining has"
        " seen, with the recommended head on the frozen backbone, and from scratch. An eighth of the labels"
        f" decides when training stops. Accuracy, mean and standard deviation over {seeds} seeds; each has"
        " its own pretraining and its own draw of the labels.",
        "",
        *frozen.lines_of(table, list(ARMS)),
        "",
        "Percentage points above *from scratch*, for each seed with the same labels:",
        "",
        *gains(table),
    ]
    write_section("training.md", "What votes and views give", section, write)


if __name__ == "__main__":
    frozen.command_line(__doc__, study, COUNTS)
