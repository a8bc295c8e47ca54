"""What a user reads at the end of `make finetune`: which labels were used, and how good the classifier is."""

from pathlib import Path

import pandas as pd

from zoolib.data.catalogs import SPLITS
from zoolib.data.partition import CLASSIFICATIONS
from zoolib.posteriors.files import read_described
from zoolib.posteriors.unfamiliar import count_unlike

# Columns of a table of scores that are not scores.
ABOUT = ("label", "split", "score", "galaxies")


def final_message(overlay, path):
    """The text at the end: the scores, the paths of the figures, and how to predict.

    Args:
        overlay: the configuration of the run, with one task.
        path: the file of the overlay; `predict.yaml` may lie beside it.

    Returns:
        text.
    """
    (task,) = overlay["finetune"]["tasks"]
    run, name = overlay["run"], task["name"]
    folder = f"results/{run}/evaluate/{name}"
    scores, advice = (pd.read_csv(f"{folder}/{table}.csv") for table in ("scores", "advice"))
    test = scores[scores["split"] == "test"]
    model = f"results/{run}/finetune/{name}"
    lines = [
        *_used(model),
        "",
        *scored(test),
        *_unlike(run, name),
        *(f"WARNING: {sentence}" for sentence in advice["advice"]),
        "",
        f"{_figure(task)}: {folder}/confusion.png; curves and a gallery are in the same folder.",
        f"To see everything on one page: make report CONFIG={path}",
        "To predict in Python:",
        '  import sys; sys.path.insert(0, "workflow/scripts")',
        "  import zoolib.api",
        f'  zoolib.api.load("{model}").predict("one.jpg")',
    ]
    target = path.with_name("predict.yaml")
    if target.is_file():
        lines += [
            "To predict all images of the folder that this file names:",
            f"  snakemake predict --configfile {target}",
        ]
    else:
        lines.append(
            f"{target} is not written, because the images are not all in one folder below this one; to"
            " predict all images of a folder, see predict.targets in config/README.md."
        )
    return "\n".join(lines)


def scored(test):
    """The scores on test galaxies as lines of text, label by label, beside those of what is simpler.

    Args:
        test: rows of a table of scores, of the split test.

    Returns:
        A list of lines.
    """
    count, labels = test["galaxies"].max(), test["label"].unique()
    probed = "probe" in test
    beside = " and of a linear probe (a regression on the frozen features)" if probed else ""
    head = f"  {'score':<20}{'value':>8}   {'68 % interval':<16}{'one answer':>12}"
    lines = [
        f"Scores on {count} test galaxies, beside those of one answer for all{beside}:",
        head + (f"{'linear probe':>14}" if probed else ""),
    ]
    for label in labels:
        rows = test[test["label"] == label]
        if len(labels) > 1:
            lines.append(f"  {label}, {rows['galaxies'].iloc[0]} galaxies:")
        for row in rows.to_dict("records"):
            found = {
                key: "" if pd.isna(value) else f"{value:.3f}"
                for key, value in row.items()
                if key not in ABOUT and not isinstance(value, str)
            }
            interval = found["low_68"] and f"{found['low_68']} to {found['high_68']}"
            line = f"  {row['score']:<20}{found['value']:>8}   {interval:<16}{found['constant']:>12}"
            lines.append(line + (f"{found['probe']:>14}" if probed else ""))
    return lines


def _figure(task):
    """What the first figure of a task shows: it depends on the kinds of its labels."""
    usual = "multiclass" if task.get("folders") else "binary"
    kinds = {label.get("kind") or usual for label in task.get("labels") or [task]}
    if kinds == {"regression"}:
        return "Labels against predictions"
    if kinds == {"votes"}:
        return "Answers of the volunteers against those of the model"
    several = "matrices" if len(task.get("labels") or []) > 1 else "matrix"
    return f"Confusion {several}" if kinds <= set(CLASSIFICATIONS) else "Labels against predictions, by label"


def _unlike(run, name):
    """How many of the test galaxies look unlike those of the training, where the model knows it."""
    parts = sorted(Path(f"results/{run}/predict/{name}/catalog").glob("*.parquet"))
    galaxies = Path(f"results/{run}/evaluate/{name}/galaxies.parquet")
    if not parts or not galaxies.is_file():
        return []
    splits = pd.read_parquet(galaxies, columns=["id_str", "split"]).drop_duplicates("id_str")
    shares = read_described(parts, ["unfamiliar"])[0].set_index("id_str")["unfamiliar"]
    known, unlike = count_unlike(shares.reindex(splits.loc[splits["split"] == "test", "id_str"]).to_numpy())
    if not known:
        return []
    # Any galaxy is farther than all of n others with a chance of 1 / (n + 1).
    usual = max(0.01, 1 / (1 + (splits["split"] == "val").sum()))
    return [
        f"{unlike} of these galaxies look unlike the training set ({known * usual:.1f} are to be expected;"
        " docs/unfamiliar.md)."
    ]


def _used(folder):
    """How many labels were used, and why the others were not."""
    summary = pd.read_csv(f"{folder}/summary.csv")
    rows = summary["galaxies"].iloc[0]
    # With folds, each galaxy is a test galaxy of one of them.
    parts = summary["step"].str.fullmatch(rf"split ({'|'.join(SPLITS)})|fold\d+ test")
    used = summary.loc[parts, "galaxies"].sum()
    rejected = pd.read_csv(f"{folder}/rejected.csv")
    lines = [f"Used {used} of {rows} rows of labels and left out {rows - used} ({folder}/summary.csv)."]
    if len(rejected):
        lines.append(f"Rejected rows: {len(rejected)} ({folder}/rejected.csv); the first one:")
        lines.append(f"  {rejected['reason'].iloc[0]}")
    return lines
