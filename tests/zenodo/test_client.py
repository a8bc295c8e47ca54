"""Bodies that are not the file: pages, short and endless ones are refused, and the download goes on."""

import gzip
import hashlib
import itertools
import zipfile

import pytest
from zenodo_server import PARTS, TABLE, _Handler
from zoolib.download import download_file, download_url
from zoolib.job.logs import UserError
from zoolib.zenodo import archives, client, downloads, records
from zoolib.zenodo.archives import RemoteArchive, read_member

RECORD = 99990001
PAGE = [b"\n<!DOCTYPE html><html><body>Zenodo is down for maintenance</body></html>"]
HTML = {"Content-Type": "text/html; charset=utf-8"}
CHUNKED = {"Transfer-Encoding": "chunked"}
ENDLESS = itertools.repeat(b"x" * 65536)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "zenodo" / str(RECORD) / TABLE


@pytest.fixture
def asked(monkeypatch, served):
    """The record is asked before a test begins: what follows is about its files."""
    record = records.resolve(RECORD)
    monkeypatch.setattr("zoolib.download.resolve", lambda *_, **__: record)
    return record


def get(target):
    download_file(RECORD, target.name, target)


def begin(target, content):
    target.parent.mkdir(parents=True)
    target.with_name(f".{target.name}.part").write_bytes(content)


@pytest.mark.parametrize("headers", [HTML, HTML | CHUNKED, CHUNKED, {"Content-Type": "application/json"}])
@pytest.mark.parametrize("begun", [0, 700_000])
def test_a_page_instead_of_the_file_is_waited_for(served, asked, target, waits, headers, begun):
    whole = (served.folder / TABLE).read_bytes()
    if begun:
        begin(target, whole[:begun])
    # A begun download asks both addresses for its rest, and then for the complete file.
    served.instead = [(PAGE, headers)] * 6
    get(target)
    assert target.read_bytes() == whole
    assert waits == [1, 2] if begun else waits == [1, 2, 4, 8, 16, 32]
    # What was there is not sent again.
    assert served.served[TABLE] == len(whole) - begun


@pytest.mark.parametrize("body", [b'{"message": "maintenance"}', b""])
@pytest.mark.parametrize("begun", [0, 700_000])
def test_a_short_body_without_a_length_is_not_a_part_of_the_file(served, asked, target, waits, body, begun):
    whole = (served.folder / TABLE).read_bytes()
    if begun:
        begin(target, whole[:begun])
    served.instead = [([body] if body else [], CHUNKED)] * 3
    get(target)
    assert target.read_bytes() == whole and served.served[TABLE] == len(whole) - begun


def test_an_hour_of_maintenance_is_waited_for(served, target, waits):
    class Maintenance:
        # The clock of the test is the sum of the waits.
        def __bool__(self):
            return sum(waits) < 3600

        def pop(self, _):
            return PAGE, HTML

    served.instead = Maintenance()
    get(target)
    assert target.read_bytes() == (served.folder / TABLE).read_bytes()
    assert 3600 <= sum(waits) < 4000 and max(waits) <= 300


def test_maintenance_that_does_not_end_is_one_message(served, asked, target, waits):
    served.instead = [(PAGE, HTML)] * 99
    with pytest.raises(UserError, match=rf"{TABLE}: .* has 72 bytes of it, expected [0-9,]+; check zenodo"):
        get(target)
    assert len(waits) == client.ATTEMPTS - 1 and sum(waits) > 7000


@pytest.mark.parametrize("headers", [HTML, HTML | CHUNKED])
def test_a_page_instead_of_the_record_is_waited_for(served, target, waits, headers):
    served.instead = [(PAGE, headers)] * 3
    get(target)
    assert target.is_file() and waits == [1, 2, 4]
    served.instead = [(PAGE, headers)] * 99
    with pytest.raises(UserError, match="does not answer with a record that has open files"):
        records.resolve(RECORD)


def test_a_page_instead_of_a_part_is_waited_for(served, asked, waits):
    file, content = asked.file(PARTS[0]), (served.folder / PARTS[0]).read_bytes()
    served.instead = [(PAGE, HTML), (PAGE, HTML | CHUNKED), (PAGE, CHUNKED)]
    part = client.Client(records.zenodo()).part
    assert part(file, 1000, 3000) == content[1000:3000] and waits == [1, 2, 4]


def test_labels_are_not_a_page(served, tmp_path, waits):
    content = (served.folder / TABLE).read_bytes()
    address = f"{served.url}/api/records/{RECORD}/files/{TABLE}/content"
    served.instead = [(PAGE, HTML), (PAGE, CHUNKED)]
    download_url(address, hashlib.sha256(content).hexdigest(), tmp_path / "labels" / TABLE)
    assert (tmp_path / "labels" / TABLE).read_bytes() == content and waits == [1, 2]


