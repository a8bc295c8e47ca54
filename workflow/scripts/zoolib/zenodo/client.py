"""HTTP with the patience that the server asks for: retries, waits, rate limits, and parts of files."""

import contextlib
import email.utils
import re
import time
from dataclasses import dataclass

import requests

from zoolib.job.logs import UserError, log
from zoolib.job.words import in_bytes

# Zenodo refuses clients that do not say what they are, above all those of the requests library.
USER_AGENT = "zoo-pipeline/1.0 (galaxy morphology; Python requests)"
# Seconds to connect, and seconds without a byte.
TIMEOUT = (15, 60)
TEMPORARY = {408, 429, 500, 502, 503, 504}
# Failures in a row without a byte of progress; the waits between them add up to two hours, as a server may be
# under maintenance at night.
ATTEMPTS = 32
LONGEST_BACKOFF = 300.0
# The same, of a server that has never answered: the waits add up to two minutes.
ATTEMPTS_UNHEARD = 8
# A server that asks for a longer wait than this is not worth waiting for.
LONGEST_WAIT = 3600.0
BAD_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.TooManyRedirects,
)


class Interrupted(Exception):
    """A failure that may pass.

    Attributes:
        wait: the seconds that the server asks to wait, or None.
        final: the `UserError` if it does not pass; None for the general one.
    """

    def __init__(self, problem, wait=None, final=None):
        super().__init__(problem)
        self.wait, self.final = wait, final


class NotThere(UserError):
    """The server has nothing at an address."""


class NothingLeft(UserError):
    """The file on the server ends before the first requested byte."""


