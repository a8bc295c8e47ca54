"""Galaxies unlike those of the training: their distances in files of predictions, and what follows."""

import contextlib

import numpy as np

from zoolib.job.logs import UserError, check_machine
from zoolib.posteriors.parts import DAMAGED, DISTANCE, VALIDATION, write_checked, writing

# A galaxy is unlike the training set if more than this share of the validation galaxies is nearer to it.
UNLIKE = 0.99


def unfamiliar(distances, validation):
    """The share of the validation galaxies that is nearer to the training galaxies than each galaxy is.

    Args:
        distances: (galaxies, members), NaN for members that do not say what they have learned from.
        validation: (members, galaxies), sorted distances of each member's validation galaxies; NaN at the end
            where one has fewer than another.

    Returns:
        (galaxies,) float32 from 0 to 1, the mean of the members that say it; NaN if none does.
    """
    shares = []
    for found, known in zip(np.transpose(distances), validation, strict=True):
        known = known[np.isfinite(known)]
        if len(known):
            shares.append(np.where(np.isnan(found), np.nan, np.searchsorted(known, found) / len(known)))
    if not shares:
        return np.full(len(distances), np.nan, np.float32)
    return np.mean(shares, axis=0).astype(np.float32)


def together(validation):
    """The distances of the validation galaxies of all members in one array.

    Args:
        validation: of each member (galaxies,) sorted distances; of members that do not say it, empty.

    Returns:
        (members, galaxies) float32, NaN at the end where one has fewer than another.
    """
    joined = np.full((len(validation), max(map(len, validation))), np.nan, np.float32)
    for row, known in zip(joined, validation, strict=True):
        row[: len(known)] = known
    return joined


@contextlib.contextmanager
def keeping_distances(path, validation):
    """Write to a file of predictions how far its galaxies are from those that the models have learned from.

    Args:
        path: HDF5; another writer makes it and closes it before this one ends. If no member says what it has
            learned from, nothing is written.
        validation: see `together`.

    Yields:
        (A function of the distances (galaxies, members) of the next galaxies in the file; a function without
        arguments that gives `unfamiliar` of all of them.)
    """
    known = together(validation)
    kept = [np.zeros((0, len(known)), np.float32)]
    yield kept.append, lambda: unfamiliar(np.concatenate(kept), known)
    if known.size:
        with writing(path, "a") as (file, _):
            write_checked(file, DISTANCE, data=np.concatenate(kept))
            write_checked(file, VALIDATION, data=known)


def read_unfamiliar(file):
    """The share `unfamiliar` of all galaxies of a file of predictions.

    Args:
        file: an open `h5py.File`.

    Returns:
        (galaxies,) float32; NaN if the file does not say it.

    Raises:
        UserError: the distances are damaged.
    """
    if DISTANCE not in file:
        return np.full(len(file["id_str"]), np.nan, np.float32)
    try:
        return unfamiliar(file[DISTANCE][:], file[VALIDATION][:])
    except DAMAGED as error:
        check_machine(error, file.filename)
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file.filename}: how far the galaxies are from those of the training cannot be read ({reason});"
            " this file, or its part in chunks/, is damaged: delete it and predict again."
        ) from None


def count_unlike(shares):
    """Count the galaxies that look unlike the training set.

    Args:
        shares: (galaxies,), see `unfamiliar`.

    Returns:
        (2,): of how many galaxies it is known, and how many of them are unlike it.
    """
    return np.array([np.isfinite(shares).sum(), (shares > UNLIKE).sum()])


def message(known, unlike):
    """What a log says of some galaxies, whose numbers are from `count_unlike`."""
    if not known:
        return "No model says what it has learned from, so nobody knows which galaxies look unlike that."
    # By the definition of the limit, 1 % of the validation galaxies are above it.
    many = "less than 1 %" if 0 < unlike / known < 0.005 else f"{100 * unlike / known:.0f} %"
    return f"{many} of these galaxies look unlike the training set (1 % is normal)"
