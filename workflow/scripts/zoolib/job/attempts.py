"""Attempts at a job: one at a time, within its wall time, and none after an error that no retry can fix.

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
# Seconds of a SLURM job before its script starts and after it ends: Snakemake itself, three times as long.
AROUND = 30
# Seconds between two checks whether another job has ended.
EVERY = 20.0
# Failed checks in a row after which this job no longer waits.
LOOKS = 3
# States of jobs that do not run, for which no other job has to wait.
AT_REST = ("", "PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


class Unfinished(Exception):
    """A stop after which the next attempt continues; the reason is one sentence."""


def fatal_message(log):
    """The fatal error of an earlier attempt in the same call of Snakemake.

    Args:
        log: the rule's log file.

    Returns:
        Its message; None if there was none, or if it was in another call, which may end otherwise.
    """
    call = os.environ.get(CALL)
    try:
        marker = json.loads(_marker(log).read_text())
    except (OSError, ValueError):
        return None
    return marker["message"] if call and marker["call"] == call else None


def mark_fatal(log, message):
    """Leave a marker at which later attempts of the same call of Snakemake stop at once.

    Args:
        log: the rule's log file.
        message: of an error that no retry can fix.
    """
    if CALL in os.environ:
        _marker(log).write_text(json.dumps({"call": os.environ[CALL], "message": message}) + "\n")


def unmark(log):
    """Remove the marker of an attempt in another call."""
    _marker(log).unlink(missing_ok=True)


def _marker(log):
    return Path(f"{log}.fatal")


def this_job():
    """The job that runs in this process: {"slurm_job" (None outside SLURM), "host", "pid"}."""
    return {"slurm_job": os.environ.get("SLURM_JOB_ID"), "host": socket.gethostname(), "pid": os.getpid()}


def name_of(job):
    """What messages call a job."""
    process = f"process {job['pid']} on {job['host']}"
    return f"SLURM job {job['slurm_job']} ({process})" if job["slurm_job"] else process


def is_alive(job):
    """Whether a SLURM job still runs.

    A job that is back in the queue has no process; when it starts again, it waits for the job that has taken
    its place.

    Args:
        job: its number.

    Returns:
        (True or False, or None if SLURM does not answer; why it does not).
    """
    # On another cluster the same number may belong to another user.
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
    """The right to do the work of a log file, which one job at a time has.

    If Snakemake is killed on the login node and started again, it does not know the jobs that it has
    submitted and submits duplicate jobs. A lock shows the earlier job on the same machine, or where the file
    system shares locks; elsewhere SLURM is asked. If SLURM does not answer, the duplicate job takes the turn,
    and the earlier job stops before the next file that it would write.

    Args:
        log: the rule's log file; a file beside it names the job that has the turn.
    """

    def __init__(self, log):
        self.path = Path(f"{log}.job")
        self.file = None
        self.job = this_job()

    def take(self, say):
        """Wait until no other job does this work, and write down that this one does.

        Args:
            say: called with a message, once for each job that this one waits for.
        """
        waits_for = None
        while True:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            if self._is_locked():
                # When a node dies, the locks of its jobs may stay: SLURM knows better.
                in_slurm = self._noted()["slurm_job"]
                other, why = (self._other_job(say) if in_slurm else self._noted()), "it holds the lock"
            elif not self._is_the_file():
                self._close()
                continue
            else:
                other, why = self._other_job(say), "squeue says that it is alive"
            if other is None:
                break
            self._close()
            if other != waits_for:
                say(
                    f"This is a duplicate job: {name_of(other)} does the same work ({why}); waiting until it"
                    f" has ended. If you end it{' (scancel)' if other['slurm_job'] else ''}, at most its"
                    " current epoch is lost."
                )
            waits_for = other
            time.sleep(EVERY)
        # Otherwise the lock would last as long as any child process.
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
        """Whether the open file still exists: its job deletes it when it ends."""
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

    def _other_job(self, say):
        """Another SLURM job that has the turn and still runs; None if there is none."""
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
            say(
                f"It is not known whether {name_of(noted)} still does the same work ({why}); this job takes"
                " its turn."
            )
        return noted if alive else None

    def check(self):
        """Stop if another job has taken the turn meanwhile: two jobs must never write the same files.

        Raises:
            Unfinished: another job has.
        """
        noted = self._noted()
        if self.path.exists() and noted != self.job:
            raise Unfinished(
                f"{name_of(noted)} has taken over this work: {name_of(self.job)} stops and writes nothing."
            )

    def give_up(self):
        """Let the next job begin."""
        if self._noted() == self.job:
            self.path.unlink(missing_ok=True)
        self._close()


class Budget:
    """The wall time of a SLURM job; outside SLURM there is none, so that a run on a laptop is not cut.

    Args:
        minutes: what the job asked for (the rule's resource `runtime`); None for no limit.
    """

    def __init__(self, minutes=None):
        self.minutes = minutes if "SLURM_JOB_ID" in os.environ else None
        # A duplicate job may have waited until little was left.
        self.was_whole = self.minutes is not None and self.left() > 30 * self.minutes
        # Whether anything was saved from which the next attempt can continue.
        self.was_used = False

    def left(self):
        """Seconds left."""
        if self.minutes is None:
            return float("inf")
        return STARTED + 60 * self.minutes - AROUND - time.monotonic()
