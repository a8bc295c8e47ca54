"""Images are found and read in zips of any layout, on disk and on a server."""

import errno
import multiprocessing
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from zoolib.job.logs import MachineError, UserError
from zoolib.zenodo import archives
from zoolib.zenodo.archives import (
    EXTRA,
    HEADER,
    TAIL,
    RemoteArchive,
    by_base_name,
    check_names,
    index,
    read_member,
)


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED, **options):
    with zipfile.ZipFile(path, "w", compression, **options) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


class Far:
    """A file that is read by ranges, and that stores these ranges."""

    def __init__(self, path):
        self.path, self.size, self.asked = path, path.stat().st_size, []

    def __call__(self, start, stop):
        assert 0 <= start < stop <= self.size
        self.asked.append((start, stop))
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def open(self):
        return RemoteArchive(self.path.name, self.size, self)

    @property
    def bytes(self):
        return sum(stop - start for start, stop in self.asked)


def images(count, size=30_000, first=0):
    return {f"J{i:03d}456.0+00{i:04d}.png": os.urandom(size + 100 * i) for i in range(first, first + count)}


def test_index_finds_both_layouts_of_the_real_record(real_data):
    parts = sorted((real_data / "gz_decals_record").glob("*.zip"))
    found = index(parts)
    assert len(found) == 68
    tops = {os.path.basename(m.archive): m.member.split("/")[0] for m in found.values()}
    assert tops["gz_decals_dr5_png_part1.zip"] == "gz_decals_dr5_png_part1"
    assert tops["gz_decals_dr5_png_part2.zip"].startswith("J")
    for name, (archive, member) in found.items():
        assert member.endswith(name)
        assert read_member(archive, member)[:8] == b"\x89PNG\r\n\x1a\n"


def test_files_that_are_not_images_are_ignored(tmp_path):
    path = write_zip(
        tmp_path / "a.zip",
        {"top/": b"", "top/readme.txt": b"x", "__MACOSX/top/._J1.png": b"x", "top/J1.PNG": b"y"},
    )
    assert index([path]) == {"J1.PNG": (str(path), "top/J1.PNG")}


def test_the_same_image_twice_counts_once_and_another_image_of_this_name_is_an_error(tmp_path):
    one = write_zip(tmp_path / "one.zip", {"J1.png": b"galaxy"})
    two = write_zip(tmp_path / "two.zip", {"top/J1.png": b"galaxy"})
    assert index([one, two])["J1.png"].archive == str(one)
    three = write_zip(tmp_path / "three.zip", {"top/J1.png": b"another"})
    with pytest.raises(
        UserError, match=r"three\.zip: the image 'top/J1\.png' has the same name as 'J1\.png' in"
    ):
        index([one, three])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such archive"),
        (b"", "zero bytes"),
        (b"<html>504</html>" * 100, "not a zip file"),
        ("cut", "not a zip file"),
    ],
)
def test_a_broken_archive_is_one_message(tmp_path, content, message):
    path = tmp_path / "part1.zip"
    if content == "cut":
        whole = write_zip(path, images(3)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content is not None:
        path.write_bytes(content)
    for call in (lambda: index([path]), lambda: read_member(path, "J1.png")):
        with pytest.raises(UserError, match=f"part1.zip: .*{message}"):
            call()


def test_a_damaged_or_missing_member_is_one_message(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"J1.png": b"g" * 1000, "J2.png": b"h" * 1000}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip: the member 'J1\.png' cannot be read \(Bad CRC-32"):
        read_member(path, "J1.png")
    assert read_member(path, "J2.png") == b"h" * 1000
    with pytest.raises(UserError, match=r"a\.zip: has no member 'J3\.png'"):
        read_member(path, "J3.png")
    # A new archive of the same name is noticed.
    write_zip(path, {"J3.png": b"new"})
    assert read_member(path, "J3.png") == b"new"


def _reads(path, members):
    return all(read_member(path, name) == content for name, content in members.items())


def test_threads_and_forked_processes_read_at_the_same_time(tmp_path):
    members = images(40, size=300_000)
    path = str(write_zip(tmp_path / "a.zip", members))
    assert _reads(path, members)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda _: _reads(path, members), range(8)))
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert all(processes.starmap(_reads, [(path, members)] * 10))


def test_a_remote_member_costs_one_request_and_only_its_bytes(tmp_path):
    members = images(300)
    far = Far(write_zip(tmp_path / "a.zip", members))
    archive = far.open()
    assert len(far.asked) == 1 and far.bytes == TAIL
    chosen = archive.infos()[5::30]
    far.asked.clear()
    groups = archive.requests(chosen)
    assert len(groups) == len(chosen) == 10
    got = {info.filename: content for group in groups for info, content in archive.read(group)}
    assert got == {info.filename: members[info.filename] for info in chosen}
    assert len(far.asked) == 10
    most = HEADER + EXTRA + 100
    assert far.bytes <= sum(info.compress_size + most for info in chosen)


