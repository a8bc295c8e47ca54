"""Stage recalibrate: what votes or labels of validation galaxies say about the posteriors of models."""

import json

import numpy as np
import pandas as pd

from zoolib.data.catalogs import read_catalog
from zoolib.data.fits import cut_fit
from zoolib.job.logs import UserError, log, whole
from zoolib.job.provenance import hash_of_file
from zoolib.posteriors import label_calibration, recalibration_fit
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.parts import attributes
from zoolib.scores.questions import matching_rows, votes_of

# Galaxies that are enough for every fit: their numbers are in memory at once (85 MB for 25,000 galaxies with
# 34 answers and 25 samples), and the time grows with them.
MOST = 50_000


def recalibrate_member(predictions, model, catalog, settings, output):
    """Fit the recalibration of a member on the votes of the validation galaxies.

    The model has not learned from their votes, but the epoch at which its training stopped was chosen by
    them. The test galaxies have no part in it.

    Args:
        predictions: HDF5 of the validation galaxies, predicted by this member alone, with the samples and
            views of the targets.
        model: the member's `model.keras`.
        catalog: of the validation galaxies (Parquet), with their votes.
        settings: samples, views and seed.
        output: JSON to write, beside the model: `model` (hash of its weights and of how it sees an image, by
            which it is recognised), `checksum` (SHA-256 of `model.keras`), `samples`, `views`,
            `seed`, `galaxies`, and `questions` (see `recalibration_fit.fit`).

    Raises:
        UserError: no galaxy is in both files, or the model does not predict concentrations.
    """
    with open_predictions(predictions) as opened:
        if opened.kind != "concentrations":
            raise UserError(
                f"{model}: predicts {opened.kind}, expected concentrations, as a recalibration is of"
                " Dirichlets; set predict.recalibrate to false."
            )
        found = _of_questions(*_validation(opened, catalog, settings["seed"]))
        about = {"model": attributes(opened.values.file)["models"], "checksum": hash_of_file(model)}
    _write({**about, **settings, **found}, output)


def recalibrate_ensemble(predictions, recalibrations, catalog, settings, output):
    """Fit the factor of an ensemble, whose members are recalibrated already.

    Args:
        predictions: HDF5 of the validation galaxies, predicted by all members.
        recalibrations: `recalibration.json` of each member.
        catalog, settings: as for `recalibrate_member`.
        output: JSON to write, beside the members' folders: `models` (of each member, as the `model` of its
            recalibration), `samples`, `views`, `seed`, `galaxies`, and what `recalibration_fit.fit_ensemble`
            returns.

    Raises:
        UserError: no galaxy is in both files, or a recalibration belongs to another model.
    """
    with open_predictions(predictions, recalibrations) as opened:
        numbers = _validation(opened, catalog, settings["seed"])
        about = {"models": json.loads(attributes(opened.values.file)["each_model"])}
    about |= {**settings, "galaxies": len(numbers[0]), **recalibration_fit.fit_ensemble(*numbers[:5])}
    if about["factor"] == 1:
        log.info("The ensemble stays as it is (%s galaxies)", f"{about['galaxies']:,}")
    else:
        words = "The ensemble: concentrations times %(factor).2f: %(after).4f instead of %(before).4f nats"
        log.info(words, about)
    _write(about, output)


def recalibrate_task(predictions, model, galaxies, fit, seed, output):
    """Fit the recalibration of a finetuned model on the labels of its validation galaxies.

    The model has not learned from their labels, but the epoch at which its training stopped was chosen by
    them. With too few of them a label stays as it is, and the log says so.

    Args:
        predictions: HDF5 of the galaxies of the task, predicted by this model.
        model: its `model.keras`.
        galaxies: `galaxies.parquet` of the task.
        fit: name of the finetuning, "" or e.g. "fold0".
        seed: of the run.
        output: JSON to write, beside the model: as that of `recalibrate_member`, without samples and views;
            in place of `questions` it has `labels` (see `label_calibration.fit`) unless votes are the only
            label.

    Raises:
        UserError: the predictions are of other labels, or cannot be read.
    """
    catalog = read_catalog(galaxies)
    table = cut_fit(catalog, fit, str(galaxies))["val"].table
    with open_predictions(predictions) as opened:
        rows = pd.Index(opened.id_str).get_indexer(table["id_str"])
        table, rows = table[rows >= 0][:MOST], rows[rows >= 0][:MOST]
        values, weights = _read(opened, rows)
        if opened.tree:
            votes = votes_of(table, opened.tree, galaxies)
            found = _of_questions(votes, values, opened.tree, seed, weights, opened.per_sample)
        else:
            of_labels = label_calibration.fit(opened.named_labels, table, values, catalog.table)
            for name, one in of_labels.items():
                log.info("%s: %s", name, _label_in_words(one))
            found = {"galaxies": len(rows), "labels": of_labels}
        about = {"model": attributes(opened.values.file)["models"], "checksum": hash_of_file(model)}
    _write({**about, "seed": seed, **found}, output)


