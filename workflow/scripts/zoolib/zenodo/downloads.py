"""Downloads that survive interruptions: into a partial file, resumed, checked, one process a file."""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import shutil
import time

from zoolib.job.logs import UserError, log, progress
from zoolib.job.words import in_bytes
from zoolib.zenodo.client import Interrupted, NothingLeft

# A cut connection loses less than this.
BLOCK = 1 << 16
# Bytes of the largest file whose size neither the record nor the server announces.
UNANNOUNCED = 10_000_000_000
# How a page begins that a server sends instead of a file.
PAGE = (b"<!doctype html", b"<html")
# Zenodo blocks clients that download more files at the same time.
AT_ONCE = 2


def download(client, file, path):
    """Download a file into a partial file and check it; an interrupted download continues where it stopped.

    Args:
        client: a `Client` of the file's server.
        file: a `RemoteFile`; if its size is not known, only its checksum shows that all bytes came.
        path: where to write it; bytes that are there already are not downloaded again.

    Raises:
        UserError: the server does not have the file or keeps failing, another size or checksum (the partial
            file is removed), more bytes than announced, too little room.
    """
    if file.size is not None and size_of(path) > file.size:
        path.unlink()
    if have := size_of(path):
        log.info("%s: continuing after %s", file.name, in_bytes(have))
    partial = _Partial(path, file.algorithm)

    def attempt():
        have = size_of(path)
        if have == file.size:
            return
        with client.stream(file, have) as (start, response):
            if start != have:
                log.info("%s: the server sends no parts of it; starting again from its first byte", file.name)
            total = _size_of_answer(file, start, response)
            if total is not None:
                require_room(path.parent, total - have, file.name, client.origin.room)
            most = UNANNOUNCED if total is None else total
            with progress(None, f"downloading {file.name}", total, "B") as meter:
                meter.n = meter.initial = start
                for size in partial.write(_blocks(file, start, response), start, most):
                    meter.update(size - meter.n)
            _check_end(file, start, response, total, partial)

    try:
        client.persist(attempt, file.name, reached=lambda: size_of(path))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room or fix the folder's rights, then"
            " run the same command again: it continues where it stopped."
        ) from error
    except _TooLong as error:
        raise _wrong(client, file, path, str(error)) from None
    except NothingLeft:
        # All bytes are in the partial file, or wrong ones; its checksum shows which.
        if file.size is not None:
            raise
    found = partial.digest.hexdigest()
    if file.checksum and found != file.checksum:
        raise _wrong(client, file, path, f"the {file.algorithm} {found}, expected {file.checksum},")


def _size_of_answer(file, start, response):
    """Bytes of the complete file; None if neither the record nor the server gives the number."""
    length = response.headers.get("Content-Length", "")
    of_part = response.headers.get("Content-Range", "").rpartition("/")[2]
    if file.size is not None:
        return file.size
    if start and of_part.isdigit():
        return int(of_part)
    return start + int(length) if length.isdigit() else None


def _blocks(file, start, response):
    """The blocks of a body, if it does not begin like a page that says why the file does not come."""
    is_first = not start and not file.name.lower().endswith((".html", ".htm"))
    for block in response.iter_content(BLOCK):
        if is_first and block.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower().startswith(PAGE):
            raise Interrupted("a page came instead of the file")
        is_first = False
        yield block


def _check_end(file, start, response, total, partial):
    """What follows when a body ends: nothing, or a reason why it was too short or too long."""
    size = size_of(partial.path)
    if partial.is_cut_off:
        if total is None or not file.checksum:
            if total is not None:
                raise _TooLong(f"more than the expected {total:,} bytes")
            raise _TooLong(f"more than {in_bytes(UNANNOUNCED)}, the most without an announced size,")
        log.info("%s: more than its %s bytes came; the rest was left", file.name, f"{total:,}")
    if total is None or size >= total:
        return
    if not start and "Content-Length" not in response.headers:
        # Such a body has ended and was not cut: it is not the file.
        partial.remove()
        raise Interrupted(f"{size:,} bytes came instead of {total:,}")
    raise Interrupted("the connection ended early")


class _TooLong(Exception):
    """More bytes came than were announced."""


class _Partial:
    """A partial file, with a hash of what is in it.

    Attributes:
        path: the file.
        digest: the hash.
        is_cut_off: whether more bytes came than were to be written.
    """

    def __init__(self, path, algorithm):
        self.path, self._algorithm = path, algorithm
        self.digest = hashlib.new(algorithm)
        self.is_cut_off = False
        if path.exists():
            with open(path, "rb") as file:
                while block := file.read(BLOCK):
                    self.digest.update(block)

    def remove(self):
        """Start again from the first byte."""
        self.path.unlink(missing_ok=True)
        self.digest = hashlib.new(self._algorithm)

    def write(self, blocks, start, most):
        """Write what comes from `start` on, up to a size of `most`; yields the size after each block."""
        # An answer from the first byte replaces the partial file; it is never appended. Nothing is replaced
        # before a byte has come.
        first = next(blocks, b"")
        if not start:
            self.remove()
        with open(self.path, "r+b" if start else "wb") as disk:
            disk.seek(start)
            for block in itertools.chain([first], blocks):
                room = most - disk.tell()
                self.is_cut_off = len(block) > room
                block = block[:room]
                disk.write(block)
                self.digest.update(block)
                yield disk.tell()
                if self.is_cut_off:
                    return


def _wrong(client, file, partial, found):
    size = in_bytes(size_of(partial))
    partial.unlink(missing_ok=True)
    return UserError(
        f"{file.name}: the download ({size}) has {found} and was removed; {client.origin.wrong_bytes}."
    )


def size_of(path):
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def require_room(folder, size, what, remedy):
    """Stop before writing what the disk has no room for.

    Args:
        folder: an existing folder on the disk.
        size: bytes to be written.
        what: what they are.
        remedy: what the user can do besides freeing room, for the message.

    Raises:
        UserError: there is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{folder}: {what} will take {in_bytes(size)} more, and the disk has room for {in_bytes(free)};"
            f" free {in_bytes(size - free)}, or {remedy}."
        )


def _flock(file, how):
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some file systems of clusters have no locks; there Snakemake's own lock keeps two runs apart.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True


@contextlib.contextmanager
def locked(path, name):
    """Let one process at a time download a file; the others wait.

    Args:
        path: the lock file.
        name: of the file that is downloaded, for the log.
    """
    with open(path, "w") as file:
        if not _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            log.info("%s: another process is downloading it; waiting until it ends", name)
            _flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def slot(folder):
    """Wait until fewer than `AT_ONCE` processes download.

    Args:
        folder: where the lock files of the slots are.
    """
    with contextlib.ExitStack() as stack:
        slots = [stack.enter_context(open(folder / f".slot{n}.lock", "w")) for n in range(AT_ONCE)]
        while not any(_flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB) for slot in slots):
            time.sleep(0.5)
        yield
