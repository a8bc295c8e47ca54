"""What is in a folder and below it, where links may lead anywhere."""

import errno
import os
import stat
from typing import NamedTuple

from zoolib.job.logs import UserError


class Found(NamedTuple):
    """One entry below a folder.

    Attributes:
        path: text that begins with the folder.
        kind: `file`, `folder`, `again` for a link to a folder that was found already, or `broken` for a link
            that leads nowhere.
    """

    path: str
    kind: str


def walk(*folders):
    """Find what is in folders and below them; links are followed, hidden files and folders are left out.

    A folder is visited once, however many links lead to it: so links that form circles come to an end. It is
    found under its path without a link; if there is none, under the alphabetically first link. The names of
    the files are not collected, because they may not fit into memory.

    Args:
        folders: their paths; each may be a link itself.

    Yields:
        A `Found` for each entry, the files of a folder in any order.

    Raises:
        UserError: there is no such folder, or one may not be read.
    """
    given = [os.fspath(folder) for folder in folders]
    seen, links = set(), given
    try:
        while links:
            # Links are followed after all that is reached without them.
            later = []
            for link in sorted(links):
                for found in _without_links(link, seen, later):
                    if found.path not in given:
                        yield found
            links = later
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        # A folder below that has just vanished is an error of the system.
        if not isinstance(error, PermissionError) and error.filename not in given:
            raise
        raise UserError(
            f"{shown(error.filename)}: the folder cannot be listed ({error.strerror}); restore it or allow"
            " reading it."
        ) from None


def check_text(path):
    """Stop at the name of a file that has bytes that are not UTF-8: no table can hold it.

    Args:
        path: text, from the file system.

    Raises:
        UserError: shows the path.
    """
    if any("\udc80" <= letter <= "\udcff" for letter in path):
        raise UserError(f"{shown(path)}: the name is not UTF-8; rename the file or the folder.")


def shown(path):
    """A path as a message can show it: bytes that are not UTF-8 are written as `\\xe9`.

    Args:
        path: text, from the file system.

    Returns:
        Text that can be written anywhere.
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def _without_links(top, seen, links):
    """What is reached without following another link; links to folders are added to `links`."""
    folders = [top]
    while folders:
        path = folders.pop()
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            if path == top:
                yield Found(path, "again")
            continue
        yield Found(path, "folder")
        seen.add((status.st_dev, status.st_ino))
        below = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # Entries that are no links cost no further question to the file system.
                kind = _led_to(entry.path) if entry.is_symlink() else _kind(entry)
                if kind == "folder":
                    (links if entry.is_symlink() else below).append(entry.path)
                elif kind:
                    yield Found(entry.path, kind)
        folders += sorted(below, reverse=True)


def _kind(entry):
    # Neither: a pipe, for example, which would be read forever.
    return "folder" if entry.is_dir() else "file" if entry.is_file() else None


def _led_to(link):
    try:
        mode = os.stat(link).st_mode
    except OSError as error:
        # A link in a circle leads to nothing that could be missed.
        if error.errno == errno.ELOOP:
            return None
        # Any other error is one of the system, and says nothing about the link.
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "broken"
        raise
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None
