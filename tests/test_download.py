"""Downloads end with the right bytes or one error message, whatever the server and the network do."""

import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
import yaml
from zenodo_server import PARTS, TABLE, ZenodoServer
from zoolib.download import download_file, needed_files
from zoolib.job.logs import UserError
from zoolib.zenodo import client, downloads, records
from zoolib.zenodo.checked import FOLDER
from zoolib.zenodo.client import ATTEMPTS, ATTEMPTS_UNHEARD

RECORD = 99990001


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "zenodo" / str(RECORD) / TABLE


def get(target, **options):
    download_file(RECORD, target.name, target, **options)


def assert_whole(served, target):
    assert target.read_bytes() == (served.folder / target.name).read_bytes()
    names = {path.name for path in target.parent.iterdir() if path.suffix != ".lock"}
    assert names == {target.name, FOLDER}
    about = {path.name for path in (target.parent / FOLDER).iterdir()}
    assert about == {target.name, f"{target.name}.json"}


def assert_nothing(target):
    assert not target.exists() and not target.with_name(f".{target.name}.part").exists()


def test_the_pinned_record_is_the_published_one(repo, real_data):
    pinned = yaml.safe_load((repo / "config/published/zenodo_4573248.yaml").read_text())
    files = pinned["files"]
    assert len(files) == 11 and sum(about["size"] for about in files.values()) == 108_214_172_224
    assert sum(a["size"] for name, a in files.items() if name.endswith(".zip")) == 103_737_416_327
    facts = (real_data.parent / "facts" / "gz_decals.md").read_text()
    rows = re.findall(r"^\| (\S+) \| (\d+) \| ([0-9a-f]{32}) \|$", facts, re.MULTILINE)
    assert {name: {"size": int(size), "md5": md5} for name, size, md5 in rows} == files


def test_a_pinned_record_is_resolved_without_a_network(monkeypatch):
    monkeypatch.setenv("ZENODO_URL", "http://127.0.0.1:9/mirror/")
    record = records.resolve("4573248")
    file = record.file("gz_decals_volunteers_5.parquet")
    assert (record.number, file.size, file.algorithm, file.checksum[:4]) == (4573248, 40528939, "md5", "364d")
    api = "http://127.0.0.1:9/mirror/api/records/4573248/files/gz_decals_volunteers_5.parquet/content"
    assert file.urls[0] == api


def test_a_real_table_is_downloaded(zenodo, tmp_path):
    target = tmp_path / "data" / TABLE
    get(target)
    assert hashlib.md5(target.read_bytes()).hexdigest() == "e96af8df26e058da99072791d2bc00a6"
    assert zenodo.requests == {"record": 1, TABLE: 1}
    assert all(agent.startswith("zoo-pipeline/") for agent in zenodo.agents)


def test_the_log_says_how_much_is_still_to_come(served, target, caplog):
    target.parent.mkdir(parents=True)
    (target.parent / PARTS[0]).write_bytes((served.folder / PARTS[0]).read_bytes())
    (target.parent / f".{PARTS[1]}.part").write_bytes(b"x" * 100_000)
    sizes = {name: (served.folder / name).stat().st_size for name in (*PARTS, TABLE)}
    get(target, needed=[*PARTS, TABLE])
    coming = sizes[PARTS[1]] - 100_000 + sizes[TABLE]
    assert (
        f"still to come from record {RECORD}: {coming / 1e6:.1f} MB, files: {TABLE}, {PARTS[1]}\n"
        in caplog.text
    )


def test_a_cut_connection_is_resumed(served, target, waits):
    served.cuts = [1_000_000, 300_000, 0]
    get(target)
    assert_whole(served, target)
    size = target.stat().st_size
    assert served.requests[TABLE] == 4
    assert size <= served.served[TABLE] <= size + 2 * downloads.BLOCK
    assert all(last == size - 1 for _, _, last in served.ranges) and served.ranges[0][1] > 700_000


def test_a_download_survives_any_number_of_cuts_while_there_is_progress(served, target, waits, monkeypatch):
    served.cuts = [100_000] * (2 * ATTEMPTS_UNHEARD)
    monkeypatch.setattr(client, "ATTEMPTS", ATTEMPTS_UNHEARD)
    get(target)
    assert_whole(served, target)
    assert set(waits) == {1}


