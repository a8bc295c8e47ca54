"""One virtual file over the parts of a target's predictions."""

import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from zoolib.data.layout import read_layout
from zoolib.job.logs import UserError, log, whole
from zoolib.job.provenance import hash_of
from zoolib.posteriors.parts import (
    DISTANCE,
    POSITION,
    STAMP,
    VALIDATION,
    attributes,
    check_together,
    is_sealed,
    part_of,
    reading_part,
    seal,
    set_attributes,
    stamp,
    text,
    write_checked,
    writing,
)
from zoolib.posteriors.unfamiliar import count_unlike, message, read_unfamiliar
from zoolib.posteriors.unseen import NAME as LEARNED
from zoolib.posteriors.writer import CHUNK

# Galaxies that are copied together.
COPIED = 1024
# The files of a part, and the temporary ones of a job that was killed.
OWN = re.compile(r"(\.\d+\..+\.)?(?P<chunk>0|[1-9]\d*)\.(hdf5|parquet|rejected\.csv)")


def collect_predictions(parts, rejected_parts, max_rejected, output, galaxies=None, copied=False):
    """Write one HDF5 over all chunks: it refers to the numbers in their files, or has copies of them.

    The files of chunks that the target no longer has are deleted, in `chunks/` and in `catalog/`.

    Args:
        parts: HDF5 files of the chunks, in order.
        rejected_parts: the tables of the chunks of images that could not be read.
        max_rejected: the largest share of all images of the target that may be unreadable.
        output: attributes predictions (HDF5, in the folder above that of the parts), rejected (CSV) and
            unfamiliar (CSV: galaxies, known, unlike, share; how many look unlike the training set, and of how
            many it is known).
        galaxies: the list of galaxies of a folder; None for all other targets.
        copied: True for a file with all numbers, which may be moved alone.

    Raises:
        UserError: a part is damaged, the parts do not belong together, or too many images are unreadable.
    """
    sizes, lengths, found, counts = [], [], {}, []
    for part in parts:
        with reading_part(part, output.predictions) as file:
            if not is_sealed(file):
                raise ValueError("its attributes are not those that were written")
            sizes.append(len(file["id_str"]))
            lengths.append(_longest(file["id_str"]))
            found[part], about = part_of(file), attributes(file)
            counts.append(count_unlike(read_unfamiliar(file)))
    check_together(found, _positions(galaxies, len(parts)) if galaxies else None)
    rejected = pd.concat([pd.read_csv(part, dtype=str) for part in rejected_parts], ignore_index=True)
    _check_rejected(rejected, sum(sizes) + len(rejected), max_rejected, Path(parts[0]).parent)
    about = {name: value for name, value in about.items() if name not in POSITION}
    write = _write_copies if copied else _write_joined
    write(found, sizes, max(lengths), about, output.predictions)
    with whole(output.rejected) as partial:
        rejected.to_csv(partial, index=False)
    known, unlike = np.sum(counts, axis=0)
    with whole(output.unfamiliar) as partial:
        row = {"galaxies": sum(sizes), "known": known, "unlike": unlike}
        row["share"] = unlike / known if known else None
        pd.DataFrame([row]).to_csv(partial, index=False, float_format="%.4f")
    folder = Path(parts[0]).parent
    _remove_stale([folder, folder.parent / "catalog"], len(parts))
    log.info("%s galaxies in %d parts, %d images rejected", f"{sum(sizes):,}", len(parts), len(rejected))
    log.info(message(known, unlike))


def _positions(galaxies, count):
    """(first, last) of each chunk of a folder."""
    layout = read_layout(galaxies)
    if len(layout.chunks) != count:
        raise UserError(
            f"{galaxies}: has {len(layout.chunks)} chunks, expected {count}: the folder has changed since the"
            " command was typed; type it again."
        )
    return [(chunk.position, chunk.position + chunk.count) for chunk in layout.chunks]


def _check_rejected(rejected, total, max_rejected, folder):
    log.info("%s of %s images rejected", f"{len(rejected):,}", f"{total:,}")
    if len(rejected) > max_rejected * total:
        raise UserError(
            f"shards.max_rejected: {len(rejected)} of {total} images ({len(rejected) / total:.1%}) cannot be"
            f" read, expected {max_rejected:.1%} or less; fix them or raise the limit; the tables in {folder}"
            f" list them, the first is: {rejected['reason'][0]}"
        )


