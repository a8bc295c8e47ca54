"""Galleries of galaxies on which volunteers and models differ, or on which the model is unsure."""

import itertools

import numpy as np
from scipy import special

from zoolib.figures.gallery import draw_tiles
from zoolib.figures.style import drawing, write_message
from zoolib.job.words import in_words
from zoolib.posteriors.summary import log_predictive

# Number of votes whose entropy is computed, as in the paper.
ASKED = 10
BINS = 5


def draw_two_or_cannot_tell(held, output, across=6):
    """Draw spirals with two arms, or with arms that cannot be counted (figure 17 of Walmsley et al. 2022).

    Args:
        held: `HeldOut`.
        output: PNG to write.
        across: galaxies in a row.
    """
    question = held.question("spiral-arm-count")
    two, lost = (question.answers.index(answer) for answer in ("2", "cant-tell"))
    relevant = held.relevant(question)
    votes, fractions = held.votes[:, question.slice], held.fractions[:, question.slice]
    said, predicted = votes.argmax(axis=1), fractions.argmax(axis=1)
    rows = []
    for true, called in ((two, lost), (lost, two), (two, two), (lost, lost)):
        found = np.flatnonzero(relevant & (said == true) & (predicted == called))
        tiles = []
        for galaxy in found[:across]:
            mine = f"2: {fractions[galaxy, two]:.2f}, can't tell: {fractions[galaxy, lost]:.2f}"
            theirs = f"{votes[galaxy, two]:g} and {votes[galaxy, lost]:g} of {votes[galaxy].sum():g} votes"
            tiles.append((held.galaxies.iloc[galaxy].to_dict(), mine, theirs))
        names = [in_words(question.answers[answer]) for answer in (true, called)]
        rows.append((f"Votes:\n{names[0]}\nModel:\n{names[1]}\n({len(found):,})", tiles))
    subtitle = (
        f"Galaxies where most volunteers were asked for the number of arms ({relevant.sum():,}), by the first"
        " choice of the volunteers and of the model"
    )
    draw_tiles(rows, "Two arms, or can't tell", subtitle, output, across)


def vote_entropies(values, kind, asked=ASKED, weights=None):
    """Entropy of the votes that a question will get.

    Args:
        values: (galaxies, answers, components) of one question.
        kind: `concentrations` or `probabilities`.
        asked: number of votes.
        weights: (galaxies, components), >= 0, with the sum 1; None if all components are equal.

    Returns:
        (galaxies,) in nats: the entropy of the mixture of all components, over all possible votes.
    """
    answers = values.shape[1]
    entropy = np.zeros(len(values))
    for cuts in itertools.combinations(range(asked + answers - 1), answers - 1):
        votes = np.diff([-1, *cuts, asked + answers - 1]) - 1
        log_probability = log_predictive(np.broadcast_to(votes, values.shape[:2]), values, kind, weights)
        entropy += special.entr(np.exp(log_probability))
    return entropy


def draw_entropies(held, output, across=6):
    """Draw galaxies from the surest to the least sure prediction (figure 18 of Walmsley et al. 2022).

    Args:
        held: `HeldOut`.
        output: PNG to write.
        across: galaxies in a row.
    """
    question = held.tree.questions[0]
    entropy = vote_entropies(held.values[:, question.slice], held.kind, weights=held.shares(question))
    if len(entropy) < BINS:
        with drawing([output], figsize=(10, 4)) as figure:
            write_message(figure, f"Too few galaxies ({len(entropy)}; this figure needs {BINS}).")
        return
    featured = 1
    votes, fractions = held.votes[:, question.slice], held.fractions[:, question.slice]
    rows = []
    for of_bin in np.array_split(np.argsort(entropy, kind="stable"), BINS):
        shown = of_bin[np.linspace(0, len(of_bin) - 1, min(across, len(of_bin))).round().astype(int)]
        tiles = []
        for galaxy in shown:
            mine = f"featured: {fractions[galaxy, featured]:.2f}"
            theirs = f"{votes[galaxy, featured]:g} of {votes[galaxy].sum():g} votes"
            tiles.append((held.galaxies.iloc[galaxy].to_dict(), mine, theirs))
        low, high = entropy[of_bin[[0, -1]]]
        rows.append((f"{low:.2f} to\n{high:.2f} nats", tiles))
    subtitle = (
        f"Entropy of {ASKED} votes on '{in_words(question.name)}', as the model predicts them; each row has a"
        f" fifth of the {len(entropy):,} galaxies"
    )
    draw_tiles(rows, "From the surest to the least sure", subtitle, output, across)