def test_a_killed_download_is_resumed(served, target):
    served.pause = 0.05
    code = f"from zoolib.download import download_file; download_file({RECORD}, {TABLE!r}, {str(target)!r})"
    path = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    partial = target.with_name(f".{TABLE}.part")
    deadline = time.time() + 30
    while not (partial.exists() and partial.stat().st_size > 500_000) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = partial.stat().st_size
    assert 500_000 < kept < (served.folder / TABLE).stat().st_size and not target.exists()
    served.pause = 0.0
    get(target)
    assert_whole(served, target)
    assert served.ranges == [(TABLE, kept, target.stat().st_size - 1)]


def test_the_client_waits_as_long_as_the_server_asks(served, target):
    served.fail(429, Retry_After=2)
    began = time.monotonic()
    get(target)
    assert time.monotonic() - began >= 2
    assert_whole(served, target)


def test_waits_grow_until_it_works(served, target, waits):
    for status in (502, 503, 504):
        served.fail(status)
    served.fail(503, Retry_After=40)
    get(target)
    assert_whole(served, target)
    assert waits == [1, 2, 4, 40]


def test_a_date_or_a_rate_limit_sets_the_wait_too(served, target, waits):
    served.fail(503, Retry_After=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30)))
    served.fail(429, X_RateLimit_Reset=int(time.time()) + 20, X_RateLimit_Remaining=0)
    get(target)
    assert 28 <= waits[0] <= 30 and 18 <= waits[1] <= 20


def test_a_server_that_keeps_failing_ends_with_what_to_do(served, target, waits, monkeypatch):
    served.cuts = [1_000_000]
    sending = served.sending

    def fail_from_now_on():
        served.fail(504, times=ATTEMPTS)
        return sending()

    monkeypatch.setattr(served, "sending", fail_from_now_on)
    with pytest.raises(UserError, match=r"keeps failing \(504 .*run the same command again.*zenodo\.local"):
        get(target)
    assert not target.exists()
    assert len(waits) == ATTEMPTS - 1
    served.failures = []
    monkeypatch.setattr(served, "sending", sending)
    get(target)
    assert_whole(served, target)
    assert served.ranges[0][1] > 700_000


def test_a_server_that_asks_for_a_day_is_not_waited_for(served, target, waits):
    served.fail(429, Retry_After=86400)
    with pytest.raises(UserError, match="asks to wait 1440 minutes"):
        get(target)
    assert waits == []


def test_no_server_at_all(monkeypatch, target, waits):
    monkeypatch.setenv("ZENODO_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 keeps failing \(no connection"):
        get(target)
    monkeypatch.setenv("ZENODO_URL", "zenodo.org")
    wrong = r"'zenodo\.org/.*' cannot be requested .Invalid URL .*; fix the environment variable ZENODO_URL"
    with pytest.raises(UserError, match=wrong):
        get(target)


def test_wrong_bytes_are_not_kept(served, target):
    served.corrupt.add(TABLE)
    with pytest.raises(
        UserError,
        match=r"the download \(.* MB\) has the md5 [0-9a-f]{32}, expected [0-9a-f]{32}, and was removed",
    ):
        get(target)
    assert_nothing(target)


def test_damaged_bytes_on_disk_are_not_kept(served, target):
    target.parent.mkdir(parents=True)
    target.with_name(f".{TABLE}.part").write_bytes(b"something else")
    with pytest.raises(UserError, match="was removed; run the same command again"):
        get(target)
    assert_nothing(target)
    get(target)
    assert_whole(served, target)


@pytest.mark.parametrize("more", [1000, -1000])
@pytest.mark.parametrize("begun", [False, True])
def test_a_wrong_size_is_found_before_the_bytes_come(served, target, more, begun, waits):
    served.entry(TABLE)["size"] += more
    if begun:
        target.parent.mkdir(parents=True)
        target.with_name(f".{TABLE}.part").write_bytes((served.folder / TABLE).read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"{TABLE}: .* bytes of it, expected [0-9,]+; check zenodo\.record"):
        get(target)
    assert not target.exists()


def test_no_such_record(served, target):
    with pytest.raises(UserError, match=r"record 12345 is not there: .*404.*check zenodo\.record"):
        download_file(12345, TABLE, target)
    assert_nothing(target)


def test_an_answer_with_another_record_or_no_record(served, target):
    served.record["id"] = 5
    served.record["conceptrecid"] = "6"
    with pytest.raises(UserError, match="record 99990001 is not there"):
        get(target)
    del served.record["files"]
    with pytest.raises(UserError, match="record 5: .* does not answer with a record that has open files"):
        download_file(5, TABLE, target)
    served.record["files"] = [{"key": TABLE}]
    with pytest.raises(UserError, match="record 5: the list of files .* cannot be read .*; expected key"):
        download_file(5, TABLE, target)


