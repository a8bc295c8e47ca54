"""Downloads that survive interruptions: into a partial file, resumed, checked, one process a file."""

import contextlib
import errno
import fcntl
import hashlib
import shutil
import time

from zoolib.job.logs import UserError, log, progress
from zoolib.job.words import in_bytes
from zoolib.zenodo.client import Interrupted, NothingLeft

# A cut connection loses less than this.
BLOCK = 1 << 16
# Zenodo blocks clients that download more files at the same time.
AT_ONCE = 2


def download(client, file, partial):
    """Download a file into a partial file and check it; an interrupted download continues where it stopped.

    Args:
        client: a `Client` of the file's server.
        file: a `RemoteFile`; if its size is not known, only its checksum shows that all bytes came.
        partial: where to write it; bytes that are there already are not downloaded again.

    Raises:
        UserError: the server does not have the file or keeps failing, another size or checksum (`partial` is
            removed), too little room.
    """
    if file.size is not None and size_of(partial) > file.size:
        partial.unlink()
    have = size_of(partial)
    if have:
        log.info("%s: continuing after %s", file.name, in_bytes(have))
    digest = _hash_so_far(partial, file.algorithm)

    def attempt():
        nonlocal digest
        have = size_of(partial)
        if have == file.size:
            return
        with client.stream(file, have) as (start, response):
            if start != have:
                log.info("%s: the server sends no parts of it; starting again from its first byte", file.name)
                digest = hashlib.new(file.algorithm)
            total = _size_of_answer(file, start, response)
            if total is not None:
                require_room(partial.parent, total - have, file.name, client.origin.room)
            with progress(None, f"downloading {file.name}", total, "B") as meter:
                meter.n = meter.initial = start
                for size in _write(response, start, partial, digest):
                    if file.size is not None and size > file.size:
                        raise _wrong(client, file, partial, f"more than the expected {file.size:,} bytes")
                    meter.update(size - meter.n)
        if total is not None and size_of(partial) < total:
            raise Interrupted("the connection ended early")

    try:
        client.persist(attempt, file.name, reached=lambda: size_of(partial))
    except OSError as error:
        raise UserError(
            f"{partial}: cannot be written ({error.strerror}); make room or fix the folder's rights, then"
            " run the same command again: it continues where it stopped."
        ) from error
    except NothingLeft:
        # All bytes are in the partial file, or wrong ones; its checksum shows which.
        if file.size is not None:
            raise
    if file.checksum and digest.hexdigest() != file.checksum:
        found = f"the {file.algorithm} {digest.hexdigest()}, expected {file.checksum},"
        raise _wrong(client, file, partial, found)


def _size_of_answer(file, start, response):
    """Bytes of the complete file; None if neither the record nor the server gives the number."""
    length = response.headers.get("Content-Length", "")
    if file.size is not None:
        return file.size
    return start + int(length) if length.isdigit() else None


def _write(response, start, partial, digest):
    """Write what comes from `start` on, and update the hash; yields the size after each block."""
    # An answer from the first byte replaces the partial file; it is never appended.
    with open(partial, "r+b" if start else "wb") as disk:
        disk.seek(start)
        for block in response.iter_content(BLOCK):
            disk.write(block)
            digest.update(block)
            yield disk.tell()


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


def _hash_so_far(path, algorithm):
    """A hash of the bytes that are there, to be updated with those that follow."""
    digest = hashlib.new(algorithm)
    if path.exists():
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest


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
