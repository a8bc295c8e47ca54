"""Predictions say whether a model has learned from a galaxy, so that none is scored on what it has seen."""

import contextlib
import json
from pathlib import Path

import h5py
import numpy as np

from zoolib.data.learned import BACKBONE, OWN, UNKNOWN, Learned
from zoolib.job.logs import UserError, check_machine, log
from zoolib.posteriors.parts import DAMAGED, set_attributes, write_checked, writing

NAME = "learned"
# What messages call a model if the predictions do not name it.
UNNAMED = "the model"


@contextlib.contextmanager
def marking_learned(path, models):
    """Write to a file of predictions which of its galaxies each model has learned from.

    Args:
        path: HDF5; another writer makes it and closes it before this one ends.
        models: (folder, content of `model.json`) of each member.

    Yields:
        A function of the names of the next galaxies in the file.
    """
    known, codes = [Learned(about) for _, about in models], []

    def mark(ids):
        codes.append(np.stack([member.codes(ids) for member in known], axis=1))

    yield mark
    codes.append(np.zeros((0, len(known)), np.int8))
    with writing(path, "a") as (file, _):
        dataset = write_checked(file, NAME, data=np.concatenate(codes))
        set_attributes(dataset, {"models": json.dumps([str(folder) for folder, _ in models])})


def check_unseen(opened, rows):
    """Stop if a model has learned from galaxies that it is to be scored on.

    The galaxies of the backbone that a model was finetuned from are allowed, and logged: as a rule it has
    learned other labels of them than those that are scored.

    Args:
        opened: `files.Predictions`.
        rows: (galaxies,) positions of the galaxies in the predictions.

    Raises:
        UserError: the message says from how many galaxies which model has learned.
    """
    codes, models = learned_codes(opened)
    unknown = np.full((len(rows), 1), True) if codes is None else codes[rows] == UNKNOWN
    if unknown.any():
        log.warning(
            "%s: %s does not say which galaxies it has learned from, so nobody knows whether it is scored on"
            " some of them; train and predict again with this version to know it",
            *(opened.path, _most(models, unknown)[0]),
        )
    if codes is None:
        return
    for code in (OWN, BACKBONE):
        model, count = _most(models, codes[rows] == code)
        found = f"{count:,} of the {len(rows):,} galaxies to be scored are in the training"
        if count and code == OWN:
            raise UserError(
                f"{opened.path}: {found} (train or val) of {model}, so its scores would be too good; score"
                " galaxies that it has not seen, for example with the seed and the split of the run that"
                " trained it, or choose another model."
            )
        if count:
            # Votes may be the same that the backbone has learned; a task has labels of its own.
            say = log.warning if opened.tree else log.info
            say(
                "%s: %s of the backbone of %s; its scores may be a little better than on galaxies that the"
                " backbone has never seen",
                *(opened.path, found, model),
            )


def learned_codes(opened):
    """Read from which galaxies the models of some predictions have learned.

    Args:
        opened: `files.Predictions`.

    Returns:
        ((galaxies, members) codes of `data.learned`, or None if a file does not say it; the folders of the
        members).

    Raises:
        UserError: the file is damaged.
    """
    if not opened.values.is_virtual:
        return _codes_of(opened.values.file)
    sources = opened.values.virtual_sources()
    codes, models = [], [UNNAMED]
    for source in sorted(sources, key=lambda source: source.vspace.get_select_bounds()[0][0]):
        with h5py.File(Path(opened.path).parent / source.file_name) as part:
            found, models = _codes_of(part)
        if found is None:
            return None, models
        codes.append(found)
    return np.concatenate(codes), models


def _codes_of(file):
    if NAME not in file:
        return None, [UNNAMED]
    try:
        return file[NAME][:], json.loads(file[NAME].attrs["models"])
    except DAMAGED as error:
        check_machine(error, file.filename)
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file.filename}: which galaxies the models have learned from cannot be read ({reason}); this"
            " file is damaged: delete it and predict again."
        ) from None


def _most(models, found):
    """The member with the most of the galaxies, and their number."""
    counts = found.sum(axis=0)
    return models[counts.argmax()], int(counts.max())
