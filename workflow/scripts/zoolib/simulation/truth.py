"""What a model learned of a simulated survey, between what is trivial and what is true."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.data.catalogs import read_catalog
from zoolib.data.fits import read_fit
from zoolib.data.images import load_row
from zoolib.data.locations import PLACES
from zoolib.job.logs import log, progress, whole
from zoolib.posteriors.files import open_predictions
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.questions import question_losses
from zoolib.simulation.pixels import grey_pixels, pixel_concentrations, pixel_labels

# Pixels along each side of the images that the logistic regression sees.
EDGE = 16


def compare_with_truth(train, test, predictions, truth, losses, metrics, tasks, output):
    """Compare a model with the constant predictor, a logistic regression on 16 x 16 pixels, and the truth.

    Only a simulated survey knows the probabilities that its votes were drawn from. A model that closes
    little of the distance from the constant predictor to the truth has not learned. A survey in which the
    logistic regression closes much of it is too easy to show anything.

    Args:
        train: catalogue (Parquet) that the model was trained on.
        test: catalogue (Parquet) of the galaxies to compare on.
        predictions: HDF5 of the test galaxies' concentrations.
        truth: Parquet with the true answer probabilities in the columns of the tree.
        losses: CSV of `evaluate`, with the mean test loss.
        metrics: JSON of `evaluate`, with the accuracies.
        tasks: [(label, `galaxies.parquet` of a task, scores of `evaluate_task`)].
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
    constant = np.broadcast_to(constant_concentrations(tree, learned), votes.shape)
    regression = pixel_concentrations(tree, _pixels(known.table), learned, _pixels(galaxies))
    total = pd.read_csv(losses).set_index("question").loc["total"]
    row = _row(
        "mean test loss (nats a galaxy)",
        mean_loss(tree, votes, constant),
        mean_loss(tree, votes, regression),
        total["model"],
        mean_loss(tree, votes, probabilities.to_numpy(float), "probabilities"),
    )
    first = tree.questions[0].name
    accuracy = json.loads(Path(metrics).read_text())["confident"][first]["accuracy"]
    # There may be no such galaxy.
    accuracy = np.nan if accuracy is None else accuracy
    rows = [row, {"measure": f"{first}, accuracy where volunteers are confident", "model": accuracy}]
    for label, of_task, scores in tasks:
        fit = read_fit(of_task)
        rows.append(_task_row(label, fit["train"].table, fit["test"].table, scores))
    table = pd.DataFrame(rows)
    with whole(output) as partial:
        table.round(4).to_csv(partial, index=False)
    for row in rows:
        log.info(
            "%s", ", ".join(f"{key} {value:.3f}" if key != "measure" else value for key, value in row.items())
        )


def mean_loss(tree, votes, predicted, kind="concentrations"):
    """Mean negative log likelihood of the votes, summed over questions, as in training.

    No model can be better on average than the true probabilities, because the votes were drawn from them.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers), whole numbers >= 0.
        predicted: (galaxies, answers), one sample.
        kind: what it is, `concentrations` or `probabilities`.

    Returns:
        Nats per galaxy.
    """
    return question_losses(tree, votes, predicted[:, :, None], kind).sum(axis=1).mean()


def share_closed(constant, model, truth):
    """The share of the distance from the constant predictor's loss to the truth's loss that a model closes.

    Args:
        constant: mean loss of the constant predictor.
        model: mean loss of the model, on the same galaxies.
        truth: mean loss of the true probabilities, on the same galaxies.

    Returns:
        0 for the constant predictor, 1 for the truth.
    """
    return (constant - model) / (constant - truth)


def _pixels(table):
    rows = table[PLACES].to_dict("records")
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
