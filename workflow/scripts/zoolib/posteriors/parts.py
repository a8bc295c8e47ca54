"""The parts of a target's predictions, one for each chunk: how HDF5 keeps them safely, and their checks."""

import contextlib
import hashlib
import io
import json
from pathlib import Path

import h5py
import numpy as np

from zoolib.config.labels import Label
from zoolib.job.logs import UserError, check_machine
from zoolib.job.provenance import hash_of

# Attributes of a part that are its own; all others are the same in all parts of a target.
POSITION = ("first", "last", "ids", "checksum")
# Attributes that say which part of which target, and by which models.
PART = ("models", "of", "first", "last")
# `of` of the parts of a folder.
FOLDER = 0
# The format of HDF5 files whose structure has checksums: the library crashes at a damaged one without.
FORMAT = "v110"
# The bytes with which HDF5 begins, and those before them that HDF5 leaves to others if it is told so.
SIGNATURE, STAMP = b"\x89HDF\r\n\x1a\n", 512
# The datasets of distances from the training galaxies (see `posteriors.unfamiliar`).
DISTANCE, VALIDATION = "distance", "validation_distances"
# The dataset of representations, which only parts have (see `representations.files`).
REPRESENTATIONS = "representations"
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


def half(values):
    """Numbers in half precision; those beyond its range are its largest.

    HDF5 converts while it writes, but it halves some of the numbers just below a power of two: 0.12498
    becomes 0.0625 (seen in HDF5 1.14.6; https://github.com/h5py/h5py/issues/1221).

    Args:
        values: array of numbers.

    Returns:
        The same as float16.
    """
    largest = np.finfo(np.float16).max
    return np.clip(values, -largest, largest).astype(np.float16)


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


class _Disk(io.FileIO):
    """A file that keeps its first error, and after it forgets what is written: HDF5 crashes at an error."""

    error = None

    def write(self, data):
        """Write all of `data`; returns its length, after an error too."""
        left = memoryview(data)
        with self._kept():
            while left and not self.error:
                left = left[super().write(left) :]
        return len(data)

    def truncate(self, size=None):
        """Change the size of the file; returns the new one."""
        with self._kept():
            return super().truncate(size)
        return size

    @contextlib.contextmanager
    def _kept(self):
        try:
            yield
        except OSError as error:
            self.error = self.error or error


@contextlib.contextmanager
def writing(path, mode="w", **about):
    """Open a file to write, in `FORMAT`.

    Args:
        path: the file; it is of no use after an error.
        mode: `w` for a new file, or `a`.
        about: what else `h5py.File` takes.

    Yields:
        (`h5py.File`; a function that raises the error if the file could not be written so far.)

    Raises:
        OSError: the disk is full, or cannot be written for another reason.
    """
    with _Disk(path, "w+" if mode == "w" else "r+") as disk:

        def check():
            if disk.error:
                raise OSError(disk.error.errno, disk.error.strerror, str(path))

        try:
            with h5py.File(disk, mode, libver=FORMAT, **about) as file:
                yield file, check
        finally:
            check()


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
        "mixed": "Dirichlet concentrations of each answer, and what each other label is, one a sample",
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


def smallest(kind, labels):
    """The smallest numbers that predictions can have.

    Args:
        kind: what they are, as `labels.kind_of_outputs` says it.
        labels: plain values of each `Label`, needed where the kind is `mixed`.

    Returns:
        A number for all columns or, where the kind is `mixed`, (columns, 1).
    """
    least = {"votes": np.nextafter(0, 1), "regression": -np.inf}
    if kind != "mixed":
        return {"concentrations": least["votes"], "values": -np.inf}.get(kind, 0)
    found = [Label.from_dict(label) for label in labels]
    return np.repeat([least.get(label.kind, 0) for label in found], [len(one.outputs) for one in found])[
        :, None
    ]


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
    return found | {name: list(file[name].shape[1:]) for name in ("weights", DISTANCE) if name in file}


def check_together(parts, positions=None):
    """Check that parts belong together: the same models and settings, one after another, none missing.

    Args:
        parts: {path: what `part_of` returns} in order; a part of an older version may not know its position.
            Parts of a folder do not know of how many galaxies they are: images may come later.
        positions: (first, last) of each part of a folder; None where its list is not at hand.

    Raises:
        UserError: two parts do not.
    """
    paths, found = list(parts), list(parts.values())
    again = "; predict again: type the same command with --forcerun predict_chunk."
    position = 0
    for number, (path, part) in enumerate(parts.items()):
        shared, expected = ({k: v for k, v in one.items() if k not in POSITION} for one in (part, found[0]))
        differs = next((name for name in expected | shared if shared.get(name) != expected.get(name)), None)
        if differs:
            what = "is of other models" if differs == "models" else f"has another '{differs}'"
            raise UserError(f"{path}: {what} than {paths[0]}{again}")
        first, last = part.get("first", position), part.get("last", position)
        expected = position, last
        if part.get("of") == FOLDER:
            expected = positions[number] if positions else (max(position, first), last)
        if (first, last) != expected:
            raise UserError(
                f"{path}: has the galaxies {first} to {last} of the target, expected {expected[0]} to"
                f" {expected[1]}{again}"
            )
        position = last
    if found[-1].get("of", position) not in (position, FOLDER):
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
def reading_part(part, path):
    """Open a part; what h5py raises at damaged bytes becomes one sentence.

    Args:
        part: the file.
        path: the virtual file that refers to it, or will.

    Yields:
        `h5py.File`.

    Raises:
        UserError: the part is missing or damaged.
    """
    with _opened(part, path) as file:
        try:
            yield file
        except DAMAGED as error:
            raise _damaged(part, error) from None
