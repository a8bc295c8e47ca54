"""Images in zip archives, read without unpacking: from local files, or piece by piece from a server."""

import io
import os
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from zoolib.job.logs import MachineError, UserError, check_machine, log

# The only list of them: images in folders have these suffixes, too.
SUFFIXES = (".png", ".jpg", ".jpeg", ".fits", ".fits.gz", ".fits.fz", ".fit", ".fit.gz")
# What the standard library raises for a damaged list of contents.
BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError)
# What the standard library raises for a damaged member; RuntimeError means a password.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
# A longer file is no image of a galaxy, and would fill the memory; a longer list of contents would, too.
LARGEST = 1 << 30
# Bytes at the end of an archive that are read first: the longest comment, and the records before it.
TAIL = (1 << 16) + 1024
# Bytes of the fixed part of the header before a member, and of its extra fields as far as they are expected.
HEADER, EXTRA = 30, 512
# Members with a smaller gap share a request, up to a length that can be lost when a request is interrupted.
GAP, LONGEST = 1 << 12, 1 << 22


class BadMember(UserError):
    """One member that is damaged, in an archive that can be read."""


class Member(NamedTuple):
    """Where an image is.

    Attributes:
        archive: path of the zip.
        member: full name inside it.
    """

    archive: str
    member: str


def index(paths):
    """Find the images in archives by their base names, because the folders inside differ from part to part.

    Args:
        paths: zip files, the parts of one record.

    Returns:
        {base name: Member}, in the order of the parts.

    Raises:
        UserError: a part is not a readable zip, or two different images have the same base name.
    """
    found = by_base_name([(path, read_infos(path)) for path in map(str, paths)])
    return {name: Member(path, info.filename) for name, (path, info) in found.items()}


def read_infos(path):
    """List the contents of a local archive.

    Args:
        path: of the zip.

    Returns:
        A list of `zipfile.ZipInfo`.

    Raises:
        UserError: the archive is missing or not readable.
    """
    try:
        return _opened(str(path)).infolist()
    except BROKEN as error:
        raise _broken(path, error) from error


def check_names(path):
    """Check that the list of contents and the members themselves agree on their names.

    Args:
        path: of the zip.

    Raises:
        UserError: the archive is damaged.
    """
    for info in read_infos(path):
        try:
            # Python compares the names when it opens a member.
            _opened(str(path)).open(info).close()
        except DAMAGE as error:
            raise _broken(path, error) from error


def by_base_name(contents):
    """Merge the contents of several archives.

    An image that is there twice, with the same size and checksum, counts once.

    Args:
        contents: [(archive, list of `zipfile.ZipInfo`)].

    Returns:
        {base name: (archive, ZipInfo)}.

    Raises:
        UserError: two different images have the same base name.
    """
    found, repeated = {}, 0
    for archive, infos in contents:
        for info in infos:
            name = info.filename.rsplit("/", 1)[-1]
            # macOS adds a hidden file beside each file of a zip.
            if not name.lower().endswith(SUFFIXES) or name.startswith("."):
                continue
            other, first = found.setdefault(name, (archive, info))
            if first is info:
                continue
            if (first.CRC, first.file_size) != (info.CRC, info.file_size):
                raise UserError(
                    f"{archive}: the image '{info.filename}' has the same name as '{first.filename}' in"
                    f" {other}, but another content; galaxies are found by base name, so rename or remove one"
                    " of them."
                )
            repeated += 1
    if repeated:
        log.info("%d images are in the archives more than once, with the same content", repeated)
    return found


def read_member(archive, member, listed=False):
    """Read one member of a local archive; nothing is unpacked on disk.

    Archives stay open, with one handle in each process, so that their contents are listed once. Threads may
    share the handle.

    Args:
        archive: path of the zip.
        member: its complete name inside the zip, from `index`.
        listed: whether the archive was there before: then it is the file system that has lost it.

    Returns:
        The bytes of the member.

    Raises:
        BadMember: the member is damaged.
        MachineError: the file system does not answer, or the archive is gone.
        UserError: the archive is damaged, or has no such member.
    """
    try:
        opened = _opened(str(archive))
    except BROKEN as error:
        if listed and isinstance(error, FileNotFoundError):
            raise MachineError(
                f"{archive}: the archive is gone, but its images were listed before; if its folder is away,"
                " type the same command again when it is back; if not, restore the archive."
            ) from error
        raise _broken(archive, error) from error
    return _read(opened, archive, member)


def _read(opened, archive, member):
    try:
        about = opened.getinfo(member) if isinstance(member, str) else member
        if about.file_size > LARGEST:
            raise zipfile.BadZipFile(f"it would unpack to {about.file_size:,} bytes")
        with opened.open(about) as file:
            # Not `read()`, which may unpack more than that before it counts.
            return file.read(about.file_size)
    except KeyError:
        raise UserError(
            f"{archive}: has no member '{member}', because the catalogue was made from another archive; make"
            " the catalogue again."
        ) from None
    except DAMAGE as error:
        check_machine(error, archive)
        name = getattr(member, "filename", member)
        raise BadMember(
            f"{archive}: the member '{name}' cannot be read ({_words(error)}); it is damaged, so download or"
            " pack the archive again."
        ) from error


_handles = {}
_lock = threading.Lock()


