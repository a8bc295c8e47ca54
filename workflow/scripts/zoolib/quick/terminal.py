"""What `make finetune` and `make predict` have in common: typed settings, the YAML, the call of Snakemake."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from zoolib.job.logs import UserError, whole


def read_settings(given, keys, command):
    """The settings of a command, "" for those that were not typed.

    Args:
        given: {name: text}.
        keys: the names that the command knows.
        command: such as `make finetune`, for messages.

    Returns:
        {name: text} with all of `keys`.

    Raises:
        UserError: there is no such setting, or NAME is no name of a folder.
    """
    strange = sorted(set(given) - set(keys))
    if strange:
        raise UserError(f"{strange[0]} is not a setting of {command}, expected one of {', '.join(keys)}.")
    found = {key: os.path.expanduser(given.get(key, "").strip()) for key in keys}
    if not re.fullmatch("([A-Za-z0-9][A-Za-z0-9_-]*)?", found["NAME"]):
        raise UserError(
            f"NAME is '{found['NAME']}', expected letters, digits, - and _, with a letter or digit first;"
            " choose another name."
        )
    return found


def read_number(given, key, least):
    """A whole number that was typed.

    Args:
        given: {name: text}.
        key: its name.
        least: the smallest that is allowed.

    Returns:
        The number; None if it was not typed.

    Raises:
        UserError: it is no whole number, or too small.
    """
    text = given[key]
    if text and not (re.fullmatch(r"\d{1,9}", text) and int(text) >= least):
        raise UserError(f"{key} is '{text}', expected a whole number of {least} or more; fix it.")
    return int(text) if text else None


def name_of(text):
    """A name for folders, made from any text; "" if it has no letter or digit."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")


def check_folder(name, files):
    """Stop where the results of another run would be replaced.

    Args:
        name: of the run.
        files: pattern of the YAML files that this command writes into the folder of the run.

    Raises:
        UserError: the folder of the run has results, but no such file.
    """
    if name == "demo":
        raise UserError("NAME is 'demo', but this is the name of the demo's own run; choose another name.")
    here = Path("results", name)
    if here.is_dir() and any(here.iterdir()) and not list(here.glob(files)):
        raise UserError(
            f"NAME is '{name}', but {here} has the results of another run, which this one could replace;"
            " choose another name with NAME=."
        )


def write_yaml(path, heading, content):
    """Write a configuration; a different file there is kept as a copy.

    Args:
        path: the file.
        heading: lines of comment.
        content: plain values.
    """
    text = f"{heading}\n{yaml.safe_dump(content, sort_keys=False, default_flow_style=None)}"
    if path.is_file() and path.read_text() != text:
        before = path.with_name(f"{path.stem}.before.yaml")
        path.replace(before)
        say(f"The earlier {path} was renamed to {before}.")
    with whole(path) as partial:
        partial.write_text(text)


def run_snakemake(target, overlay):
    """Run Snakemake for one target; its output goes to the terminal.

    Args:
        target: a rule or file.
        overlay: path of the configuration.

    Raises:
        UserError: it failed; the message is the failed job's, if there is one.
    """
    begun = time.time()
    command = [sys.executable, "-m", "snakemake", str(target)]
    if subprocess.run([*command, "--quiet", "rules", "--configfile", str(overlay)]).returncode == 0:
        return
    run = yaml.safe_load(Path(overlay).read_text())["run"]
    traces = [path for path in Path("logs", run).rglob("*.traceback") if path.stat().st_mtime >= begun]
    if traces:
        lines = traces[0].with_suffix("").read_text().strip().splitlines()
        raise UserError(lines[-1].partition(" ")[2])
    raise UserError(f"Snakemake failed while it ran {overlay}; read its messages above, and fix the cause.")


def say(text):
    """Print a message at once, so that it comes before the output of the programs called later."""
    print(text, flush=True)


def ended(command):
    """Call a command; the message of a `UserError` is printed. Returns the exit status."""
    try:
        command()
    except UserError as error:
        say(str(error))
        return 1
    return 0
