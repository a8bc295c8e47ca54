"""Running the pipeline from tests: a copy of the repository, Snakemake's command line, its job lists."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
TEST = ("--configfile", "config/test.yaml")
PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "envs", "CITATION.cff")


def copy_of_the_repository(folder):
    """Copy what the pipeline consists of, so that a test may edit it."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = REPO / part
        if source.is_dir():
            # With what Python has compiled and what is known of the code, but not with files being written.
            partial = shutil.ignore_patterns("*.pyc.*", "fingerprints.*[!n]")
            shutil.copytree(source, folder / part, ignore=partial, symlinks=True)
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


def called(repo, *arguments, **environment):
    """Call Snakemake for what starts no job: dry runs, --summary, --touch.

    One process makes all of these calls, which takes a tenth of the time.

    Args:
        repo: the folder to call it in.
        arguments: of the command line, as in `snakemake`.
        environment: variables to set.

    Returns:
        (exit status, what the terminal shows).
    """
    call = [str(repo), ["--cores", "2", *map(str, arguments)], {**os.environ, **environment}]
    process = _caller()
    print(json.dumps(call), file=process.stdin, flush=True)
    answer = process.stdout.readline()
    assert answer, f"{process.args} ended with {process.wait()} at {call[:2]}"
    return tuple(json.loads(answer))


@cache
def _caller():
    """The process that makes the calls; it ends when its standard input is closed."""
    command = [sys.executable, Path(__file__).with_name("plan_each.py")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def dry_run(repo, *arguments, check=True, **environment):
    """A dry run of Snakemake by `called`; returns (exit status, what the terminal showed)."""
    status, shown = called(repo, "--dry-run", *arguments, **environment)
    if check:
        assert status == 0, shown[-8000:]
    return status, shown


def planned(repo, *arguments, **environment):
    """The jobs of a dry run, {rule: count}; target rules that only collect are left out."""
    return jobs_of(dry_run(repo, *arguments, **environment)[1])


def shown_by_each(cases):
    """What the terminal shows of many dry runs, whether they succeed or not.

    Args:
        cases: (repository, arguments) of each; with --touch among them, files are really touched.

    Returns:
        Texts in the same order, for `jobs_of`.
    """
    cases, shown = list(cases), {}
    # One repository after the other: each new one costs half a second.
    for number, (repo, arguments) in sorted(enumerate(cases), key=lambda case: (str(case[1][0]), case[0])):
        make = called if "--touch" in arguments else partial(dry_run, check=False)
        shown[number] = make(repo, *arguments)[1]
    return [shown[number] for number in range(len(cases))]


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
        "represent",
        "search",
        "explore",
        "train",
        "predict",
        "finetune",
        "evaluate",
        "report",
        "export",
    )
    return {rule: int(count) for rule, count in jobs.items() if rule not in targets}


def pretend(repo, *arguments):
    """Make Snakemake believe that a run has ended: its files are empty, and recorded as made by its rules."""
    _, shown = called(repo, "--summary", *arguments)
    for line in shown.splitlines():
        file, *others = line.split("\t")
        if len(others) >= 5 and file != "output_file":
            (repo / file).parent.mkdir(parents=True, exist_ok=True)
            (repo / file).touch()
    status, shown = called(repo, "--touch", "--forceall", *arguments)
    assert status == 0, shown[-8000:]


def conda_stub(folder):
    """Write a conda that answers what Snakemake asks before it lists its environments; returns its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "conda").write_text(
        "#!/bin/sh\n"
        """case "$1" in
        info) echo '{"conda_version": "24.9.1", "conda_prefix": "/", "root_prefix": "/", "platform": ""}';;
        config) echo '{"get": {"channel_priority": "strict"}}';;
        *) echo 'conda 24.9.1';;
        esac
        """
    )
    (folder / "conda").chmod(0o755)
    return folder


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
