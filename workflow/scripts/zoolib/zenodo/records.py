"""Zenodo: what is in a record, and its bytes over HTTP with the patience that the server asks for."""

import contextlib
import email.utils
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import requests
import yaml

from zoolib.job.logs import UserError, log
from zoolib.job.words import in_bytes

PUBLISHED = Path(__file__).resolve().parents[4] / "config" / "published"
# Zenodo turns away clients that do not say what they are, those of the requests library above all.
USER_AGENT = "zoo-pipeline/1.0 (galaxy morphology; Python requests)"
# Seconds to connect, and seconds without a byte.
TIMEOUT = (15, 60)
TEMPORARY = {408, 429, 500, 502, 503, 504}
# Failures in a row without a byte of progress; the waits between them add up to two minutes.
ATTEMPTS = 8
LONGEST_BACKOFF = 60.0
# A server that asks for a longer wait than this has closed its doors.
LONGEST_WAIT = 3600.0
# What is lost of a cut connection: less than this.
BLOCK = 1 << 16
BAD_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
)


class Interrupted(Exception):
    """A failure that may pass.

    Attributes:
        wait: the seconds that the server asks to wait, or None.
    """

    def __init__(self, problem, wait=None):
        super().__init__(problem)
        self.wait = wait


class NotThere(UserError):
    """The server has nothing at an address."""


@dataclass(frozen=True)
class RecordFile:
    """A file of a record.

    Attributes:
        name: its key in the record.
        size: bytes.
        md5: hexadecimal digest, or "" where the record gives none.
        urls: the addresses that it can be had from, best first.
    """

    name: str
    size: int
    md5: str
    urls: tuple


@dataclass(frozen=True)
class Record:
    """The files of a Zenodo record.

    Attributes:
        number: the record's id, of one version.
        files: {name: RecordFile}.
    """

    number: int
    files: dict

    def file(self, name):
        """The file of a name.

        Raises:
            UserError: the record has no such file.
        """
        if name not in self.files:
            raise UserError(
                f"record {self.number} has no file '{name}'; it has {', '.join(sorted(self.files))};"
                " fix the name in catalogs[] or zenodo.record."
            )
        return self.files[name]


def server():
    """The address of the Zenodo to ask: the environment variable ZENODO_URL, or the real one."""
    return os.environ.get("ZENODO_URL", "https://zenodo.org").rstrip("/")


def resolve(number):
    """Find out which files a record has, without asking anyone where it is pinned in config/published/.

    Args:
        number: a record's id, or the concept id that stands for its newest version.

    Returns:
        A `Record`.

    Raises:
        UserError: no such record, no open files in it, or no answer.
    """
    pinned = PUBLISHED / f"zenodo_{number}.yaml"
    if pinned.is_file():
        content = yaml.safe_load(pinned.read_text())
        return _record(content["id"], [{"key": key, **about} for key, about in content["files"].items()])
    url = f"{server()}/api/records/{number}"
    client = Client()

    def ask():
        with client.open(url, f"record {number}") as response:
            return response.content

    answer = persist(ask, f"record {number}")
    try:
        content = json.loads(answer)
        found, files = int(content["id"]), content["files"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"record {number}: {url} does not answer with a record that has open files;"
            " check zenodo.record, and ZENODO_URL where it is set."
        ) from None
    if str(found) != str(number):
        if str(content.get("conceptrecid")) != str(number):
            raise UserError(
                f"record {number}: {server()} answers with record {found}; write its number in zenodo.record"
                " if that is the one you mean."
            )
        log.info(
            "record %s stands for all versions; taking the newest, %s (pin it in zenodo.record)",
            number,
            found,
        )
    try:
        return _record(found, files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"record {number}: the list of files at {url} is not understood ({error!r}); expected key, size"
            " and checksum for each; download the files by hand and set zenodo.local to their folder."
        ) from None


