"""Downloads end with the right bytes or one sentence, whatever the server and the network do."""

import csv
import hashlib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple

import pandas as pd
import pytest
import yaml
from zenodo_server import ZenodoServer
from zoolib import download, records
from zoolib.archives import EXTRA, HEADER, TAIL
from zoolib.download import check_folder, download_file, needed_files, sample_record
from zoolib.logs import UserError, log

RECORD = 99990001
BIG = "gz_decals_volunteers_5.csv"
PARTS = ["part1.zip", "part2.zip"]


@pytest.fixture
def served(tmp_path, monkeypatch, caplog):
    """A server over a small record of random bytes in the record's layout."""
    folder = tmp_path / "record"
    folder.mkdir()
    noise = random.Random(1)
    names = [f"J{i:03d}100.00+{i:06d}.0" for i in range(60)]
    noise.shuffle(names)
    for part, top in zip(PARTS, ("part1/", ""), strict=True):
        with zipfile.ZipFile(folder / part, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in sorted(names[:20] if top else names[20:40]):
                packed.writestr(f"{top}{name[:4]}/{name}.png", noise.randbytes(noise.randint(20_000, 60_000)))
    with open(folder / BIG, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["iauname", "redshift", "png_loc", "note"])
        # A number that is not the same when read and written again, and a long text.
        filler = noise.randbytes(15_000).hex()
        writer.writerows([name, "0.10", f"dr5/{name[:4]}/{name}.png", f"[1, {filler}]"] for name in names)
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", "zoolib")
    with ZenodoServer(folder) as server:
        monkeypatch.setenv("ZENODO_URL", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def waits(monkeypatch):
    """The waits that were asked for; nobody waits."""
    waited = []
    monkeypatch.setattr(records, "pause", waited.append)
    return waited


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "zenodo" / str(RECORD) / BIG


def get(target, **options):
    download_file(RECORD, target.name, target, **options)


def assert_whole(served, target):
    assert target.read_bytes() == (served.folder / target.name).read_bytes()
    assert [path.name for path in target.parent.iterdir() if path.suffix != ".lock"] == [target.name]


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
    assert (record.number, file.size, file.md5[:4]) == (4573248, 40528939, "364d")
    api = "http://127.0.0.1:9/mirror/api/records/4573248/files/gz_decals_volunteers_5.parquet/content"
    assert file.urls[0] == api


def test_a_real_table_is_downloaded(zenodo, tmp_path):
    target = tmp_path / "data" / BIG
    get(target)
    assert hashlib.md5(target.read_bytes()).hexdigest() == "e96af8df26e058da99072791d2bc00a6"
    assert zenodo.requests == {"record": 1, BIG: 1}
    assert all(agent.startswith("zoo-pipeline/") for agent in zenodo.agents)


def test_it_says_how_much_will_come(served, target, caplog):
    target.parent.mkdir(parents=True)
    (target.parent / PARTS[0]).write_bytes((served.folder / PARTS[0]).read_bytes())
    (target.parent / f".{PARTS[1]}.part").write_bytes(b"x" * 100_000)
    sizes = {name: (served.folder / name).stat().st_size for name in (*PARTS, BIG)}
    get(target, needed=[*PARTS, BIG])
    coming = sizes[PARTS[1]] - 100_000 + sizes[BIG]
    assert f"still to come: {coming / 1e6:.1f} MB in 2 files of record {RECORD}" in caplog.text


def test_a_cut_connection_is_resumed(served, target, waits):
    served.cuts = [1_000_000, 300_000, 0]
    get(target)
    assert_whole(served, target)
    size = target.stat().st_size
    assert served.requests[BIG] == 4
    assert size <= served.served[BIG] <= size + 2 * records.BLOCK
    assert all(last == size - 1 for _, _, last in served.ranges) and served.ranges[0][1] > 700_000


def test_a_killed_download_is_resumed(served, target):
    served.pause = 0.05
    code = f"from zoolib.download import download_file; download_file({RECORD}, {BIG!r}, {str(target)!r})"
    path = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    partial = target.with_name(f".{BIG}.part")
    deadline = time.time() + 30
    while not (partial.exists() and partial.stat().st_size > 500_000) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = partial.stat().st_size
    assert 500_000 < kept < (served.folder / BIG).stat().st_size and not target.exists()
    served.pause = 0.0
    get(target)
    assert_whole(served, target)
    assert served.ranges == [(BIG, kept, target.stat().st_size - 1)]


def test_the_wait_that_the_server_asks_for_is_kept(served, target):
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


def test_dates_and_rate_limits_tell_the_wait_too(served, target, waits):
    served.fail(503, Retry_After=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30)))
    served.fail(429, X_RateLimit_Reset=int(time.time()) + 20, X_RateLimit_Remaining=0)
    get(target)
    assert 28 <= waits[0] <= 30 and 18 <= waits[1] <= 20


