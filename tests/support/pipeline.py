"""Running the pipeline from tests: a copy of the repository, Snakemake's command line, its job lists."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
TEST = ("--configfile", "config/test.yaml")
PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs")


def copy_of_the_repository(folder):
    """Copy what the pipeline consists of, so that a test may edit it."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = REPO / part
        if source.is_dir():
            shutil.copytree(
                source, folder / part, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True
            )
        else:
            shutil.copy2(source, folder / part)
    return folder


def snakemake(repo, *arguments, check=True, **environment):
    """Run Snakemake in a copy of the repository; returns (exit status, what the terminal showed)."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=repo,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if check:
        assert done.returncode == 0, done.stdout[-8000:]
    return done.returncode, done.stdout


def planned(repo, *arguments, **environment):
    """The jobs of a dry run, {rule: count}; target rules that only collect are left out."""
    return jobs_of(snakemake(repo, "--dry-run", *arguments, **environment)[1])


def shown_by_each(cases):
    """What the terminal shows of many dry runs, which one process makes: a tenth of the time.

    Args:
        cases: (repository, arguments) of each; with --touch among them, files are really touched.

    Returns:
        Texts in the same order, for `jobs_of`.
    """
    lines = []
    for repo, arguments in cases:
        line = ["--cores", "2", *map(str, arguments)]
        lines.append([str(repo), line if "--touch" in line else ["--dry-run", *line]])
    command = [sys.executable, Path(__file__).with_name("plan_each.py")]
    done = subprocess.run(command, input=json.dumps(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    return json.loads(done.stdout)


def jobs_of(shown):
    """The jobs that a dry run shows, {rule: count}; target rules that only collect are left out."""
    table = re.search(r"^Job stats:\n.*?\n(-.*?\n)(.*?)^total", shown, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in shown, shown
        return {}
    jobs = dict(line.split() for line in table.group(2).strip().splitlines())
    targets = (
        "all",
        "download",
        "catalog",
        "shards",
        "pretrained",
        "train",
        "predict",
        "finetune",
        "evaluate",
        "report",
    )
    return {rule: int(count) for rule, count in jobs.items() if rule not in targets}


def pretend(repo, *arguments):
    """Make Snakemake believe that a run has ended: its files are empty, and recorded as made by its rules."""
    _, shown = snakemake(repo, "--summary", *arguments)
    for line in shown.splitlines():
        file, *others = line.split("\t")
        if len(others) >= 5 and file != "output_file":
            (repo / file).parent.mkdir(parents=True, exist_ok=True)
            (repo / file).touch()
    snakemake(repo, "--touch", "--forceall", *arguments)


def overlay(folder, name, content):
    """Write a configuration to lay over the others."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def edit(path, old, new):
    """Replace a piece of a file that must be there."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new))