def _record(number, files):
    # Links are made, not read: they must lead to ZENODO_URL, and Zenodo has served wrong ones.
    found = {}
    for entry in files:
        name = entry.get("key") or entry["filename"]
        size = int(entry["size"] if "size" in entry else entry["filesize"])
        md5 = str(entry.get("md5") or entry.get("checksum") or "").removeprefix("md5:").lower()
        paths = (f"api/records/{number}/files/{quote(name)}/content", f"records/{number}/files/{quote(name)}")
        urls = tuple(f"{server()}/{path}" for path in paths)
        found[name] = RecordFile(name, size, md5 if re.fullmatch("[0-9a-f]{32}", md5) else "", urls)
    return Record(int(number), found)


def pause(seconds):
    """Wait; a function of its own, so that tests need not."""
    time.sleep(seconds)


def persist(attempt, what, reached=lambda: 0):
    """Try until it works, waiting as long as the server asks, or longer with each failure in a row.

    Args:
        attempt: a function that returns the result or raises `Interrupted`.
        what: what is being had, for the messages.
        reached: a function that says how far it got; a failure further on than ever is the first again.

    Returns:
        What `attempt` returned.

    Raises:
        UserError: `ATTEMPTS` failures in a row, or the server asks for too long a wait.
    """
    failures, before = 0, reached()
    while True:
        try:
            return attempt()
        except Interrupted as trouble:
            if reached() > before:
                failures, before = 0, reached()
            failures += 1
            wait = max(trouble.wait or 0.0, min(2.0 ** (failures - 1), LONGEST_BACKOFF))
            if failures == ATTEMPTS or wait > LONGEST_WAIT:
                asks = f", asks to wait {wait / 60:.0f} minutes" if wait > LONGEST_WAIT else ""
                raise UserError(
                    f"{what}: {server()} keeps failing ({trouble}{asks}); run the same command again later,"
                    " it goes on where it stopped, or get the files elsewhere and set zenodo.local to their"
                    " folder."
                ) from trouble
            log.info("%s: %s; trying again in %.0f s (%d of %d)", what, trouble, wait, failures, ATTEMPTS)
            pause(wait)