def test_a_server_that_keeps_failing_ends_with_what_to_do(served, target, waits, monkeypatch):
    served.cuts = [1_000_000]
    sending = served.sending

    def fail_from_now_on():
        served.fail(504, times=records.ATTEMPTS)
        return sending()

    monkeypatch.setattr(served, "sending", fail_from_now_on)
    with pytest.raises(UserError, match=r"keeps failing \(504 .*run the same command again.*zenodo\.local"):
        get(target)
    assert not target.exists()
    assert len(waits) == records.ATTEMPTS - 1
    served.failures = []
    monkeypatch.setattr(served, "sending", sending)
    get(target)
    assert_whole(served, target)
    assert served.ranges[0][1] > 700_000


def test_a_server_that_closes_its_doors_is_not_waited_for(served, target, waits):
    served.fail(429, Retry_After=86400)
    with pytest.raises(UserError, match="asks to wait 1440 minutes"):
        get(target)
    assert waits == []


def test_no_server_at_all(monkeypatch, target, waits):
    monkeypatch.setenv("ZENODO_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 keeps failing \(no connection"):
        get(target)
    monkeypatch.setenv("ZENODO_URL", "zenodo.org")
    with pytest.raises(UserError, match="is no address; mend the environment variable ZENODO_URL"):
        get(target)


def test_wrong_bytes_are_not_kept(served, target):
    served.corrupt.add(BIG)
    with pytest.raises(
        UserError, match="md5 [0-9a-f]{32} where the record lists [0-9a-f]{32}, and was removed"
    ):
        get(target)
    assert_nothing(target)


def test_bytes_spoilt_on_disk_are_not_kept(served, target):
    target.parent.mkdir(parents=True)
    target.with_name(f".{BIG}.part").write_bytes(b"something else")
    with pytest.raises(UserError, match="was removed; run the same command again"):
        get(target)
    assert_nothing(target)
    get(target)
    assert_whole(served, target)


@pytest.mark.parametrize("more", [1000, -1000])
@pytest.mark.parametrize("begun", [False, True])
def test_a_wrong_size_is_found_before_the_bytes_come(served, target, more, begun):
    served.entry(BIG)["size"] += more
    if begun:
        target.parent.mkdir(parents=True)
        target.with_name(f".{BIG}.part").write_bytes((served.folder / BIG).read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"{BIG}: .* bytes of it where the record lists"):
        get(target)
    assert not target.exists()


def test_no_such_record(served, target):
    with pytest.raises(UserError, match=r"record 12345 is not there: .*404.*check zenodo\.record"):
        download_file(12345, BIG, target)
    assert_nothing(target)


def test_a_record_that_is_another_or_none(served, target):
    served.record["id"] = 5
    served.record["conceptrecid"] = "6"
    with pytest.raises(UserError, match="record 99990001 is not there"):
        get(target)
    del served.record["files"]
    with pytest.raises(UserError, match="record 5: .* does not answer with a record that has open files"):
        download_file(5, BIG, target)
    served.record["files"] = [{"key": BIG}]
    with pytest.raises(UserError, match="record 5: the list of files .* is not understood"):
        download_file(5, BIG, target)


def test_a_file_that_the_record_has_not(served, target):
    with pytest.raises(
        UserError, match=r"record 99990001 has no file 'votes\.csv'; it has gz_decals.*part1\.zip"
    ):
        get(target.with_name("votes.csv"))


def test_a_file_that_the_server_has_not(served, target):
    served.missing.add(BIG)
    with pytest.raises(UserError, match=rf"{BIG} is not there: .* answers 404"):
        get(target)
    assert_nothing(target)


def test_the_concept_id_leads_to_the_newest_version(served, target, caplog):
    download_file(99990000, BIG, target)
    assert_whole(served, target)
    assert "taking the newest, 99990001 (pin it in zenodo.record)" in caplog.text


def test_older_shapes_of_the_answer_are_read(served, target):
    entry = served.entry(BIG)
    old = {"filename": BIG, "filesize": entry["size"], "checksum": entry["checksum"].removeprefix("md5:")}
    served.record["files"].append(old)
    record = records._record(1, [old])
    assert record.file(BIG).size == entry["size"] and f"md5:{record.file(BIG).md5}" == entry["checksum"]


