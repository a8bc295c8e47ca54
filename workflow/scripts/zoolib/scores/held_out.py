"""Posteriors of galaxies that no model was trained on, in the form that the paper's figures need."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from zoolib.config.published import RELEVANCE
from zoolib.job.logs import UserError, progress
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.summary import mean_fractions
from zoolib.posteriors.unseen import check_unseen
from zoolib.scores.questions import relevant


@dataclass(frozen=True)
class HeldOut:
    """Galaxies with many votes that no model was trained on, and their predictions.

    Attributes:
        tree: the `DecisionTree`.
        kind: what the values are, `concentrations` or `probabilities`.
        galaxies: the rows of the catalogue, with the places of the images.
        votes: (galaxies, answers).
        values: (galaxies, answers, samples).
        fractions: (galaxies, answers), expected vote fractions.
        members: number of models that the samples come from; the samples of one model are consecutive.
        rule: which galaxies a question counts for (`scores.questions.relevant`).
    """

    tree: object
    kind: str
    galaxies: pd.DataFrame
    votes: np.ndarray
    values: np.ndarray
    fractions: np.ndarray
    members: int
    rule: str = RELEVANCE[0]

    def question(self, name):
        """The `Question` of the tree that has a name, such as `bar`."""
        return next(question for question in self.tree.questions if question.name == name)

    def relevant(self, question):
        """Which galaxies a question counts for.

        Args:
            question: a `Question` of the tree.

        Returns:
            (galaxies,) boolean.
        """
        return relevant(self.votes, question, self.tree, self.rule)


def held_out(predictions, catalog, min_votes, rule=RELEVANCE[0]):
    """Read the galaxies on which predictions and volunteers are compared.

    Args:
        predictions: HDF5 of predictions for a tree (may be virtual).
        catalog: catalogue (Parquet) with the votes and the places of the images.
        min_votes: fewest votes on the first question.
        rule: which galaxies a question counts for, one of `RELEVANCE`.

    Returns:
        `HeldOut`, in the order of the catalogue.

    Raises:
        UserError: the predictions are for labels, or for no galaxy of the catalogue, or a model has learned
            from some of them.
    """
    table = pd.read_parquet(catalog)
    with open_predictions(predictions) as opened:
        tree = opened.tree
        if tree is None or not set(tree.columns) <= set(table):
            raise UserError(
                f"{predictions}: does not answer the questions that {catalog} has votes for; predict again."
            )
        first = tree.columns[tree.questions[0].slice]
        rows = pd.Index(opened.id_str).get_indexer(table["id_str"])
        if not (rows >= 0).any():
            raise UserError(
                f"{predictions}: none of its {len(opened.id_str)} galaxies is in {catalog}; predict again."
            )
        chosen = (rows >= 0) & (table[first].sum(axis=1) >= min_votes).to_numpy()
        table, rows = table[chosen].reset_index(drop=True), rows[chosen]
        check_unseen(opened, rows)
        values = np.empty((len(rows), *opened.values.shape[1:]))
        with progress(None, "reading predictions", total=len(opened.id_str)) as meter:
            for block, of_block, _ in opened.blocks():
                here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
                values[here] = of_block[rows[here] - block.start]
                meter.update(len(of_block))
        members = int(opened.values.file.attrs.get("members", 1))
        votes = table[tree.columns].to_numpy(float)
        fractions = mean_fractions(values, tree)
        return HeldOut(tree, opened.kind, table, votes, values, fractions, members, rule)
