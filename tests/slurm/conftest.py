"""Fixtures of the tests on a SLURM: the running SLURM, and a copy of the repository."""

import pytest
from cluster import Cluster, why_not
from login import clone, partitions


@pytest.fixture(scope="session")
def cluster():
    """A SLURM with the partitions of the profile."""
    if reason := why_not():
        pytest.skip(f"no SLURM on this machine: {reason}")
    with Cluster(partitions()) as running:
        yield running


@pytest.fixture(scope="session")
def repo(tmp_path_factory):
    """A copy of the repository, from which jobs are submitted."""
    return clone(tmp_path_factory.mktemp("login") / "repo")
