"""What the tests share: the repository, the real galaxies, a running Zenodo."""

import os
from pathlib import Path

import pytest
from zenodo_server import ZenodoServer

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo():
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def real_data():
    """The folder of real galaxies; tests that need it are skipped where it is absent."""
    folder = (REPO / os.environ.get("ZOO_REAL_DATA", "../shared/data")).resolve()
    if not (folder / "gz_decals_record" / "record.json").is_file():
        pytest.skip(f"no real galaxies in {folder} (set ZOO_REAL_DATA to their folder)")
    return folder


@pytest.fixture
def zenodo(real_data, monkeypatch):
    """A server that speaks Zenodo's API over the miniature of the real record; ZENODO_URL leads to it."""
    with ZenodoServer(real_data / "gz_decals_record") as server:
        monkeypatch.setenv("ZENODO_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server
