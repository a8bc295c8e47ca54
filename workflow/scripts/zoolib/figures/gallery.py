"""Galleries: the galaxies of which a model is surest, with what the volunteers said of them."""

from pathlib import Path

import pandas as pd

from zoolib.figures.style import FAINT, drawing, in_words
from zoolib.images import BadImage, load_row
from zoolib.logs import UserError, log
from zoolib.predictions import read_described

# Galaxies that most volunteers would be asked the question for.
LIKELY_ASKED = 0.5
DOTS_AN_INCH = 100
# In pixels of the picture, so that an image's pixels are drawn as they are.
TILE, GAP, CAPTION, MARGIN, HEADER = 200, 12, 46, 190, 84


def draw_galleries(descriptions, catalog, outputs, across=6):
    """Draw, for each answer of some questions, the galaxies with its highest expected vote fraction.

    Only galaxies that most volunteers would be asked the question for are shown.

    Args:
        descriptions: Parquet parts of the flat catalogue of posteriors.
        catalog: catalogue (Parquet) that says where the images are, and the votes if it has any.
        outputs: PNG files to write, each named after a question, e.g. `…/bar.png`.
        across: galaxies an answer.

    Raises:
        UserError: a file is not named after a question of the tree.
    """
    described, about = read_described(descriptions)
    tree = about["tree"]
    galaxies = _join(described, catalog)
    questions = {question.name: question for question in tree.questions} if tree else {}
    for output in outputs:
        question = questions.get(Path(output).stem)
        if question is None:
            raise UserError(
                f"{output}: '{Path(output).stem}' is no question of the predictions' tree; the questions are:"
                f" {', '.join(questions) or 'none, as these are labels'}."
            )
        likely = galaxies[galaxies[f"{question.name}_asked"] >= LIKELY_ASKED]
        rows = []
        for answer, column in zip(question.answers, question.columns, strict=True):
            best = likely.nlargest(across, f"{column}_fraction")
            tiles = [(row, *_posterior_and_votes(row, question, column)) for row in best.to_dict("records")]
            rows.append((in_words(answer), tiles))
        told = (
            f"Highest expected vote fraction, with its {about['credible_level']:.0%} interval, where most"
            f" volunteers would be asked this (galaxies: {len(likely):,})"
        )
        _draw(rows, in_words(question.name), told, output, across)


def draw_label_gallery(descriptions, catalog, label, output, across=6):
    """Draw the galaxies that have a binary label most and least likely, and those between.

    Args:
        descriptions: Parquet parts of the flat catalogue of a finetuned task.
        catalog: catalogue (Parquet) that says where the images are, and the labels if it has any.
        label: name of the label.
        output: PNG to write.
        across: galaxies a row.
    """
    described, _ = read_described(descriptions)
    described = described.rename(columns={label: "_probability"})
    galaxies = _join(described, catalog)
    probability = galaxies["_probability"]
    chosen = {
        "Most likely": probability.nlargest(across).index,
        "Undecided": (probability - 0.5).abs().nsmallest(across).index,
        "Least likely": probability.nsmallest(across).index,
    }
    rows = []
    for title, index in chosen.items():
        tiles = []
        for row in galaxies.loc[index].to_dict("records"):
            labelled = f"labelled {label if row[label] else f'no {label}'}" if label in row else "no label"
            tiles.append((row, f"{row['_probability']:.2f}", labelled))
        rows.append((title, tiles))
    told = f"Probability of the label, and what the galaxy is labelled (galaxies: {len(galaxies):,})"
    _draw(rows, in_words(label), told, output, across)


def _join(described, catalog):
    galaxies = described.merge(pd.read_parquet(catalog), on="id_str", suffixes=("", "_catalog"))
    if galaxies.empty:
        raise UserError(
            f"{catalog}: has none of the {len(described)} galaxies that were predicted; the gallery needs the"
            " catalogue that the predictions were made for."
        )
    return galaxies


def _posterior_and_votes(row, question, column):
    posterior = (
        f"{row[f'{column}_fraction']:.2f}  ({row[f'{column}_low']:.2f} to {row[f'{column}_high']:.2f})"
    )
    if column not in row:
        return posterior, ""
    asked = sum(row[other] for other in question.columns)
    return posterior, f"{row[column]:g} of {asked:g} votes" if asked else "nobody was asked"


def _draw(rows, title, subtitle, output, across):
    """Rows of tiles at whole pixels: (name, [(catalogue row, first line, second line)])."""
    width = MARGIN + across * (TILE + GAP)
    height = HEADER + len(rows) * (TILE + CAPTION + GAP)
    size = (width / DOTS_AN_INCH, height / DOTS_AN_INCH)
    with drawing([output], figsize=size, dpi=DOTS_AN_INCH) as figure:

        def write(x, y, text, **settings):
            figure.text(x / width, 1 - y / height, text, **settings)

        write(20, 22, title, fontsize=19, va="top")
        write(20, 54, subtitle, fontsize=12, va="top", color=FAINT)
        for down, (name, tiles) in enumerate(rows):
            top = HEADER + down * (TILE + CAPTION + GAP)
            write(20, top + TILE / 2, name.replace(" ", "\n", 1), va="center", fontsize=15)
            if not tiles:
                write(MARGIN, top + TILE / 2, "no such galaxy here", va="center", color=FAINT)
            for position, (row, first, second) in enumerate(tiles):
                left = MARGIN + position * (TILE + GAP)
                place = (left / width, 1 - (top + TILE) / height, TILE / width, TILE / height)
                panel = figure.add_axes(place)
                panel.set_axis_off()
                panel.imshow(_pixels(row), interpolation="none")
                write(left, top + TILE + 5, first, va="top", fontsize=12)
                write(left, top + TILE + 23, second, va="top", fontsize=11, color=FAINT)


def _pixels(row):
    """The whole image of a galaxy in its colours, as large as a tile."""
    try:
        return load_row(row, TILE, color=True)
    except BadImage as error:
        log.warning("%s", error)
        return [[[225, 225, 225]]]
