"""Attempts at a job: duplicate jobs, fatal errors, wall time, and trainings that are cut and continued."""

import errno
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from pipeline import copy_of_the_repository, snakemake
from preemption import compare
from stored import train_member
from zoolib.job import attempts
from zoolib.job.logs import MachineError, UserError, check_machine, log_to, whole
from zoolib.learning import checkpoints, models

SCRIPT = """
import sys
sys.path.insert(0, "{scripts}")
from zoolib.job import attempts
from zoolib.job.logs import log, log_to, whole
attempts.EVERY = 0.05
with log_to("job.log"):
{body}
"""


@pytest.fixture
def call(monkeypatch):
    """The environment of a call of Snakemake."""
    monkeypatch.setenv(attempts.CALL, "first")


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A squeue whose answer a test sets: (exit status, standard output, standard error)."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(attempts, "EVERY", 0.05)
    monkeypatch.setenv("SLURM_JOB_ID", "101")

    def answer(status, printed="", complaint=""):
        program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\necho '{printed}'\n")
        program.open("a").write(f"echo '{complaint}' >&2\nexit {status}\n")
        program.chmod(0o755)

    answer(0, "RUNNING")
    return answer


def ends(path, raised=None):
    """Run a job that may fail; returns whether it ran, its exit status and the last line of its log."""
    ran, status = False, 0
    try:
        with log_to(path):
            ran = True
            if raised:
                raise raised
    except SystemExit as error:
        status = error.code
    lines = path.read_text().splitlines()
    return ran, status, lines[-1].split(" ", 1)[1] if lines else ""


