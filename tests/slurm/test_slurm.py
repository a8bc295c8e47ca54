"""A complete run on a real SLURM, and the faults of clusters: `make test-slurm`."""

import re
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from cluster import slurm, wait_until
from login import GPU_RULES, Call, epochs_done, partitions, wait_for_epoch
from pipeline import edit, overlay, planned, snakemake

# Put into a script, this lets its first job hang.
HANGS = """
import time
from pathlib import Path

if not Path("hung").exists():
    Path("hung").touch()
    time.sleep(3600)
"""
# Put into a script, this makes each epoch longer by the seconds in a file.
SLOW = """
    import time
    from pathlib import Path

    import keras

    on_epoch_end = keras.callbacks.EarlyStopping.on_epoch_end

    def slowly(self, epoch, logs=None):
        began = time.monotonic()
        while time.monotonic() < began + float(Path("slow").read_text()):
            time.sleep(0.1)
        on_epoch_end(self, epoch, logs)

    keras.callbacks.EarlyStopping.on_epoch_end = slowly
"""
EPOCHS = 40
TEST = ("--configfile", "config/test.yaml")
# Megabytes. Simulating, with Snakemake around it, needs more than this and less than twice as much.
TOO_LITTLE = 300


def replace_in_rule(path, rule, before, value):
    """Change a number in a rule, in a copy of the repository."""
    text, count = re.subn(
        rf"(rule {rule}:.*?{before})\d+", rf"\g<1>{value}", path.read_text(), count=1, flags=re.DOTALL
    )
    assert count == 1, f"{path} has no {before} in rule {rule}"
    path.write_text(text)


def slow_down(repo, seconds):
    """Make each epoch longer, also in running jobs."""
    (repo / "slow.new").write_text(str(seconds))
    (repo / "slow.new").rename(repo / "slow")


def model(repo, member):
    """The model of a member."""
    return repo / f"results/test/train/pair/{member}/model.keras"


def log_of(repo, member):
    """The log of the training of a member; each attempt starts it again."""
    return repo / f"logs/test/train_member/pair-{member}.log"


