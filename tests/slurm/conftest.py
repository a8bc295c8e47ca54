"""A running SLURM, and what the tests on it share."""

import pytest
from cluster import Cluster, why_not
from login import clone, partitions


@pytest.fixture(scope="session")
def cluster():
    """A SLURM with the partitions of the profile."""
    if reason := why_not():
        pytest.skip(f"no SLURM can be started here: {reason}")
    with Cluster(partitions()) as running:
        yield running


@pytest.fixture(scope="session")
def repo(tmp_path_factory):
    """A copy of the repository that jobs are sent from."""
    return clone(tmp_path_factory.mktemp("login") / "repo")
