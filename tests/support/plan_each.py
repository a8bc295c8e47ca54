"""Snakemake's command line, many times in one process, which costs less than starting Python each time."""

import contextlib
import gc
import io
import json
import os
import sys
import traceback
from pathlib import Path

import yaml
from snakemake.cli import main

# The repository, and when its files were changed, whose zoolib is imported.
imported = None


def called(repo, arguments, environment):
    """Call Snakemake in a folder.

    Args:
        repo: the folder.
        arguments: of the command line.
        environment: all variables of the process.

    Returns:
        (exit status, what the terminal shows).
    """
    global imported
    os.chdir(repo)
    code = repo, {path: path.stat().st_mtime_ns for path in Path(repo, "workflow/scripts").rglob("*.py")}
    if code != imported:
        # Each repository has its own zoolib, which its rules import; a test may have edited it. A strategy of
        # one's own may lie beside it.
        for name, module in list(sys.modules.items()):
            if "/workflow/scripts/" in (getattr(module, "__file__", None) or ""):
                del sys.modules[name]
        imported = code
    os.environ.clear()
    os.environ.update(environment)
    shown, status = io.StringIO(), 0
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            main(arguments)
        except SystemExit as end:
            # As Python does at its own end: anything but a number is shown.
            status = end.code or 0
            if not isinstance(status, int):
                print(status)
                status = 1
        except Exception:
            traceback.print_exc()
            status = 1
    # Each call leaves its workflow behind, which the garbage collector need not search every time.
    gc.freeze()
    return status, shown.getvalue()


if __name__ == "__main__":
    # Nothing else may come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # The same reader in C: reading YAML was a quarter of the time.
    yaml.SafeLoader = yaml.CSafeLoader
    for line in sys.stdin:
        print(json.dumps(called(*json.loads(line))), file=answers, flush=True)
