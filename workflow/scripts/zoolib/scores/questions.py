"""The votes of a catalogue's galaxies beside their predictions, question by question."""

import numpy as np
import pandas as pd

from zoolib.job.logs import UserError, log
from zoolib.posteriors.summary import RELEVANT, log_predictive


def matching_rows(opened, test):
    """Match a catalogue with predictions.

    Args:
        opened: `Predictions`.
        test: catalogue (Parquet).

    Returns:
        (the rows of the catalogue that were predicted, (rows,) position of each in the predictions).

    Raises:
        UserError: none of its galaxies was predicted.
    """
    catalog = pd.read_parquet(test)
    rows = pd.Index(opened.id_str).get_indexer(catalog["id_str"])
    found = rows >= 0
    if not found.any():
        raise UserError(
            f"{opened.path}: none of its {len(opened.id_str)} galaxies is among the {len(catalog)} of {test};"
            " evaluate.target must name a target of predict.targets that predicts the test split."
        )
    if not found.all():
        log.info(
            "%d of %d test galaxies have no prediction, because their image was rejected; they are left out.",
            (~found).sum(),
            len(catalog),
        )
    return catalog[found], rows[found]


def votes_of(catalog, tree, origin):
    """The votes of a catalogue's galaxies on all questions of a tree.

    Args:
        catalog: data frame of a catalogue.
        tree: a `DecisionTree`.
        origin: name of the catalogue in error messages.

    Returns:
        (galaxies, answers), whole numbers.

    Raises:
        UserError: the catalogue was made with another tree.
    """
    missing = [column for column in tree.columns if column not in catalog]
    if missing:
        raise UserError(
            f"{origin}: the votes '{missing[0]}' are missing; the predictions are for the tree"
            f" '{tree.name}', so the catalogue must be made with that tree (catalogs[].tree)."
        )
    return catalog[tree.columns].to_numpy()


def relevant(votes, question, tree):
    """Galaxies that a question counts for: at least half of their volunteers were asked it.

    Args:
        votes: (galaxies, answers of all questions).
        question: a `Question`.
        tree: its `DecisionTree`.

    Returns:
        (galaxies,), bool.
    """
    asked = votes[:, question.slice].sum(axis=1)
    # Each question has the volunteers of its own campaign.
    volunteers = votes[:, tree.first(question).slice].sum(axis=1)
    return (asked > 0) & (asked >= RELEVANT * volunteers)


def question_losses(tree, votes, values, kind):
    """Negative log probability of the votes on each question, given the posteriors.

    These are the losses of training, computed by scipy in double precision.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers of all questions), whole numbers.
        values: (galaxies, answers of all questions, samples).
        kind: what the values are, `concentrations` or `probabilities`.

    Returns:
        (galaxies, questions) in nats.
    """
    losses = [-log_predictive(votes[:, q.slice], values[:, q.slice], kind) for q in tree.questions]
    return np.stack(losses, axis=1)