def test_neighbours_share_a_request(tmp_path):
    members = images(30)
    far = Far(write_zip(tmp_path / "a.zip", members))
    archive = far.open()
    infos = archive.infos()
    far.asked.clear()
    groups = archive.requests([*infos[3:6], infos[20]])
    assert [len(group) for group in groups] == [3, 1]
    assert sum(1 for group in groups for _ in archive.read(group)) == 4
    # Each request ends where the next member begins.
    offsets = [info.header_offset for info in infos]
    assert far.asked == [(offsets[3], offsets[6]), (offsets[20], offsets[21])]


def test_the_length_of_a_request_is_limited(tmp_path):
    far = Far(write_zip(tmp_path / "a.zip", images(12, size=1_000_000), zipfile.ZIP_STORED))
    archive = far.open()
    assert [len(group) for group in archive.requests(archive.infos())] == [4, 4, 4]


def test_a_long_list_of_contents_is_one_more_request(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"top/J{i:05d}.png": b"" for i in range(2000)})
    far = Far(path)
    assert len(far.open().infos()) == 2000
    assert len(far.asked) == 2
    assert far.bytes <= TAIL + 2000 * 60


@pytest.mark.parametrize("extra", [100, 3000])
def test_odd_headers_are_read(tmp_path, extra):
    # A comment at the end, an extra field before the data that is not in the list of contents (once longer
    # than the margin), and lengths that follow the data.
    content = os.urandom(5000)
    path = tmp_path / "a.zip"
    with open(path, "wb") as file, zipfile.ZipFile(file, "w") as packed:
        info = zipfile.ZipInfo("J1.png")
        info.extra = b"\x99\x99" + (extra - 4).to_bytes(2, "little") + bytes(extra - 4)
        with packed.open(info, "w") as member:
            member.write(content)
        info.extra = b""
        packed.writestr("J2.png", content[::-1])
        packed.comment = b"Galaxy Zoo " * 5000
    far = Far(path)
    archive = far.open()
    far.asked.clear()
    (group,) = archive.requests(archive.infos())
    assert [image for _, image in archive.read(group)] == [content, content[::-1]]


def test_zip64_with_members_beyond_four_gigabytes(tmp_path):
    path = tmp_path / "big.zip"
    start = 5 << 30
    content = {f"top/J{i:03d}/J{i:03d}.png": os.urandom(20_000) for i in range(5)}
    with open(path, "wb") as file:
        # A hole in the file takes no room on the disk.
        file.seek(start)
        with zipfile.ZipFile(file, "w") as packed:
            for name, image in content.items():
                with packed.open(name, "w", force_zip64=True) as member:
                    member.write(image)
    assert path.stat().st_blocks * 512 < 1 << 20
    found = index([path])
    assert read_member(*found["J003.png"]) == content["top/J003/J003.png"]
    far = Far(path)
    archive = far.open()
    infos = by_base_name([(archive, archive.infos())])
    assert infos["J004.png"][1].header_offset > start
    (group,) = archive.requests([infos["J002.png"][1]])
    assert [image for _, image in archive.read(group)] == [content["top/J002/J002.png"]]
    assert far.bytes < TAIL + 21_000 and len(far.asked) == 2


def test_more_members_than_a_plain_zip_can_count(tmp_path):
    far = Far(write_zip(tmp_path / "a.zip", {f"J{i:05d}.png": b"" for i in range(65_600)}))
    assert len(far.open().infos()) == 65_600


def test_a_remote_file_that_is_not_an_archive_is_one_message(tmp_path):
    path = tmp_path / "part1.zip"
    path.write_bytes(b"no archive" * 100)
    with pytest.raises(UserError, match=r"part1\.zip: is not a complete zip archive on the server"):
        Far(path).open()


def test_a_damaged_list_of_contents_is_one_message(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"x/{number}.png": b"image" for number in range(9)})
    content = path.read_bytes()
    end = content.rfind(b"PK\5\6")
    length = int.from_bytes(content[end + 12 : end + 16], "little")
    # The list ends after eight of nine members, which Python takes for the complete list.
    shorter = (length * 8 // 9).to_bytes(4, "little")
    begin = content.find(b"PK\1\2")
    newer = content[: begin + 6] + b"\xff\x00" + content[begin + 8 :]
    for damaged, found in (
        (content[: end - length // 9] + content[end : end + 12] + shorter + content[end + 16 :], "8 of 9"),
        (newer, "version 25.5"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"is not a complete zip archive .*{found}") as caught:
            index([path])
        assert "\n" not in str(caught.value)
    # Another name in the list than beside the member.
    path.write_bytes(content[: begin + 46] + b"y" + content[begin + 47 :])
    index([path])
    with pytest.raises(UserError, match="differ"):
        check_names(path)


def test_an_archive_on_a_disk_that_does_not_answer_is_not_damaged(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.png", b"")
    # Python's `zipfile` says "File is not a zip file" if it cannot read the end.
    monkeypatch.setattr(zipfile, "_EndRecData", fails)
    with pytest.raises(MachineError, match="images.zip: cannot be read or written"):
        archives.index([path])