def assert_same_training(folder, reference):
    """The same weights, bit for bit, after the same epochs."""
    weights = [keras.saving.load_model(path / "model.keras").get_weights() for path in (folder, reference)]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    histories = [pd.read_csv(path / "history.csv").drop(columns="seconds") for path in (folder, reference)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


@pytest.fixture(scope="session")
def on_slurm(cluster, repo):
    """The call that ran config/test.yaml to its end, although one job hung and one had too little memory."""
    replace_in_rule(repo / "rules/paper.smk", "draw_trees", "runtime=", 1)
    edit(repo / "workflow/scripts/draw_trees.py", "\nfrom zoolib.job.logs", f"{HANGS}\nfrom zoolib.job.logs")
    replace_in_rule(repo / "rules/download.smk", "simulate_record", r"mem_mb=\D*", TOO_LITTLE)
    line = "    from zoolib.train import Member, train_member\n"
    edit(repo / "workflow/scripts/train_member.py", line, line + SLOW)
    slow_down(repo, 0)
    call = Call(repo)
    call.wait()
    return call


@pytest.fixture(scope="session")
def pair(on_slurm, repo):
    """A configuration with two members whose training is long enough to be interrupted."""
    ensembles = [{"name": "metrics", "members": 1}, {"name": "pair", "members": 2}]
    return overlay(repo, "pair", {"train": {"epochs": EPOCHS, "patience": 15, "ensembles": ensembles}})


@pytest.fixture(scope="session")
def undisturbed(repo, pair):
    """Two members trained at once without a disturbance: (folders, running jobs, logs)."""
    call = Call(repo, *(model(repo, member).relative_to(repo) for member in range(2)), config=[pair])

    def both():
        running = [job for job in call.jobs("train_member") if job["JobState"] == "RUNNING"]
        return len(running) == 2 and running

    running = wait_until(both, 120, "two trainings at once")
    call.wait()
    logs = [log_of(repo, member) for member in range(2)]
    said = [log.read_text() for log in logs]
    for log in logs:
        log.unlink()
    folders = [model(repo, member).parent.rename(repo / f"undisturbed-{member}") for member in range(2)]
    return folders, running, said


def test_the_whole_run_asks_for_gpus_where_it_needs_them(on_slurm, repo):
    cpu_partition, gpu_partition = partitions()
    assert cpu_partition != gpu_partition
    on_gpus = {job["JobId"]: job for rule in GPU_RULES for job in on_slurm.jobs(rule)}
    for rule in GPU_RULES:
        assert on_slurm.jobs(rule), f"no job of {rule} was sent"
    for job in on_gpus.values():
        assert job["TresPerJob"] == "gres:gpu:v100:1", job
        assert job["Partition"] == gpu_partition
        assert job["JobState"] == "COMPLETED"
    others = [job for job in on_slurm.jobs() if job["JobId"] not in on_gpus]
    assert len(others) > 15
    for job in others:
        assert "gres" not in job.get("TresPerJob", "") + job["TRES"], job
        assert job["Partition"] == cpu_partition
    assert planned(repo, *TEST) == {}
    status, _ = snakemake(repo, *TEST, "--report", "report.html")
    assert (repo / "report.html").stat().st_size > 1_000_000


def test_shards_share_a_job(on_slurm):
    shards = [job for job in on_slurm.jobs() if "shard" in job["Comment"]]
    assert [job["Comment"] for job in shards] == ["rule_shards_write_shard"]


def test_a_job_over_its_time_is_sent_again(on_slurm):
    over, again = on_slurm.jobs("draw_trees")
    assert (over["JobState"], over["TimeLimit"]) == ("TIMEOUT", "00:01:00")
    assert again["JobState"] == "COMPLETED"


def test_a_job_over_its_memory_is_sent_again_with_more(on_slurm):
    over, again = on_slurm.jobs("simulate_record")
    assert over["JobState"] in ("FAILED", "OUT_OF_MEMORY")
    assert "exceeded memory limit" in Path(over["StdErr"]).read_text()
    assert over["MinMemoryNode"] == f"{TOO_LITTLE}M"
    assert again["JobState"] == "COMPLETED"
    assert again["MinMemoryNode"] == f"{2 * TOO_LITTLE}M"


def test_two_members_train_side_by_side(undisturbed):
    _, running, said = undisturbed
    granted = {re.search(r"GPU (\d) is not checked", log).group(1) for log in said}
    assert granted == {"0", "1"}
    assert {job["JOB_GRES"] for job in running} == {"gpu:v100:1"}


def attempts(call, count):
    """Wait for this number of attempts at a training; returns their jobs."""
    return wait_until(
        lambda: len(sent := call.jobs("train_member")) == count and sent,
        240,
        f"attempt {count} at the training",
    )


def test_a_training_that_is_interrupted_in_three_ways_ends_with_the_same_weights(undisturbed, repo, pair):
    replace_in_rule(repo / "rules/train.smk", "train_member", "runtime=", 2)
    slow_down(repo, 4)
    call, log = Call(repo, model(repo, 0).relative_to(repo), config=[pair]), log_of(repo, 0)
    # It has two minutes, and stops by itself before SLURM would end it.
    limited, going_on = attempts(call, 2)
    assert (limited["JobState"], limited["TimeLimit"]) == ("FAILED", "00:02:00")
    told = Path(limited["StdOut"]).read_text()
    reached = int(re.search(r"Saved after epoch (\d+): .* in the next attempt", told).group(1))
    slow_down(repo, 1)
    wait_for_epoch(log, reached + 2, call)
    assert f"Training goes on after epoch {reached}\n" in log.read_text()
    slurm("scancel", going_on["JobId"])
    # Another rule would have no retry left after this. The attempt is cancelled before it has trained.
    slurm("scancel", attempts(call, 3)[-1]["JobId"])
    requeued = attempts(call, 4)[-1]
    reached = epochs_done(log)
    wait_for_epoch(log, reached + 2, call)
    slurm("scontrol", "requeue", requeued["JobId"])
    slow_down(repo, 0)
    call.wait()
    states = [job["JobState"] for job in attempts(call, 4)]
    assert states == ["FAILED", "CANCELLED", "CANCELLED", "COMPLETED"]
    assert attempts(call, 4)[-1]["Restarts"] == "1"
    assert int(re.search(r"Training goes on after epoch (\d+)", log.read_text()).group(1)) >= reached + 2
    assert_same_training(model(repo, 0).parent, undisturbed[0][0])


def test_snakemake_killed_on_the_login_node_loses_nothing(undisturbed, repo, pair):
    slow_down(repo, 1)
    killed, log = Call(repo, model(repo, 1).relative_to(repo), config=[pair]), log_of(repo, 1)
    wait_for_epoch(log, 3, killed)
    killed.kill()
    snakemake(repo, "--unlock", *TEST)
    again = Call(repo, model(repo, 1).relative_to(repo), config=[pair])
    (orphan,) = killed.jobs("train_member")
    waiting = f"duplicate job: SLURM job {orphan['JobId']} .* does the same work .*; waiting"
    (duplicate,) = wait_until(lambda: again.jobs("train_member"), 60, "the duplicate job")
    wait_until(
        lambda: (
            Path(duplicate["StdOut"]).exists() and re.search(waiting, Path(duplicate["StdOut"]).read_text())
        ),
        90,
        "the message of the duplicate job",
    )
    slow_down(repo, 0)
    again.wait()
    # Only the job that was running is submitted again.
    assert [job["JobId"] for job in killed.jobs()] == [orphan["JobId"], duplicate["JobId"]]
    assert {job["JobState"] for job in killed.jobs()} == {"COMPLETED"}
    assert_same_training(model(repo, 1).parent, undisturbed[0][1])
    assert planned(repo, *TEST, pair, "--", model(repo, 1).relative_to(repo)) == {}
