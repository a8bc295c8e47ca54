"""Draw faults from a seed, try them on small real runs, and print which were survived.

`python tests/faults/run.py [FAULTS] [SEED]`. Without FAULTS (or with 0) it is a draw for every change: six
kills, one of them in the chain of models, one case of each other row, 50 mutations for each reader.
FAULTS=200 makes as many kills, every cell before any a second time, every case of the other rows, and 1,000
mutations for each reader. Tries are written down in build/faults: a call that was stopped goes on where it
was, and repeats only tries that lost something.
"""

import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
sys.path[:0] = [str(HERE), *(str(REPO / folder) for folder in ("tests/support", "workflow/scripts"))]

# Three processes share the rows, each for about the same time.
LANES = {"kills": ("kills", "together"), "runs": ("changes",), "calls": ("network", "mutations", "system")}
KILLS, MUTATIONS = 6, 50
DRAW = "draw"


def rows_of(lane):
    """The rows of one lane, {name: (module's name, row)}."""
    modules = [name for name in LANES[lane] if (HERE / f"{name}.py").is_file()]
    return {row.name: (name, row) for name in modules for row in importlib.import_module(name).ROWS}


def plan(module, row, faults, seed):
    """The tries of one row, as a list of (cell, number).

    Args:
        module: the name of the row's module.
        row: with the attributes `name` and `cells`.
        faults: number of kills; 0 for a draw.
        seed: whole number.
    """
    chance = random.Random(f"{seed} {row.name}")
    cells = list(row.cells)
    chance.shuffle(cells)
    if module == "mutations":
        return _repeated(cells, 5 * faults or MUTATIONS)
    if getattr(row, "chain", None):
        return _repeated(cells, faults) if faults else [(cell, 0) for cell in _drawn_kills(row, cells)]
    return [(cell, 0) for cell in (cells if faults else cells[:1])]


def _drawn_kills(row, cells):
    """Six kills of different jobs, one of them in the chain."""
    chained = [cell for cell in cells if cell in row.chained][:1]
    by_job = {cell.split(",")[0]: cell for cell in cells if cell not in row.chained}
    return [*chained, *[by_job[job] for job in list(by_job)[: KILLS - len(chained)]]]


def _repeated(cells, count):
    return [(cells[number % len(cells)], number // len(cells)) for number in range(count)]


class Notes:
    """The tries of a call, in a file that a later call goes on with.

    Args:
        path: of the file; each line is the JSON of one try.
    """

    def __init__(self, path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def tries(self):
        """The last try of each (row, cell, number), as a dict."""
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return {(one["row"], one["cell"], one["number"]): one for one in found}

    def add(self, **one):
        """Write down one try."""
        with open(self.path, "a") as file:
            file.write(json.dumps(one) + "\n")


def work(lane, faults, seed):
    """Make all tries of one lane that are not written down yet.

    Args:
        lane: its name.
        faults: number of kills; 0 for a draw.
        seed: whole number.
    """
    notes, code, parent = notes_of(lane, faults, seed), commit(), os.getppid()
    survived = {key for key, one in notes.tries().items() if one["lost"] is None}
    for module, row in rows_of(lane).values():
        left = [key for key in plan(module, row, faults, seed) if (row.name, *key) not in survived]
        for group in _groups(row, left):
            if os.getppid() != parent:
                return
            began = time.monotonic()
            lost = _attempt(row, group, f"{seed} {row.name}")
            seconds = (time.monotonic() - began) / len(group)
            for cell, number in group:
                try_ = {"row": row.name, "cell": cell, "number": number, "lost": lost[cell]}
                notes.add(**try_, seconds=round(seconds, 3), code=code)
            for reason in sorted({lost[cell] for cell, _ in group} - {None}):
                print(f"LOST {row.name}: {', '.join(cell for cell, _ in group)}: {reason}", flush=True)
            if seconds * len(group) > 5:
                print(f"{row.name}: {len(group)} tried in {seconds * len(group):.0f} s", flush=True)


def _groups(row, tries):
    """Tries that are made together: several kills share one run."""
    if not hasattr(row, "groups"):
        return [[one] for one in tries]
    rounds = {}
    for cell, number in tries:
        rounds.setdefault(number, []).append(cell)
    return [[(cell, n) for cell in group] for n, cells in rounds.items() for group in row.groups(cells)]


def _attempt(row, group, seed):
    """What was lost in a group of tries, {cell: None or a text}."""
    seeds = {cell: f"{seed} {cell} {number}" for cell, number in group}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            if hasattr(row, "attempts"):
                return row.attempts(list(seeds), " ".join(seeds.values()), Path(folder))
            return {cell: row.attempt(cell, one, Path(folder)) for cell, one in seeds.items()}
        except Exception as error:
            return dict.fromkeys(seeds, f"{type(error).__name__}: {' '.join(str(error).split())[:900]}")


def notes_of(lane, faults, seed):
    """Where the tries of a call are written down."""
    return Notes(REPO / "build/faults" / f"{faults or DRAW}-{seed}" / f"{lane}.jsonl")


def commit():
    """The commit of the code that is tried, with a + if files differ from it."""
    found = subprocess.run(
        ["git", "describe", "--always", "--abbrev=10", "--dirty=+"], cwd=REPO, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def table(faults, seed):
    """The table of all rows as Markdown, and whether every row was tried and survived."""
    lines = ["| fault | cells | of | tried | survived | lost |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    good = True
    for lane in LANES:
        tries = notes_of(lane, faults, seed).tries().values()
        for name, (_, row) in rows_of(lane).items():
            mine = [one for one in tries if one["row"] == name]
            survived = [one for one in mine if one["lost"] is None]
            lost = sorted({one["lost"].split(";")[0][:160] for one in mine if one["lost"] is not None})
            good &= bool(mine) and len(survived) == len(mine)
            covered = len({one["cell"] for one in mine})
            shown = " / ".join(lost).replace("|", "\\|") or "nothing"
            lines.append(
                f"| {name} | {covered} | {len(row.cells)} | {len(mine)} | {len(survived)} | {shown} |"
            )
    return "\n".join(lines), good


def main(faults=0, seed=1):
    """Make all tries, print the table; the exit status says whether every row was survived."""
    if not faults:
        # A draw is quick: it always starts from scratch.
        os.environ["FAULTS_DRAW"] = "1"
        for lane in LANES:
            notes_of(lane, faults, seed).path.unlink(missing_ok=True)
    began = time.monotonic()
    with ProcessPoolExecutor(len(LANES), mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(work, lane, faults, seed) for lane in LANES]:
            done.result()
    shown, good = table(faults, seed)
    print(
        f"\nseed {seed}, commit {commit()}, {(time.monotonic() - began) / 60:.1f} min in this call\n\n{shown}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
