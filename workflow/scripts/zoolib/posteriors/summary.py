"""The posteriors of a galaxy: mixtures over the samples of a model's answers.

A model gives every galaxy several samples (members, views, dropout draws). With concentrations of the
answers of each question the posterior is an equal mixture of Dirichlets. Where each sample is a mixture
itself, all of its components are there, with their weights. With the multinomial head the samples are
probabilities. `kind` says which. Nothing here needs TensorFlow. docs/posteriors.md has all formulas.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import special

from zoolib.config.labels import Label, by_label, kind_of_outputs
from zoolib.config.questions import SMALLEST_PROBABILITY
from zoolib.config.trees import DecisionTree
from zoolib.posteriors.intervals import both_intervals

# A question counts for a galaxy if at least this share of its volunteers was asked it or, where only the
# posterior is known, is expected to be asked it (Walmsley et al. 2022, section 5.2).
RELEVANT = 0.5


def expected_fractions(values, weights=None):
    """Mean posterior vote fraction of each answer.

    The mean of a Dirichlet is α / Σα; a mixture of them has the mean of the means (Walmsley et al. 2022,
    section 5.1). Probabilities are fractions already; their sum is 1.

    Args:
        values: (galaxies, answers, components), the concentrations (> 0) or probabilities of the answers
            of one question.
        weights: (galaxies, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        (galaxies, answers), each row sums to 1.
    """
    fractions = values / values.sum(axis=1, keepdims=True)
    return fractions.mean(axis=2) if weights is None else (fractions @ weights[:, :, None])[:, :, 0]


def mean_fractions(values, tree, weights=None):
    """Mean posterior vote fraction of each answer of a tree.

    Args:
        values: (galaxies, answers of all questions, components), concentrations (> 0) or probabilities.
        tree: a `DecisionTree`.
        weights: (galaxies, questions, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        (galaxies, answers of all questions), float64; those of one question sum to 1.
    """
    values = np.asarray(values, dtype=float)
    fractions = [
        expected_fractions(values[:, question.slice], None if weights is None else weights[:, number])
        for number, question in enumerate(tree.questions)
    ]
    return np.concatenate(fractions, axis=1)


def probability_asked(fractions, tree):
    """The share of the volunteers that is asked a question.

    A volunteer is asked a question after one of the answers that lead to it, and gives this answer only
    if asked the question before. So the share is a product up the tree, summed over the answers that lead
    to the question. If every question has one parent, it is the `proportion_volunteers_asked` of Walmsley
    et al. 2022.

    Args:
        fractions: (galaxies, answers of all questions), expected vote fractions.
        tree: a `DecisionTree`.

    Returns:
        (galaxies, questions), 1 for questions that all volunteers are asked.
    """
    owner = {column: question for question in tree.questions for column in question.columns}
    position = {column: index for index, column in enumerate(tree.columns)}
    found = {}

    def asked(question):
        if question.name not in found:
            ways = [asked(owner[column]) * fractions[:, position[column]] for column in question.after]
            found[question.name] = np.minimum(sum(ways), 1.0) if ways else np.ones(len(fractions))
        return found[question.name]

    return np.stack([asked(question) for question in tree.questions], axis=1)


def entropies(fractions, tree):
    """Entropy of the expected vote fractions of each question: how uncertain the answer is.

    Args:
        fractions: (galaxies, answers of all questions).
        tree: a `DecisionTree`.

    Returns:
        (galaxies, questions) in nats, from 0 to the logarithm of the number of answers.
    """
    terms = special.entr(fractions)
    return np.stack([terms[:, question.slice].sum(axis=1) for question in tree.questions], axis=1)


def suggested_cuts(fractions, tree, cuts):
    """Which galaxies pass the cuts that a tree suggests, such as "strongly barred".

    Walmsley et al. 2022 (table 2) require a share of the votes, and a number of votes on the question.
    Posteriors have no number of votes. Instead, at least half of the volunteers must be expected to be
    asked the question. This includes the questions before: a spiral must first be likely featured and
    face-on.

    Args:
        fractions: (galaxies, answers of all questions), expected vote fractions.
        tree: a `DecisionTree`.
        cuts: `DecisionTree.cuts`; cuts on answers that the tree does not have are left out.

    Returns:
        {name of the cut: (galaxies,) boolean}.
    """
    asked = probability_asked(fractions, tree)
    passed = {}
    for cut in cuts:
        if not set(cut.answers) <= set(tree.columns):
            continue
        share = fractions[:, [tree.columns.index(answer) for answer in cut.answers]].sum(axis=1)
        owners = [cut.answers[0] in question.columns for question in tree.questions]
        likely = asked[:, owners.index(True)] >= RELEVANT
        passed[cut.name] = likely & (share > cut.above if cut.above is not None else share < cut.below)
    return passed


def log_predictive(votes, values, kind="concentrations", weights=None):
    """Log probability of the votes on one question, given the posterior and the number of votes.

    The votes follow a mixture of Dirichlet-multinomials, coefficient included (Walmsley et al. 2022,
    equation 6 and section 5.1). If the values are probabilities, it is a mixture of multinomials. Without
    votes the result is exactly 0.

    Args:
        votes: (galaxies, answers), whole numbers >= 0.
        values: (galaxies, answers, components), concentrations (> 0) or probabilities.
        kind: what the values are, `concentrations` or `probabilities`.
        weights: (galaxies, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        (galaxies,), in nats.
    """
    votes = np.asarray(votes, dtype=float)
    values = np.asarray(values, dtype=float)
    total = votes.sum(axis=1)
    coefficient = special.gammaln(total + 1) - special.gammaln(votes + 1).sum(axis=1)
    if kind == "concentrations":
        answered = special.gammaln(values + votes[:, :, None]) - special.gammaln(values)
        sums = values.sum(axis=1)
        asked = special.gammaln(sums + total[:, None]) - special.gammaln(sums)
        of_components = answered.sum(axis=1) - asked
    else:
        # A probability that underflows must not make votes impossible.
        floor = np.maximum(values, SMALLEST_PROBABILITY)
        of_components = special.xlogy(votes[:, :, None], floor).sum(axis=1)
    shares = 1 / values.shape[2] if weights is None else weights
    mixture = special.logsumexp(of_components, axis=1, b=shares)
    return np.where(total > 0, coefficient + mixture, 0.0)


def describe(id_str, values, about, credible_level, cuts=(), weights=None):
    """Describe posteriors in a flat table, one row per galaxy.

    For each answer of a tree: `{answer}_fraction` (expected vote fraction), `{answer}_low` and
    `{answer}_high` (central credible interval), `{answer}_hd_low` and `{answer}_hd_high`
    (highest-density interval). For each question: `{question}_asked` (share of the volunteers that is
    asked it) and `{question}_entropy` (nats). For each of the cuts: `cut_{name}` (boolean).

    Labels have `{label}` (mean probability) and the same two intervals. Votes and other labels of one model
    have the columns of both.

    Args:
        id_str: (galaxies,) names.
        values: (galaxies, answers, components).
        about: attributes kind (`concentrations`, `probabilities`, `values` or `mixed`), tree (a
            `DecisionTree`, its plain values, or None for labels) and columns (names of the answers); where
            the kind is `mixed` also labels (plain values of each `Label`); where labels are recalibrated also
            bounds (lowest and highest value of each column).
        credible_level: mass of the intervals, between 0 and 1.
        cuts: `DecisionTree.cuts` to apply.
        weights: (galaxies, questions, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        pandas.DataFrame: id_str, then float32 and boolean columns.
    """
    if about.kind == "mixed":
        return _describe_mixed(id_str, values, about, credible_level, cuts)
    tree = DecisionTree.from_dict(about.tree) if isinstance(about.tree, dict) else about.tree
    values = np.asarray(values, dtype=float)
    fractions = mean_fractions(values, tree, weights) if tree else values.mean(axis=2)
    ends = both_intervals(values, tree, credible_level, about.kind, weights)
    if not tree and getattr(about, "bounds", None):
        # The mean of the components is what the model predicts; only what is shown ends at the bounds.
        fractions, *ends = (np.clip(numbers, *about.bounds) for numbers in (fractions, *ends))
    of_answers = {
        "_fraction" if tree else "": fractions,
        **dict(zip(("_low", "_high", "_hd_low", "_hd_high"), ends, strict=True)),
    }
    columns = _named(about.columns, of_answers)
    if tree:
        of_questions = {
            "_asked": probability_asked(fractions, tree),
            "_entropy": entropies(fractions, tree),
        }
        columns |= _named([question.name for question in tree.questions], of_questions)
    if tree:
        columns |= {f"cut_{name}": passed for name, passed in suggested_cuts(fractions, tree, cuts).items()}
    return pd.DataFrame({"id_str": np.asarray(id_str, dtype=str), **columns})


def _describe_mixed(id_str, values, about, credible_level, cuts):
    """The columns of all labels, as `describe` makes them for a model of each label alone."""
    tables = []
    for label, of_label in by_label([Label.from_dict(content) for content in about.labels], values):
        here = [about.columns.index(column) for column in label.outputs]
        bounds = getattr(about, "bounds", None)
        own = {"bounds": bounds and [ends[here] for ends in bounds], "tree": label.tree}
        own = SimpleNamespace(kind=kind_of_outputs([label]), columns=label.outputs, **own)
        tables.append(describe(id_str, of_label, own, credible_level, cuts))
    return pd.concat([tables[0], *(table.drop(columns="id_str") for table in tables[1:])], axis=1)


def _named(names, blocks):
    """Columns of a table, {name + ending: (galaxies,) float32}, from {ending: (galaxies, names)}."""
    return {
        f"{name}{ending}": block[:, number].astype(np.float32)
        for number, name in enumerate(names)
        for ending, block in blocks.items()
    }
