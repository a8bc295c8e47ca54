"""The study of the real ring galaxies: how much a backbone helps that has seen only simulations.

Writes the last section of docs/rings.md and docs/rings.png from the run of config/study_rings.yaml.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pages import REPO, machine, write_section
from zoolib.data.fits import read_fit
from zoolib.scores.metrics import bootstrap_weights

# The tasks of the configuration and their names on the page; differences are from the first.
TASKS = {"scratch": "from scratch", "frozen": "pretrained, frozen", "finetuned": "pretrained, finetuned"}
COUNTED = "labels"
RESAMPLES = 10_000
# Ends of the intervals.
LEVEL = [2.5, 97.5]


def right_answers(run, task):
    """Whether the prediction was right for each galaxy when it was tested.

    Args:
        run: folder of the run.
        task: name of a task with folds.

    Returns:
        Data frame, id_str -> right (0 or 1), fold.
    """
    table = pd.read_parquet(run / "evaluate" / task / "galaxies.parquet").set_index("id_str")
    table = table[table["split"] == "test"]
    right = (table["ring_predicted"] > 0.5) == (table["ring"] > 0.5)
    return pd.DataFrame({"right": right.astype(float), "fold": table["fit"]}).sort_index()


def with_interval(values, weights):
    """The mean over galaxies in points, and the ends of its interval.

    Args:
        values: (galaxies,).
        weights: (resamples, galaxies), of the bootstrap.

    Returns:
        (mean, low, high).
    """
    return 100 * values.mean(), *np.percentile(100 * weights @ values / weights.sum(axis=1), LEVEL)


def compare(answers):
    """Lines of a table: accuracy of each task, and its difference from the first, galaxy by galaxy.

    Args:
        answers: {task: table of `right_answers`}, of the same galaxies in the same folds.

    Returns:
        List of text.

    Raises:
        ValueError: tasks with other galaxies, or other folds.
    """
    first = next(iter(answers.values()))
    for task, table in answers.items():
        if not table["fold"].equals(first["fold"]):
            raise ValueError(f"{task} was not tested on the same galaxies in the same folds as the first.")
    weights = bootstrap_weights(len(first), RESAMPLES, np.random.default_rng(1))
    lines = ["| | accuracy | folds | difference | folds |", "| --- | ---: | ---: | ---: | ---: |"]
    for task, table in answers.items():
        difference = table["right"] - first["right"]
        cells = []
        for values, sign in ((table["right"], ""), (difference, "+")):
            mean, low, high = with_interval(values.to_numpy(), weights)
            folds = 100 * values.groupby(table["fold"]).mean()
            cells.append(f"{mean:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})")
            cells.append(", ".join(f"{value:{sign}.0f}" for value in folds))
        lines.append(
            f"| {TASKS[task]} | {' | '.join(cells if table is not first else [*cells[:2], '', ''])} |"
        )
    return lines


def label_count_lines(table):
    """Lines of a table: mean accuracy, and its standard deviation over seeds, for each number of labels."""
    accuracy = table[table["score"] == "accuracy"]
    found = 100 * accuracy.groupby(["start", "labels"])["value"].agg(["mean", "std"])
    counts = sorted(accuracy["labels"].unique())
    lines = [
        f"| labels | {' | '.join(f'{count}' for count in counts)} |",
        f"| --- |{' ---: |' * len(counts)}",
    ]
    for start, name in (("scratch", "from scratch"), ("finetuned", "pretrained")):
        cells = ["{mean:.0f} ± {std:.0f}".format(**found.loc[(start, count)]) for count in counts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def study(results):
    """Write the section and copy the figure."""
    run = results / "study_rings"
    answers = {task: right_answers(run, task) for task in TASKS}
    counted = run / "evaluate" / COUNTED
    jobs = {
        path: pd.read_csv(path, sep="\t")["s"].iloc[0]
        for path in (results.parent / "benchmarks" / "study_rings").rglob("*.tsv")
    }
    configuration = yaml.safe_load((REPO / "config" / "study_rings.yaml").read_text())
    first = answers[next(iter(TASKS))]
    test = read_fit(run / "finetune" / COUNTED / "galaxies.parquet")["test"].table
    section = [
        f"{machine('study-rings')} {len(jobs)} jobs took {sum(jobs.values()) / 60:.0f} minutes.",
        "",
        f"Accuracy in per cent on {len(first)} real galaxies, half of them rings, each tested by the one of"
        f" {first['fold'].nunique()} models that has not seen it. The backbone has seen"
        f" {configuration['zenodo']['simulate']['galaxies']:,} simulated galaxies and no real one. In"
        " brackets: 95 % intervals of a bootstrap over galaxies. Differences are from the first row, galaxy"
        " by galaxy.",
        "",
        *compare(answers),
        "",
        f"Accuracy on {len(test)} galaxies against the number of labels, mean and standard deviation over"
        " seeds:",
        "",
        *label_count_lines(pd.read_csv(counted / "label_counts.csv")),
        "",
        "![Accuracy against the number of labels](rings.png)",
    ]
    write_section("rings.md", "Results", section)
    shutil.copyfile(counted / "label_counts.png", REPO / "docs" / "rings.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=REPO / "results")
    study(parser.parse_args().results)
