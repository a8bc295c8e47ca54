"""The parts of a target's predictions, one for each chunk: checked against each other, and joined."""

import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from zoolib.job.logs import UserError, check_machine, log, whole
from zoolib.job.provenance import hash_of

# The files of a part, and the temporary ones of a job that was killed.
OWN = re.compile(r"(\.\d+\..+\.)?(?P<chunk>0|[1-9]\d*)\.(hdf5|parquet|rejected\.csv)")
# Attributes of a part that are its own; all others are the same in all parts of a target.
POSITION = ("first", "last", "ids", "checksum")
# Attributes that say which part of which target, and by which models.
PART = ("models", "of", "first", "last")
# The format of HDF5 files whose structure has checksums: the library crashes at a damaged one without.
FORMAT = "v110"


def seal(file, about, names):
    """Write the attributes of a file of predictions, and a checksum of all text: HDF5 has none of it.

    Args:
        file: `h5py.File` with `label_cols`.
        about: the attributes.
        names: an iterable of lists of the galaxies' names, one after another in the order of the file.
    """
    found = hashlib.sha256()
    for some in names:
        found.update("".join(f"{name}\0" for name in some).encode())
    file.attrs.update(about | {"ids": found.hexdigest()[:32]})
    # A number is where the checksums of HDF5 are.
    file.attrs["checksum"] = _checksum(file)


def is_sealed(file, names):
    """Whether the text in a file of predictions is as it was written; that of an older version always is."""
    if "checksum" not in file.attrs:
        return True
    found = hashlib.sha256("".join(f"{name}\0" for name in names).encode()).hexdigest()[:32]
    return file.attrs["ids"] == found and file.attrs["checksum"] == _checksum(file)


def _checksum(file):
    about = {name: np.asarray(value).tolist() for name, value in file.attrs.items() if name != "checksum"}
    return int(hash_of([about, list(file["label_cols"].asstr())]), 16)


def part_of(file):
    """Which part of which predictions an open file is: its attributes and the size of its numbers.

    Args:
        file: `h5py.File`.

    Returns:
        A dict of plain values.
    """
    attributes = {name: np.asarray(value).tolist() for name, value in file.attrs.items()}
    return attributes | {"answers": list(file["label_cols"].asstr()), "samples": file["predictions"].shape[2]}


def check_together(parts):
    """Check that parts belong together: the same models and settings, one after another, none missing.

    Args:
        parts: {path: what `part_of` returns} in order; a part of an older version may not know its position.

    Raises:
        UserError: two parts do not.
    """
    paths, found = list(parts), list(parts.values())
    again = "; predict again: type the same command with --forcerun predict_chunk."
    position = 0
    for path, part in parts.items():
        shared, expected = ({k: v for k, v in one.items() if k not in POSITION} for one in (part, found[0]))
        differs = next((name for name in expected | shared if shared.get(name) != expected.get(name)), None)
        if differs:
            what = "is of other models" if differs == "models" else f"has another '{differs}'"
            raise UserError(f"{path}: {what} than {paths[0]}{again}")
        if part.get("first", position) != position:
            raise UserError(
                f"{path}: begins with galaxy {part['first']} of the target, expected {position}, where the"
                f" part before it ends{again}"
            )
        position = part.get("last", position)
    if position != found[-1].get("of", position):
        raise UserError(
            f"{paths[-1]}: ends with galaxy {position} of the target, which has {found[-1]['of']}{again}"
        )


def check_parts(path, file):
    """Check that the files to which a virtual file refers are those that it was made from.

    HDF5 itself reads fill values where a file is missing, and the numbers of any other file in its place.

    Args:
        path: the virtual file.
        file: the same, an open `h5py.File`; a file that is not virtual is always good.

    Raises:
        UserError: a part is missing, damaged or another one.
    """
    if not file["predictions"].is_virtual:
        return
    expected = dict.fromkeys(source.file_name for source in file["predictions"].virtual_sources())
    if "parts" in file:
        expected = json.loads(file["parts"].asstr()[()])
    for name, digest in expected.items():
        part = Path(path).parent / name
        with _opened(part, path) as opened:
            if digest and _digest(opened) != digest:
                raise UserError(
                    f"{part}: is not the file that {path} refers to, but one of other galaxies, models or"
                    " settings; type the same command again, so that the parts are collected again."
                )