def test_a_full_disk_is_refused_before_it_starts(served, target, monkeypatch):
    room = namedtuple("usage", "total used free")(10**9, 0, 1_000_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: room)
    with pytest.raises(UserError, match=r"need .* MB more and the disk has room for 1\.0 MB; free"):
        get(target)
    assert_nothing(target)
    assert served.served == {}


def test_a_disk_that_fills_up_is_one_sentence(served, target):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError, match="cannot be written .*goes on where it stopped"):
            get(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.with_name(f".{BIG}.part").stat().st_size == 1_000_000
    get(target)
    assert_whole(served, target)


def test_the_other_address_is_asked_for_the_rest(served, target, waits):
    served.whole_only, served.cuts = {"content"}, [1_000_000]
    get(target)
    assert_whole(served, target)
    assert len(served.ranges) == 1 and served.ranges[0][1] > 700_000


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
    assert served.requests[BIG] == 1


def test_two_downloads_at_most_at_a_time(served, target, monkeypatch):
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


def test_what_a_run_needs():
    config = {
        "zenodo": {"sample": None},
        "catalogs": [{"table": "v.parquet", "archives": ["a.zip", "b.zip"]}, {"table": "my/own.csv"}],
        "finetune": {"tasks": [{"table": "rings.csv"}, {"table": "folder/rings.csv"}]},
    }
    assert needed_files(config) == ["a.zip", "b.zip", "rings.csv", "v.parquet"]
    config["zenodo"]["sample"] = 2000
    assert needed_files(config) == ["rings.csv", "v.parquet"]


def test_a_folder_without_the_files(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    (tmp_path / "b.zip").touch()
    check_folder(tmp_path, ["a.zip"])
    with pytest.raises(UserError, match=r"b\.zip, c\.zip are missing or empty there; .*zenodo\.local"):
        check_folder(tmp_path, ["a.zip", "b.zip", "c.zip"])
    with pytest.raises(UserError, match=r"there is no such folder; mend zenodo\.local"):
        check_folder(tmp_path / "none", [])


def draw(served, out, galaxies=12, seed=1, table=None, archives=PARTS):
    table = table or served.folder / BIG
    output = out / table.name, out / "sample.zip"
    sample_record(RECORD, table, archives, galaxies, seed, *output)
    return output


def contents(path):
    with zipfile.ZipFile(path) as packed:
        return {info.filename: packed.read(info) for info in packed.infolist()}


def most_bytes(sizes, parts=2):
    return sum(sizes) + len(sizes) * (HEADER + EXTRA + 100) + parts * TAIL


def test_a_sample_of_real_galaxies_costs_their_bytes_alone(zenodo, tmp_path):
    names = [f"gz_decals_dr5_png_part{n}.zip" for n in (1, 2)]
    table, archive = draw(zenodo, tmp_path / "s", galaxies=20, archives=names)
    rows = pd.read_csv(table)
    images = contents(archive)
    assert len(rows) == 20 and sorted(images) == sorted(f"{n[:4]}/{n}.png" for n in rows["iauname"])
    assert all(image[:8] == b"\x89PNG\r\n\x1a\n" for image in images.values())
    with pytest.raises(UserError, match=r"56 of its galaxies have an image .* zenodo\.sample asks for 2000"):
        draw(zenodo, tmp_path / "s", galaxies=2000, archives=names)
    zenodo.forget()
    draw(zenodo, tmp_path / "again", galaxies=20, archives=names)
    assert zenodo.requests["record"] == 1 and sum(zenodo.requests.values()) <= 1 + 2 + 20
    assert sum(zenodo.served.values()) <= most_bytes([len(image) + 200 for image in images.values()])
    assert (tmp_path / "again" / "sample.zip").read_bytes() == archive.read_bytes()


def test_a_sample_keeps_rows_and_images_as_they_are(served, tmp_path):
    table, archive = draw(served, tmp_path / "s")
    original = (served.folder / BIG).read_text().splitlines()
    sampled = table.read_text().splitlines()
    assert sampled == [line for line in original if line in set(sampled)] and len(sampled) == 13
    all_images = {
        name.rsplit("/")[-1]: image
        for part in PARTS
        for name, image in contents(served.folder / part).items()
    }
    images = contents(archive)
    assert len(images) == 12
    assert all(image == all_images[name.rsplit("/")[-1]] for name, image in images.items())
    assert sorted(path.name for path in archive.parent.iterdir()) == [BIG, "sample.zip"]


def test_a_sample_follows_from_its_seed_alone(served, tmp_path):
    rows = pd.read_csv(served.folder / BIG, dtype=str)
    shuffled = tmp_path / "shuffled" / "votes.parquet"
    shuffled.parent.mkdir()
    rows.sample(frac=1, random_state=3).to_parquet(shuffled)
    _, one = draw(served, tmp_path / "one")
    table, two = draw(served, tmp_path / "two", table=shuffled)
    assert one.read_bytes() == two.read_bytes()
    drawn = pd.read_parquet(table)
    assert len(drawn) == 12 and list(drawn.columns) == list(rows.columns)
    _, other = draw(served, tmp_path / "other", seed=2)
    assert set(contents(other)) != set(contents(one))


def test_a_sample_is_no_part_of_one_split(served, tmp_path):
    # The catalogue is split by the hash of "seed:id"; a sample by that hash would be training alone.
    table, _ = draw(served, tmp_path / "s", galaxies=30)
    places = [
        int(hashlib.sha256(f"1:{name}".encode()).hexdigest()[:8], 16) / 16**8
        for name in pd.read_csv(table)["iauname"]
    ]
    assert max(places) > 0.9 and min(places) < 0.2


def test_a_sample_goes_on_where_it_stopped(served, tmp_path, monkeypatch):
    monkeypatch.setattr("zoolib.archives.GAP", -1)
    monkeypatch.setattr("zoolib.archives.LONGEST", 0)
    part = records.Client.part

    def limited(self, file, start, stop):
        if sum(served.requests.values()) >= 10:
            raise KeyboardInterrupt
        return part(self, file, start, stop)

    monkeypatch.setattr(records.Client, "part", limited)
    with pytest.raises(KeyboardInterrupt):
        draw(served, tmp_path / "s")
    # One request for the record, one for the end of each archive.
    assert sum(served.requests.values()) == 10
    parts = list((tmp_path / "s" / ".sample.zip.parts").iterdir())
    assert len(parts) == 7 and not (tmp_path / "s" / "sample.zip").exists()
    # A spoilt image is fetched again.
    parts[0].write_bytes(b"spoilt")
    monkeypatch.setattr(records.Client, "part", part)
    served.forget()
    _, archive = draw(served, tmp_path / "s")
    assert sum(served.requests.values()) == 3 + 12 - 6
    _, again = draw(served, tmp_path / "again")
    assert archive.read_bytes() == again.read_bytes()


def test_a_sample_keeps_to_the_rate_limit(served, tmp_path):
    served.limit = (6, 1.0)
    draw(served, tmp_path / "s", galaxies=12)
    assert served.refused == 0 and sum(served.requests.values()) > 6


def test_a_sample_survives_failures(served, tmp_path, waits):
    served.fail(503)
    served.cuts = [1000, 2000]
    _, archive = draw(served, tmp_path / "s")
    assert len(contents(archive)) == 12


def test_a_sample_needs_byte_ranges(served, tmp_path):
    with open(served.folder / PARTS[0], "ab") as file:
        file.truncate(1 << 30)
    served.entry(PARTS[0])["size"] = 1 << 30
    served.whole_only = {"content", "page"}
    with pytest.raises(UserError, match=r"200 instead of 206.*whole file of 1\.1 GB.*nothing was downloaded"):
        draw(served, tmp_path / "s")
    # What had filled the buffers of the connection when it was closed.
    assert sum(served.served.values()) < 50_000_000
    assert not (tmp_path / "s" / "sample.zip").exists()


def test_a_sample_from_the_other_address(served, tmp_path):
    served.whole_only = {"content"}
    _, archive = draw(served, tmp_path / "s")
    assert len(contents(archive)) == 12
    # Each archive is asked at the wrong address once.
    assert len(served.ranges) == sum(served.requests.values()) - 1 - 2


def test_a_sample_of_the_wrong_things(served, tmp_path):
    with pytest.raises(UserError, match=r"record 99990001 has no file 'part3\.zip'"):
        draw(served, tmp_path / "s", archives=["part3.zip"])
    served.missing.add(PARTS[0])
    with pytest.raises(UserError, match=r"part1\.zip is not there: .* 404"):
        draw(served, tmp_path / "s")
    served.missing.clear()
    served.entry(PARTS[0])["size"] += 7
    with pytest.raises(UserError, match=r"part1\.zip: .* bytes of it where the record lists"):
        draw(served, tmp_path / "s")
    table = tmp_path / "own.csv"
    table.write_text("name,ra\nJ1,2\n")
    with pytest.raises(UserError, match=r"own\.csv: has no column iauname or id_str"):
        draw(served, tmp_path / "s", table=table)
