"""A complete run on a SLURM with accounting, read from `sacct`: `make test-slurm-accounting`."""

import csv
import io

import accounting
import cluster
import pytest
import yaml
from login import GPU_RULES, Call, clone, partitions


@pytest.fixture(scope="module")
def accounted(tmp_path_factory):
    """The jobs of config/test.yaml as sacct lists them, oldest first."""
    if reason := cluster.why_not() or accounting.why_not():
        pytest.skip(f"no SLURM with accounting on this machine: {reason}")
    repo = clone(tmp_path_factory.mktemp("accounted") / "repo")
    profile = repo / "profiles/slurm/config.yaml"
    # The edit that docs/cluster.md describes.
    profile.write_text(profile.read_text().replace('&account ""', f"&account {accounting.ACCOUNT}"))
    assert yaml.safe_load(profile.read_text())["default-resources"]["slurm_account"] == accounting.ACCOUNT
    with cluster.Cluster(partitions(), accounting.accounts):
        accounting.open_account()
        Call(repo, options=("--slurm-status-command", "sacct")).wait()
        columns = "--format=JobID,Comment%100,Partition,Account,ReqTRES%200,State"
        listed = cluster.slurm("sacct", "--allocations", "--parsable2", columns)
    return list(csv.DictReader(io.StringIO(listed), delimiter="|"))


def test_sacct_lists_which_jobs_asked_for_a_gpu(accounted):
    cpu_partition, gpu_partition = partitions()
    assert len(accounted) > 20
    asked = set()
    for job in accounted:
        rule = next((rule for rule in GPU_RULES if job["Comment"].startswith(f"rule_{rule}")), None)
        asked.add(rule)
        assert job["State"] == "COMPLETED", job
        assert job["Account"] == accounting.ACCOUNT
        assert job["Partition"] == (gpu_partition if rule else cpu_partition)
        assert ("gres/gpu:v100=1" in job["ReqTRES"]) == (rule is not None), job
    assert asked == {*GPU_RULES, None}
