"""Tasks that start from models of the same run, planned in every state that an interrupted run leaves."""

import re

import pytest
from left_behind import HALF_MADE
from pipeline import TEST, called, copy_of_the_repository, jobs_of, overlay, planned, pretend

RING = {"table": "rings.csv", "label": "ring", "epochs": 2}
OWN = "results/test"
TASKS = [
    {**RING, "name": "first", "split": {"train": 0.6, "val": 0.2, "test": 0.2}},
    {**RING, "name": "folds", "pretrained": f"{OWN}/finetune/first", "folds": 3},
    {**RING, "name": "last", "pretrained": f"{OWN}/finetune/folds/fold1"},
]
TARGET = {"name": "test", "ensemble": "metrics", "split": "test"}
CHAIN = {
    "finetune": {"tasks": TASKS},
    "predict": {
        "targets": [TARGET, {"name": "ringed", "split": "test", "models": [f"{OWN}/finetune/first"]}]
    },
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A repository and the arguments for a run of three tasks, each of which starts from the one before."""
    repo = copy_of_the_repository(tmp_path_factory.mktemp("chain") / "repo")
    return repo, (*TEST, overlay(repo, "chain", CHAIN))


@pytest.fixture(scope="module")
def jobs(chain):
    """The jobs of a run of which nothing is there."""
    repo, arguments = chain
    assert not (repo / OWN).exists()
    found = planned(repo, *arguments)
    assert found["finetune_task"] == 5 and found["train_member"] == 1
    return found


@pytest.mark.parametrize("left", HALF_MADE)
def test_an_interrupted_chain_is_planned_and_unlocked(chain, jobs, tmp_path, left):
    repo, arguments = chain
    folder = repo / OWN / "finetune/first"
    for name in HALF_MADE[left]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        assert planned(repo, *arguments) == jobs
        assert called(repo, "--unlock", *arguments)[0] == 0
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_a_chain_goes_on_where_it_ended_and_each_job_reads_the_configuration(chain, jobs):
    repo, arguments = chain
    pretend(repo, *arguments)
    assert planned(repo, *arguments) == {}
    # Killed in a fold: its model is not there, and what came after it is older than it will be.
    for name in ("model.keras", "model.json"):
        (repo / OWN / "finetune/folds/fold1" / name).unlink()
    status, shown = called(repo, "--dry-run", *arguments)
    assert status == 0 and jobs_of(shown)["finetune_task"] == 2, shown
    assert set(re.findall(r"^    wildcards: run=test, fit=(\S+)", shown, re.M)) == {"folds/fold1", "last"}
    # As a job of SLURM calls Snakemake.
    job = ("--target-jobs", "finetune_task:run=test,fit=folds/fold1", "--allowed-rules", "finetune_task")
    status, shown = called(repo, "--dry-run", *arguments, *job, "--mode", "remote", "--nolock")
    assert status == 0 and jobs_of(shown) == {"finetune_task": 1}, shown
    (repo / OWN / "finetune/folds/fold1/history.csv").unlink()
    assert called(repo, "--unlock", *arguments)[0] == 0
