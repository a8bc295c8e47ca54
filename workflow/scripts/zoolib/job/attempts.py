"""Attempts at a job: one at a time, within its wall time, and none after what no retry can fix.

Nothing here changes a result: the module is left out of the fingerprints of code.
"""

import fcntl
import json
import os
import socket
import subprocess
import time
from pathlib import Path

# rules/common.smk sets it: the same for all attempts at all jobs of one call of Snakemake.
CALL = "ZOO_CALL"
STARTED = time.monotonic()
# Seconds of a SLURM job before its script starts, and after it: Snakemake, three times over.
AROUND = 30
# Seconds between two looks at whether a twin has ended, and how many that tell nothing are believed.
EVERY = 20.0
LOOKS = 3
# States of jobs that do not run, and that nobody else's turn waits for.
AT_REST = ("", "PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


class Unfinished(Exception):
    """A stop that the next attempt goes on from, told in one sentence."""


def fatal_message(log):
    """What stopped an earlier attempt of the same call of Snakemake for good.

    Args:
        log: the rule's log file.

    Returns:
        The sentence; None where another call may have had another outcome.
    """
    call = os.environ.get(CALL)
    try:
        marker = json.loads(_marker(log).read_text())
    except (OSError, ValueError):
        return None
    return marker["sentence"] if call and marker["call"] == call else None


def mark_fatal(log, sentence):
    """Leave a marker at which later attempts of the same call of Snakemake stop at once.

    Args:
        log: the rule's log file.
        sentence: what no retry can fix.
    """
    if CALL in os.environ:
        _marker(log).write_text(json.dumps({"call": os.environ[CALL], "sentence": sentence}) + "\n")


def unmark(log):
    """Forget what stopped an attempt of another call."""
    _marker(log).unlink(missing_ok=True)


def _marker(log):
    return Path(f"{log}.fatal")


def this_job():
    """The job that this process is: {"slurm_job" (None outside SLURM), "host", "pid"}."""
    return {"slurm_job": os.environ.get("SLURM_JOB_ID"), "host": socket.gethostname(), "pid": os.getpid()}


def told(job):
    """A job in words."""
    process = f"process {job['pid']} on {job['host']}"
    return f"SLURM job {job['slurm_job']} ({process})" if job["slurm_job"] else process


def is_alive(job):
    """Whether a SLURM job still runs.

    One that waits in the queue again has no process, and will wait for whoever has taken its place.

    Args:
        job: its number.

    Returns:
        (True or False, or None where SLURM does not tell; why it does not).
    """
    # A number may be somebody else's on another cluster.
    command = ["squeue", "--me", "--noheader", f"--jobs={job}", "--format=%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"squeue: {type(error).__name__}"
    if done.returncode == 0:
        return done.stdout.strip() not in AT_REST, ""
    if "Invalid job id" in done.stderr:
        return False, ""
    return None, f"squeue: {' '.join(done.stderr.split())[:200]}"


class Turn:
    """The right to work at what a log is about, for one job at a time.

    Killed on the login node and started again, Snakemake does not know the jobs that it had sent: it
    sends them once more. A lock tells of a twin on the same machine, or where the file system shares
    locks; elsewhere SLURM is asked. Who cannot ask goes on, and the elder then stops at its next file.

    Args:
        log: the rule's log file; the job is noted beside it.
    """

    def __init__(self, log):
        self.path = Path(f"{log}.job")
        self.file = None
        self.job = this_job()

    def take(self, say):
        """Wait until no other job is at it, and note this one.

        Args:
            say: called with a sentence, once a twin.
        """
        waits_for = None
        while True:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            if self._is_locked():
                # Locks of jobs that have ended stay where a node has died: SLURM knows better.
                in_slurm = self._noted()["slurm_job"]
                twin, why = (self._twin(say) if in_slurm else self._noted()), "it holds the lock"
            elif not self._is_the_file():
                self._close()
                continue
            else:
                twin, why = self._twin(say), "squeue says that it is alive"
            if twin is None:
                break
            self._close()
            if twin != waits_for:
                say(
                    f"{told(twin)} is at the same work ({why}): waiting until it has ended. Ended by hand"
                    f"{' (scancel)' if twin['slurm_job'] else ''}, it loses no more than the running epoch."
                )
            waits_for = twin
            time.sleep(EVERY)
        # Else the lock would live as long as any child process.
        os.register_at_fork(after_in_child=self._close)
        os.ftruncate(self.file, 0)
        os.write(self.file, json.dumps(self.job).encode())

    def _close(self):
        file, self.file = self.file, None
        if file is not None:
            os.close(file)

    def _is_locked(self):
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # A file system without locks.
            return False
        return False

    def _is_the_file(self):
        """Not one that its job deleted when it ended."""
        try:
            return os.path.samestat(os.fstat(self.file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _noted(self):
        nobody = {"slurm_job": None, "host": "?", "pid": "?"}
        try:
            return nobody | json.loads(self.path.read_text())
        except (OSError, ValueError):
            return nobody

    def _twin(self, say):
        noted = self._noted()
        if noted["slurm_job"] in (None, self.job["slurm_job"]):
            return None
        for look in range(LOOKS):
            if look:
                time.sleep(EVERY)
            alive, why = is_alive(noted["slurm_job"])
            if alive is not None:
                break
        if alive is None:
            say(f"Whether {told(noted)} is still at the same work cannot be told ({why}); it loses its turn.")
        return noted if alive else None

    def check(self):
        """Stop where another job has taken the turn meanwhile: two must never write the same files.

        Raises:
            Unfinished: another one has.
        """
        noted = self._noted()
        if self.path.exists() and noted != self.job:
            raise Unfinished(
                f"{told(noted)} has taken over this work: {told(self.job)} stops and writes nothing."
            )

    def give_up(self):
        """Let the next one."""
        if self._noted() == self.job:
            self.path.unlink(missing_ok=True)
        self._close()


class Budget:
    """The wall time of a SLURM job; outside SLURM there is none, so that a laptop's run is not cut.

    Args:
        minutes: that the job asked for (the rule's resource `runtime`); None for no limit.
    """

    def __init__(self, minutes=None):
        self.minutes = minutes if "SLURM_JOB_ID" in os.environ else None
        # Of a job that had waited for a twin little may be left.
        self.was_whole = self.minutes is not None and self.left() > 30 * self.minutes
        # Whether anything was saved that the next attempt can go on from.
        self.was_used = False

    def left(self):
        """Seconds left."""
        if self.minutes is None:
            return float("inf")
        return STARTED + 60 * self.minutes - AROUND - time.monotonic()
