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
        values: (galaxies, answers, components).
        fractions: (galaxies, answers), expected vote fractions.
        members: number of models that the samples come from; the samples of one model are consecutive.
        rule: which galaxies a question counts for (`scores.questions.relevant`).
        weights: (galaxies, questions, components) of the components; None if all of them are equal.
        per_sample: components of one sample; they are consecutive.
    """

    tree: object
    kind: str
    galaxies: pd.DataFrame
    votes: np.ndarray
    values: np.ndarray
    fractions: np.ndarray
    members: int
    rule: str = RELEVANCE[0]
    weights: np.ndarray | None = None
    per_sample: int = 1

    def question(self, name):
        """The `Question` of the tree that has a name, such as `bar`."""
        return next(question for question in self.tree.questions if question.name == name)

    def shares(self, question):
        """The weights of the components for a `Question`, (galaxies, components); None if they are equal."""
        return None if self.weights is None else self.weights[:, self.tree.questions.index(question)]

    def relevant(self, question):
        """Which galaxies a question counts for.

        Args:
            question: a `Question` of the tree.

        Returns:
            (galaxies,) boolean.
        """
        return relevant(self.votes, question, self.tree, self.rule)


def held_out(predictions, catalog, min_votes, rule=RELEVANCE[0], recalibrations=None):
    """Read the galaxies on which predictions and volunteers are compared.

    Args:
        predictions: HDF5 of predictions for a tree (may be virtual).
        catalog: catalogue (Parquet) with the votes and the places of the images.
        min_votes: fewest votes on the first question.
        rule: which galaxies a question counts for, one of `RELEVANCE`.
        recalibrations: files of the members to correct the predictions by.

    Returns:
        `HeldOut`, in the order of the catalogue.

    Raises:
        UserError: the predictions are for labels, or for no galaxy of the catalogue, or a model has learned
            from some of them.
    """
    table = pd.read_parquet(catalog)
    with open_predictions(predictions, recalibrations) as opened:
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
        values = weights = None
        with progress(None, "reading predictions", total=len(opened.id_str)) as meter:
            for block, of_block, shares in opened.blocks():
                if values is None:
                    values = np.empty((len(rows), *of_block.shape[1:]))
                    weights = None if shares is None else np.empty((len(rows), *shares.shape[1:]))
                here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
                values[here] = of_block[rows[here] - block.start]
                if shares is not None:
                    weights[here] = shares[rows[here] - block.start]
                meter.update(len(of_block))
        votes = table[tree.columns].to_numpy(float)
        about = {
            "fractions": mean_fractions(values, tree, weights),
            "members": int(opened.values.file.attrs.get("members", 1)),
            "rule": rule,
            "weights": weights,
            "per_sample": opened.per_sample,
        }
        return HeldOut(tree, opened.kind, table, votes, values, **about)