class Client:
    """HTTP requests that keep to the server's rate limit."""

    def __init__(self):
        self._session = requests.Session()
        # Compressed on the way, a body would have another length than the file.
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        self._next = 0.0
        self._ranges = {}

    @contextlib.contextmanager
    def open(self, url, what, start=None, stop=None):
        """Ask once for an address, or for the bytes from `start` up to `stop` of it.

        Args:
            url: the address.
            what: what it is, for the messages.
            start: first byte.
            stop: the byte after the last one; None for all that follow.

        Yields:
            The `requests` response, its body not yet read.

        Raises:
            Interrupted: a failure that may pass, here or while the body is read.
            UserError: one that will not.
        """
        if self._next > time.monotonic():
            pause(self._next - time.monotonic())
        began = time.monotonic()
        last = "" if stop is None else stop - 1
        headers = {} if start is None else {"Range": f"bytes={start}-{last}"}
        try:
            with self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                self._next = began + _spacing(response)
                status = f"{url} answers {response.status_code} {response.reason}"
                if response.status_code in TEMPORARY:
                    raise Interrupted(f"{response.status_code} {response.reason}", _asked_wait(response))
                if response.status_code in (404, 410):
                    raise NotThere(
                        f"{what} is not there: {status}; check zenodo.record, and ZENODO_URL where it is set."
                    )
                if response.status_code not in (200, 206):
                    raise UserError(
                        f"{what}: {status}, expected its content; open the address in a browser, or get the"
                        " files elsewhere and set zenodo.local to their folder."
                    )
                yield response
        except BAD_ADDRESS as error:
            raise UserError(
                f"{what}: '{url}' is no address; fix the environment variable ZENODO_URL, it should look"
                " like https://zenodo.org."
            ) from error
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise Interrupted(_reason(error)) from error

    @contextlib.contextmanager
    def stream(self, file, start=0):
        """Ask for the bytes of a file from `start` to its end.

        Args:
            file: a `RecordFile`.
            start: first byte wanted.

        Yields:
            (first byte sent: `start`, or 0 from a server that does not send parts; the response).

        Raises:
            Interrupted, UserError: as `open`.
        """
        for url in self._part_urls(file) if start else ():
            with contextlib.suppress(NotThere), self.open(url, file.name, start) as response:
                if response.status_code == 206:
                    _check_range(response, file, start, file.size)
                    self._ranges[file.name] = url
                    yield start, response
                    return
        with self.open(file.urls[0], file.name) as response:
            length = response.headers.get("Content-Length", file.size)
            if int(length) != file.size:
                raise _wrong_size(file, length)
            yield 0, response

    def part(self, file, start, stop):
        """Read a part of a file; it is never had by reading the whole.

        Args:
            file: a `RecordFile`.
            start: first byte.
            stop: the byte after the last one.

        Returns:
            `stop - start` bytes.

        Raises:
            UserError: the server does not send parts, or keeps failing.
        """

        def ask():
            for url in self._part_urls(file):
                with contextlib.suppress(NotThere), self.open(url, file.name, start, stop) as response:
                    # Leaving closes the connection: the body of another answer is not read.
                    if response.status_code == 206:
                        _check_range(response, file, start, stop)
                        self._ranges[file.name] = url
                        body = response.content
                        if len(body) != stop - start:
                            raise Interrupted(f"{len(body)} bytes came instead of {stop - start}")
                        return body
                    refused.append(url)
            return None

        refused = []
        body = persist(ask, file.name)
        if body is None and not refused:
            raise NotThere(f"{file.name} is not there: {file.urls[0]} answers 404; check zenodo.record.")
        if body is None:
            raise UserError(
                f"{file.name}: {server()} ignores byte ranges (it answers 200 instead of 206), so a sample"
                f" would cost the whole file of {in_bytes(file.size)}; nothing was downloaded; set"
                " zenodo.sample to null to download all files, or zenodo.local to a folder that has them."
            )
        return body

    def _part_urls(self, file):
        # One of the two addresses of a file may send parts while the other does not: remember which.
        known = self._ranges.get(file.name)
        return (known,) if known else file.urls


def _check_range(response, file, start, stop):
    told = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", told.strip())
    if found and found[3] not in ("*", str(file.size)):
        raise _wrong_size(file, found[3])
    if not found or (int(found[1]), int(found[2])) != (start, stop - 1):
        raise UserError(
            f"{file.name}: {response.url} was asked for the bytes {start}-{stop - 1} and sends '{told}';"
            " get the files elsewhere and set zenodo.local to their folder."
        )


def _wrong_size(file, found):
    return UserError(
        f"{file.name}: {server()} has {int(found):,} bytes of it where the record lists {file.size:,};"
        " check zenodo.record, or get the file elsewhere and set zenodo.local to its folder."
    )


def _seconds_until_reset(response):
    reset = response.headers.get("X-RateLimit-Reset", "")
    if not re.fullmatch(r"\d+(\.\d+)?", reset):
        return None
    # Against the server's own clock; ours may be wrong. A small number is a number of seconds.
    date = email.utils.parsedate_tz(response.headers.get("Date", ""))
    now = email.utils.mktime_tz(date) if date else time.time()
    return max(float(reset) - now, 0.0) if float(reset) > 1e8 else float(reset)


def _spacing(response):
    """Seconds between two requests that spend the rest of the allowance evenly."""
    left = response.headers.get("X-RateLimit-Remaining", "")
    until = _seconds_until_reset(response)
    if until is None or not left.isdigit():
        return 0.0
    return min(until / max(int(left), 1), LONGEST_WAIT)


def _asked_wait(response):
    asked = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+", asked):
        return float(asked)
    if date := email.utils.parsedate_tz(asked):
        return max(email.utils.mktime_tz(date) - time.time(), 0.0)
    return _seconds_until_reset(response) if response.status_code == 429 else None


def _reason(error):
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    return "no connection" if isinstance(error, requests.ConnectionError) else str(error)
