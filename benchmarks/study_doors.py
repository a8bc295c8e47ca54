"""The study of the doors: what YAML, `make finetune` and Python make of the same labels with their defaults.

Writes the section "Every door" of docs/finetuning.md, from the demo's 1,200 labels (five divisions of the
galaxies) and from 240 real galaxies (five folds). Each model stands beside the linear probe of its labels.
Snakemake and `zoolib.api.finetune` do not do again what has ended, so an interrupted study goes on.
"""

import argparse
import os
import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pages import REPO, machine, write_section
from zoolib.data.fits import read_fit
from zoolib.data.tasks import SHARES
from zoolib.job.logs import whole
from zoolib.scores.metrics import bootstrap_weights

MODEL = "results/demo/train/metrics/0"
DOORS = ("YAML", "`make finetune`", "Python")
# The first one is that of the configuration: nobody types it.
SEEDS = (42, 1, 2, 3, 4)
USUAL = SEEDS[0]
FOLDS = 5
# Where the labels, the images and the folders of the models are, from the root of the repository.
DATA, REAL = Path("data/study_doors"), Path("data/real")
# Points: what is asked of each door on the demo's rings.
ENOUGH = 80
RESAMPLES = 10_000
PAGE = "finetuning.md"


def prepare():
    """Unpack the images of the demo's rings: `make finetune` takes one folder."""
    demo, folder = REPO / "results" / "demo" / "download", REPO / DATA
    table = pd.read_csv(demo / "rings.csv")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write(table, "rings.csv")
    names = set(table["id_str"])
    for path in sorted(demo.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                image = folder / "images" / Path(member).name
                if image.suffix == ".png" and image.stem in names and not image.is_file():
                    with whole(image) as partial:
                        partial.write_bytes(archive.read(member))
    write(pd.read_csv(REPO / REAL / "rings.csv"), "real.csv")


def write(table, name):
    """Write a table of labels, unless it is there already: a younger file would train all again."""
    path, text = REPO / DATA / name, table.to_csv(index=False)
    if not path.is_file() or path.read_text() != text:
        with whole(path) as partial:
            partial.write_text(text)
    return DATA / name


def documented(page):
    """The configuration that the guide's walk-through types, "mine/ring.yaml"."""
    return yaml.safe_load(re.search(r"```yaml\n(# mine/ring\.yaml\n.*?)```", page, re.S)[1])


def open_yaml(name, table, images, seed=USUAL, **keys):
    """Finetune as the walk-through does; returns the folders of the task: of the models and of the scores."""
    config = documented((REPO / "docs" / PAGE).read_text())
    (task,) = config["finetune"]["tasks"]
    task |= {"table": str(table), "images": str(images), "pretrained": MODEL, **keys}
    config |= {"run": name} | ({} if seed == USUAL else {"seed": seed})
    path = REPO / DATA / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    call("snakemake", "--quiet", "rules", "--configfile", path)
    return [REPO / "results" / name / stage / task["name"] for stage in ("finetune", "evaluate")]


def open_make(name, table, images):
    """Finetune as `make finetune` does."""
    words = {"LABELS": table, "IMAGES": images, "LABEL": "ring", "MODEL": MODEL, "NAME": name}
    call("make", "--no-print-directory", "finetune", *(f"{key}={value}" for key, value in words.items()))
    return [REPO / "results" / name / stage / name for stage in ("finetune", "evaluate")]


def open_python(name, table, images, **keys):
    """Finetune as a notebook does."""
    import keras
    from zoolib import api

    keras.utils.clear_session()
    places = {"table": REPO / table, "images": REPO / images, "pretrained": REPO / MODEL}
    folder = REPO / "results" / name
    api.finetune(name="ring", label="ring", folder=folder, **places, **keys)
    return [folder, folder]


def call(*command):
    """Run a command in the root of the repository, as if it were typed there; stop where it fails."""
    # What was typed for the study itself is no setting of `make finetune`.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run([str(word) for word in command], cwd=REPO, check=True, env=environment)


def with_split(table, folder, fit, name):
    """The labels with the split that another door has made of them, for a door without seed and folds."""
    parts = read_fit(folder / "galaxies.parquet", fit)
    split = {galaxy: part for part, catalog in parts.items() for galaxy in catalog.table["id_str"]}
    labels = pd.read_csv(REPO / table)
    return write(labels.assign(split=labels["id_str"].map(split)).dropna(subset="split"), name)


def right_answers(models, scores):
    """Whether the model and its linear probe are right about each test galaxy.

    Args:
        models: folder of the task with `probe.parquet`.
        scores: folder of the task with `scores.csv` and the predictions.

    Returns:
        Data frame, id_str -> model, probe: 0 or 1.

    Raises:
        ValueError: `scores.csv` says something else.
    """
    # The Python function writes all into one folder.
    table = pd.read_parquet(scores / ("predicted.parquet" if models == scores else "galaxies.parquet"))
    probe = pd.read_parquet(models / "probe.parquet").rename(columns={"ring": "of_probe"})
    table = table[table["split"] == "test"].merge(probe, on=["id_str", "fit"], validate="one_to_one")
    truth = table["ring"] > 0.5
    columns = {"model": "ring_predicted", "probe": "of_probe"}
    found = {name: ((table[column] > 0.5) == truth).astype(float) for name, column in columns.items()}
    found = pd.DataFrame(found).set_axis(table["id_str"])
    told = pd.read_csv(scores / "scores.csv").query("split == 'test' and score == 'accuracy'").iloc[0]
    if not np.allclose(found.mean(), told[["value", "probe"]].astype(float), atol=1e-4):
        raise ValueError(f"{scores}: scores.csv has other accuracies than its galaxies.")
    about = f"accuracy {found['model'].mean():.3f}, probe {found['probe'].mean():.3f}"
    print(f"{scores.relative_to(REPO)}: {about}", flush=True)
    return found


def simulated(seeds):
    """Open each door with the demo's rings, once for each seed.

    Args:
        seeds: those of `SEEDS`, or some of them.

    Returns:
        {name of the door: {seed: what `right_answers` gives}}.
    """
    table, images, found = DATA / "rings.csv", DATA / "images", {}
    for seed in seeds:
        by_yaml = open_yaml(f"study_doors_yaml_{seed}", table, images, seed)
        # This door has no seed: other divisions of the galaxies are a column of its table.
        given = table if seed == USUAL else with_split(table, by_yaml[0], "", f"rings_{seed}.csv")
        by_make = open_make(f"study_doors_make_{seed}", given, images)
        typed = {} if seed == USUAL else {"seed": seed}
        by_python = open_python(f"study_doors_python_{seed}", table, images, **typed)
        for door, folders in zip(DOORS, (by_yaml, by_make, by_python), strict=True):
            found.setdefault(door, {})[seed] = right_answers(*folders)
    return found


def real(folds):
    """Open each door with the real galaxies.

    Args:
        folds: their number.

    Returns:
        {name of the door: what `right_answers` gives, for all galaxies}.
    """
    table = DATA / "real.csv"
    by_yaml = open_yaml("study_doors_yaml_real", table, REAL, folds=folds)
    by_python = open_python("study_doors_python_real", table, REAL, folds=folds)
    by_make = []
    for number in range(folds):
        # This door has no folds: each is a command of its own.
        given = with_split(table, by_yaml[0], f"fold{number}", f"real_fold{number}.csv")
        by_make.append(right_answers(*open_make(f"study_doors_make_fold{number}", given, REAL)))
    return dict(
        zip(DOORS, (right_answers(*by_yaml), pd.concat(by_make), right_answers(*by_python)), strict=True)
    )


def lines_of_simulated(found):
    """Lines of the table of the demo's rings.

    Args:
        found: from `simulated`.

    Returns:
        List of text.
    """
    seeds = list(next(iter(found.values())))
    lines = [
        f"| door | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | its linear probe | difference |",
        f"| --- |{' ---: |' * (len(seeds) + 3)}",
    ]
    for door, of_seeds in found.items():
        table = accuracies(of_seeds)
        shown = [f"{value:.1f}" for value in table["model"]]
        shown += [f"{table[name].mean():.1f} ± {spread(table[name]):.1f}" for name in ("model", "probe")]
        mean, low, high = difference(pd.concat(of_seeds.values()))
        shown.append(f"{mean:+.1f} ± {spread(table['apart']):.1f} ({low:+.1f} to {high:+.1f})")
        lines.append(f"| {door} | {' | '.join(shown)} |")
    return lines


def accuracies(of_seeds):
    """In points: data frame, seed -> model, probe, and apart, which is model - probe."""
    table = 100 * pd.DataFrame({seed: right.mean() for seed, right in of_seeds.items()}).T
    return table.assign(apart=table["model"] - table["probe"])


def spread(of_seeds):
    """The standard deviation over seeds; 0 for one alone."""
    return of_seeds.std() if len(of_seeds) > 1 else 0.0


def lines_of_real(found):
    """Lines of the table of the real galaxies.

    Args:
        found: from `real`.

    Returns:
        List of text.
    """
    lines = ["| door | galaxies | accuracy | its linear probe | difference |", f"| --- |{' ---: |' * 4}"]
    for door, right in found.items():
        mean, low, high = difference(right)
        of_model, of_probe = 100 * right["model"].mean(), 100 * right["probe"].mean()
        apart = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append(f"| {door} | {len(right)} | {of_model:.1f} | {of_probe:.1f} | {apart} |")
    return lines


def difference(right):
    """How far the model is above its probe.

    Args:
        right: from `right_answers`, of one seed or several; a galaxy is resampled with all its rows.

    Returns:
        (mean, low, high): points, and the ends of the 95 % interval of the bootstrap over galaxies.
    """
    apart = (right["model"] - right["probe"]).groupby(level=0).agg(["sum", "size"]).to_numpy(float)
    resampled = bootstrap_weights(len(apart), RESAMPLES, np.random.default_rng(1)) @ apart
    ends = np.percentile(100 * resampled[:, 0] / resampled[:, 1], [2.5, 97.5])
    return 100 * apart[:, 0].sum() / apart[:, 1].sum(), *ends


def verdict(of_simulated, of_real):
    """Two sentences: which doors give enough, and which are below their probe by more than the spread."""
    tables = {door: accuracies(of_seeds) for door, of_seeds in of_simulated.items()}
    few = [door for door, table in tables.items() if table["model"].mean() < ENOUGH]
    below = [
        f"{door} (demo)" for door, table in tables.items() if table["apart"].mean() < -spread(table["apart"])
    ]
    below += [f"{door} (real galaxies)" for door, right in of_real.items() if difference(right)[2] < 0]
    enough = f"**All doors give {ENOUGH} % or more on the demo's rings by default.**"
    if few:
        enough = f"**Below {ENOUGH} % on the demo's rings: {', '.join(few)}.**"
    beside = "**No door is below its own linear probe by more than the spread.**"
    if below:
        beside = f"**Below its own linear probe by more than the spread: {', '.join(below)}.**"
    return f"{enough} {beside}"


def study(seeds, folds, write):
    """Open all doors, and write the section."""
    prepare()
    of_simulated, of_real = simulated(seeds), real(folds)
    section = [
        machine("study-doors"),
        "",
        verdict(of_simulated, of_real),
        "",
        "The same labels through each door, with the demo's model and no setting but those of the guide: no"
        " head, strategy or patience is typed. The model stands beside the linear probe that has learned from"
        " the same labels, those that stop the training included, and is tested on the same galaxies.",
        "",
        f"**The demo's rings.** Half of the galaxies have a ring; {100 * SHARES['test']:.0f} % are tested on."
        " Accuracy in per cent; mean and standard deviation over the seeds, which is the spread that counts"
        " here. In brackets: the 95 % interval of the difference, by bootstrap over the galaxies. A seed"
        f" divides the galaxies and begins the training. {USUAL} is the default, with which all doors train"
        " the same model. `make finetune` has no seed: it gets the other divisions in the column `split`, and"
        " trains with its own seed.",
        "",
        *lines_of_simulated(of_simulated),
        "",
        f"**Real galaxies.** Half have a ring, and {folds} folds test each galaxy once. Here the spread is"
        " the 95 % interval in brackets. `make finetune` has no folds: it gets those of the YAML in the"
        " column `split`, one command for each.",
        "",
        *lines_of_real(of_real),
    ]
    write_section(PAGE, "Every door", section, write)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="divisions of the demo's galaxies")
    parser.add_argument("--folds", type=int, default=FOLDS, help="of the real galaxies")
    parser.add_argument("--print", action="store_true", help="print the section instead of writing it")
    given = parser.parse_args()
    study(SEEDS[: given.seeds], given.folds, not given.print)
