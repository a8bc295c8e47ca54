"""Snakemake's command line, many times in one process, which costs less than starting Python anew."""

import contextlib
import io
import json
import os
import sys

from snakemake.cli import main


def shown_by(repo, arguments):
    """What the terminal shows when Snakemake is called in a folder."""
    if repo != os.getcwd():
        os.chdir(repo)
        # Each repository has its own copy, which its rules import.
        for name in [name for name in sys.modules if name.partition(".")[0] == "zoolib"]:
            del sys.modules[name]
    shown = io.StringIO()
    with (
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(shown),
        contextlib.suppress(SystemExit),
    ):
        main(arguments)
    return shown.getvalue()


if __name__ == "__main__":
    json.dump([shown_by(*case) for case in json.load(sys.stdin)], sys.stdout)
