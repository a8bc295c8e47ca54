"""The images of a folder as a list of galaxies that can be continued when images come, change and go.

Images that come later get chunks of their own behind the others, so finished chunks stay as they are. A chunk
of which an image has changed or gone gets a higher revision and is predicted again.
"""

import itertools
import math
import os
import time
from collections import Counter
from operator import itemgetter

import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.config.folders import check_text, shown, walk
from zoolib.data.disk_sort import in_order
from zoolib.data.layout import (
    Chunk,
    Layout,
    bounds_of_chunk,
    damaged,
    metadata_of,
    read_layout,
    rounded,
)
from zoolib.data.locations import stem
from zoolib.job.logs import UserError, check_machine, log, progress, whole
from zoolib.zenodo import archives

# Rows that are written together.
GROUP = 8192
# With more images than this, only the times of their folders are compared, not size and time of each image.
EACH_IMAGE = 100_000
# A folder that has changed so shortly before it was listed may change once more at the same time.
JUST_NOW = 2_000_000_000
COLUMNS = ("id_str", "file_loc", "size", "changed", "chunk")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id_str", "archive", "member", "file_loc", "seen")),
        *((name, pa.int64()) for name in COLUMNS[2:]),
    ]
)
# Instead of a chunk: what is in the folder now, and what is there for the first time.
NOW, NEW = -1, 2**62
SHOWN_PAIRS = 3


def listed_revisions(path, folder, names, chunks):
    """The revisions of a list as it is, with the arguments and the result of `revisions`."""
    return _planned(path, [folder, names, chunks], lambda layout: layout)


def revisions(path, folder, names, chunks):
    """The revision of each chunk after a folder has been listed again; nothing is written.

    Args:
        path: its list, which need not exist.
        folder: the folder of images.
        names: see `names_of`.
        chunks: number of chunks of a first listing.

    Returns:
        List of whole numbers, one for each chunk. If the folder cannot be listed, there is one too many, so
        that the job that lists it runs and says why.
    """

    def listed_again(layout):
        if _is_as_listed(path, layout):
            return layout
        found = _Compared(path, folder, names, layout)
        try:
            for _ in found.rows():
                pass
        except UserError:
            return layout._replace(chunks=[*layout.chunks, Chunk(layout.end, 0, 0)])
        return found.layout(chunks)

    return _planned(path, [folder, names, chunks], listed_again)