@dataclass(frozen=True)
class Origin:
    """Where files come from, and what the user can do about each failure: the last part of error messages.

    Attributes:
        server: its address.
        missing: what to do if the server does not have a file.
        address: what to do if an address is not valid.
        elsewhere: what to do if the server keeps failing or answers wrongly.
        wrong_bytes: what to do if a checksum is wrong.
        room: what to do if the disk is too small, besides freeing room.
        no_parts: what to do if a sample needs parts of files and the server does not send any.
    """

    server: str
    missing: str
    address: str
    elsewhere: str
    wrong_bytes: str
    room: str
    no_parts: str = ""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        name: what messages call it; for a file of a record its key there.
        urls: the addresses that it can be downloaded from, best first.
        size: bytes; None if only the server knows it.
        checksum: hexadecimal digest; "" if it is not known.
        algorithm: of the checksum, such as md5 or sha256.
    """

    name: str
    urls: tuple
    size: int | None
    checksum: str
    algorithm: str


def pause(seconds):
    """Wait; a function of its own, so that tests can replace it."""
    time.sleep(seconds)


def read_body(response, most):
    """Read a body into memory.

    Args:
        response: of `Client.open`.
        most: the largest number of bytes that may come.

    Returns:
        bytes.

    Raises:
        Interrupted: more bytes came.
    """
    body = bytearray()
    for block in response.iter_content(1 << 16):
        body += block
        if len(body) > most:
            raise Interrupted(f"more than the expected {most:,} bytes came")
    return bytes(body)


class Client:
    """HTTP requests to one server that respect its rate limit.

    Args:
        origin: an `Origin`.
        attempts: failures in a row after which it gives up; None for `ATTEMPTS`, or `ATTEMPTS_UNHEARD` until
            the server has answered once.
    """

    def __init__(self, origin, attempts=None):
        self.origin, self.attempts = origin, attempts
        self._has_answered = False
        self._session = requests.Session()
        # A compressed body would have another length than the file.
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        self._next = 0.0
        self._ranges = {}

    def persist(self, attempt, what, reached=lambda: 0):
        """Try until it works; the waits between failures grow, and are at least what the server asks for.

        Args:
            attempt: a function that returns the result or raises `Interrupted`.
            what: what is downloaded, for the messages.
            reached: a function that returns how far the download got; after progress, failures are counted
                from 1 again.

        Returns:
            What `attempt` returned.

        Raises:
            UserError: too many failures in a row, or the server asks for too long a wait.
        """
        failures, before = 0, reached()
        while True:
            try:
                return attempt()
            except Interrupted as trouble:
                if reached() > before:
                    failures, before = 0, reached()
                failures += 1
                most = self.attempts or (ATTEMPTS if self._has_answered else ATTEMPTS_UNHEARD)
                wait = max(trouble.wait or 0.0, min(2.0 ** (failures - 1), LONGEST_BACKOFF))
                if failures >= most or wait > LONGEST_WAIT:
                    if trouble.final:
                        raise trouble.final from trouble
                    asks = f", asks to wait {wait / 60:.0f} minutes" if wait > LONGEST_WAIT else ""
                    raise UserError(
                        f"{what}: {self.origin.server} keeps failing ({trouble}{asks}); run the same command"
                        f" again later, it continues where it stopped, or {self.origin.elsewhere}."
                    ) from trouble
                log.info("%s: %s; trying again in %.0f s (%d of %d)", what, trouble, wait, failures, most)
                pause(wait)

    @contextlib.contextmanager
    def open(self, url, what, start=None, stop=None):
        """Request an address once, or the bytes from `start` to before `stop` of it.

        Args:
            url: the address.
            what: what it is, for the messages.
            start: first byte.
            stop: the byte after the last one; None for all that follow.

        Yields:
            The `requests` response, its body not yet read.

        Raises:
            Interrupted: a failure that may pass, here or while the body is read.
            NotThere: the server has nothing at this address.
            NothingLeft: what is there ends before `start`.
            UserError: another failure that will not pass.
        """
        if self._next > time.monotonic():
            pause(self._next - time.monotonic())
        began = time.monotonic()
        last = "" if stop is None else stop - 1
        headers = {} if start is None else {"Range": f"bytes={start}-{last}"}
        try:
            with self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                self._has_answered = True
                self._next = began + _spacing(response)
                # The bytes as they are stored: they are counted and checked, and a small body stays small.
                response.raw.headers.pop("Content-Encoding", None)
                self._check_status(response, url, what)
                yield response
        except BAD_ADDRESS as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"{what}: '{url}' cannot be requested ({reason}); {self.origin.address}."
            ) from error
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise Interrupted(_reason(error)) from error

    def _check_status(self, response, url, what):
        status = f"{url} answers {response.status_code} {response.reason}"
        if response.status_code in TEMPORARY:
            raise Interrupted(f"{response.status_code} {response.reason}", _asked_wait(response))
        if response.status_code in (404, 410):
            raise NotThere(f"{what} is not there: {status}; {self.origin.missing}.")
        if response.status_code not in (200, 206):
            kind = NothingLeft if response.status_code == 416 else UserError
            raise kind(
                f"{what}: {status}, expected its content; open the address in a browser, or"
                f" {self.origin.elsewhere}."
            )

    @contextlib.contextmanager
    def stream(self, file, start=0):
        """Request the bytes of a file from `start` to its end.

        Args:
            file: a `RemoteFile`.
            start: first byte wanted.

        Yields:
            (first byte sent, which is `start`, or 0 if the server does not send parts; the response).

        Raises:
            Interrupted: as `open`, or another body than the file's, such as a page about maintenance.
            NotThere, NothingLeft, UserError: as `open`.
        """
        for url in self._part_urls(file) if start else ():
            with contextlib.suppress(NotThere), self.open(url, file.name, start) as response:
                if response.status_code == 206:
                    self._check_range(response, file, start, file.size)
                    self._ranges[file.name] = url
                    yield start, response
                    return
        with self.open(file.urls[0], file.name) as response:
            length = response.headers.get("Content-Length", "")
            if file.size is not None and length.isdigit() and int(length) != file.size:
                final = self._wrong_size(file, length)
                raise Interrupted(
                    f"{int(length):,} bytes are announced instead of {file.size:,}", final=final
                )
            if file.size is not None and start and not length.isdigit():
                # It would replace what has come so far.
                raise Interrupted("neither a part of the file nor its length came")
            yield 0, response

    def part(self, file, start, stop):
        """Read a part of a file, never by reading the complete file.

        Args:
            file: a `RemoteFile` of known size.
            start: first byte.
            stop: the byte after the last one.

        Returns:
            `stop - start` bytes.

        Raises:
            UserError: the server does not have the file, does not send parts, or keeps failing.
        """

        def attempt():
            for url in self._part_urls(file):
                with contextlib.suppress(NotThere), self.open(url, file.name, start, stop) as response:
                    # Leaving closes the connection: the body of another answer is not read.
                    if response.status_code == 206:
                        self._check_range(response, file, start, stop)
                        self._ranges[file.name] = url
                        body = read_body(response, stop - start)
                        if len(body) != stop - start:
                            raise Interrupted(f"{len(body)} bytes came instead of {stop - start}")
                        return body
                    # The length says whether it is the file; a page about maintenance has another or none.
                    if response.headers.get("Content-Length") != str(file.size):
                        raise Interrupted("another page came instead of the file", final=no_parts)
                    refused.append(url)
            return None

        refused = []
        no_parts = UserError(
            f"{file.name}: {self.origin.server} ignores byte ranges (it answers 200 instead of 206), so a"
            f" sample would cost the complete file of {in_bytes(file.size)}; nothing was downloaded;"
            f" {self.origin.no_parts}."
        )
        body = self.persist(attempt, file.name)
        if body is None and not refused:
            raise NotThere(f"{file.name} is not there: {file.urls[0]} answers 404; {self.origin.missing}.")
        if body is None:
            raise no_parts
        return body

    def _part_urls(self, file):
        # One of two addresses of a file may send parts while the other does not: remember which.
        known = self._ranges.get(file.name)
        return (known,) if known else file.urls

    def _check_range(self, response, file, start, stop):
        """Check that an answer has the requested bytes; `stop` is None for all that follow."""
        announced = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", announced.strip())
        if found and file.size is not None and found[3] not in ("*", str(file.size)):
            raise self._wrong_size(file, found[3])
        if stop is None and found and found[3] != "*":
            stop = int(found[3])
        if not found or int(found[1]) != start or (stop is not None and int(found[2]) != stop - 1):
            last = "" if stop is None else stop - 1
            raise UserError(
                f"{file.name}: {response.url} sends '{announced}', expected the bytes {start}-{last};"
                f" {self.origin.elsewhere}."
            )

    def _wrong_size(self, file, found):
        return UserError(
            f"{file.name}: {self.origin.server} has {int(found):,} bytes of it, expected {file.size:,};"
            f" {self.origin.missing}, or {self.origin.elsewhere}."
        )


def _seconds_until_reset(response):
    reset = response.headers.get("X-RateLimit-Reset", "")
    if not re.fullmatch(r"\d+(\.\d+)?", reset):
        return None
    # Compared with the server's own clock, as ours may be wrong. A small number is a number of seconds.
    date = email.utils.parsedate_tz(response.headers.get("Date", ""))
    now = email.utils.mktime_tz(date) if date else time.time()
    return max(float(reset) - now, 0.0) if float(reset) > 1e8 else float(reset)


def _spacing(response):
    """Seconds between two requests that spread the rest of the allowance evenly."""
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
