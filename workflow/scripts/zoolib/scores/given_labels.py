"""Predictions of any target beside the user's own labels of its galaxies."""

import numpy as np
import pandas as pd

from zoolib.data.selection import Cuts, listed_twice
from zoolib.data.tasks import read_labelled
from zoolib.job.logs import whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.unseen import check_unseen
from zoolib.scores.outcomes import (
    constant_predictions,
    labels_of,
    outcomes,
    predicted_columns,
    write_galaxies,
)
from zoolib.scores.tasks import score_split, write_scores


def score_target(predictions, labels, where, seed, output, recalibrations=(), name=None):
    """Score the predictions of a target with labels or votes that the user gives for some of its galaxies.

    Args:
        predictions: HDF5 of predictions (may be virtual).
        labels: CSV or Parquet with the galaxies' names and a column for each label that the model predicts,
            or for each answer of its tree.
        where: what error messages call the target.
        seed: of the bootstrap.
        output: attributes scores, confusion, advice and galaxies, as `evaluate_task` writes them, of the
            split `test` alone, and rejected (CSV: id_str, reason). The constant predictor knows these labels.
        recalibrations: files of the models to correct the predictions by.
        name: the column of the galaxies' names in the table, where it is not one of `tables.IDS`.

    Raises:
        UserError: a column or a label is missing or wrong, no galaxy of the table is predicted, or a model
            has learned from some of them.
    """
    source = {"table": labels, "id": name, "missing": "drop"}
    source |= dict.fromkeys(("location", "query", "group", "split"))
    cuts = Cuts(where)
    with open_predictions(predictions, recalibrations) as opened:
        rows, found = read_labelled(source, labels_of(opened), cuts)
        targets = list(dict.fromkeys(column for label in found for column in label.targets))
        rows = cuts.reject("listed once", rows, listed_twice(rows, targets, "labels"))
        rows = rows.assign(position=pd.Index(opened.id_str).get_indexer(rows["id_str"]))
        unknown = rows["place"] + ": the galaxy '" + rows["id_str"] + f"' is not in {predictions}."
        rows = cuts.reject("predicted", rows, unknown.where(rows["position"] < 0, ""))
        rows = rows.sort_values("position", ignore_index=True)
        places = rows["position"].to_numpy()
        check_unseen(opened, places)
        numbers = _chosen(opened, places)
        kind, bounds = opened.kind, opened.bounds
    table = rows[["id_str", *targets]].assign(split="test", fit="")
    constant = constant_predictions(found, table, len(table)), None
    beside = {"constant": table.join(predicted_columns(found, table, constant, "concentrations"))}
    if recalibrations:
        with open_predictions(predictions) as opened:
            trained = predicted_columns(found, table, _chosen(opened, places), kind)
        beside["as_trained"] = table.join(trained)
    table = table.join(predicted_columns(found, table, numbers, kind, bounds))
    others = {other: outcomes(found, of_other) for other, of_other in beside.items()}
    scored = score_split("test", outcomes(found, table), table, others, [""], np.random.default_rng(seed))
    write_galaxies(table, found, output.galaxies)
    write_scores(*scored, output)
    with whole(output.rejected) as partial:
        cuts.rejected().to_csv(partial, index=False)


def _chosen(opened, places):
    """The numbers of some galaxies, whose positions ascend, of any number: values, and weights or None."""
    found = []
    for block, values, weights in opened.blocks():
        here = (
            places[np.searchsorted(places, block.start) : np.searchsorted(places, block.stop)] - block.start
        )
        found.append((values[here], None if weights is None else weights[here]))
    values, weights = zip(*found, strict=True)
    return np.concatenate(values), None if weights[0] is None else np.concatenate(weights)