def _longest(names):
    """Bytes of the longest of the names in a dataset."""
    length = h5py.check_string_dtype(names.dtype).length
    # An older version wrote text of any length.
    return length or text(names.asstr()[:]).itemsize


def _write_joined(found, sizes, length, about, output):
    """Write the virtual file: names and checksums, and where in the parts the numbers are."""
    # Relative, so that the folder can be moved or copied to another machine.
    names = {part: str(Path(part).relative_to(Path(output).parent)) for part in found}
    with whole(output) as partial:
        with writing(partial, userblock_size=STAMP) as (file, _):
            for dataset, shape in _shapes(found).items():
                layout = h5py.VirtualLayout((sum(sizes), *shape), dtype="float32")
                for part, rows in _rows(found, sizes):
                    if rows.stop > rows.start:
                        shape_of_part = (rows.stop - rows.start, *shape)
                        layout[rows] = h5py.VirtualSource(names[part], dataset, shape=shape_of_part)
                # Zeros would be taken for numbers by who reads without `open_predictions`.
                file.create_virtual_dataset(dataset, layout, fillvalue=np.nan)
            listed = [each for part, of in found.items() for each in (names[part], hash_of(of))]
            write_checked(file, "parts", data=text(listed).reshape(-1, 2))
            set_attributes(file, about)
            for _ in _with_names(file, found, sizes, length, output):
                pass
        stamp(partial)


def _write_copies(found, sizes, length, about, output):
    """Write a file with the numbers of all parts, which is sealed as a part is."""
    with whole(output) as partial, writing(partial) as (file, check):
        for dataset, shape in _shapes(found).items():
            write_checked(file, dataset, CHUNK, shape=(sum(sizes), *shape), dtype=np.float32)
        for part, rows in _with_names(file, found, sizes, length, output):
            if LEARNED in part and LEARNED not in file:
                shape = (sum(sizes), *part[LEARNED].shape[1:])
                write_checked(file, LEARNED, shape=shape, dtype=part[LEARNED].dtype)
                set_attributes(file[LEARNED], attributes(part[LEARNED]))
            for dataset in {*_shapes(found), LEARNED} & set(part):
                for first in range(rows.start, rows.stop, COPIED):
                    last = min(first + COPIED, rows.stop)
                    file[dataset][first:last] = part[dataset][first - rows.start : last - rows.start]
            # Not only at the end.
            check()
        seal(file, about, file["id_str"].asstr()[:])


def _shapes(found):
    """{dataset of numbers: its shape for one galaxy}."""
    first = next(iter(found.values()))
    shapes = {"predictions": (len(first["answers"]), first["samples"])}
    return shapes | {name: tuple(first[name]) for name in ("weights", DISTANCE) if name in first}


def _rows(found, sizes):
    """(part, its rows in the joined file) of each part."""
    ends = np.cumsum(sizes).tolist()
    return [(part, slice(end - size, end)) for part, size, end in zip(found, sizes, ends, strict=True)]


def _with_names(file, found, sizes, length, output):
    """Write what each part has in memory at once, its names above all, and yield (open part, its rows)."""
    write_checked(file, "label_cols", data=text(next(iter(found.values()))["answers"]))
    ids = write_checked(file, "id_str", shape=(sum(sizes),), dtype=h5py.string_dtype("utf-8", length))
    for part, rows in _rows(found, sizes):
        with reading_part(part, output) as opened:
            ids[rows] = text(opened["id_str"].asstr()[:])
            if DISTANCE in opened and VALIDATION not in file:
                write_checked(file, VALIDATION, data=opened[VALIDATION][:])
            yield opened, rows


def _remove_stale(folders, count):
    """Delete the files of chunks beyond the last one, which are from a run with more chunks."""
    stale = []
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else []:
            own = OWN.fullmatch(path.name)
            if own and int(own["chunk"]) >= count:
                path.unlink(missing_ok=True)
                stale.append(path.name)
    if stale:
        log.info("Removed %d files of chunks that the target no longer has", len(stale))
