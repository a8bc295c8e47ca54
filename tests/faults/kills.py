"""Jobs, their process group and Snakemake are killed; then the run goes on by one plain command."""

import random
import time
from collections import defaultdict

from pipeline import called
from runs import (
    CHAIN,
    HERE,
    RECORD,
    Call,
    Lost,
    arm,
    differences,
    jobs_finished,
    jobs_of_reference,
    jobs_started,
    last_words,
    new_copy,
    reference,
)

WHO = ("job", "group", "snakemake")
MOMENTS = ("boundary", "inside")
# At most so many calls of Snakemake until a run with that many kills has ended.
SPARE = 3


class Kills:
    """A run is killed several times, and ends like the undisturbed run.

    Args:
        name: of the fault, for the table.
        arguments: the run, `CHAIN` or `RECORD`.
        chain: the training whose model is the last of a chain, if there is one.
    """

    # Kills of one run.
    together = 12

    def __init__(self, name, arguments, chain=None):
        self.name, self.arguments, self.chain = name, arguments, chain

    @property
    def cells(self):
        """Each rule (and the end of the chain), at its boundary or inside, and who is killed."""
        return tuple(
            f"{job}, {moment}, {who}" for job in self._targets() for moment in MOMENTS for who in WHO
        )

    @property
    def chained(self):
        """The cells of the model that starts from another one."""
        return tuple(cell for cell in self.cells if cell.startswith(f"{self.chain},"))

    def _targets(self):
        """One job of each rule, and the last training of the chain."""
        found = {}
        # Sorted: the jobs of a run do not always end in the same order.
        for name in sorted(jobs_of_reference(self.arguments)):
            job = name.replace("+", "/")
            found.setdefault(job if job == self.chain else job.split("/")[0], job)
        return list(found.values())

    def groups(self, cells):
        """Divide cells into those that are tried in one run: each job is killed once in it."""
        by_job = defaultdict(list)
        for cell in cells:
            by_job[cell.split(",")[0]].append(cell)
        while any(by_job.values()):
            left = sorted((job for job in by_job if by_job[job]), key=lambda job: -len(by_job[job]))
            yield [by_job[job].pop() for job in left[: self.together]]

    def attempts(self, cells, seed, place):
        """Kill one run at several jobs.

        Args:
            cells: the cells to try, of different jobs.
            seed: text; it decides the exact moments.
            place: an empty folder.

        Returns:
            {cell: None, or what was lost}.
        """
        repo, faults = new_copy(place / "repo", self.arguments), place / "faults"
        chance, jobs = random.Random(seed), jobs_of_reference(self.arguments)
        for cell in cells:
            job, moment, who = cell.split(", ")
            name = job.replace("/", "+")
            arm(faults, name, {"who": who, **_moment(moment, *jobs[name], chance)})
        try:
            self._run_to_the_end(repo, faults, len(cells))
            found = differences(repo, reference(self.arguments))
            if found:
                raise Lost(f"{len(found)} differences from the undisturbed run: {'; '.join(found[:5])}")
        except Lost as lost:
            return dict.fromkeys(cells, f"one of {len(cells)} kills: {lost}")
        return dict.fromkeys(cells)

    def _run_to_the_end(self, repo, faults, kills):
        """Call Snakemake again after each kill, until the run has ended."""
        finished = set()
        for _ in range(kills + SPARE):
            before = _killed(faults)
            call = Call(repo, *self.arguments, shim=HERE / "shim", ZOO_FAULTS=str(faults))
            status, shown = call.wait()
            again = finished & set(jobs_started(shown).values())
            if again:
                raise Lost(f"finished jobs were done again: {sorted(again)[:3]}")
            finished |= jobs_finished(shown)
            if "Traceback" in shown:
                raise Lost(f"a traceback on the terminal: {last_words(shown)}")
            if status == 0:
                break
            if _killed(faults) == before:
                raise Lost(f"status {status} without a kill: {last_words(shown)}")
            for arguments in (["--dry-run"], ["--unlock"]):
                status, shown = called(repo, *arguments, *self.arguments)
                if status:
                    raise Lost(f"snakemake {arguments[0]} ended with {status}: {last_words(shown)}")
        else:
            raise Lost("the run did not come to its end")
        if left := [path.stem for path in (faults / "armed").iterdir()]:
            raise Lost(f"not killed, as these jobs never ran: {left}")


def _moment(moment, events, seconds, chance):
    """When exactly a job is killed: at its start or end, before a change of a file, after some time."""
    if moment == "boundary":
        return {"moment": chance.choice(["start", "end"])}
    if events and chance.random() < 0.6:
        return {"moment": "event", "at": chance.randint(1, events)}
    return {"moment": "time", "at": chance.uniform(0.05, 0.95) * seconds}


def _killed(faults):
    """How many kills there were so far."""
    time.sleep(0.1)
    path = faults / "kills.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


ROWS = (
    Kills("kill -9", CHAIN, chain="finetune_task/chained"),
    Kills("kill -9 while files come from elsewhere", RECORD),
)