def _opened(path):
    about = os.stat(path)
    stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
    # A forked process would share the position in its parent's file, so it opens the file itself.
    key = (os.getpid(), path)
    with _lock:
        if key not in _handles or _handles[key][0] != stamp:
            opened = zipfile.ZipFile(path)
            _check_count(opened)
            _handles[key] = (stamp, opened)
        return _handles[key][1]


def _check_count(opened):
    """Check that the list of contents is as long as the end of the archive says; Python does not."""
    file = opened.fp
    file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
    tail = file.read()
    (count,) = struct.unpack_from("<H", tail, tail.rfind(b"PK\5\6") + 10)
    # An archive of more than 65,535 members has the number in another place.
    if count != 0xFFFF and count != len(opened.infolist()) & 0xFFFF:
        raise zipfile.BadZipFile(f"its list has {len(opened.infolist()):,} of {count:,} members")


def _words(error):
    return str(error).rstrip(".") or type(error).__name__


def _broken(path, error):
    check_machine(error, path)
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: there is no such archive; fix catalogs[].archives or download it.")
    found = (
        "the file has zero bytes" if Path(path).is_file() and not Path(path).stat().st_size else _words(error)
    )
    return UserError(
        f"{path}: is not a complete zip archive ({found}); remove it and download it again, or fix"
        " catalogs[].archives."
    )


class RangeFile(io.RawIOBase):
    """A file on a server that `zipfile` can read: bytes that are not in memory are fetched by byte ranges.

    Args:
        size: its length in bytes.
        fetch: a function of (start, stop) that returns these bytes.

    Raises:
        zipfile.BadZipFile: more than `LARGEST` bytes at once are to be read.
    """

    def __init__(self, size, fetch):
        super().__init__()
        self._size, self._fetch_any = size, fetch
        self._position = 0
        self._start, self._bytes = 0, b""

    def _fetch(self, start, stop):
        if stop - start > LARGEST:
            raise zipfile.BadZipFile(
                f"one part of it has {stop - start:,} bytes, expected at most {LARGEST:,}"
            )
        return self._fetch_any(start, stop)

    def hold(self, start, stop):
        """Fetch a piece and keep it in memory, instead of the one before."""
        self._bytes = self._fetch(start, stop)
        self._start = start

    def readable(self):
        """Always true."""
        return True

    def seekable(self):
        """Always true."""
        return True

    def tell(self):
        """The position in bytes."""
        return self._position

    def seek(self, offset, whence=io.SEEK_SET):
        """Set the position; returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("negative position in the file")
        self._position = start + offset
        return self._position

    def read(self, size=-1):
        """The next `size` bytes, or all that follow."""
        start = min(self._position, self._size)
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        self._position = max(stop, self._position)
        held = (max(start, self._start), min(stop, self._start + len(self._bytes)))
        if held[0] >= held[1]:
            return self._fetch(start, stop) if stop > start else b""
        before = self._fetch(start, held[0]) if start < held[0] else b""
        after = self._fetch(held[1], stop) if held[1] < stop else b""
        return before + self._bytes[held[0] - self._start : held[1] - self._start] + after


class RemoteArchive:
    """A zip archive on a server, read by byte ranges.

    First its end is fetched (of zip64 archives too), then its list of contents. A member costs one request;
    neighbouring members share one.

    Args:
        name: what messages call it.
        size: its length in bytes.
        fetch: a function of (start, stop) that returns these bytes.

    Raises:
        UserError: it is not a zip archive.
    """

    def __init__(self, name, size, fetch):
        self.name = name
        self._file = RangeFile(size, fetch)
        self._file.hold(max(size - TAIL, 0), size)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except BROKEN as error:
            raise UserError(
                f"{name}: is not a complete zip archive on the server ({_words(error)}); check zenodo.record"
                " and catalogs[].archives."
            ) from error
        infos = sorted(self.infos(), key=lambda info: info.header_offset)
        starts = [info.header_offset for info in infos] + [self._zip.start_dir]
        self._ends = {info.header_offset: after for info, after in zip(infos, starts[1:], strict=True)}

    def infos(self):
        """The contents, a list of `zipfile.ZipInfo`."""
        return self._zip.infolist()

    def _span(self, info):
        # Only the header itself says how long it is: a margin is read too, up to the next member.
        start = info.header_offset
        most = start + HEADER + len(info.filename.encode()) + EXTRA + info.compress_size
        return start, min(most, self._ends[start])

    def requests(self, infos):
        """Group members so that each group is read by one request.

        Args:
            infos: some of the contents.

        Returns:
            A list of lists of `ZipInfo`, in the order of the archive.
        """
        groups = []
        for info in sorted(infos, key=lambda info: info.header_offset):
            start, stop = self._span(info)
            if groups:
                first, last = self._span(groups[-1][0])[0], self._span(groups[-1][-1])[1]
                if start - last <= GAP and stop - first <= LONGEST:
                    groups[-1].append(info)
                    continue
            groups.append([info])
        return groups

    def read(self, group):
        """Read one group of members.

        Args:
            group: a list of `ZipInfo`, one of those that `requests` returns.

        Yields:
            (ZipInfo, its bytes).

        Raises:
            UserError: a member is damaged.
        """
        try:
            self._file.hold(self._span(group[0])[0], self._span(group[-1])[1])
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.name}: {error}; check zenodo.record and catalogs[].archives.") from error
        for info in group:
            yield info, _read(self._zip, self.name, info)
