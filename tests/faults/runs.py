"""Small real runs for the faults: a finished one to compare with, copies of it, what differs between two."""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import yaml
from encoders import encoder_files, write_encoder
from pipeline import PARTS, REPO, called, copy_of_the_repository, overlay
from zenodo_server import ZenodoServer

HERE = Path(__file__).resolve().parent
# A variable of the environment that is set if the call is a draw, whose runs are smaller.
DRAW = "FAULTS_DRAW"
# The configuration of most small runs: config/test.yaml with a chain of models.
CHAIN = ("--configfile", "config/test.yaml", "config/chain.yaml")
# Another run, of what comes from elsewhere: a record and labels over HTTP, and a published encoder.
RECORD = (
    *("shards", "pretrained", "results/record/predict/everything/galaxies.parquet", "download"),
    *("--configfile", "config/test.yaml", "config/record.yaml"),
)
STARTED = re.compile(
    r"^(?:local)?rule \w+:\n(?:    .*\n)*?    output: (.*)\n(?:    .*\n)*?    jobid: (\d+)$", re.M
)
FINISHED = re.compile(r"^Finished jobid: (\d+) ", re.M)
# Names and times that differ between any two trainings.
TENSORBOARD = re.compile(r"/tensorboard/.*")


class Lost(Exception):
    """A fault was not survived; the message says what was lost."""


class Call:
    """One call of Snakemake in a copy of the repository, in a process group of its own.

    Args:
        repo: the folder of the copy.
        arguments: of the command line.
        shim: a folder with a `sitecustomize.py` that each Python process of the call imports.
        log: the name of a file for what the terminal shows.
        environment: variables to set.
    """

    def __init__(self, repo, *arguments, shim=None, log="terminal.log", **environment):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)]
        path = {"PYTHONPATH": str(shim)} if shim else {}
        self.log = Path(repo) / log
        self.process = subprocess.Popen(
            command,
            cwd=repo,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **path, **environment},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def shown(self):
        """What the terminal shows so far."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds=600):
        """Wait for the end; returns (exit status, what the terminal showed)."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            raise Lost(f"the call hangs; it has shown: {self.shown[-500:]}") from None
        except BaseException:
            # Ctrl-C does not reach a process group of its own.
            os.killpg(self.process.pid, 9)
            raise
        return status, self.shown


def run(repo, *arguments, **environment):
    """Run Snakemake to its end, which must be good; returns what the terminal showed.

    Args:
        repo: the folder of a copy of the repository.
        arguments: of the command line.
        environment: variables to set.

    Raises:
        Lost: it failed, or showed a traceback.
    """
    status, shown = Call(repo, *arguments, **environment).wait()
    if status or "Traceback" in shown:
        raise Lost(f"a plain call ended with status {status}: {last_words(shown)}")
    return shown


def last_words(shown):
    """The lines of a failed call that say why and where, as one line."""
    lines = [line.strip() for line in shown.splitlines() if re.search(r'rror|xpected|Lock|^ *File "', line)]
    return " / ".join(lines[-8:])[-1200:] or shown[-300:]


def new_copy(place, arguments=CHAIN):
    """A copy of the repository with the configuration of the small runs.

    Args:
        place: a new folder.
        arguments: `CHAIN` or `RECORD`.
    """
    repo = copy_of_the_repository(Path(place))
    settings = yaml.safe_load((HERE / "chain.yaml").read_text())
    if DRAW in os.environ:
        # Trainings with fewer labels are jobs of the same rules.
        for task in settings["finetune"]["tasks"]:
            task.pop("label_counts", None)
    (repo / "config/chain.yaml").write_text(yaml.safe_dump(settings))
    if arguments is RECORD:
        write_encoder(repo / "encoder", encoder_files())
        overlay(repo / "config", "record", _record())
    return repo