def list_folder(folder, names, chunks, output):
    """List the images of a folder; a list that is there already is continued.

    Args:
        folder: the folder.
        names: see `names_of`.
        chunks: number of chunks of a first listing.
        output: Parquet to write, or to write again: id_str, archive, member, file_loc, seen, size (bytes),
            changed (time in ns) and chunk; sorted by chunk, then by id_str.

    Returns:
        The number of galaxies.

    Raises:
        UserError: no image, images of equal names, a name that is not UTF-8, a broken link or no folder.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: there is no such folder or archive; see predict.targets.")
    before = read_layout(output)
    if before and before.source != [folder, names, chunks]:
        before = before._replace(chunks=[], end=0, source=None)
    found = _Compared(output, folder, names, before)
    rows = in_order(found.rows(), COLUMNS, "chunk, id_str")
    # Before the first row comes, all have been compared.
    first = next(rows, None)
    if first is None:
        raise UserError(f"{folder}: no image found; expected {', '.join(archives.SUFFIXES)}.")
    layout = found.layout(chunks)
    found.report(len(layout.chunks))
    schema = SCHEMA.with_metadata(metadata_of(layout))
    with whole(output) as partial:
        return _write(itertools.chain([first], rows), layout, schema, partial)


def names_of(folder, path, names):
    """The name of an image's galaxy.

    Args:
        folder: the target's folder.
        path: of the image, below it.
        names: `name` for the file's name, `path` for its path below the folder; both without the suffix.

    Returns:
        Text.
    """
    return stem(os.path.relpath(path, folder) if names == "path" else os.path.basename(path))


def _planned(path, source, continued):
    """The revisions of a list that is begun anew, or continued by a function from layout to layout."""
    try:
        layout = read_layout(path)
    except UserError:
        # The job that reads it has the message.
        layout = None
    if layout is None or layout.source != source:
        return [_first_revision(layout)] * source[-1]
    return [chunk.revision for chunk in continued(layout).chunks]


def _first_revision(layout):
    """The revision of a list that is begun anew: another one than those of the list that was there."""
    return max((chunk.revision for chunk in layout.chunks), default=0) + 1 if layout else 0


def _is_as_listed(path, layout):
    """Whether nothing has come, gone or changed since a folder was listed."""
    for folder, changed in layout.folders.items():
        if not changed or _state(folder)[1] != changed:
            return False
    if sum(chunk.count for chunk in layout.chunks) > EACH_IMAGE:
        return True
    return all(_state(file) == (size, changed) for _, file, size, changed, _ in _listed(path))


def _state(path):
    """(size in bytes, time of the last change in ns); zeros for what is not there."""
    try:
        status = os.stat(path)
    except OSError as error:
        check_machine(error, path)
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _listed(path):
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        for batch in file.iter_batches(GROUP, columns=COLUMNS):
            batch.validate(full=True)
            yield from zip(*(batch[name].to_pylist() for name in COLUMNS), strict=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise damaged(path, error) from None


class _Compared:
    """A folder as it is now, compared with its list.

    Args:
        path: the list.
        folder: the folder.
        names: see `names_of`.
        before: the list's `Layout`, without chunks if it does not count; None if there is no list.
    """

    def __init__(self, path, folder, names, before):
        self.path, self.folder, self.names, self.before = path, folder, names, before
        self.folders, self.kept, self.touched = {}, Counter(), {}
        self.new = self.changed = self.gone = self.again = 0
        self.pairs = []

    @property
    def continues(self):
        """Whether there is a list to continue."""
        return bool(self.before and self.before.chunks)

    def rows(self):
        """Yield (name, file, size, changed, chunk) of all images, sorted by name; new ones have chunk `NEW`.

        Raises:
            UserError: after the last row, if galaxies have equal names.
        """
        listed = _listed(self.path) if self.continues else ()
        both = in_order(itertools.chain(self._found(), listed), COLUMNS, "id_str, chunk")
        with progress(None, "listing galaxies") as meter:
            for name, group in itertools.groupby(both, itemgetter(0)):
                now, before = [], None
                for row in group:
                    if row[4] == NOW:
                        now.append(row)
                    else:
                        before = row
                if len(now) > 1:
                    self.again += 1
                    self.pairs += [(name, now[0][1], now[1][1])] if len(self.pairs) < SHOWN_PAIRS else []
                if now:
                    yield (*now[0][:4], self._chunk_of(now[0], before))
                    meter.update(1)
                else:
                    self.gone += 1
                    self.touched[before[4]] = True
        if self.again:
            raise self._equal_names()

    def _chunk_of(self, now, before):
        if before is None:
            self.new += 1
            return NEW
        self.kept[before[4]] += 1
        if now[:4] != before[:4]:
            self.changed += 1
            self.touched[before[4]] = True
        return before[4]

    def _found(self):
        started = time.time_ns()
        # `walk` yields only what is below.
        for path, kind in itertools.chain([(self.folder, "folder")], walk(self.folder)):
            if kind == "broken":
                raise UserError(
                    f"{shown(path)}: is a link to something that is not there; restore what it leads"
                    " to, or remove the link."
                )
            if kind == "folder":
                # The folder's own time is read before its entries are.
                changed = _state(path)[1]
                self.folders[path] = changed if started - changed > JUST_NOW else 0
            elif kind == "file" and path.lower().endswith(archives.SUFFIXES):
                check_text(path)
                yield (names_of(self.folder, path, self.names), path, *_state(path), NOW)

    def _equal_names(self):
        pairs = "; ".join(f"'{name}' ({one} and {other})" for name, one, other in self.pairs)
        advice = "rename one of each."
        if self.names == "name":
            advice = (
                f"rename one of each, or set id: path for this target: then the path below {self.folder} is"
                " the name."
            )
        verb = "name is that" if self.again == 1 else "names are those"
        return UserError(
            f"{self.folder}: {self.again:,} {verb} of several images, and the name is the galaxy's id_str:"
            f" {pairs}{'; …' if self.again > len(self.pairs) else ''}; {advice}"
        )

    def layout(self, chunks):
        """The `Layout` of the new list, after all rows have been compared.

        Args:
            chunks: number of chunks of a first listing.
        """
        source = [self.folder, self.names, chunks]
        if not self.continues:
            bounds = [bounds_of_chunk(self.new, chunk, chunks) for chunk in range(chunks)]
            revision = _first_revision(read_layout(self.path))
            parts = [Chunk(first, last - first, revision) for first, last in bounds]
            return Layout(source, parts, rounded(self.new), self.folders)
        parts = [
            Chunk(chunk.position, self.kept[number], chunk.revision + (number in self.touched))
            for number, chunk in enumerate(self.before.chunks)
        ]
        # New images come in chunks that are as large as the others, but in no more of them than a first list
        # has: who tries five images and then adds ten thousand does not want eighty jobs.
        room = max(rounded(max(chunk.count for chunk in self.before.chunks)), rounded(1))
        pieces = min(math.ceil(self.new / room), chunks)
        for piece in range(pieces):
            first, last = bounds_of_chunk(self.new, piece, pieces)
            revision = max(chunk.revision for chunk in self.before.chunks)
            parts.append(Chunk(self.before.end + first, last - first, revision))
        return Layout(source, parts, self.before.end + rounded(self.new), self.folders)

    def report(self, chunks):
        """Log what is different from the list that was there, and how many of the chunks are predicted."""
        if not self.continues:
            return
        counts = (f"{count:,}" for count in (self.new, self.changed, self.gone))
        log.info("%s since it was last listed: %s new images, %s changed, %s gone", self.folder, *counts)
        added = chunks - len(self.before.chunks)
        log.info("Chunks to predict: %d new, %d again; %d in all", added, len(self.touched), chunks)


def _write(rows, layout, schema, path):
    """Write sorted rows; new ones get the chunks that the layout has for them. Returns their number."""
    ends = list(itertools.accumulate(chunk.count for chunk in layout.chunks))
    count, chunk = 0, 0
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        while group := list(itertools.islice(rows, GROUP)):
            filled = []
            for name, file, size, changed, _ in group:
                while count >= ends[chunk]:
                    chunk += 1
                filled.append((name, "", "", file, "file", size, changed, chunk))
                count += 1
            columns = dict(zip(schema.names, zip(*filled, strict=True), strict=True))
            writer.write_table(pa.table(columns, schema))
    return count