def test_a_file_that_the_record_does_not_have(served, target):
    with pytest.raises(
        UserError, match=r"record 99990001 has no file 'votes\.csv'; it has gz_decals.*part1\.zip"
    ):
        get(target.with_name("votes.csv"))


def test_a_file_that_the_server_does_not_have(served, target):
    served.missing.add(TABLE)
    with pytest.raises(UserError, match=rf"{TABLE} is not there: .* answers 404"):
        get(target)
    assert_nothing(target)


def test_the_concept_id_leads_to_the_newest_version(served, target, caplog):
    download_file(99990000, TABLE, target)
    assert_whole(served, target)
    assert "taking the newest, 99990001 (pin it in zenodo.record)" in caplog.text


def test_older_shapes_of_the_answer_are_read(served, target):
    entry = served.entry(TABLE)
    old = {"filename": TABLE, "filesize": entry["size"], "checksum": entry["checksum"].removeprefix("md5:")}
    served.record["files"].append(old)
    record = records._record(1, [old])
    file = record.file(TABLE)
    assert file.size == entry["size"] and f"{file.algorithm}:{file.checksum}" == entry["checksum"]


def test_a_full_disk_is_refused_before_it_starts(served, target, monkeypatch):
    room = namedtuple("usage", "total used free")(10**9, 0, 1_000_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: room)
    with pytest.raises(UserError, match=r"will take .* MB more, and the disk has room for 1\.0 MB; free"):
        get(target)
    assert_nothing(target)
    assert served.served == {}


def test_a_disk_that_fills_up_is_one_message(served, target):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written .*continues where it stopped"):
            get(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.with_name(f".{TABLE}.part").stat().st_size == 1_000_000
    get(target)
    assert_whole(served, target)


def test_the_rest_is_requested_from_the_other_address(served, target, waits):
    served.whole_only, served.cuts = {"content"}, [1_000_000]
    get(target)
    assert_whole(served, target)
    assert len(served.ranges) == 1 and served.ranges[0][1] > 700_000


def test_other_bytes_than_were_asked_for_are_not_appended(served, target, waits):
    served.cuts, served.shift = [1_000_000], 7
    with pytest.raises(
        UserError, match=rf"{TABLE}: .* sends 'bytes .*', expected the bytes \d+-\d+; .*zenodo\.local"
    ):
        get(target)
    kept = target.with_name(f".{TABLE}.part").read_bytes()
    assert len(kept) > 700_000 and (served.folder / TABLE).read_bytes().startswith(kept)


def test_a_whole_file_is_never_appended_to_a_part(served, target, waits, caplog):
    served.whole_only, served.cuts = {"content", "page"}, [1_000_000]
    get(target)
    assert_whole(served, target)
    assert served.ranges == [] and "starting again from its first byte" in caplog.text


def test_two_processes_do_not_write_one_file(served, target):
    served.pause = 0.01
    threads = [threading.Thread(target=get, args=(target,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(served, target)
    assert served.requests[TABLE] == 1


def test_at_most_two_downloads_at_a_time(served, target, monkeypatch):
    for number in range(4):
        (served.folder / f"{number}.zip").write_bytes(bytes([number]) * 500_000)
    with ZenodoServer(served.folder) as server:
        server.pause = 0.02
        monkeypatch.setenv("ZENODO_URL", server.url)
        threads = [threading.Thread(target=get, args=(target.with_name(f"{n}.zip"),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.most_at_once == 2
        for number in range(4):
            assert target.with_name(f"{number}.zip").read_bytes() == bytes([number]) * 500_000


def test_which_files_a_run_needs():
    config = {
        "catalogs": [{"table": "v.parquet", "archives": ["a.zip", "b.zip"]}, {"table": "my/own.csv"}],
        "finetune": {
            "tasks": [{"table": "rings.csv", "archives": ["a.zip", "r.zip"]}, {"table": "folder/rings.csv"}]
        },
    }
    assert needed_files(config, "b.zip") == ["a.zip", "b.zip", "r.zip", "rings.csv", "v.parquet"]
    # `snakemake check_record` and a sample need only tables: the disk need not have room for images.
    assert needed_files(config, "v.parquet") == ["rings.csv", "v.parquet"]
