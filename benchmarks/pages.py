"""What the benchmarks share: a section of a page of docs/, and the machine that measured it.

Importing this module makes zoolib importable.
"""

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "scripts"))


def processor():
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()


def machine(target, packages=("keras", "tensorflow-cpu"), details=()):
    """The command, the date, the machine and the versions, as one sentence.

    Args:
        target: of benchmarks/Makefile.
        packages: whose versions matter.
        details: what else to say about the machine, instead of its number of cores.

    Returns:
        Text that ends with a full stop.
    """
    words = [processor(), *(details or [f"{os.cpu_count()} cores", f"Python {platform.python_version()}"])]
    words += [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return f"`make -C benchmarks {target}`, {datetime.date.today():%d %B %Y}: {', '.join(words)}."


def write_section(name, title, section, write=True):
    """Replace a section of a page; a section that is not there yet becomes the last one.

    Args:
        name: of the page, a file of docs/.
        title: of the section, which ends where the next one of its level begins.
        section: its lines.
        write: False prints the lines instead.
    """
    if not write:
        print("\n".join(section))
        return
    page, heading = REPO / "docs" / name, f"## {title}\n"
    before, _, after = page.read_text().partition(f"\n{heading}")
    _, following, rest = after.partition("\n## ")
    text = "\n".join([before.rstrip("\n"), "", heading, *section, ""])
    page.write_text(text + following + rest)
