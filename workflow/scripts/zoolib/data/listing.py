"""The galaxies of a target, listed once, so that each of many jobs reads only its own part.

A list is a Parquet file: of images (id_str and where the pixels are), or of shards (the sidecar, and how
many galaxies the shard has).
"""

import itertools
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.data.disk_sort import in_order
from zoolib.data.image_folder import GROUP, list_folder
from zoolib.data.layout import damaged
from zoolib.data.locations import PLACES, read_places, stem
from zoolib.data.tfrecords import check_shard, read_sidecar
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.zenodo import archives

COLUMNS = ["id_str", *PLACES]
# `seen`: what was there when the galaxy was listed, its image `file`, only the `folder`, or `nothing`.
SCHEMA = pa.schema([(name, pa.string()) for name in (*COLUMNS, "seen")])
IN_TWO_SHARDS = "The galaxy '{}' is in two of the target's shards, {} and {}; keep one of these shards."


def list_galaxies(kind, sources, output, chunks=1, columns=(None, None)):
    """List the galaxies of a target.

    Args:
        kind: what the target is: `images`, `archives`, `catalog` or `shards`.
        sources: a folder of images, zip archives, one table (see `locations.read_places`), or the
            sidecars of shards.
        output: Parquet to write. Images are sorted by id_str, a catalogue keeps its order. The list of a
            folder is continued if it is there already (see `image_folder.list_folder`).
        chunks: the number of chunks that a folder is cut into when it is listed for the first time.
        columns: the target's `id` and `location`.

    Raises:
        UserError: no galaxy, two galaxies of one name, a source that cannot be read, or shards that do not
            belong together.
    """
    if kind == "images":
        count = list_folder(sources[0], columns[0] or "name", chunks, output)
        log.info("%s galaxies to predict", f"{count:,}")
        return
    with whole(output) as partial:
        if kind == "shards":
            count = _list_shards(sources, partial)
        elif kind == "catalog":
            count = _write(_rows_of(sources[0], *columns), partial)
            message = f"{sources[0]}: the galaxy '{{}}' is listed more than once; keep one row of it."
            for _ in _once(in_order(_names(partial), ["id_str"], "id_str"), message):
                pass
        else:
            count = _list_archives(sources, partial)
    log.info("%s galaxies to predict", f"{count:,}")


def shards_of(galaxies):
    """How many galaxies each shard of a target has.

    Args:
        galaxies: the target's list, catalogues, or sidecars of shards.

    Returns:
        {sidecar: galaxies} in order; None if the galaxies are images.

    Raises:
        UserError: a sidecar is missing or cannot be read.
    """
    if str(galaxies[0]).endswith(".json"):
        # One after the other: each sidecar has the names of its galaxies, so all together may be large.
        return {str(path): read_sidecar(path)["count"] for path in galaxies}
    file = _opened(galaxies[0])
    if "sidecar" not in file.schema_arrow.names:
        return None
    table = file.read().to_pydict()
    return dict(zip(table["sidecar"], table["count"], strict=True))


def count_images(galaxies):
    """How many galaxies are in some lists or catalogues; their rows are not read.

    Args:
        galaxies: Parquet files.

    Returns:
        A number.

    Raises:
        UserError: a file is neither a list nor a catalogue.
    """
    return sum(_opened(path).metadata.num_rows for path in galaxies)


def read_images(galaxies, start, stop):
    """Read some rows of lists or catalogues; only the groups of rows that contain them are read.

    Args:
        galaxies: Parquet files, one after another.
        start: the first row.
        stop: the row to stop before.

    Returns:
        A data frame of id_str, archive, member, file_loc, and of what was there when the galaxy was listed
        (see `images.read`).

    Raises:
        UserError: a file is neither a list nor a catalogue of this project.
    """
    parts, first = [SCHEMA.empty_table()], 0
    for path in galaxies:
        file = _opened(path)
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            if first < stop and last > start:
                rows = _read_group(path, file, group)
                parts.append(rows.slice(max(start - first, 0), min(stop, last) - max(start, first)))
            first = last
    return pa.concat_tables(part.replace_schema_metadata() for part in parts).to_pandas()


def _with_seen(rows):
    if "seen" not in rows.column_names:
        # A catalogue has only galaxies whose image was there.
        rows = rows.append_column("seen", pa.array(["file"] * len(rows), pa.string()))
    return rows.select(SCHEMA.names).cast(SCHEMA)


def _read_group(path, file, group):
    try:
        rows = file.read_row_group(group, columns=SCHEMA.names)
        rows.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from None
    return _with_seen(rows)


def _opened(path):
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        names, about = file.schema_arrow.names, file.metadata
        # Parquet has no checksum of these numbers.
        if sum(about.row_group(group).num_rows for group in range(about.num_row_groups)) != about.num_rows:
            raise ValueError("its rows are not as many as it says")
    # A ValueError: a name that is not UTF-8.
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from None
    if not set(COLUMNS) <= set(names) and names != ["sidecar", "count"]:
        raise UserError(
            f"{path}: is not a list of galaxies, it has the columns {', '.join(names[:6])}; expected"
            f" {', '.join(COLUMNS)}."
        )
    return file


