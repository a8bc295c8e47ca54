"""A server and a network with faults: a download ends with the right bytes, or with one sentence.

After the sentence the next try goes on where the first one ended.

`python tests/faults/network.py [SEED]` tries every cell once.
"""

import contextlib
import csv
import functools
import hashlib
import os
import random
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT / folder) for folder in ("tests/support", "workflow/scripts")]

import faulty_server as faulty
from zenodo_server import TABLE
from zoolib import download
from zoolib.job.logs import UserError
from zoolib.zenodo import client
from zoolib.zenodo.records import resolve

RECORD, ARCHIVE = 99990001, "part1.zip"
FILE, RESUMED, LABELS, LABELS_RESUMED = "a file", "a file, resumed", "labels", "labels, resumed"
SAMPLE, ABOUT = "a sample", "the record"
CELLS = FILE, RESUMED, LABELS, LABELS_RESUMED, SAMPLE, ABOUT
LARGE, CUTS, TWICE = 300 << 20, 50, 0.05


class Lost(Exception):
    """What was lost; its text is one sentence."""


class Row:
    """A fault of a few requests; the requests after them are answered well.

    Args:
        name: of the fault, for the table.
        trouble: function of (random.Random, size of the file) that returns one of `Faulty.troubles`.
        cells: what is downloaded.
        may_fail: cells that may end with one sentence; the others must end with the right bytes.
    """

    def __init__(self, name, trouble, cells=CELLS, may_fail=()):
        self.name, self.cells = f"network: {name}", tuple(cells)
        self.trouble, self.may_fail = trouble, may_fail

    def attempt(self, cell, seed, place):
        """Try once in an empty folder; returns what was lost, or None."""
        chance = random.Random(seed)
        try:
            with _world(chance, place) as server:
                self._try(cell, chance, _Download(cell, server, place, chance))
        except Lost as lost:
            return str(lost)

    def spoil(self, get, chance):
        """Put the fault into the server; returns a function that ends it."""
        server = get.server
        server.troubles = [self.trouble(chance, get.size) for _ in range(chance.randint(1, 5))]
        return server.troubles.clear

    def _try(self, cell, chance, get):
        end = self.spoil(get, chance)
        try:
            get()
        except UserError as error:
            _check_sentence(error)
            if cell not in self.may_fail:
                raise Lost(f"it ended with '{error}', expected the right bytes") from error
            end()
            partial = get.partial()
            get.server.forget()
            get()
            starts = [start for name, start, _ in get.server.ranges if name == get.server.name]
            if partial and cell != SAMPLE and starts != [partial]:
                raise Lost(f"{partial} bytes were there, and the next try asked from {starts}") from None
        get.check()


class NoRanges(Row):
    """The server sends no parts of files, and cuts connections."""

    def spoil(self, get, chance):
        get.server.whole_only = {"content", "page"}
        get.server.cuts = [chance.randrange(get.size) for _ in range(chance.randint(0, 4))]
        return functools.partial(setattr, get.server, "whole_only", set())


class Changing(Row):
    """The file is another one when the download goes on."""

    def spoil(self, get, chance):
        path = get.server.folder / get.server.name
        before = path.read_bytes()
        get.server.cuts = [chance.randrange(get.size)]
        other = chance.randbytes(len(before) + chance.choice([0, -1000, 1000]))

        def change(handler):
            if not get.server.cuts:
                path.write_bytes(other)

        get.server.troubles = [change] * 20

        def end():
            get.server.troubles.clear()
            get.server.cuts = []
            path.write_bytes(before)

        return end