def _of_questions(votes, values, tree, seed, weights, per_sample):
    """What is written of a member's questions; each is told in the log."""
    found = recalibration_fit.fit(votes, values, tree, seed, weights, per_sample)
    for name, one in found.items():
        log.info("%s: %s", name, _in_words(one))
    return {"galaxies": len(votes), "questions": found}


def _write(about, output):
    with whole(output) as partial:
        partial.write_text(json.dumps(about, indent=1, allow_nan=False) + "\n")


def _label_in_words(one):
    """What is done to a label; with too few galaxies nothing is."""
    galaxies, bounds = f"{one['galaxies']} validation galaxies", ""
    if one.get("guessed"):
        bounds = (
            "; all values are from 0 to 1, so its intervals end there (set bounds if others are possible)"
        )
    elif one.get("bounds"):
        bounds = f"; its intervals end at {one['bounds'][0]:g} and {one['bounds'][1]:g}"
    if one["galaxies"] < label_calibration.FEWEST:
        fewest = label_calibration.FEWEST
        return f"{galaxies} are too few, expected {fewest} or more, so its intervals stay as they are{bounds}"
    if one["kind"] == "residuals":
        return f"intervals from the residuals of {galaxies}, which scatter by {one['noise']:.3g}{bounds}"
    if one["kind"] == "leave":
        return f"stays as it is ({galaxies}, {one['before']:.4f} nats)"
    return (
        f"temperature {one['temperature']:.2f}: {one['after']:.4f} instead of {one['before']:.4f} nats"
        f" ({galaxies})"
    )


def _validation(opened, catalog, seed):
    """What the fits need: votes, values, tree, seed, weights and components of a sample."""
    table, rows = matching_rows(opened, catalog)
    votes = votes_of(table, opened.tree, catalog)
    if len(rows) > MOST:
        chosen = np.random.default_rng(seed).choice(len(rows), MOST, replace=False)
        rows, votes = rows[chosen], votes[chosen]
    values, weights = _read(opened, rows)
    log.info("%s galaxies with %d components", f"{len(rows):,}", values.shape[2])
    return votes, values, opened.tree, seed, weights, opened.per_sample


def _read(opened, rows):
    """Numbers of some galaxies in single precision: values, and weights or None."""
    values = weights = None
    for block, of_values, of_weights in opened.blocks():
        if values is None:
            # A recalibration may have changed how many components there are.
            values = np.empty((len(rows), *of_values.shape[1:]), np.float32)
            weights = None if of_weights is None else np.empty((len(rows), *of_weights.shape[1:]), np.float32)
        here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
        values[here] = of_values[rows[here] - block.start]
        if weights is not None:
            weights[here] = of_weights[rows[here] - block.start]
    return values, weights


def _in_words(one):
    if one["before"] is None:
        return f"{one['galaxies']} galaxies are too few, so it stays as it is"
    if one["kind"] == "leave":
        return f"stays as it is ({one['galaxies']:,} galaxies, {one['before']:.4f} nats)"
    factors = ", ".join(f"{factor:.2f}" for factor in one["factors"])
    moved = f", {sum(one['added']):.0%} of the weights fixed" if one["added"] else ""
    pooled = "samples pooled, " if one["pooled"] else ""
    return (
        f"{one['kind']}, {pooled}concentrations times {factors}{moved}: {one['after']:.4f} instead of"
        f" {one['before']:.4f} nats ({one['galaxies']:,} galaxies, cross-validated)"
    )
