"""The galaxies of which a finetuned model is surest and least sure, and its worst mistakes."""

import numpy as np
from scipy.special import entr

from zoolib.figures.gallery import draw_tiles
from zoolib.job.words import in_words
from zoolib.scores.outcomes import outcomes, read_galaxies


def draw_task_gallery(galaxies, title, output, across=6):
    """Draw rows of test galaxies for each label, or each question of a tree.

    A model is surest where its probabilities have the lowest entropy, or where its samples of a number
    have the smallest spread. The worst mistakes are the wrong predictions with the lowest probability of
    the label, or the largest errors.

    Args:
        galaxies: Parquet of `evaluate_task`.
        title: title of the figure.
        output: PNG to write.
        across: galaxies in a row.
    """
    labels, table = read_galaxies(galaxies)
    tested = table[table["split"] == "test"].reset_index(drop=True)
    rows = []
    shown = [
        outcome for outcome in outcomes(labels, tested) if outcome.classes or outcome.kind == "regression"
    ]
    for outcome in shown:
        for name, places in choose(outcome, across).items():
            tiles = [(tested.loc[outcome.rows[place]].to_dict(), *_lines(outcome, place)) for place in places]
            name = name if len(shown) == 1 else f"{in_words(outcome.name)}:\n{name.lower()}"
            rows.append((name, tiles))
    subtitle = (
        "First line: mean and standard deviation (±) of the model's samples. Second line: label."
        f" Test galaxies: {len(tested):,}"
    )
    draw_tiles(rows, in_words(title), subtitle, output, across)


def choose(outcome, count):
    """Choose the galaxies that a gallery shows.

    Args:
        outcome: `Outcome`.
        count: galaxies in a row.

    Returns:
        {name of a row: positions of galaxies in the outcome}, in the order in which they are shown.
    """
    every = np.arange(len(outcome.rows))
    if outcome.kind == "regression":
        unsure = outcome.spread[:, 0]
        wrong = np.abs(outcome.predicted[:, 0] - outcome.truth)
        mistakes = every
    else:
        probabilities = outcome.probabilities
        unsure = entr(probabilities).sum(axis=1)
        wrong = -probabilities[every, outcome.truth.astype(int)]
        mistakes = every[probabilities.argmax(axis=1) != outcome.truth]
    worst = mistakes[np.argsort(-wrong[mistakes], kind="stable")]
    rows = {"Least sure": np.argsort(-unsure, kind="stable")[:count], "Worst mistakes": worst[:count]}
    if outcome.kind != "binary":
        return {"Surest": np.argsort(unsure, kind="stable")[:count], **rows}
    order = np.argsort(outcome.predicted[:, 0], kind="stable")
    yes, no = outcome.classes[1], outcome.classes[0]
    return {f"Surest {yes}": order[::-1][:count], f"Surest {no}": order[:count], **rows}


def _lines(outcome, place):
    """The two lines below a galaxy."""
    value, spread = outcome.predicted[place], outcome.spread[place]
    if outcome.kind == "regression":
        return f"{value[0]:.3g} ± {spread[0]:.2g}", f"labelled {outcome.truth[place]:.4g}"
    labelled = outcome.classes[int(outcome.truth[place])]
    if outcome.kind == "binary":
        return f"{outcome.name} {value[0]:.2f} ± {spread[0]:.2f}", f"labelled {labelled}"
    called = int(value.argmax())
    verb = "volunteers:" if outcome.kind == "votes" else "labelled"
    return f"{outcome.classes[called]} {value[called]:.2f} ± {spread[called]:.2f}", f"{verb} {labelled}"
