"""The posteriors of galaxies that have votes, updated by these votes.

A mixture of Dirichlets is conjugate to votes. After the votes k on a question each component has the
concentrations α + k, and its weight is multiplied by the probability that it gave to the votes, the
Dirichlet-multinomial DM(k | α). Votes must not count twice: if a model has learned from a galaxy, its
posterior is not updated.
"""

import numpy as np
import pandas as pd

from zoolib.data.learned import NEITHER, UNKNOWN
from zoolib.data.tables import IDS, LOCATIONS, find_column, place_of, read_batches, read_names, read_numbers
from zoolib.job.logs import UserError, log
from zoolib.posteriors.intervals import credible_intervals
from zoolib.posteriors.summary import log_predictive, mean_fractions
from zoolib.posteriors.unseen import learned_codes

# Rows of a table of votes in memory at once.
ROWS = 65536


def update(votes, values, tree, weights=None):
    """The posterior of vote fractions after some votes.

    Args:
        votes: (galaxies, answers of all questions), whole numbers >= 0.
        values: (galaxies, answers of all questions, components), concentrations > 0.
        tree: a `DecisionTree`.
        weights: (galaxies, questions, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        (values, weights) in the same form, float64. A question without votes keeps what it had.
    """
    votes, values = np.asarray(votes, dtype=float), np.asarray(values, dtype=float)
    galaxies, _, components = values.shape
    found = np.empty((galaxies, len(tree.questions), components))
    for number, question in enumerate(tree.questions):
        # Each component as if it were the posterior of a galaxy of its own.
        alone = np.moveaxis(values[:, question.slice], 2, 1).reshape(galaxies * components, -1, 1)
        repeated = np.repeat(votes[:, question.slice], components, axis=0)
        evidence = log_predictive(repeated, alone).reshape(galaxies, components)
        with np.errstate(divide="ignore"):
            # A component without weight stays without.
            logs = evidence + (0.0 if weights is None else np.log(weights[:, number]))
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        found[:, number] = shares / shares.sum(axis=1, keepdims=True)
    return values + votes[:, :, None], found


def describe_with_votes(votes, values, tree, level, weights=None):
    """Columns of the flat catalogue for galaxies with votes.

    Args:
        votes: (galaxies, answers of all questions), whole numbers; NaN for galaxies that have no votes, or
            must not use them.
        values: (galaxies, answers of all questions, components), concentrations.
        tree: a `DecisionTree`.
        level: mass of the central credible interval, between 0 and 1.
        weights: (galaxies, questions, components), or None if all components are equal.

    Returns:
        {`{answer}_fraction_with_votes` (mean), and the same with `_low` and `_high`: (galaxies,) float32},
        NaN where the votes are.
    """
    usable = np.isfinite(votes).all(axis=1)
    blocks = np.full((3, *votes.shape), np.nan, dtype=np.float32)
    if usable.any():
        own = None if weights is None else weights[usable]
        values, own = update(votes[usable], values[usable], tree, own)
        ends = credible_intervals(values, tree, level, weights=own)
        for block, found in zip(blocks, (mean_fractions(values, tree, own), *ends), strict=True):
            block[usable] = found
    return {
        f"{answer}_fraction_with_votes{ending}": block[:, number]
        for number, answer in enumerate(tree.columns)
        for ending, block in zip(("", "_low", "_high"), blocks, strict=True)
    }


def votes_to_use(opened, tables):
    """The votes that may update the posteriors of some predictions.

    Args:
        opened: `files.Predictions`.
        tables: catalogues, or tables with the columns of a tree's answers (Parquet or CSV).

    Returns:
        (galaxies, answers of all questions), NaN for galaxies without votes and for those from which a model,
        or its backbone, has learned or may have learned. None if there is nothing to update: no table has
        votes, or the predictions are no concentrations of a tree's answers.

    Raises:
        UserError: a table cannot be read, or a number of votes is wrong.
    """
    if not tables:
        return None
    if opened.kind != "concentrations":
        log.warning("%s: only Dirichlet heads can be updated by votes, found %s", opened.path, opened.kind)
        return None
    votes = read_votes(tables, opened.tree, opened.id_str)
    if votes is None:
        log.info("%s: has no votes for '%s'", ", ".join(map(str, tables)), opened.tree.name)
        return None
    codes, models = learned_codes(opened)
    codes = np.full((len(votes), 1), UNKNOWN) if codes is None else codes
    if (codes == UNKNOWN).any():
        unknown = models[int((codes == UNKNOWN).any(axis=0).argmax())]
        log.warning(
            "%s: %s does not say which galaxies it has learned from, so no posterior is updated by votes;"
            " train and predict again with this version",
            *(opened.path, unknown),
        )
    known, seen = np.isfinite(votes).all(axis=1), (codes != NEITHER).any(axis=1)
    votes[seen] = np.nan
    log.info(
        "%s of %s galaxies have votes; %s of these posteriors are updated, the others are of galaxies that a"
        " model may have learned from",
        *(f"{count:,}" for count in (known.sum(), len(votes), (known & ~seen).sum())),
    )
    return votes


def read_votes(tables, tree, names):
    """(galaxies, answers), NaN for galaxies without votes; None if no table has votes for the tree."""
    votes, index, found = np.full((len(names), len(tree.columns)), np.nan), pd.Index(names), False
    for path in tables:
        for table in read_batches(path, lambda columns: _choose(columns, tree), (*IDS, *LOCATIONS), ROWS):
            if not set(tree.columns) <= set(table):
                break
            found = True
            ids, _ = read_names(table, find_column(table, None, IDS, path, ""), table.index + 1, path)
            rows = index.get_indexer(ids)
            # A blank row is a galaxy without votes.
            here = (rows >= 0) & table[tree.columns].notna().any(axis=1).to_numpy()
            places = [place_of(path, row + 1) for row in table.index[here]]
            numbers, wrong = read_numbers(table[here], {name: name for name in tree.columns}, places)
            if (wrong != "").any():
                raise UserError(wrong[wrong != ""].iloc[0])
            votes[rows[here]] = numbers.to_numpy()
    votes[votes.sum(axis=1) == 0] = np.nan
    return votes if found else None


def _choose(columns, tree):
    return [name for name in columns if name in (*IDS, *tree.columns)]
