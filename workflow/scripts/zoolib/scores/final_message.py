"""What a user reads at the end of `make finetune`: which labels were used, and how good the classifier is."""

import pandas as pd

from zoolib.data.catalogs import SPLITS

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
    scores = pd.read_csv(f"{folder}/scores.csv")
    test = scores[scores["split"] == "test"]
    count = test["galaxies"].iloc[0]
    model = f"results/{run}/finetune/{name}"
    lines = [
        *_used(model),
        "",
        f"Scores on {count} galaxies that the model has not seen:",
        f"  {'score':<20}{'value':>8}   {'68 % interval':<16}{'one answer for all':>20}",
    ]
    for row in test.to_dict("records"):
        found = {
            key: "" if pd.isna(value) else f"{value:.3f}" for key, value in row.items() if key not in ABOUT
        }
        interval = found["low_68"] and f"{found['low_68']} to {found['high_68']}"
        lines.append(f"  {row['score']:<20}{found['value']:>8}   {interval:<16}{found['constant']:>20}")
    lines += [
        "",
        f"Confusion matrix: {folder}/confusion.png; curves and a gallery are in the same folder.",
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


def _used(folder):
    """How many labels were used, and why the others were not."""
    summary = pd.read_csv(f"{folder}/summary.csv")
    rows = summary["galaxies"].iloc[0]
    used = summary.loc[summary["step"].isin([f"split {split}" for split in SPLITS]), "galaxies"].sum()
    rejected = pd.read_csv(f"{folder}/rejected.csv")
    lines = [f"Used {used} of {rows} rows of labels and left out {rows - used} ({folder}/summary.csv)."]
    if len(rejected):
        lines.append(f"Rejected rows: {len(rejected)} ({folder}/rejected.csv); the first one:")
        lines.append(f"  {rejected['reason'].iloc[0]}")
    return lines
