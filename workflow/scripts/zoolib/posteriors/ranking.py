"""The list of what to label next: galaxies by how much a model would learn from votes on them."""

import csv

import numpy as np

from zoolib.config.labels import Label, by_label
from zoolib.config.questions import featured_answers
from zoolib.data.disk_sort import in_order
from zoolib.data.partition import CLASSIFICATIONS
from zoolib.job.logs import log, progress, whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.information import (
    featured_information,
    joint_information,
    label_information,
    number_information,
)
from zoolib.posteriors.label_calibration import noise_of
from zoolib.posteriors.parts import check_together, part_of


def rank_galaxies(parts, output, acquisition="joint", seed=0, threads=1, recalibrations=None):
    """List galaxies by how much a model would learn from volunteers' votes, or from one more label.

    Args:
        parts: HDF5 files of predictions, one for each chunk, in order.
        output: CSV to write: rank (1 has the most information), id_str, information (nats), and for `joint`
            `{question}_information`, whose sum it is. Several labels have `{label}_information` in the same
            way; votes among them have their questions'. It is blank for numbers without a recalibration,
            which says how much they scatter.
        acquisition: `joint` (see `information.joint_information`) or `paper` (see
            `information.featured_information`). Labels have only one kind of information.
        seed: of the run.
        threads: blocks of galaxies that are processed at once.
        recalibrations: as for `open_predictions`.

    Raises:
        UserError: a part cannot be read, the parts are of different models, settings or lists, or the tree
            has no question that `paper` is about.
    """
    columns, galaxies = _check(parts, acquisition, recalibrations)
    # The number of simulated values and their largest standard error.
    simulated = np.zeros(2)

    def rows():
        with progress(None, "measuring information", total=galaxies) as meter:
            for part in parts:
                # The information is the disagreement of samples, so they stay apart.
                with open_predictions(part, recalibrations, pooled=False) as opened:
                    measure = _measure(opened, acquisition, seed)
                    for names, found, errors in opened.map(measure, threads, scatter=False):
                        simulated[:] = (
                            simulated[0] + (errors > 0).sum(),
                            max(simulated[1], errors.max(initial=0)),
                        )
                        every = np.column_stack([_total(found), found] if len(columns) > 3 else [found])
                        yield from ((name, *row) for name, row in zip(names, every.tolist(), strict=True))
                        meter.update(len(names))

    rank, informed = _write(rows(), columns, output)
    if simulated[0]:
        log.info("%.0f values are simulated, with standard errors up to %.4f nats", *simulated)
    if rank and not informed:
        log.warning(
            "The information is 0 for every galaxy, so the list is in no useful order: it is the disagreement"
            " of posterior samples, but there is only one; predict with more samples, views or members."
        )
    log.info("%s: %s galaxies", output, f"{rank:,}")


def _check(parts, acquisition, recalibrations):
    """Check all parts before any is measured; returns the columns of the list, and how many rows it gets."""
    found, galaxies = {}, 0
    for part in parts:
        with open_predictions(part, recalibrations) as opened:
            found[part] = part_of(opened.values.file)
            galaxies += len(opened.id_str)
            tree, labels = opened.tree, _labels(opened)
            if tree and acquisition == "paper":
                featured_answers(tree.questions[0])
    check_together(found)
    several = labels if len(labels or []) > 1 else []
    names = [name for label in several for name in _named(label)]
    if tree:
        names = [question.name for question in tree.questions] if acquisition == "joint" else []
    return ["rank", "id_str", "information", *(f"{name}_information" for name in names)], galaxies


def _labels(opened):
    return (
        None if opened.tree or opened.labels is None else [Label.from_dict(label) for label in opened.labels]
    )


def _measure(opened, acquisition, seed):
    """A function for `Predictions.map`: names, (galaxies, columns) information and its standard errors."""

    def measure(rows, values, weights):
        names = opened.id_str[rows]
        posterior = {"kind": opened.kind, "weights": weights, "per_sample": opened.per_sample}
        if opened.kind in ("values", "mixed"):
            return names, *_of_each(opened, values, names, seed)
        if not opened.tree:
            found = label_information(values, _labels(opened))
        elif acquisition == "paper":
            found = featured_information(values, opened.tree, **posterior)[:, None]
        else:
            return names, *joint_information(values, opened.tree, names, seed=seed, **posterior)
        return names, found, np.zeros_like(found)

    return measure


def _named(label):
    """What the list calls the information on a label."""
    return [question.name for question in label.tree.questions] if label.kind == "votes" else [label.name]


def _of_each(opened, values, names, seed):
    """Information on labels of different kinds, with its standard errors; (galaxies, columns) each."""
    found, errors = [], []
    # A file that does not name its labels has numbers.
    labels = opened.named_labels
    of_labels = by_label(labels, values) if labels else [(None, values)]
    noises = noise_of(opened.recalibrations, labels) if labels else [np.nan]
    for (label, of_label), noise in zip(of_labels, noises, strict=True):
        if label and label.kind == "votes":
            information, error = joint_information(of_label, label.tree, names, seed=seed)
        elif label and label.kind in CLASSIFICATIONS:
            information = label_information(of_label, [label])
            error = np.zeros_like(information)
        else:
            # Without named labels the columns are unknown numbers.
            information = number_information(of_label[:, :1], noise)
            error = np.zeros_like(information)
        found.append(information)
        errors.append(error)
    return np.concatenate(found, axis=1), np.concatenate(errors, axis=1)


def _total(found):
    """The sum over all labels that have information; NaN where none has."""
    return np.where(np.isnan(found).all(axis=1), np.nan, np.nansum(found, axis=1))


def _write(rows, columns, output):
    """Sort and write the rows; returns how many there are, and whether any has information."""
    informed, rank = False, 0
    with whole(output) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        # Names of questions may have a hyphen.
        ranked = in_order(rows, [f'"{name}"' for name in columns[1:]], "information desc, id_str")
        for rank, (name, *found) in enumerate(ranked, start=1):
            informed |= bool(found[0])
            writer.writerow([rank, name, *("" if value is None else f"{value:.6g}" for value in found)])
    return rank, informed
