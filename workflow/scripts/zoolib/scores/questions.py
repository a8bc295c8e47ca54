"""The votes of a catalogue's galaxies beside their predictions, question by question."""

import numpy as np
import pandas as pd

from zoolib.job.logs import UserError, log
from zoolib.posteriors.summary import log_predictive


def matching_rows(opened, test):
    """Match a catalogue with predictions.

    Args:
        opened: `Predictions`.
        test: catalogue (Parquet).

    Returns:
        (the catalogue's rows that were predicted, (rows,) where each lies in the predictions).

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
            "%d of %d test galaxies have no prediction, as their image was rejected; they are left out.",
            (~found).sum(),
            len(catalog),
        )
    return catalog[found], rows[found]


def votes_of(catalog, tree, origin):
    """The votes of a catalogue's galaxies on all questions of a tree.

    Args:
        catalog: data frame of a catalogue.
        tree: a `DecisionTree`.
        origin: what an error message calls the catalogue.

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


def question_losses(tree, votes, values, kind):
    """Negative log probability of the votes on each question, given the posteriors.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers of all questions), whole numbers.
        values: (galaxies, answers of all questions, samples).
        kind: what they are, `concentrations` or `probabilities`.

    Returns:
        (galaxies, questions) in nats.
    """
    losses = [-log_predictive(votes[:, q.slice], values[:, q.slice], kind) for q in tree.questions]
    return np.stack(losses, axis=1)
