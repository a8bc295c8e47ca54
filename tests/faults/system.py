"""Errors of the system in the middle of a job: a disk that does not answer, is full, or cannot be written to.

Only the full disk is real. The other errors are not: a library in front of the C library (`errors.c`, by
LD_PRELOAD) gives them to the process of one job, whatever language its readers and writers are in.
It needs gcc.
"""

import errno
import hashlib
import os
import random
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from runs import CHAIN, HERE, Call, Lost, copy_of_reference, differences, last_words, run

RESULTS = "results/test"
PARTS = "download/gz_decals_dr5_png_part"
# Each job: what it makes, what it reads.
JOBS = {
    "build_catalog": (
        ["catalog/train.parquet", "catalog/val.parquet", "catalog/test.parquet"]
        + ["catalog/rejected.csv", "catalog/summary.csv"],
        ["download/gz_decals_volunteers_5.parquet", PARTS],
    ),
    "write_shard": (
        ["shards/train/0.tfrecord", "shards/train/0.json", "shards/train/0.rejected.csv"],
        ["catalog/train.parquet", PARTS],
    ),
    "check_rejected": (["shards/rejected.csv"], ["shards/train/0.rejected.csv"]),
    "train_member": (
        ["train/metrics/0/model.keras", "train/metrics/0/model.json", "train/metrics/0/history.csv"],
        ["shards/train/0.tfrecord", "shards/train/0.json", "shards/val/0.tfrecord"],
    ),
    "build_task_catalog": (
        ["finetune/ring/galaxies.parquet", "finetune/ring/rejected.csv", "finetune/ring/summary.csv"],
        ["download/rings.csv", PARTS],
    ),
    "finetune_task": (
        ["finetune/chained/model.keras", "finetune/chained/model.json", "finetune/chained/history.csv"],
        ["finetune/chained/galaxies.parquet", PARTS, "finetune/ring/model.keras"],
    ),
    "probe_task": (
        ["finetune/ring/probe.parquet"],
        ["finetune/ring/galaxies.parquet", PARTS, "finetune/ring/model.json"],
    ),
    "recalibrate_task": (
        ["finetune/ring/recalibration.json"],
        ["finetune/ring/galaxies.parquet", "predict/ring/chunks/0.hdf5"],
    ),
    "recalibrate_member": (
        ["train/metrics/0/recalibration.json"],
        ["shards/val/0.tfrecord", "catalog/val.parquet", "train/metrics/0/model.keras"],
    ),
    "predict_chunk": (
        ["predict/test/chunks/0.hdf5", "predict/test/chunks/0.rejected.csv"],
        ["shards/test/0.tfrecord", "train/metrics/0/model.keras", "train/metrics/0/model.json"],
    ),
    "collect_predictions": (
        ["predict/test/predictions.hdf5", "predict/test/rejected.csv"],
        ["predict/test/chunks/0.hdf5", "predict/test/chunks/0.rejected.csv"],
    ),
    "evaluate_task": (
        [
            *("evaluate/ring/scores.csv", "evaluate/ring/confusion.csv", "evaluate/ring/galaxies.parquet"),
            "evaluate/ring/advice.csv",
        ],
        ["finetune/ring/galaxies.parquet", "predict/ring/chunks/0.hdf5", "finetune/ring/probe.parquet"],
    ),
}


class Errors:
    """A job meets an error, fails with one sentence, and runs by one plain command when the error is gone.

    Args:
        name: of the fault, for the table.
        moment: open, read, write or change.
        number: of the error.
    """

    def __init__(self, name, moment, number):
        self.name, self.moment, self.number = name, moment, number
        writes = moment in ("write", "change")
        self._files = {
            f"{job}, {file}": (job, f"{RESULTS}/{file}")
            for job, (makes, reads) in JOBS.items()
            for file in (makes[:1] if writes else reads)
        }
        self.cells = tuple(self._files)

    def attempt(self, cell, seed, place):
        """Try one case in an empty folder; returns None, or what was lost."""
        chance, (job, file) = random.Random(seed), self._files[cell]
        try:
            repo = copy_of_reference(place / "repo")
            made = [f"{RESULTS}/{name}" for name in JOBS[job][0]]
            # The same bytes at the first read or write, or anywhere within the first ones.
            after = chance.choice([0, chance.randint(0, 3000)])
            for bytes_before in (after, 0):
                for path in made:
                    (repo / path).unlink()
                if self._fails(repo, made, file, bytes_before):
                    break
            else:
                raise Lost("the job never met the error: it does not use the file")
            run(repo, made[0], *CHAIN)
        except Lost as lost:
            return str(lost)
        if found := differences(repo, None, "results/"):
            return f"{len(found)} differences from the undisturbed run: {'; '.join(found[:4])}"
        return None

    def _fails(self, repo, made, file, after):
        """Call the job with the error; returns whether the job has met it."""
        hit, before = repo / "hit", _contents(repo)
        # What is written has another name until it is complete, in the same folder.
        files = str(Path(file).parent) + "/" if self.moment in ("write", "change") else file
        error = {"ZOO_ERROR": self.number, "ZOO_ERROR_AT": self.moment, "ZOO_ERROR_FILES": files}
        error |= {"ZOO_ERROR_AFTER": after, "ZOO_ERROR_HIT": hit, "LD_PRELOAD": _library()}
        call = Call(repo, made[0], *CHAIN, **{key: str(value) for key, value in error.items()})
        status, shown = call.wait()
        if not hit.exists():
            if status:
                raise Lost(f"status {status} without an error: {last_words(shown)}")
            return False
        if status == 0:
            raise Lost("the job met the error and ended as if nothing had happened")
        if "Traceback" in shown:
            raise Lost(f"a traceback on the terminal: {last_words(shown)}")
        _check_sentence(repo, shown)
        _check_files(repo, made, before)
        return True


