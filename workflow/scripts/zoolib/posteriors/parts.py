"""The parts of a target's predictions, one for each chunk: checked against each other, and joined."""

import contextlib
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
# The bytes with which HDF5 begins, and those before them that HDF5 leaves to others if it is told so.
SIGNATURE, STAMP = b"\x89HDF\r\n\x1a\n", 512
# Rows in a compressed piece of a dataset.
PIECE = 16384
# What h5py and JSON raise at damaged bytes.
DAMAGED = (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError)


def text(values):
    """Text as HDF5 keeps it safely.

    Text of any length would be in HDF5's global heap. This has no checksum, and the library never ends, or
    crashes, where it is damaged.

    Args:
        values: a list of texts.

    Returns:
        (values,) UTF-8 of the same length in bytes, that of the longest.

    Raises:
        UserError: a text ends with a zero byte, with which HDF5 fills shorter texts.
    """
    encoded = [str(value).encode() for value in values]
    if ended := next((value for value in values if str(value).endswith("\0")), None):
        raise UserError(
            f"the name {ended!r} ends with a zero byte, which a file of predictions cannot keep; remove it"
            " from the table of the galaxies."
        )
    return np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded), default=0) or 1))


def write_checked(file, name, piece=PIECE, **about):
    """Write a dataset whose bytes have checksums.

    Args:
        file: `h5py.File` in `FORMAT`, whose structure has checksums, too.
        name: of the dataset.
        piece: rows that are compressed together.
        about: what `h5py.Group.create_dataset` needs: `data`, or `shape` and `dtype` if the data come later.

    Returns:
        The `h5py.Dataset`.
    """
    rows, *others = about["shape"] if "shape" in about else about["data"].shape
    # HDF5 cannot divide what has no rows.
    if rows:
        about |= {"chunks": (min(piece, rows), *others), "compression": "gzip", "compression_opts": 4}
        about |= {"fletcher32": True}
    return file.create_dataset(name, **about)


def attributes(file):
    """The attributes of a file or dataset as plain values, of text that this or an older version wrote."""
    found = {name: np.asarray(value).tolist() for name, value in file.attrs.items()}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def set_attributes(file, about):
    """Write attributes, {name: a text or a number}, to a file or dataset."""
    for name, value in about.items():
        file.attrs[name] = text([value]).reshape(()) if isinstance(value, str) else value


def file_attributes(about, members, samples, views, seed):
    """What the attributes of predictions say of a model and its samples.

    Args:
        about: the model's `model.json`.
        members: number of members.
        samples: dropout draws for each view.
        views: number of augmented views; 0 is only the central view.
        seed: seed of the run.

    Returns:
        A dict of texts and numbers; `components` (of one sample) is only there if the kind is `mixtures`.
    """
    meaning = {
        "concentrations": "Dirichlet concentrations of each answer, one a sample",
        "mixtures": "Dirichlet concentrations of each answer; weights has the share of each component",
        "probabilities": f"probabilities of each {'answer' if about['tree'] else 'label'}, one a sample",
        "values": "what each label is, a number in its own units or a probability, one a sample",
    }
    mixtures = {"components": about["training"]["components"]} if about["kind"] == "mixtures" else {}
    return {
        "kind": "concentrations" if mixtures else about["kind"],
        "values": meaning[about["kind"]],
        "tree": json.dumps(about["tree"]),
        "labels": json.dumps(about.get("labels")),
        "members": members,
        "views": views,
        "samples_per_view": samples,
        "seed": seed,
        **mixtures,
    }


def seal(file, about, names):
    """Write the attributes of a part, and a checksum of them: HDF5 has none of those above 4 kB.

    Args:
        file: `h5py.File` with `label_cols`.
        about: the attributes.
        names: the galaxies' names.
    """
    ids = hashlib.sha256("".join(f"{name}\0" for name in names).encode()).hexdigest()[:32]
    set_attributes(file, about | {"ids": ids})
    # A number, which is where the checksums of HDF5 are.
    file.attrs["checksum"] = _checksum(file)


def is_sealed(file):
    """Whether the attributes of a file of predictions are as they were written; without checksum they are."""
    return "checksum" not in file.attrs or file.attrs["checksum"] == _checksum(file)


def _checksum(file):
    about = {name: value for name, value in attributes(file).items() if name != "checksum"}
    return int(hash_of([about, list(file["label_cols"].asstr())]), 16)


def stamp(path):
    """Write the checksum of a virtual file before its first byte for HDF5, where HDF5 leaves room for it.

    The links to its parts are in the global heap (see `text`), so the file is checked before HDF5 opens it.

    Args:
        path: HDF5 with a user block of `STAMP` bytes.
    """
    with open(path, "r+b") as file:
        file.write(_stamp_of(path).ljust(STAMP, b"\0"))


