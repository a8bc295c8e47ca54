"""What was downloaded and checked survives `snakemake -F`, kills, and a server out of reach."""

import hashlib
from types import SimpleNamespace

import pytest
from pipeline import copy_of_the_repository, overlay, snakemake
from zenodo_server import PARTS, TABLE
from zoolib import download
from zoolib.download import download_file, download_url, sample_record
from zoolib.job.logs import UserError
from zoolib.zenodo import checked
from zoolib.zenodo.checked import FOLDER

RECORD = 99990001
NOWHERE = "http://127.0.0.1:9"


class Killed(BaseException):
    """What a test raises in the place of a SIGKILL: nothing catches it."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "zenodo" / str(RECORD)


def forced(output, get):
    """Do what Snakemake does under -F: delete the output, then run the job."""
    output.unlink(missing_ok=True)
    get(output)


def get(output):
    download_file(RECORD, output.name, output)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def kill_in(monkeypatch, module, name):
    """Kill the next call of a function of a module."""

    def killed(*_, **__):
        raise Killed

    monkeypatch.setattr(module, name, killed)


def test_forced_downloads_are_not_deleted(served, tmp_path):
    checkout = copy_of_the_repository(tmp_path / "repo")
    entry = {"name": "small", "tree": "gz_decals_5", "table": TABLE, "archives": PARTS, "min_votes": 1}
    content = {"run": "forced", "zenodo": {"record": RECORD}, "catalogs": [entry]}
    run = ("download", "--configfile", overlay(tmp_path, "forced", content))
    folder = checkout / "data/zenodo" / str(RECORD)
    # A file of the user's own is no output, whatever is in it.
    folder.mkdir(parents=True)
    (folder / PARTS[1]).write_bytes(b"put there by hand")

    def assert_all(**downloads):
        for name in (TABLE, PARTS[0]):
            assert (folder / name).read_bytes() == (served.folder / name).read_bytes()
        assert (folder / PARTS[1]).read_bytes() == b"put there by hand"
        assert {name: served.requests[name] for name in (TABLE, *PARTS)} == {
            TABLE: 1,
            PARTS[0]: downloads["part1"],
            PARTS[1]: 0,
        }

    snakemake(checkout, *run)
    assert_all(part1=1)
    _, shown = snakemake(checkout, "-F", *run, ZENODO_URL=NOWHERE)
    assert_all(part1=1)
    assert f"part1.zip: {NOWHERE} cannot be asked about it (no connection)" in shown
    assert "the file that was downloaded before is used, its md5 is still" in shown
    # A damaged file is downloaded again, and the other one is not.
    flip_a_byte(folder / FOLDER / PARTS[0])
    _, shown = snakemake(checkout, "-F", *run)
    assert_all(part1=2)
    assert f"{TABLE}: is already there, complete" in shown


def test_a_kill_at_any_moment_loses_nothing(served, folder, monkeypatch):
    output = folder / PARTS[0]
    for module, name in (
        (download, "download"),
        (checked.Checked, "note"),
        (checked.os, "replace"),
        (checked.Checked, "show"),
    ):
        with monkeypatch.context() as patch:
            kill_in(patch, module, name)
            with pytest.raises(Killed):
                forced(output, get)
        assert served.requests[output.name] == (0 if name == "download" else 1)
    forced(output, get)
    assert output.read_bytes() == (served.folder / output.name).read_bytes()
    assert served.requests[output.name] == 1
    # The same while it is put back.
    for name in ("note", "show"):
        with monkeypatch.context() as patch:
            kill_in(patch, checked.Checked, name)
            with pytest.raises(Killed):
                forced(output, get)
        get(output)
    assert output.read_bytes() == (served.folder / output.name).read_bytes()
    assert served.requests[output.name] == 1
    names = {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert names == {output.name, f"{output.name}.json"}


def test_an_earlier_file_stays_until_the_records_new_one_is_complete(served, folder, waits, monkeypatch):
    output = folder / PARTS[0]
    get(output)
    before = output.read_bytes()
    (served.folder / PARTS[0]).write_bytes(before[::-1])
    served.entry(PARTS[0])["checksum"] = f"md5:{hashlib.md5(before[::-1]).hexdigest()}"
    served.corrupt.add(PARTS[0])
    with pytest.raises(UserError, match="was removed; run the same command again"):
        forced(output, get)
    assert (folder / FOLDER / PARTS[0]).read_bytes() == before
    served.corrupt.clear()
    forced(output, get)
    assert output.read_bytes() == before[::-1]


def test_a_damaged_file_is_not_put_back(served, folder, waits, monkeypatch):
    output = folder / PARTS[0]
    get(output)
    flip_a_byte(folder / FOLDER / PARTS[0])
    monkeypatch.setenv("ZENODO_URL", NOWHERE)
    with pytest.raises(UserError, match="keeps failing .no connection"):
        forced(output, get)
    assert not output.exists()


def test_what_is_still_to_come_leaves_out_what_is_kept(served, folder, caplog):
    get(folder / PARTS[0])
    (folder / PARTS[0]).unlink()
    caplog.clear()
    download_file(RECORD, TABLE, folder / TABLE, needed=[*PARTS, TABLE])
    assert f"files: {TABLE}, {PARTS[1]}\n" in caplog.text


def test_labels_are_put_back_without_a_request(served, tmp_path):
    address = f"{served.url}/api/records/{RECORD}/files/{TABLE}/content"
    content = (served.folder / TABLE).read_bytes()
    output = tmp_path / "labels" / TABLE
    for _ in range(2):
        forced(output, lambda path: download_url(address, hashlib.sha256(content).hexdigest(), path))
        assert output.read_bytes() == content and served.requests[TABLE] == 1


def test_a_sample_is_put_back_without_a_request(served, tmp_path, monkeypatch):
    table = served.folder / TABLE
    output = SimpleNamespace(table=tmp_path / "s" / TABLE, archive=tmp_path / "s" / "sample.zip")

    def draw(galaxies=12):
        output.table.unlink(missing_ok=True)
        output.archive.unlink(missing_ok=True)
        sample_record(RECORD, table, PARTS, galaxies, 1, output)
        return output.table.read_bytes(), output.archive.read_bytes()

    # Killed when all images are there.
    with monkeypatch.context() as patch:
        kill_in(patch, checked.Checked, "show")
        with pytest.raises(Killed):
            draw()
    served.forget()
    first = draw()
    assert sum(served.requests.values()) == 3
    served.forget()
    assert draw() == first and not served.requests
    # A larger sample takes these images, and the earlier sample is there until the new one is complete.
    served.cuts = [0] * 100
    monkeypatch.setattr("zoolib.zenodo.client.ATTEMPTS", 1)
    with pytest.raises(UserError, match="keeps failing"):
        draw(20)
    assert (output.archive.parent / FOLDER / "sample.zip").read_bytes() == first[1]
    served.cuts = []
    served.forget()
    draw(20)
    assert sum(served.requests.values()) <= 3 + 8
