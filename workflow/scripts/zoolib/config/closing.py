"""What a call of Snakemake says at its end: where things are, in five lines at most."""

import csv
import os
import shlex
from pathlib import Path

# Where a stage lists what it could not use.
REJECTED = (
    "catalog/rejected.csv",
    "catalog/*/rejected.csv",
    "shards/rejected.csv",
    "predict/**/rejected.csv",
    "finetune/*/rejected.csv",
)
SHOWN = 3


def closing_lines(run, configfiles, changed=None):
    """Where the results of a run are, what could not be used, and how to see everything on one page.

    Args:
        run: its name.
        configfiles: the paths that were given with `--configfile`.
        changed: the keys that were given with `--config`, and their values.

    Returns:
        A list of at most five lines of text.
    """
    folder = Path("results") / run
    # Copies of models are none of their own.
    copies = {"kept", "export"}
    models = sorted(path.parent for path in folder.glob("*/**/model.keras") if not copies & {*path.parts})
    posteriors = sorted({path.parent for path in folder.glob("predict/**/catalog/*.parquet")})
    typed = ["snakemake"]
    if configfiles:
        typed += ["--configfile", *map(_shortest, configfiles)]
    if changed:
        typed += ["--config", *(f"{key}={value}" for key, value in changed.items())]
    return [
        f"Results of the run '{run}': {folder}/ (docs/outputs.md lists all files), logs: logs/{run}/",
        *([f"Models: {_some(models)}"] if models else []),
        *([f"Posteriors: {_some(posteriors)}"] if posteriors else []),
        _rejected(folder),
        f"A page with everything: {shlex.join([*typed, '--report', f'{folder}/report.html'])}",
    ]


def _shortest(path):
    """A path as one would type it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _some(paths):
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(str, paths[:SHOWN])) + more


def _rejected(folder):
    """How many rows and images could not be used, and the tables that say why."""
    counts = {}
    for path in sorted(path for form in REJECTED for path in folder.glob(form)):
        with open(path, newline="") as file:
            count = sum(1 for _ in csv.reader(file)) - 1
        if count > 0:
            counts[path] = count
    if not counts:
        return "Rejected rows and images: none"
    return (
        f"Rejected rows and images, with reasons: {_some([f'{path} ({n:,})' for path, n in counts.items()])}"
    )
