"""Fixtures that many tests share: the repository, the real galaxies, a running Zenodo."""

import csv
import gc
import os
import random
import shutil
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock
from pipeline import TEST, copy_of_the_repository, snakemake
from stored import model_folder, stored  # noqa: F401 (fixtures)
from zenodo_server import PARTS, TABLE, ZenodoServer
from zoolib.config.published import read_published
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import log
from zoolib.zenodo import client

REPO = Path(__file__).resolve().parents[1]
# Two processes run the tests (`-n 2`): a file stays in one of them, and these files in the same one, because
# they share the completed run. (Markers do not do it: pytest-xdist 3.8 cannot read groups under pytest 9.2.)
TOGETHER = {
    f"tests/workflow/test_{name}.py"
    for name in ("bench_search", "explore", "export", "pipeline", "pretext", "reruns", "search")
}
TOGETHER |= {f"tests/documents/test_{name}.py" for name in ("documents", "report_page")}
# It uses the completed run too, and takes long: both processes run a part of it, each in a copy of its own.
ALONE = "tests/documents/test_tutorials.py"
LONGEST = f"{ALONE}::test_finetune"
# The folders that take longest come first, so that both processes end at about the same time.
LONG = {"tests", "job", "learning", "weights", "workflow"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Share the tests out to the processes."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return nodeid if nodeid == LONGEST else "together" if file in TOGETHER else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_finish():
    """Spare the garbage collector the million objects of TensorFlow and Keras, which stay anyway."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Put the tests into the order in which they are shared out."""
    sharing = {item.location[0] for item in items if "completed" in item.fixturenames}
    if others := sharing - TOGETHER - {ALONE}:
        raise pytest.UsageError(f"{sorted(others)} use completed: add them to TOGETHER of conftest.py")
    order = dict.fromkeys(TOGETHER, 1) | {ALONE: 2}

    def place(item):
        first = 0 if item.nodeid == LONGEST else order.get(item.location[0], 3)
        return first, item.path.parent.name not in LONG

    items.sort(key=place)


@pytest.fixture(scope="session")
def repo():
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def tree():
    """The tree of GZ DECaLS 5."""
    return DecisionTree.load(REPO / "config/trees/gz_decals_5.yaml")


@pytest.fixture(scope="session")
def published():
    """The numbers that the paper publishes."""
    return read_published("walmsley_2022", REPO / "config/published")


@pytest.fixture(scope="session")
def real_data():
    """The folder of real galaxies; without it, tests that need it are skipped."""
    folder = (REPO / os.environ.get("ZOO_REAL_DATA", "../shared/data")).resolve()
    if not (folder / "gz_decals_record" / "record.json").is_file():
        pytest.skip(f"no real galaxies in {folder} (set ZOO_REAL_DATA to their folder)")
    return folder


@pytest.fixture(scope="session")
def completed(tmp_path_factory):
    """A copy of the repository in which config/test.yaml has run.

    The processes that run tests share it. If ZOO_COMPLETED names a folder, later calls share it too; the code
    must be the same.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = Path(os.environ.get("ZOO_COMPLETED", shared))
    repo, done = folder / "completed", folder / "completed.done"
    with FileLock(folder / "completed.lock"):
        if not done.exists():
            copy_of_the_repository(repo)
            _, shown = snakemake(repo, *TEST)
            assert "Traceback" not in shown
            done.touch()
    return repo


@pytest.fixture
def edited(completed, tmp_path):
    """A copy of the completed run that a test may edit; the files keep their times."""
    shutil.copytree(completed, tmp_path / "repo", symlinks=True)
    return tmp_path / "repo"


@pytest.fixture
def zenodo(real_data, monkeypatch):
    """A server with Zenodo's API and the miniature of the real record; ZENODO_URL has its address."""
    with ZenodoServer(real_data / "gz_decals_record") as server:
        monkeypatch.setenv("ZENODO_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def served(tmp_path, monkeypatch, caplog):
    """A server with a small record of random bytes in the layout of the real one."""
    folder = tmp_path / "record"
    folder.mkdir()
    noise = random.Random(1)
    names = [f"J{i:03d}100.00+{i:06d}.0" for i in range(60)]
    noise.shuffle(names)
    for part, top in zip(PARTS, ("part1/", ""), strict=True):
        with zipfile.ZipFile(folder / part, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in sorted(names[:20] if top else names[20:40]):
                packed.writestr(f"{top}{name[:4]}/{name}.png", noise.randbytes(noise.randint(20_000, 60_000)))
    with open(folder / TABLE, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["iauname", "redshift", "png_loc", "note"])
        # A number that changes when it is read and written again, and a long text.
        filler = noise.randbytes(15_000).hex()
        writer.writerows([name, "0.10", f"dr5/{name[:4]}/{name}.png", f"[1, {filler}]"] for name in names)
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", "zoolib")
    with ZenodoServer(folder) as server:
        monkeypatch.setenv("ZENODO_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def mock_nvidia_smi(tmp_path):
    """A folder with a mock of nvidia-smi, a script that lists two GPUs, the first of which has two parts."""
    folder = tmp_path / "mock"
    folder.mkdir()
    lines = ["GPU 0: NVIDIA H100 (UUID: GPU-5f3e)", "  MIG 3g.40gb Device 0: (UUID: MIG-1)"]
    lines += ["  MIG 3g.40gb Device 1: (UUID: MIG-2)", "GPU 1: NVIDIA H100 (UUID: GPU-77a1)"]
    script = "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines)
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)
    return folder


@pytest.fixture
def installed_for_gpus(tmp_path):
    """A folder for the path of Python; with it, TensorFlow for GPUs seems to be installed."""
    about = tmp_path / "packages/tensorflow-2.21.0.dist-info/METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.21.0\n")
    return str(tmp_path / "packages")


@pytest.fixture
def waits(monkeypatch):
    """The seconds of each wait of a download; the tests do not wait."""
    waited = []
    monkeypatch.setattr(client, "pause", waited.append)
    return waited