def _record():
    """The configuration of a run whose record, the simulated one, is on a server of this process."""
    server = _server()
    labels = server.folder / "rings.csv"
    address = f"{server.url}/records/{server.record['id']}/files/{labels.name}"
    parts = ["gz_decals_dr5_png_part1.zip", "gz_decals_dr5_png_part2.zip"]
    table = {"table": "gz_decals_volunteers_5.csv", "archives": parts, "min_votes": 3}
    targets = [{"name": "test", "ensemble": "metrics", "split": "test"}]
    task = {"name": "labelled", "label": "ring", "archives": parts, "pretrained": "encoder"}
    checksum = hashlib.sha256(labels.read_bytes()).hexdigest()
    return {
        "run": "record",
        "zenodo": {"record": server.record["id"], "simulate": None, "sample": 60},
        "catalogs": [{"name": "sampled", "tree": "gz_decals_5", **table}],
        "predict": {"targets": [*targets, {"name": "everything", "ensemble": "metrics", "archives": "all"}]},
        "finetune": {"tasks": [{**task, "url": {"address": address, "sha256": checksum}}]},
    }


@cache
def _server():
    """A server with the files of the simulated record, and labels; it ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="faults-record-"))
    for path in (reference() / "results/test/download").glob("*.*"):
        if path.suffix in (".csv", ".zip"):
            shutil.copy(path, folder)
    server = ZenodoServer(folder).__enter__()
    os.environ |= {"ZENODO_URL": server.url, "NO_PROXY": "127.0.0.1"}
    return server


@cache
def reference(arguments=CHAIN):
    """A finished run that no fault has disturbed; made once for each state of the code.

    Args:
        arguments: `CHAIN` or `RECORD`.

    Returns:
        Its folder in build/faults, which nobody may change: `copy_of_reference` copies it.
    """
    name = "record" if arguments is RECORD else "reference"
    repo = HERE.parents[1] / "build/faults" / name
    repo.parent.mkdir(parents=True, exist_ok=True)
    now = _state_of_the_code()
    # Several processes need it, and one of them makes it.
    with open(repo.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (repo / "state").is_file() or (repo / "state").read_text() != now:
            shutil.rmtree(repo, ignore_errors=True)
            new_copy(repo, arguments)
            (repo / "faults").mkdir()
            run(repo, *arguments, shim=HERE / "shim", ZOO_FAULTS=str(repo / "faults"))
            (repo / "state").write_text(now)
    return repo


def _state_of_the_code():
    """A text that changes with any file that the pipeline consists of."""
    from zoolib.job.provenance import hash_of

    files = [path for part in PARTS for path in sorted((REPO / part).rglob("*")) if path.is_file()]
    files += [REPO / "Snakefile", *sorted(HERE.rglob("*.yaml")), *sorted(HERE.rglob("shim/*.py"))]
    kept = [path for path in files if "__pycache__" not in path.parts]
    contents = {str(path.relative_to(REPO)): path.read_bytes().hex() for path in kept}
    return hash_of([contents, DRAW in os.environ])


def copy_of_reference(place):
    """A copy of the finished run that a fault may damage; files keep their times.

    Args:
        place: a new folder.
    """
    shutil.copytree(reference(), place, symlinks=True)
    return Path(place)


def jobs_of_reference(arguments=CHAIN):
    """The jobs of the undisturbed run in the order in which they ended: {name: (file events, seconds)}."""
    lines = (reference(arguments) / "faults/journal.jsonl").read_text().splitlines()
    return {job["job"]: (job["events"], job["seconds"]) for job in map(json.loads, lines)}


def jobs_started(shown):
    """The jobs that a call started, {its number: its outputs}."""
    return {int(number): output for output, number in STARTED.findall(shown)}


def jobs_finished(shown):
    """The outputs of the jobs that a call has finished, as a set."""
    started = jobs_started(shown)
    return {started[int(number)] for number in FINISHED.findall(shown) if int(number) in started}


def files_of(repo):
    """The files of a run but its benchmarks: paths below its folder, without names that hold a time."""
    found = [
        path.relative_to(repo).as_posix()
        for top in ("results", "data", "logs")
        for path in (repo / top).rglob("*")
        if path.is_file() or path.is_symlink()
    ]
    return {TENSORBOARD.sub("/tensorboard", path) for path in found}


def arm(faults, job, fault):
    """Prepare a kill; see `shim/sitecustomize.py`.

    Args:
        faults: the folder in ZOO_FAULTS.
        job: the job's name, such as `train_member+metrics-0`.
        fault: {"who": job, group or snakemake; "moment": start, end, event, time or model; "at": a number}.
    """
    (faults / "armed").mkdir(parents=True, exist_ok=True)
    (faults / "armed" / f"{job}.json").write_text(json.dumps({"at": 0, **fault}))


def kill_in(repo, job, fault, *arguments):
    """Call Snakemake, and kill it in one job.

    Args:
        repo: the folder of a copy of the repository.
        job: the job's name.
        fault: as in `arm`.
        arguments: of the command line.

    Raises:
        Lost: the call ended well.
    """
    faults = repo / "faults"
    arm(faults, job, fault)
    status, shown = Call(repo, *arguments, shim=HERE / "shim", ZOO_FAULTS=str(faults)).wait()
    if status == 0:
        raise Lost(f"{job} was not killed")
    status, shown = called(repo, "--unlock", *arguments)
    if status:
        raise Lost(f"--unlock ended with {status}: {last_words(shown)}")


def differences(repo, other=None, below="results"):
    """What differs between a run and the undisturbed one: files that are missing or left over, and contents.

    Contents are compared byte by byte; of HDF5 files and models, array by array; of tables with seconds, all
    other columns.

    Args:
        repo: the folder of a run.
        other: of another run; the undisturbed one by default.
        below: the beginning of the paths to compare; with all results, names of logs are compared too.

    Returns:
        A list of texts, empty if nothing differs.
    """
    other = other or reference()
    ours, theirs = ({path for path in files_of(one) if _is_part(path, below)} for one in (repo, other))
    found = [f"{path} is missing" for path in sorted(theirs - ours)]
    found += [f"{path} is left over" for path in sorted(ours - theirs)]
    common = sorted(path for path in ours & theirs if path.startswith("results/"))
    return found + [f"{path} differs" for path in common if not _same(repo / path, other / path)]


def _is_part(path, below):
    return path.startswith(below) or (below == "results" and not path.startswith("results"))


def _same(ours, theirs):
    if ours.name == "tensorboard" or "provenance" in ours.name:
        return True
    if ours.read_bytes() == theirs.read_bytes():
        return True
    if ours.suffix == ".keras":
        return _arrays_of_model(ours) == _arrays_of_model(theirs)
    if ours.suffix == ".hdf5":
        return _arrays(ours) == _arrays(theirs)
    if ours.name == "history.csv":
        tables = [pd.read_csv(path).drop(columns="seconds") for path in (ours, theirs)]
        return tables[0].equals(tables[1])
    if ours.name in ("model.json", "recalibration.json"):
        # Digests of files whose bytes hold the time at which they were written.
        contents = [re.sub(r'"[0-9a-f]{12,}"', '""', path.read_text()) for path in (ours, theirs)]
        return contents[0] == contents[1]
    return False


def _arrays(source):
    """All arrays of an HDF5 file, as bytes."""
    found = {}
    with h5py.File(source) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: _bytes_of(item[()])}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def _bytes_of(values):
    values = np.asarray(values)
    return repr(values.tolist()) if values.dtype == object else values.tobytes()


def _arrays_of_model(path):
    with zipfile.ZipFile(path) as parts:
        # Keras names shared layers by their place in memory.
        config = re.sub(rb'"shared_object_id": \d+', b"", parts.read("config.json"))
        return _arrays(io.BytesIO(parts.read("model.weights.h5"))), config