def start(folder, repo, body, **environment):
    """A job in a process of its own."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    script = SCRIPT.format(scripts=repo / "workflow/scripts", body=indented)
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def until(condition, seconds=30):
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_fatal_error_stops_the_later_attempts_of_the_same_call(tmp_path, call, monkeypatch):
    log = tmp_path / "job.log"
    assert ends(log, UserError("Fix it.")) == (True, 1, "Fix it.")
    assert ends(log) == (False, 1, "Fix it.")
    assert ends(log) == (False, 1, "Fix it.")
    assert (tmp_path / "job.log.traceback").exists()
    monkeypatch.setenv(attempts.CALL, "second")
    assert ends(log) == (True, 0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.log"]


@pytest.mark.parametrize("raised", [MemoryError("full"), OSError("disk"), attempts.Unfinished("Saved.")])
def test_what_a_retry_may_fix_is_retried(tmp_path, call, raised):
    log = tmp_path / "job.log"
    ran, status, last = ends(log, raised)
    assert ran and status == 1 and str(raised) in last
    assert (tmp_path / "job.log.traceback").exists() != isinstance(raised, attempts.Unfinished)
    assert ends(log) == (True, 0, "")


def read_through(number):
    """What a reader does that knows of errors of the machine."""
    try:
        raise OSError(number, os.strerror(number), "/sky/a.png")
    except OSError as error:
        check_machine(error, error.filename)
        raise UserError("The table is not readable.") from None


MACHINE = ("EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT", "EACCES", "ENOSPC", "EROFS", "EDQUOT")


@pytest.mark.parametrize("name", MACHINE)
def test_an_error_of_the_machine_is_a_sentence_and_leaves_no_mark(tmp_path, call, name):
    log, number = tmp_path / "job.log", getattr(errno, name)
    for raised in (
        OSError(number, os.strerror(number), "/sky/a.png"),
        *(
            kind(f"Can't read data (file read failed: filename = '/sky/a.png', errno = {number}, error …)")
            for kind in (OSError, KeyError, RuntimeError)
        ),
        pytest.raises(MachineError, read_through, number).value,
        pytest.raises(UserError, hidden, number).value,
    ):
        ran, status, last = ends(log, raised)
        assert ran and status == 1 and not (tmp_path / "job.log.fatal").exists()
        if str(raised) != "Get the table again.":
            assert last == (
                f"/sky/a.png: cannot be read or written ({os.strerror(number)}); this is an error of the"
                " machine or its file system, so type the same command again when it works."
            )
    assert ends(log) == (True, 0, "")


def test_a_file_that_goes_away_after_snakemake_has_seen_it_is_a_sentence(tmp_path, call):
    log, away = tmp_path / "job.log", tmp_path / "0.rejected.csv"
    with pytest.raises(FileNotFoundError) as raised:
        away.read_text()
    ran, status, last = ends(log, raised.value)
    assert ran and status == 1 and last.startswith(f"{away}: is not there, but Snakemake has seen all files")
    assert ends(log) == (True, 0, "")


def test_an_error_of_the_machine_that_tensorflow_meets_is_the_same_sentence(tmp_path, call):
    import tensorflow as tf

    def write(path):
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(b"a galaxy")

    with pytest.raises(tf.errors.OpError) as caught:
        write("/dev/full")
    ran, status, last = ends(tmp_path / "job.log", caught.value)
    assert ran and status == 1 and not (tmp_path / "job.log.fatal").exists()
    assert last.startswith("/dev/full: cannot be read or written (No space left on device); this is an error")


def hidden(number):
    """What a reader does that does not know of errors of the machine."""
    try:
        raise OSError(number, os.strerror(number))
    except OSError:
        raise UserError("Get the table again.") from None


def test_a_path_that_is_wrong_is_the_user_s_error(tmp_path, call):
    for number, is_fatal in ((errno.EISDIR, True), (errno.ENOENT, False)):
        log = tmp_path / f"{number}.log"
        with pytest.raises(UserError, match="The table is not readable.") as caught:
            read_through(number)
        assert ends(log, caught.value) == (True, 1, "The table is not readable.")
        # What Snakemake has seen before the job may be on a disk that is away for a moment.
        assert Path(f"{log}.fatal").exists() is is_fatal


def test_a_full_disk_hides_no_message_behind_a_traceback(tmp_path, call, monkeypatch, capfd):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert ends(tmp_path / "job.log", UserError("Fix it.")) == (True, 1, "Fix it.")
    assert "Traceback" not in capfd.readouterr().err
    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(SystemExit, match="job.log: the log of this job cannot be written .No space left"):
        with log_to(tmp_path / "job.log"):
            raise AssertionError


def test_left_overs_are_listed_once_a_folder(tmp_path, monkeypatch):
    listed, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scan(folder))
    for name in ("1.png", "11.png", "2.png.bak"):
        (tmp_path / f".77.node.{name}").write_text("half")
    with log_to(tmp_path / "logs" / "job.log"):
        for number in range(30):
            with whole(tmp_path / f"{number}.png") as partial:
                partial.write_text("complete")
    assert listed == [tmp_path]
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == [".77.node.2.png.bak"]
    # The next job looks again.
    (tmp_path / ".78.node.1.png").write_text("half")
    with log_to(tmp_path / "logs" / "job.log"), whole(tmp_path / "1.png") as partial:
        partial.write_text("complete")
    assert listed == [tmp_path] * 2 and not (tmp_path / ".78.node.1.png").exists()


def test_without_a_call_of_snakemake_nothing_is_marked(tmp_path, monkeypatch):
    monkeypatch.delenv(attempts.CALL, raising=False)
    assert ends(tmp_path / "job.log", UserError("Fix it."))[0]
    assert ends(tmp_path / "job.log")[0]


def test_snakemake_retries_but_the_script_runs_once_a_call(tmp_path):
    repo = copy_of_the_repository(tmp_path / "repo")
    (repo / "workflow/scripts/simulate_record.py").write_text(
        "from zoolib.job.logs import UserError, log_to\n"
        "with log_to(snakemake.log[0]):\n"
        "    open('tries', 'a').write('x')\n"
        "    raise UserError('Fix the record.')\n"
    )
    target = "results/demo/download/truth.parquet"
    for tries in ("x", "xx"):
        status, shown = snakemake(
            repo, target, "--configfile", "config/demo.yaml", "--retries", "1", check=False
        )
        assert status == 1 and shown.count("Trying to restart job") == 1
        assert (repo / "tries").read_text() == tries
        assert (repo / "logs/demo/simulate_record.log").read_text().endswith(" Fix the record.\n")


def test_a_duplicate_job_waits_while_squeue_says_that_the_other_is_alive(tmp_path, repo, squeue):
    (tmp_path / "job.log").write_text("00:00:00 of the first job\n")
    (tmp_path / "job.log.job").write_text(json.dumps({"slurm_job": "100", "host": "gpu1", "pid": 7}))
    job = start(tmp_path, repo, "print('runs', flush=True)")
    until(lambda: (tmp_path / "asked").exists() and (tmp_path / "asked").read_text().count("100") > 2)
    assert job.poll() is None
    lines = (tmp_path / "job.log").read_text().splitlines()
    assert lines[0] == "00:00:00 of the first job" and len(lines) == 2
    assert "duplicate job: SLURM job 100 (process 7 on gpu1) does the same work (squeue says" in lines[1]
    squeue(0)
    assert job.communicate()[0] == "runs\n" and job.returncode == 0
    assert not (tmp_path / "job.log.job").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((0, ""), None),
        ((0, "PENDING"), None),
        ((0, "REQUEUE_HOLD"), None),
        ((1, "", "slurm_load_jobs error: Invalid job id specified"), None),
        (
            (1, "", "Unable to contact slurm controller"),
            "is not known .*Unable to contact slurm controller",
        ),
        (None, "is not known .*.squeue: FileNotFoundError"),
    ],
)
def test_a_job_that_has_ended_or_of_which_squeue_says_nothing_loses_its_turn(
    tmp_path, squeue, monkeypatch, caplog, answer, message
):
    if answer:
        squeue(*answer)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "job.log.job").write_text(json.dumps({"slurm_job": "100", "host": "gpu1", "pid": 7}))
    said = []
    turn = attempts.Turn(tmp_path / "job.log")
    turn.take(said.append)
    turn.give_up()
    assert len(said) == bool(message)
    if message:
        assert re.search(message, said[0])
    if message and answer:
        # A busy controller does not answer at once.
        assert (tmp_path / "asked").read_text().count("100") == attempts.LOOKS


def test_the_same_slurm_job_requeued_is_no_duplicate_job(tmp_path, squeue):
    (tmp_path / "job.log.job").write_text(json.dumps({"slurm_job": "101", "host": "gpu1", "pid": 7}))
    assert ends(tmp_path / "job.log") == (True, 0, "")
    assert not (tmp_path / "asked").exists()


def test_a_lock_that_outlived_its_job_is_no_reason_to_wait(tmp_path, repo, squeue):
    squeue(0)
    holder = start(tmp_path, repo, "import time\nopen('in', 'w')\ntime.sleep(60)")
    until((tmp_path / "in").exists)
    for number in ("100", "101"):
        (tmp_path / "job.log.job").write_text(json.dumps({"slurm_job": number, "host": "gpu1", "pid": 7}))
        turn = attempts.Turn(tmp_path / "job.log")
        turn.take(pytest.fail)
        turn.give_up()
        holder_file = tmp_path / "job.log.job"
        assert not holder_file.exists()
    holder.kill()


def test_children_of_a_job_do_not_hold_its_turn(tmp_path, repo):
    body = "import os, time\nif not os.fork():\n    open('in', 'w')\n    time.sleep(20)\ntime.sleep(60)"
    job = start(tmp_path, repo, body)
    until((tmp_path / "in").exists)
    job.kill()
    job.wait()
    turn = attempts.Turn(tmp_path / "job.log")
    turn.take(pytest.fail)
    turn.give_up()


def test_a_duplicate_job_on_the_same_machine_waits_without_slurm(tmp_path, repo):
    first = start(tmp_path, repo, "import time\nopen('in', 'w')\ntime.sleep(60)")
    until((tmp_path / "in").exists)
    second = start(tmp_path, repo, "print('runs')")
    until(lambda: "does the same work (it holds the lock); waiting" in (tmp_path / "job.log").read_text())
    assert f"process {first.pid} on " in (tmp_path / "job.log").read_text()
    first.kill()
    assert second.communicate()[0] == "runs\n"


def test_a_job_that_lost_its_turn_writes_nothing(tmp_path, repo, squeue):
    body = "from pathlib import Path\nopen('in', 'w')\nwhile not Path('go').exists(): pass\n"
    body += "with whole('made') as partial:\n    partial.write_text('by the first job')"
    first = start(tmp_path, repo, body)
    until((tmp_path / "in").exists)
    (tmp_path / "job.log.job").write_text(json.dumps({"slurm_job": "102", "host": "gpu2", "pid": 9}))
    (tmp_path / "made").write_text("by the second job")
    (tmp_path / "go").write_text("")
    first.communicate()
    assert first.returncode == 1 and (tmp_path / "made").read_text() == "by the second job"
    last = (tmp_path / "job.log").read_text().splitlines()[-1]
    assert "SLURM job 102 (process 9 on gpu2) has taken over" in last
    assert "102" in (tmp_path / "job.log.job").read_text() and not list(tmp_path.glob(".*made"))


def test_sigterm_ends_a_job_with_a_message_whatever_it_is_doing(tmp_path, repo):
    body = "import time\nfor path in ('made', 'made'):\n  with whole(path) as partial:\n"
    body += (
        "    partial.write_text('whole')\n    try:\n      if path in seen: open('in', 'w'); time.sleep(60)\n"
    )
    # As a library may do it: the end of a job must not be an exception that somebody drops.
    body += "    except Exception: pass\n  seen.add(path)"
    job = start(tmp_path, repo, "seen = set()\n" + body)
    until((tmp_path / "in").exists)
    job.terminate()
    job.communicate()
    assert job.returncode == 143
    assert "Ended from outside" in (tmp_path / "job.log").read_text().splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "job.log", "made"]


def test_there_is_a_wall_time_under_slurm_only(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert attempts.Budget(10).left() == float("inf")
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    assert attempts.Budget().left() == float("inf")
    monkeypatch.setattr(attempts, "STARTED", time.monotonic() - 100)
    budget = attempts.Budget(10)
    assert budget.was_whole and budget.left() == pytest.approx(600 - 100 - attempts.AROUND, abs=5)
    monkeypatch.setattr(attempts, "STARTED", time.monotonic() - 400)
    assert not attempts.Budget(10).was_whole


class Scarce(attempts.Budget):
    """A wall time of which the test decides how much is left at each look."""

    def __init__(self, looks, was_whole=True):
        super().__init__()
        self.minutes, self.was_whole, self.looks = 60, was_whole, iter(looks)

    def left(self):
        """Seconds left: one number of `looks` after the other, then plenty."""
        return next(self.looks, 1e9)


def test_training_stops_before_its_wall_time_ends_and_continues_with_the_same_result(
    stored, model_folder, tmp_path
):
    # A look after each of five batches of training and two of validation, and one after the epoch.
    with pytest.raises(attempts.Unfinished, match="Saved after epoch 1: the wall time has 0 s left"):
        train_member(stored, tmp_path, epochs=2, budget=Scarce([1e9] * 7 + [0]))
    # The last epoch needs no time for another one.
    cut = train_member(stored, tmp_path, epochs=2, budget=Scarce([1e9] * 7 + [0]))
    uncut = models.load_model(model_folder)
    for one, other in zip(uncut.network.get_weights(), cut.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [pd.read_csv(folder / "history.csv") for folder in (model_folder, tmp_path)]
    pd.testing.assert_frame_equal(*(history.drop(columns="seconds") for history in histories))


@pytest.mark.parametrize(
    ("was_whole", "was_used", "error", "message"),
    [
        (True, False, UserError, "A wall time of 60 minutes is too short for one epoch, here epoch 2"),
        (True, True, attempts.Unfinished, "in the middle of epoch 2: training goes on after epoch 1"),
        # A duplicate job that had waited.
        (False, False, attempts.Unfinished, "in the middle of epoch 2"),
    ],
)
@pytest.mark.parametrize("look", ["on_train_batch_end", "on_test_batch_end"])
def test_an_epoch_longer_than_the_wall_time_ends_with_a_message(
    tmp_path, look, was_whole, was_used, error, message
):
    budget = Scarce([10, 0], was_whole)
    budget.was_used = was_used
    checkpoint = checkpoints.Checkpoint(checkpoints.Progress(tmp_path, "", budget), None)
    checkpoint.history = [{"epoch": 1}]
    getattr(checkpoint, look)(0)
    with pytest.raises(error, match=message):
        getattr(checkpoint, look)(1)


def test_a_training_that_ended_without_snakemake_is_not_repeated(stored, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    model = train_member(stored, tmp_path, epochs=1)
    made = {name: (tmp_path / name).read_bytes() for name in ("model.keras", "model.json", "history.csv")}
    for name in made:
        (tmp_path / name).unlink()
    monkeypatch.setattr(keras.Model, "fit", None)
    again = train_member(stored, tmp_path, epochs=1)
    assert made == {name: (tmp_path / name).read_bytes() for name in made}
    assert again.about == model.about
    with pytest.raises(TypeError):
        train_member(stored, tmp_path, epochs=1, dropout=0.1)
    # A user who deletes a model on a laptop wants another training.
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(TypeError):
        train_member(stored, tmp_path, epochs=1)


def test_a_training_cut_by_signals_ends_with_the_same_weights(stored, tmp_path):
    """Two cuts of a training; `make test-preemption CUTS=10` makes more, and cuts a finetuning too."""
    said = []
    difference, same, _ = compare("train", 2, random.Random(3), stored, tmp_path, said.append)
    assert difference == 0 and same
    assert len(said) == 2


def test_files_of_processes_on_two_machines_have_two_names(tmp_path, monkeypatch):
    names = set()
    for host in ("gpu1", "gpu2"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        with whole(tmp_path / "made") as partial:
            names.add(partial.name)
            partial.write_text("")
    assert len(names) == 2
