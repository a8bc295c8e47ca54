"""Files that have an address and a checksum: the labels of a task, wherever they lie."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import requests

from zoolib.job.logs import UserError, log, progress
from zoolib.job.words import in_bytes
from zoolib.zenodo.records import ATTEMPTS, BLOCK, LONGEST_BACKOFF, TEMPORARY, TIMEOUT, USER_AGENT, pause

# What may pass: no connection, no answer in time, an answer that ends early.
PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


def url_of(tasks, checksum):
    """The `url` of the task whose labels have a checksum.

    Args:
        tasks: the configuration's `finetune.tasks`.
        checksum: the first digits of the checksum.

    Returns:
        {"address", "sha256"}.
    """
    urls = (task["url"] for task in tasks if task["url"])
    return next(url for url in urls if url["sha256"].startswith(checksum))


def download_url(address, sha256, output):
    """Download a file; an interrupted download goes on where it stopped.

    The bytes lie in `.<name>.part` beside the output until the checksum is right.

    Args:
        address: where it lies, http or https.
        sha256: its checksum, 64 hexadecimal digits.
        output: where to write it.

    Raises:
        UserError: there is nothing at the address, another checksum, too little room, a server that keeps
            failing.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.part")
    failures, before = 0, _size(partial)
    while (trouble := _attempt(address, partial, output.name)) is not None:
        failures = 1 if _size(partial) > before else failures + 1
        before = _size(partial)
        if failures == ATTEMPTS:
            raise UserError(
                f"finetune.tasks[].url: {address} keeps failing ({trouble}); run the same command again"
                " later, it goes on where it stopped, or get the file elsewhere and give it as table or"
                " folders."
            )
        wait = min(2.0 ** (failures - 1), LONGEST_BACKOFF)
        log.info("%s: %s; trying again in %.0f s (%d of %d)", output.name, trouble, wait, failures, ATTEMPTS)
        pause(wait)
    with open(partial, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        size = in_bytes(_size(partial))
        partial.unlink()
        raise UserError(
            f"finetune.tasks[].url: the {size} of {address} have the sha256 {found}, expected {sha256}, and"
            " were removed; fix url.sha256 if the file is the right one, or the address."
        )
    os.replace(partial, output)
    log.info("%s: %s, sha256 %s", output.name, in_bytes(output.stat().st_size), sha256)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _attempt(address, partial, name):
    """Get what is not there yet: None where all came, else what went wrong and may pass."""
    have = _size(partial)
    # Compressed on the way, a body would have another length than the file.
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if have:
        log.info("%s: going on after %s", name, in_bytes(have))
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code in TEMPORARY:
                return f"{response.status_code} {response.reason}"
            if response.status_code == 416:
                # All of it is there, or more than there should be: the checksum tells.
                return None
            if response.status_code not in (200, 206):
                raise UserError(
                    f"finetune.tasks[].url: {address} answers {response.status_code} {response.reason},"
                    " expected the file; open the address in a browser and fix it."
                )
            start = _first_byte(response, have)
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdigit() else None
            require_room(partial.parent, (total or start) - start, name)
            with (
                open(partial, "r+b" if start else "wb") as disk,
                progress(None, f"downloading {name}", total, "B") as meter,
            ):
                disk.seek(start)
                meter.n = meter.initial = start
                for block in response.iter_content(BLOCK):
                    disk.write(block)
                    meter.update(len(block))
    except PASSING as error:
        return f"the connection failed ({type(error).__name__})"
    except requests.RequestException as error:
        raise UserError(
            f"finetune.tasks[].url: {address} cannot be asked for ({error}); fix the address."
        ) from error
    if total is not None and _size(partial) < total:
        return "the connection ended early"
    return None


def _first_byte(response, have):
    """Where the answer begins: a server need not send what was asked for."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status_code == 206 and found and int(found[1]) == have:
        return have
    return 0


def require_room(folder, size, what):
    """Refuse to begin what the disk has no room for.

    Args:
        folder: an existing folder on the disk.
        size: bytes to be written.
        what: what they are.

    Raises:
        UserError: there is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"{folder}: {what} need {in_bytes(size)} more and the disk has room for {in_bytes(free)}; free"
            f" {in_bytes(size - free)}, make the folder a link to a larger disk, or set zenodo.sample to try"
            " the run on fewer galaxies."
        )