def _digest(part):
    try:
        return hash_of(part_of(part))
    # Whatever is in the file, it is not a part.
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        check_machine(error, part.filename)
        return None


def _opened(part, path):
    try:
        return h5py.File(part)
    except FileNotFoundError:
        raise UserError(
            f"{part}: is missing, and {path} has its numbers from there; keep predictions.hdf5 beside its"
            " folder chunks/, copy both together, or predict again."
        ) from None
    except OSError as error:
        check_machine(error, part)
        reason = " ".join(str(error).split())
        raise UserError(
            f"{part}: cannot be read as predictions in HDF5 ({reason}); delete it and predict again."
        ) from None


def collect_predictions(parts, rejected_parts, max_rejected, output):
    """Write one virtual HDF5 over all chunks; it refers to the numbers in their files and copies none.

    The files of chunks that the target no longer has are deleted, in `chunks/` and in `catalog/`.

    Args:
        parts: HDF5 files of the chunks, in order.
        rejected_parts: the tables of the chunks of images that could not be read.
        max_rejected: the largest share of all images of the target that may be unreadable.
        output: attributes predictions (HDF5, in the folder above that of the parts) and rejected (CSV).

    Raises:
        UserError: the parts do not belong together, or too many images are unreadable.
    """
    sizes, found = [], {}
    for part in parts:
        with _opened(part, output.predictions) as file:
            sizes.append(len(file["id_str"]))
            found[part], attributes = part_of(file), dict(file.attrs)
    check_together(found)
    rejected = pd.concat([pd.read_csv(part, dtype=str) for part in rejected_parts], ignore_index=True)
    _check_rejected(rejected, sum(sizes) + len(rejected), max_rejected, Path(parts[0]).parent)
    _write_joined(found, sizes, attributes, output.predictions)
    with whole(output.rejected) as partial:
        rejected.to_csv(partial, index=False)
    folder = Path(parts[0]).parent
    _remove_stale([folder, folder.parent / "catalog"], len(parts))
    log.info("%s galaxies in %d parts, %d images rejected", f"{sum(sizes):,}", len(parts), len(rejected))


def _check_rejected(rejected, total, max_rejected, folder):
    log.info("%s of %s images rejected", f"{len(rejected):,}", f"{total:,}")
    if len(rejected) > max_rejected * total:
        raise UserError(
            f"shards.max_rejected: {len(rejected)} of {total} images ({len(rejected) / total:.1%}) cannot be"
            f" read, expected {max_rejected:.1%} or less; fix them or raise the limit; the tables in {folder}"
            f" list them, the first is: {rejected['reason'][0]}"
        )


def _write_joined(found, sizes, attributes, output):
    answers, samples = (next(iter(found.values()))[name] for name in ("answers", "samples"))
    shape, ends = (len(answers), samples), np.cumsum(sizes)
    # Relative, so that the folder can be moved or copied to another machine.
    names = {part: str(Path(part).relative_to(Path(output).parent)) for part in found}
    layout = h5py.VirtualLayout((int(ends[-1]), *shape), dtype="float32")
    for part, size, end in zip(found, sizes, ends, strict=True):
        if size:
            layout[end - size : end] = h5py.VirtualSource(names[part], "predictions", shape=(size, *shape))
    with whole(output) as partial, h5py.File(partial, "w", libver=FORMAT) as file:
        # Zeros would be taken for numbers by who reads without `open_predictions`.
        file.create_virtual_dataset("predictions", layout, fillvalue=np.nan)
        ids = file.create_dataset("id_str", ends[-1:], h5py.string_dtype())
        file.create_dataset("label_cols", data=answers, dtype=h5py.string_dtype())
        file["parts"] = json.dumps({names[part]: hash_of(about) for part, about in found.items()})

        def written():
            for part, size, end in zip(found, sizes, ends, strict=True):
                with h5py.File(part) as opened:
                    ids[end - size : end] = some = opened["id_str"].asstr()[:]
                yield some

        seal(file, {name: value for name, value in attributes.items() if name not in POSITION}, written())


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