def _write(rows, path):
    """Write a list, one group of rows after another; returns the number of rows."""
    count = 0
    with (
        pq.ParquetWriter(path, SCHEMA, write_page_checksum=True) as writer,
        progress(None, "listing galaxies") as meter,
    ):
        while group := list(itertools.islice(rows, GROUP)):
            columns = dict(zip(SCHEMA.names, zip(*group, strict=True), strict=True))
            writer.write_table(pa.table(columns, SCHEMA))
            count += len(group)
            meter.update(len(group))
    return count


def _list_archives(paths, output):
    for path in paths:
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such archive; see catalogs[].archives.")
    message = "Two images are called '{}', in {} and {}; rename one, the name is the galaxy's id_str."
    rows = in_order(_members(paths), ["id_str", "archive", "member", "file_loc"], "id_str")
    count = _write(((*row, "file") for row in _once(rows, message, 1)), output)
    if not count:
        raise UserError(
            f"{', '.join(map(str, paths))}: no image found; expected {', '.join(archives.SUFFIXES)}."
        )
    return count


def _members(zips):
    for name, (archive, member) in archives.index(zips).items():
        if name.lower().endswith(archives.SUFFIXES):
            yield stem(name), str(archive), member, ""


def _rows_of(catalog, column, location):
    """The rows of a user's table, which may name images that are not there: not every file is looked for."""
    known = {}
    for places in read_places(catalog, GROUP, column, location):
        for row in places[COLUMNS].itertuples(index=False, name=None):
            yield (*row, _seen(known, *row[1:]))


def _seen(known, archive, member, file):
    inside = archive or os.path.dirname(file) or "."
    if inside not in known:
        if not os.path.exists(inside):
            known[inside] = None
        else:
            known[inside] = {info.filename for info in archives.read_infos(archive)} if archive else set()
    if known[inside] is None:
        return "nothing"
    return "file" if archive and member in known[inside] else "folder"


def _names(path):
    for batch in pq.ParquetFile(path).iter_batches(GROUP, columns=["id_str"]):
        yield from zip(batch.column(0).to_pylist(), strict=True)


def _once(rows, message, place=-1):
    """Yield sorted rows; two rows of the same name, which is the first item of a row, are an error."""
    last = (None,)
    for row in rows:
        if row[0] == last[0]:
            raise UserError(message.format(row[0], last[place], row[place]))
        last = row
        yield row


def _list_shards(sidecars, output):
    if not sidecars:
        raise UserError("predict.targets: no shard is found, expected .json sidecars beside .tfrecord files.")
    counts, parts = {}, []

    def galaxies():
        # One after the other: each sidecar has the names of its galaxies, so all together may be large.
        for path in map(str, sidecars):
            about = read_sidecar(path)
            check_shard(path.removesuffix(".json") + ".tfrecord", about)
            counts[path] = about["count"]
            parts.append((path, *(about.get(key) for key in ("split", "shard", "of")), _form(about)))
            _check_parts(parts)
            yield from ((name, path) for name in about.get("ids", ()))

    for _ in _once(in_order(galaxies(), ["id_str", "sidecar"], "id_str, sidecar"), IN_TWO_SHARDS):
        pass
    _check_complete(parts)
    pd.DataFrame({"sidecar": list(counts), "count": list(counts.values())}).to_parquet(output, index=False)
    return sum(counts.values())


def _form(about):
    """What all shards of a target have in common."""
    return {
        "image.size": about["size"],
        "channels": about["channels"],
        "image.encoding": about.get("encoding"),
        "columns": about["columns"],
    }


def _check_parts(parts):
    """Stop if the last shard does not belong to those before."""
    (first, split, _, of, form), (path, last_split, _, last_of, last_form) = parts[0], parts[-1]
    for key, value in form.items():
        if last_form[key] != value:
            raise UserError(
                f"{path}: the shard has other {key} than {first}, expected the same in all shards of a"
                " target; give each kind a folder and a target of its own."
            )
    if split == last_split and of != last_of:
        raise UserError(
            f"{path}: is one of {last_of} shards, and {first} is one of {of}; one of them was left over from"
            " an earlier shards.count: delete those that the run that wrote them no longer has."
        )


def _check_complete(parts):
    """Stop if a split has not all of its shards; sidecars of other programs do not say how many there are."""
    found = {}
    for path, split, shard, of, _ in parts:
        if of is not None:
            found.setdefault((split, of), (path, set()))[1].add(shard)
    for (split, of), (path, numbers) in found.items():
        missing = sorted(set(range(of)) - numbers)
        if missing:
            raise UserError(
                f"{Path(path).parent}: {split} has {of} shards and {len(missing)} of them are not here (the"
                f" first is {missing[0]}); copy all shards, or write them again with the target 'shards'."
            )