def test_a_longer_body_ends_at_the_announced_size(served, asked, target, waits, caplog):
    whole = (served.folder / TABLE).read_bytes()
    served.instead = [([whole, *[b"x" * 65536] * 50], CHUNKED)]
    get(target)
    assert target.read_bytes() == whole and "the rest was left" in caplog.text
    served.instead = [(ENDLESS, CHUNKED)]
    other = target.with_name(PARTS[0])
    with pytest.raises(UserError, match=r"part1\.zip: the download .* has the md5 .* and was removed"):
        get(other)
    assert not other.exists() and not list(target.parent.glob(".*.part"))


def test_labels_without_an_announced_size_have_a_ceiling(served, tmp_path, waits, monkeypatch):
    monkeypatch.setattr(downloads, "UNANNOUNCED", 1_000_000)
    served.instead = [(ENDLESS, CHUNKED)]
    with pytest.raises(UserError, match=r"has more than 1\.0 MB, the most without an announced size"):
        download_url(f"{served.url}/labels.csv", "0" * 64, tmp_path / "labels.csv")
    assert not list(tmp_path.glob(".*.part"))


def test_an_endless_record_and_an_endless_part_are_stopped(served, asked, waits, monkeypatch):
    monkeypatch.setattr(records, "LONGEST_ANSWER", 1_000_000)
    served.instead = [(ENDLESS, CHUNKED)] * client.ATTEMPTS
    with pytest.raises(UserError, match=r"keeps failing \(more than the expected 1,000,000 bytes came\)"):
        records.resolve(RECORD)


def test_a_compressed_body_is_not_unpacked(served, asked, target, waits):
    bomb = gzip.compress(bytes(100_000_000))
    served.instead = [([bomb], {"Content-Encoding": "gzip"})]
    get(target)
    assert target.read_bytes() == (served.folder / TABLE).read_bytes() and waits == [1]
    # A file that is stored as gzip, and that the server says is one.
    packed = gzip.compress(b"id,ring\n1,yes\n")
    served.instead = [([packed], {"Content-Encoding": "x-gzip"})]
    output = target.with_name("labels.csv.gz")
    download_url(f"{served.url}/labels.csv.gz", hashlib.sha256(packed).hexdigest(), output)
    assert output.read_bytes() == packed


def test_a_redirect_to_a_file_is_one_message(served, tmp_path):
    served.fail(302, Location="file:///etc/passwd")
    with pytest.raises(UserError, match="cannot be requested .No connection adapters were found for 'file:"):
        download_url(f"{served.url}/labels.csv", "0" * 64, tmp_path / "labels.csv")


def test_a_server_that_never_answered_is_waited_for_two_minutes(target, waits, monkeypatch):
    monkeypatch.setenv("ZENODO_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="keeps failing .no connection"):
        get(target)
    assert sum(waits) == 127


@pytest.mark.parametrize(("member", "unpacked"), [(100_000, 2_000_000), (2_000_000, 100_000)])
def test_an_image_is_not_longer_than_announced(tmp_path, monkeypatch, member, unpacked):
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.png", bytes(unpacked))
    content = path.read_bytes()
    sizes = [unpacked.to_bytes(4, "little"), member.to_bytes(4, "little")]
    assert content.count(sizes[0]) == 2
    path.write_bytes(content.replace(*sizes))
    with pytest.raises(UserError, match=r"a\.zip: the member 'a\.png' .*(damaged|1,000,000)"):
        read_member(path, "a.png")


def test_a_list_of_contents_is_not_longer_than_expected(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(12_000):
            packed.writestr(f"{number:080d}.png", b"")
    content = path.read_bytes()
    asked = []

    def fetch(start, stop):
        asked.append(stop - start)
        return content[start:stop]

    with pytest.raises(
        UserError, match=r"a\.zip: .* part of it has [0-9,]+ bytes, expected at most 1,000,000"
    ):
        RemoteArchive("a.zip", len(content), fetch)
    assert max(asked) <= 1_000_000


def test_the_rest_of_labels_is_as_long_as_its_range_says(served, tmp_path, waits, monkeypatch):
    content = (served.folder / TABLE).read_bytes()
    (tmp_path / f".{TABLE}.part").write_bytes(content[:1000])
    # A proxy that ends a part too early, and announces the length of what it has.
    send_head = _Handler.send_head
    short = iter([300])

    def shortened(handler, status, length, headers):
        length = next(short, length) if "Content-Range" in headers else length
        send_head(handler, status, length, headers)

    monkeypatch.setattr(_Handler, "send_head", shortened)
    served.cuts = [300]
    address = f"{served.url}/api/records/{RECORD}/files/{TABLE}/content"
    download_url(address, hashlib.sha256(content).hexdigest(), tmp_path / TABLE)
    assert (tmp_path / TABLE).read_bytes() == content
