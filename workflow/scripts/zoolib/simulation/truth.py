"""What a model learned of a simulated survey, between what is trivial and what is true."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.data.catalogs import read_catalog
from zoolib.data.images import load_row
from zoolib.job.logs import log, progress, whole
from zoolib.posteriors.files import open_predictions
from zoolib.scores.baselines import (
    constant_concentrations,
    grey_pixels,
    pixel_concentrations,
    pixel_labels,
    share_closed,
    truth_losses,
    votes_losses,
)

# Pixels along each side of what the logistic regression sees: size and brightness, hardly structure.
EDGE = 16


def compare_with_truth(train, test, predictions, truth, losses, metrics, tasks, output):
    """Place a model between the constant predictor, a logistic regression on 16 x 16 pixels and the truth.

    Only a simulated survey knows the probabilities that its votes were drawn from. A model that
    closes little of the distance from the constant to the truth has not learned; a survey in which
    the logistic regression closes much of it is too easy to show anything.

    Args:
        train: catalogue (Parquet) that the model was trained on.
        test: catalogue (Parquet) of the galaxies to compare on.
        predictions: HDF5 of the test galaxies' concentrations.
        truth: Parquet with the true answer probabilities in the columns of the tree.
        losses: CSV of `evaluate`, with the mean test loss.
        metrics: JSON of `evaluate`, with the accuracies.
        tasks: [(label, catalogue to learn from, catalogue to test on, scores of `evaluate_task`)].
        output: CSV to write: measure, constant, logistic_regression, model, truth, and the shares of
            the distance from constant to truth that the regression and the model close.
    """
    known, compared = read_catalog(train), read_catalog(test)
    tree = compared.tree
    with open_predictions(predictions) as opened:
        predicted = set(opened.id_str)
    galaxies = compared.table[compared.table["id_str"].isin(predicted)]
    votes, learned = galaxies[tree.columns].to_numpy(float), known.table[tree.columns].to_numpy(float)
    probabilities = pd.read_parquet(truth).set_index("id_str").loc[galaxies["id_str"], tree.columns]
    constant = votes_losses(tree, votes, constant_concentrations(tree, learned)).mean()
    best = truth_losses(tree, votes, probabilities.to_numpy(float)).mean()
    pixels = _pixels(known.table), _pixels(galaxies)
    regression = votes_losses(tree, votes, pixel_concentrations(tree, pixels[0], learned, pixels[1])).mean()
    total = pd.read_csv(losses).set_index("question").loc["total"]
    rows = [_row("mean test loss (nats a galaxy)", constant, regression, total["model"], best)]

    first = tree.questions[0].name
    accuracy = json.loads(Path(metrics).read_text())["confident"][first]["accuracy"]
    # Nowhere, perhaps.
    accuracy = np.nan if accuracy is None else accuracy
    rows.append({"measure": f"{first}, accuracy where volunteers are confident", "model": accuracy})
    for label, learn_from, test_on, scores in tasks:
        rows.append(_task_row(label, read_catalog(learn_from).table, read_catalog(test_on).table, scores))
    table = pd.DataFrame(rows)
    with whole(output) as partial:
        table.round(4).to_csv(partial, index=False)
    for row in rows:
        log.info(
            "%s", ", ".join(f"{key} {value:.3f}" if key != "measure" else value for key, value in row.items())
        )


def _pixels(table):
    rows = table[["archive", "member", "file_loc"]].to_dict("records")
    images = [load_row(row, 4 * EDGE, color=False) for row in progress(rows, "reading images")]
    return grey_pixels(np.stack(images), EDGE)


def _row(measure, constant, regression, model, truth):
    return {
        "measure": measure,
        "constant": constant,
        "logistic_regression": regression,
        "model": model,
        "truth": truth,
        "logistic_regression_closes": share_closed(constant, regression, truth),
        "model_closes": share_closed(constant, model, truth),
    }


def _task_row(label, learned, tested, scores):
    labels = tested[label].to_numpy(int)
    probability = pixel_labels(_pixels(learned), learned[label].to_numpy(int), _pixels(tested))
    common = int(learned[label].mean() > 0.5)
    found = pd.read_csv(scores, index_col=["label", "split", "score"])
    return {
        "measure": f"{label}, accuracy",
        "constant": (labels == common).mean(),
        "logistic_regression": ((probability > 0.5) == labels).mean(),
        "model": found["value"][label, "test", "accuracy"],
    }