class ManyCuts:
    """A large file through many cuts, and little of it is sent twice."""

    name = f"network: 300 MB through {CUTS} cuts, at most {TWICE:.0%} sent twice"
    cells = FILE, LABELS

    def attempt(self, cell, seed, place):
        """Try once in an empty folder; returns what was lost, or None."""
        chance = random.Random(seed)
        try:
            with _world(chance, place, large=True) as server:
                get = _Download(cell, server, place, chance)
                mean = get.size // (CUTS + 1)
                server.cuts = cuts = [chance.randrange(mean // 2, mean) for _ in range(CUTS)]
                get()
                get.check()
                if cuts or server.served[ARCHIVE] > (1 + TWICE) * get.size:
                    return f"{server.served[ARCHIVE]} bytes were sent for {get.size}, {len(cuts)} cuts left"
        except (Lost, UserError) as lost:
            return str(lost)


class _Download:
    """One download; it can be called again.

    Attributes:
        server: the `Faulty` server; its `name` is what has the fault.
        size: bytes of what has the fault.
    """

    def __init__(self, cell, server, place, chance):
        self.cell, self.server, self.place = cell, server, place / "data" / "zenodo" / str(RECORD)
        self.output = self.place / (TABLE if cell == SAMPLE else ARCHIVE)
        server.name = "record" if cell == ABOUT else ARCHIVE
        self.size = 500 if cell == ABOUT else (server.folder / ARCHIVE).stat().st_size
        self._record = resolve(RECORD)
        if cell in (RESUMED, LABELS_RESUMED):
            self.place.mkdir(parents=True)
            content = (server.folder / ARCHIVE).read_bytes()
            self._part().write_bytes(content[: chance.randrange(1, self.size)])
        with open(server.folder / ARCHIVE, "rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        server.forget()

    def __call__(self):
        if self.cell in (LABELS, LABELS_RESUMED):
            address = f"{self.server.url}/api/records/{RECORD}/files/{ARCHIVE}/content"
            return download.download_url(address, self.sha256, self.output)
        asks = resolve if self.cell == ABOUT else lambda *_, **__: self._record
        with mock.patch.object(download, "resolve", asks):
            if self.cell != SAMPLE:
                return download.download_file(RECORD, ARCHIVE, self.output)
            output = SimpleNamespace(table=self.output, archive=self.place / "sample.zip")
            return download.sample_record(RECORD, self.server.folder / TABLE, [ARCHIVE], 5, 1, output)

    def _part(self):
        return self.place / f".{ARCHIVE}.part"

    def partial(self):
        """Bytes of the partial file, which must be the first ones of the file; 0 if there is none."""
        if not self._part().is_file():
            return 0
        found = self._part().read_bytes()
        if not (self.server.folder / ARCHIVE).read_bytes().startswith(found):
            raise Lost(f"the partial file of {len(found)} bytes is not the beginning of the file")
        return len(found)

    def check(self):
        """Check that the right bytes are there, and nothing else."""
        names = {TABLE, "sample.zip"} if self.cell == SAMPLE else {ARCHIVE}
        found = {path.name for path in self.place.iterdir() if path.suffix != ".lock"}
        if found != {*names, ".checked"}:
            raise Lost(f"{sorted(found)} are there, expected {sorted(names)}")
        if self.cell == SAMPLE:
            return self._check_sample()
        with open(self.output, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                raise Lost(f"{self.output.stat().st_size} wrong bytes were taken")

    def _check_sample(self):
        with (
            zipfile.ZipFile(self.place / "sample.zip") as sample,
            zipfile.ZipFile(self.server.folder / ARCHIVE) as archive,
        ):
            if len(sample.namelist()) != 5 or any(
                sample.read(n) != archive.read(n) for n in sample.namelist()
            ):
                raise Lost("the sample has other images")


def _check_sentence(error):
    if "\n" in str(error) or not str(error).endswith("."):
        raise Lost(f"the message is not a sentence: {str(error)[:200]!r}")


@contextlib.contextmanager
def _world(chance, place, large=False):
    """A server with a record; the client does not pause between its requests."""
    folder = place / "record"
    folder.mkdir()
    names = [f"J{number:03d}100.00+{number:06d}.0" for number in range(8)]
    with open(folder / TABLE, "w", newline="") as file:
        csv.writer(file).writerows([["iauname"], *([name] for name in names)])
    if large:
        block = bytearray(chance.randbytes(1 << 20))
        with open(folder / ARCHIVE, "wb") as file:
            for number in range(LARGE >> 20):
                block[:8] = number.to_bytes(8, "big")
                file.write(block)
    else:
        with zipfile.ZipFile(folder / ARCHIVE, "w") as packed:
            for name in names:
                packed.writestr(f"{name[:4]}/{name}.png", chance.randbytes(chance.randint(20_000, 60_000)))
    with faulty.Faulty(folder) as server:
        environment = {"ZENODO_URL": server.url, "NO_PROXY": "127.0.0.1"}
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(client, "pause", lambda _: None),
            mock.patch.object(client, "TIMEOUT", (2, 0.2)),
        ):
            yield server


ROWS = [
    Row("a cut in the middle of an answer", faulty.spoils(faulty.shut)),
    Row("a reset in the middle of an answer", faulty.spoils(faulty.reset)),
    Row("a stall in the middle of an answer", faulty.spoils(faulty.stall)),
    Row("429 with Retry-After", faulty.answers(429, 1)),
    Row("429 without Retry-After", faulty.answers(429, 0)),
    *(Row(f"{status}", faulty.answers(status, 0.3)) for status in (502, 503, 504)),
    Row("a page with status 200", faulty.page),
    # Without a size in the record, only the checksum shows that a body is not complete.
    Row("a short body", faulty.changed(faulty.shorter), may_fail=(LABELS,)),
    Row("a long body", faulty.changed(faulty.longer), may_fail=(LABELS, LABELS_RESUMED)),
    Row("wrong bytes", faulty.changed(faulty.flipped), may_fail=CELLS),
    NoRanges("no ranges", None, CELLS[:5], may_fail=(SAMPLE,)),
    Row("wrong ranges", faulty.next_to, (RESUMED, LABELS_RESUMED, SAMPLE), (RESUMED, LABELS_RESUMED, SAMPLE)),
    Changing("a file that changes between two resumes", None, CELLS[:5], may_fail=CELLS),
    ManyCuts(),
]


def main(seed="1"):
    """Try every cell once."""
    for row in ROWS:
        for cell in row.cells:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as place:
                lost = row.attempt(cell, f"{seed} {row.name} {cell}", Path(place))
            print(f"{time.monotonic() - began:5.1f} s  {row.name}, {cell}: {lost or 'survived'}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
