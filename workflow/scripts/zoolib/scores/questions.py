"""The votes of a catalogue's galaxies beside their predictions, question by question."""

import numpy as np
import pandas as pd

from zoolib.config.published import RELEVANCE
from zoolib.job.logs import UserError, log
from zoolib.posteriors.summary import RELEVANT, log_predictive, probability_asked

# Two products of different whole numbers of votes differ by more than this, and rounding errors by less.
ROUNDING = 1e-12


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


def relevant(votes, question, tree, rule=RELEVANCE[0]):
    """Galaxies that a question counts for; it has at least one vote of each.

    The rule `product` is that of Zoobot 0.0.3 (`evaluate_model.filter_to_sensible`, by the first author of
    Walmsley et al. 2022): the product of the vote fractions of the answers that lead to the question is
    above one half. A question that all volunteers are asked needs nothing more than a vote. If several
    answers lead to a question, their products are added. The rule `asked`: at least half of the volunteers
    were asked the question.

    Args:
        votes: (galaxies, answers of all questions).
        question: a `Question`.
        tree: its `DecisionTree`.
        rule: one of `RELEVANCE`.

    Returns:
        (galaxies,), bool.
    """
    asked = votes[:, question.slice].sum(axis=1)
    if rule == "asked":
        # Each question has the volunteers of its own campaign.
        volunteers = votes[:, tree.first(question).slice].sum(axis=1)
        return (asked > 0) & (asked >= RELEVANT * volunteers)
    product = probability_asked(voted_fractions(votes, tree), tree)[:, tree.questions.index(question)]
    return (asked > 0) & (product > RELEVANT + ROUNDING)


def voted_fractions(votes, tree):
    """The share of a question's votes that each answer has.

    Args:
        votes: (galaxies, answers of all questions).
        tree: a `DecisionTree`.

    Returns:
        (galaxies, answers of all questions); 0 for all answers of a question without votes.
    """
    fractions = np.zeros(np.shape(votes))
    for question in tree.questions:
        of_question = votes[:, question.slice]
        fractions[:, question.slice] = of_question / np.maximum(of_question.sum(axis=1, keepdims=True), 1)
    return fractions


def question_losses(tree, votes, values, kind, weights=None):
    """Negative log probability of the votes on each question, given the posteriors.

    These are the losses of training, computed by scipy in double precision.

    Args:
        tree: a `DecisionTree`.
        votes: (galaxies, answers of all questions), whole numbers.
        values: (galaxies, answers of all questions, components).
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, questions, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        (galaxies, questions) in nats.
    """
    losses = [
        -log_predictive(
            votes[:, question.slice],
            values[:, question.slice],
            kind,
            None if weights is None else weights[:, number],
        )
        for number, question in enumerate(tree.questions)
    ]
    return np.stack(losses, axis=1)
