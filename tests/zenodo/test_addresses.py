"""Downloads of labels from an address with a checksum, against a real HTTP server with faults."""

import hashlib

import pytest
from zoolib.job.logs import UserError
from zoolib.zenodo import addresses
from zoolib.zenodo.records import BLOCK

NAME = "part1.zip"


@pytest.fixture
def file(served, tmp_path, monkeypatch):
    """(the address, its checksum, its bytes, where it goes)"""
    waited = []
    monkeypatch.setattr(addresses, "pause", waited.append)
    content = (served.folder / NAME).read_bytes()
    address = f"{served.url}/api/records/99990001/files/{NAME}/content"
    return address, hashlib.sha256(content).hexdigest(), content, tmp_path / "labels" / NAME


def test_a_file_comes_whole(served, file):
    address, checksum, content, output = file
    addresses.download_url(address, checksum, output)
    assert output.read_bytes() == content and list(output.parent.iterdir()) == [output]
    assert served.requests[NAME] == 1


def test_an_interrupted_download_goes_on_where_it_stopped(served, file):
    address, checksum, content, output = file
    served.cuts = [200_000, 300_000]
    addresses.download_url(address, checksum, output)
    assert output.read_bytes() == content
    # Less than a block is lost of each connection that is cut.
    first, second = (start for _, start, _ in served.ranges)
    assert 200_000 - BLOCK < first <= 200_000 and first + 300_000 - BLOCK < second <= first + 300_000
    assert served.served[NAME] < len(content) + 2 * BLOCK


def test_a_killed_download_goes_on_where_it_stopped(served, file):
    address, checksum, content, output = file
    output.parent.mkdir()
    (output.parent / f".{NAME}.part").write_bytes(content[:123_456])
    addresses.download_url(address, checksum, output)
    assert output.read_bytes() == content and served.served[NAME] == len(content) - 123_456


def test_a_server_that_sends_no_parts_sends_the_whole(served, file):
    address, checksum, content, output = file
    served.whole_only = {"content"}
    served.cuts = [200_000]
    addresses.download_url(address, checksum, output)
    assert output.read_bytes() == content


def test_a_file_that_only_its_name_was_missing_of(served, file):
    address, checksum, content, output = file
    output.parent.mkdir()
    (output.parent / f".{NAME}.part").write_bytes(content)
    addresses.download_url(address, checksum, output)
    assert output.read_bytes() == content


def test_failures_that_pass_are_waited_for(served, file):
    address, checksum, content, output = file
    served.fail(503, times=3)
    addresses.download_url(address, checksum, output)
    assert output.read_bytes() == content


def test_another_checksum_ends_in_a_sentence_and_leaves_nothing(served, file):
    address, checksum, _, output = file
    served.corrupt = {NAME}
    with pytest.raises(
        UserError, match=f"have the sha256 [0-9a-f]{{64}}, expected {checksum}, and were removed"
    ):
        addresses.download_url(address, checksum, output)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda served, address: address + "2", "answers 404 Not Found, expected the file"),
        (lambda served, address: served.fail(503, times=99) or address, "keeps failing .503 Service Unavail"),
        (lambda served, address: "http://127.0.0.1:9/x.zip", "keeps failing .the connection failed"),
        (lambda served, address: "http:///x.zip", "cannot be asked for"),
    ],
)
def test_what_cannot_be_had_ends_in_a_sentence(served, file, broken, sentence):
    address, checksum, _, output = file
    with pytest.raises(UserError, match=sentence) as caught:
        addresses.download_url(broken(served, address), checksum, output)
    assert "\n" not in str(caught.value) and not output.exists()