class FullDisk:
    """A stage has a real file system that is too small; it grows, and one plain command goes on."""

    name = "a full disk (tmpfs)"
    # The folder, what is asked for in it, and the bytes that are not enough for it.
    made = {
        "shards": ("shards", "shards/rejected.csv", 40_000),
        "train": ("train", "train/metrics/0/model.keras", 16_000),
        "predict": ("predict/test", "predict/test/predictions.hdf5", 8_000),
    }
    cells = tuple(made)

    def attempt(self, cell, seed, place):
        """Try one stage in an empty folder; returns None, or what was lost."""
        folder, target, size = (
            f"{RESULTS}/{part}" if isinstance(part, str) else part for part in self.made[cell]
        )
        repo = copy_of_reference(place / "repo")
        shutil.rmtree(repo / folder)
        (repo / folder).mkdir()
        _mount(repo / folder, f"size={size}")
        # Snakemake removes empty folders of failed jobs, which is an error for a disk of its own.
        (repo / folder / "occupied").touch()
        try:
            status, shown = Call(repo, target, *CHAIN).wait()
            if status == 0:
                raise Lost(f"{size} bytes were enough")
            if "Traceback" in shown:
                raise Lost(f"a traceback on the terminal: {last_words(shown)}")
            _check_sentence(repo, shown)
            _mount(repo / folder, "remount,size=100M")
            run(repo, target, *CHAIN)
            found = differences(repo, None, target)
        except Lost as lost:
            return str(lost)
        finally:
            subprocess.run(["umount", repo / folder], check=True)
        return f"differs from the undisturbed run: {found}" if found else None


def _mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def _check_sentence(repo, shown):
    """Each failed job has said what was wrong in one sentence, and left nothing that stops a retry."""
    logs = re.findall(r"log: (\S+) \(check log file", shown)
    if not logs:
        raise Lost(f"no job says why it failed: {last_words(shown)}")
    for log in logs:
        last = ((repo / log).read_text().strip().splitlines() or [""])[-1]
        if "unexpected" in last or not last.endswith("."):
            raise Lost(f"{log} does not end with a sentence for a user: '{last[:300]}'")
    if marks := [path.name for path in (repo / "logs").rglob("*.fatal")]:
        raise Lost(f"a mark stops the next attempts: {marks[0]}")


def _check_files(repo, made, before):
    """Nothing half written is there, and nothing that was good has changed."""
    after = _contents(repo)
    if half := [path for path in made if (repo / path).exists()]:
        raise Lost(f"an output of the failed job is there: {half[0]}")
    if changed := [path for path in before if after.get(path) != before[path]]:
        raise Lost(f"{changed[0]} was replaced or deleted")
    left = [path for path in after if Path(path).name.startswith(".") and path not in before]
    if left:
        raise Lost(f"a temporary file is left: {left[0]}")


def _contents(repo):
    """The digest of each file of the results but TensorBoard's logs and checkpoints."""
    found = (path for path in (repo / "results").rglob("*") if path.is_file())
    kept = (path for path in found if "tensorboard" not in path.parts and path.name != "checkpoint.npz")
    return {path.relative_to(repo).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


@cache
def _library():
    """The compiled library."""
    library = Path(tempfile.mkdtemp(prefix="faults-")) / "errors.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "errors.c", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Lost(f"errors.c cannot be compiled: {done.stderr[-300:]}")
    return library


ROWS = (
    Errors("EIO while a file is read", "read", errno.EIO),
    Errors("ESTALE while a file is read", "read", errno.ESTALE),
    Errors("EMFILE when a file is opened", "open", errno.EMFILE),
    Errors("a file vanishes before it is opened", "open", errno.ENOENT),
    Errors("ENOSPC while a result is written", "write", errno.ENOSPC),
    Errors("read-only results", "change", errno.EROFS),
    # Only root may mount a file system.
    *([FullDisk()] if os.geteuid() == 0 else []),
)
