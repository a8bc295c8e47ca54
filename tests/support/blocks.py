"""The blocks of code and commands that pages show, and how a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
# A block with one of these first words is typed; others without a language show what a command prints.
COMMANDS = (
    "make",
    "snakemake",
    "python",
    "python3.11",
    "pip",
    ".",
    "mkdir",
    "cp",
    "ls",
    "head",
    "cat",
    "rsync",
)


class Block(NamedTuple):
    """A block of a page.

    Attributes:
        page: its path in the repository.
        line: where it begins.
        language: behind the backticks; "" for commands, and for what they print.
        text: what it shows.
        why_not: why no test runs it; None if one does.
    """

    page: str
    line: int
    language: str
    text: str
    why_not: str | None

    @property
    def lines(self):
        """Its lines without what stands behind #."""
        return [line for text in self.text.splitlines() if (line := text.partition("  #")[0].strip())]

    @property
    def is_typed(self):
        """Whether it shows commands."""
        first = re.sub(r"^(\w+=\S+ )+", "", self.text).split()[0]
        return not self.language and first in COMMANDS

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks(page):
    """All blocks of a page, in order."""
    text = (REPO / page).read_text()
    return [
        Block(str(page), text.count("\n", 0, found.start(2)) + 1, found[2], found[3], found[1])
        for found in BLOCK.finditer(text)
    ]


def run(block, folder, names):
    """Do with a block what a reader does: type it, give it to Python, or save it.

    Args:
        block: of commands, Python or YAML; the first line of YAML is a comment with the name of the file.
        folder: where the reader is; for Python it is the current one.
        names: the variables of the reader's Python.
    """
    if block.language == "python":
        exec(block.text, names)
    elif block.language == "yaml":
        path = folder / re.match(r"# (\S+)\n", block.text)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    else:
        searched = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=folder,
            env={**os.environ, "PATH": searched},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{block}: {done.stdout[-4000:]}"
