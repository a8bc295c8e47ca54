"""Downloads of labels from an address with a checksum, against a real HTTP server with faults."""

import hashlib
from collections import namedtuple

import pytest
from zoolib.download import download_url, url_of
from zoolib.job.logs import UserError
from zoolib.zenodo import downloads
from zoolib.zenodo.checked import FOLDER
from zoolib.zenodo.downloads import BLOCK

NAME = "part1.zip"


@pytest.fixture
def file(served, tmp_path, waits):
    """(the address, its checksum, its bytes, where it goes)"""
    content = (served.folder / NAME).read_bytes()
    address = f"{served.url}/api/records/99990001/files/{NAME}/content"
    return address, hashlib.sha256(content).hexdigest(), content, tmp_path / "labels" / NAME


def begun(output, content):
    """Write the partial file of an earlier download."""
    output.parent.mkdir()
    (output.parent / f".{NAME}.part").write_bytes(content)


def test_a_file_comes_whole(served, file):
    address, checksum, content, output = file
    download_url(address, checksum, output)
    assert output.read_bytes() == content and set(output.parent.iterdir()) == {output, output.parent / FOLDER}
    assert served.requests[NAME] == 1


def test_the_task_is_found_by_its_checksum():
    urls = [{"address": f"https://example.org/{digit}", "sha256": digit * 64} for digit in "ab"]
    tasks = [{"url": None}, *({"url": url} for url in urls)]
    assert url_of(tasks, "b" * 12) == urls[1]


def test_an_interrupted_download_continues_where_it_stopped(served, file):
    address, checksum, content, output = file
    served.cuts = [200_000, 300_000]
    download_url(address, checksum, output)
    assert output.read_bytes() == content
    # Less than a block is lost of each connection that is cut.
    first, second = (start for _, start, _ in served.ranges)
    assert 200_000 - BLOCK < first <= 200_000 and first + 300_000 - BLOCK < second <= first + 300_000
    assert served.served[NAME] < len(content) + 2 * BLOCK


def test_a_killed_download_continues_where_it_stopped(served, file):
    address, checksum, content, output = file
    begun(output, content[:123_456])
    download_url(address, checksum, output)
    assert output.read_bytes() == content and served.served[NAME] == len(content) - 123_456


def test_a_server_that_sends_no_parts_sends_the_whole(served, file):
    address, checksum, content, output = file
    served.whole_only = {"content"}
    served.cuts = [200_000]
    download_url(address, checksum, output)
    assert output.read_bytes() == content


def test_a_complete_partial_file_needs_no_bytes(served, file):
    address, checksum, content, output = file
    begun(output, content)
    download_url(address, checksum, output)
    assert output.read_bytes() == content and served.served[NAME] == 0


def test_a_partial_file_that_is_too_long_is_removed(served, file):
    address, checksum, content, output = file
    begun(output, content + b"more")
    with pytest.raises(UserError, match=f"expected {checksum}, and was removed"):
        download_url(address, checksum, output)
    assert list(output.parent.iterdir()) == []


def test_temporary_failures_are_retried(served, file, waits):
    address, checksum, content, output = file
    served.fail(503, times=3)
    served.fail(429, Retry_After=40)
    download_url(address, checksum, output)
    assert output.read_bytes() == content and waits == [1, 2, 4, 40]


def test_another_checksum_is_an_error_and_leaves_nothing(served, file):
    address, checksum, _, output = file
    served.corrupt = {NAME}
    with pytest.raises(UserError) as caught:
        download_url(address, checksum, output)
    for words in (
        " kB) has the sha256 ",
        f", expected {checksum}, and was removed; fix finetune.tasks[].url.",
    ):
        assert words in str(caught.value)
    assert list(output.parent.iterdir()) == []


def test_a_full_disk_is_refused_before_the_bytes_come(served, file, monkeypatch):
    address, checksum, _, output = file
    room = namedtuple("usage", "total used free")(10**9, 0, 1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: room)
    with pytest.raises(
        UserError, match=r"part1\.zip will take .* kB more, and the disk has room for 1\.0 kB; free"
    ):
        download_url(address, checksum, output)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda served, address: address + "2", r"answers 404 Not Found; fix finetune.tasks\[\].url.address"),
        (
            lambda served, address: served.fail(503, times=99) or address,
            r"keeps failing .503 Service Unavail.* instead of finetune.tasks\[\].url",
        ),
        (lambda served, address: served.fail(403) or address, "answers 403 Forbidden, expected its content"),
        (
            lambda served, address: setattr(served, "shift", 7) or served.cuts.append(200_000) or address,
            r"sends 'bytes .*', expected the bytes \d+-\d+; .* instead of finetune.tasks\[\].url",
        ),
        (
            lambda served, address: "http://127.0.0.1:9/x.zip",
            r"127.0.0.1:9/x.zip keeps failing .no connection",
        ),
        (
            lambda served, address: "http:///x.zip",
            r"cannot be requested .Invalid URL.*; fix finetune.tasks\[\].url.address",
        ),
    ],
)
def test_a_download_that_fails_ends_with_what_to_do(served, file, broken, message):
    address, checksum, _, output = file
    with pytest.raises(UserError, match=message) as caught:
        download_url(broken(served, address), checksum, output)
    assert "\n" not in str(caught.value) and not output.exists()