def is_stamped(path):
    """Whether a file is as `stamp` left it, or has no stamp, as a part, or was written by an older version.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        begin = file.read(STAMP)
    return begin.startswith(SIGNATURE) or begin.rstrip(b"\0") == _stamp_of(path)


def _stamp_of(path):
    with open(path, "rb") as file:
        file.seek(STAMP)
        return b"sha256 of all that follows: " + hashlib.file_digest(file, "sha256").hexdigest().encode()


def part_of(file):
    """Which part of which predictions an open file is: its attributes and the size of its numbers.

    Args:
        file: `h5py.File`.

    Returns:
        A dict of plain values.
    """
    answers, samples = list(file["label_cols"].asstr()), file["predictions"].shape[2]
    found = attributes(file) | {"answers": answers, "samples": samples}
    # Others have no such entry, so that the checksums of older files stay what they are.
    return found | ({"weights": list(file["weights"].shape[1:])} if "weights" in file else {})


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
        listed = file["parts"].asstr()[()]
        # An older version wrote JSON.
        expected = json.loads(listed) if isinstance(listed, str) else dict(listed.tolist())
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
    except DAMAGED as error:
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
        raise _damaged(part, error) from None


def _damaged(part, error):
    check_machine(error, part)
    reason = " ".join(str(error).split())
    return UserError(
        f"{part}: cannot be read as predictions in HDF5 ({reason}); delete it and predict again."
    )


@contextlib.contextmanager
def _reading(part, path):
    """`_opened`, and one sentence for what h5py raises later at damaged bytes."""
    with _opened(part, path) as file:
        try:
            yield file
        except DAMAGED as error:
            raise _damaged(part, error) from None


def collect_predictions(parts, rejected_parts, max_rejected, output):
    """Write one virtual HDF5 over all chunks; it refers to the numbers in their files and copies none.

    The files of chunks that the target no longer has are deleted, in `chunks/` and in `catalog/`.

    Args:
        parts: HDF5 files of the chunks, in order.
        rejected_parts: the tables of the chunks of images that could not be read.
        max_rejected: the largest share of all images of the target that may be unreadable.
        output: attributes predictions (HDF5, in the folder above that of the parts) and rejected (CSV).

    Raises:
        UserError: a part is damaged, the parts do not belong together, or too many images are unreadable.
    """
    sizes, lengths, found = [], [], {}
    for part in parts:
        with _reading(part, output.predictions) as file:
            if not is_sealed(file):
                raise ValueError("its attributes are not those that were written")
            sizes.append(len(file["id_str"]))
            lengths.append(_longest(file["id_str"]))
            found[part], about = part_of(file), attributes(file)
    check_together(found)
    rejected = pd.concat([pd.read_csv(part, dtype=str) for part in rejected_parts], ignore_index=True)
    _check_rejected(rejected, sum(sizes) + len(rejected), max_rejected, Path(parts[0]).parent)
    about = {name: value for name, value in about.items() if name not in POSITION}
    _write_joined(found, sizes, max(lengths), about, output.predictions)
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


def _longest(names):
    """Bytes of the longest of the names in a dataset."""
    length = h5py.check_string_dtype(names.dtype).length
    # An older version wrote text of any length.
    return length or text(names.asstr()[:]).itemsize


def _write_joined(found, sizes, length, about, output):
    first, ends = next(iter(found.values())), np.cumsum(sizes)
    answers = first["answers"]
    shapes = {"predictions": (len(answers), first["samples"])}
    shapes |= {"weights": tuple(first["weights"])} if "weights" in first else {}
    # Relative, so that the folder can be moved or copied to another machine.
    names = {part: str(Path(part).relative_to(Path(output).parent)) for part in found}
    with whole(output) as partial:
        with h5py.File(partial, "w", libver=FORMAT, userblock_size=STAMP) as file:
            for dataset, shape in shapes.items():
                layout = h5py.VirtualLayout((int(ends[-1]), *shape), dtype="float32")
                for part, size, end in zip(found, sizes, ends, strict=True):
                    if size:
                        source = h5py.VirtualSource(names[part], dataset, shape=(size, *shape))
                        layout[end - size : end] = source
                # Zeros would be taken for numbers by who reads without `open_predictions`.
                file.create_virtual_dataset(dataset, layout, fillvalue=np.nan)
            ids = write_checked(file, "id_str", shape=ends[-1:], dtype=h5py.string_dtype("utf-8", length))
            write_checked(file, "label_cols", data=text(answers))
            listed = [each for part, of in found.items() for each in (names[part], hash_of(of))]
            write_checked(file, "parts", data=text(listed).reshape(-1, 2))
            set_attributes(file, about)
            for part, size, end in zip(found, sizes, ends, strict=True):
                with _reading(part, output) as opened:
                    some = text(opened["id_str"].asstr()[:])
                ids[end - size : end] = some
        stamp(partial)


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
