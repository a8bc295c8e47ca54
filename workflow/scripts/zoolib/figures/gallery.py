"""Galleries: the galaxies of which a model is surest, with the volunteers' votes."""

from pathlib import Path

import pandas as pd

from zoolib.data.images import BadImage, load_row
from zoolib.figures.style import FAINT, drawing
from zoolib.job.logs import UserError, log
from zoolib.job.words import in_words
from zoolib.posteriors.files import read_described
from zoolib.posteriors.summary import RELEVANT

DOTS_AN_INCH = 100
# In pixels of the figure, so that the pixels of an image are drawn without another scaling.
TILE, GAP, CAPTION, MARGIN, HEADER = 200, 12, 46, 190, 84


def draw_galleries(descriptions, catalog, outputs, across=6):
    """Draw, for each answer of some questions, the galaxies with its highest expected vote fraction.

    Only galaxies that most volunteers would be asked the question for are shown.

    Args:
        descriptions: Parquet parts of the flat catalogue of posteriors.
        catalog: catalogue (Parquet) that says where the images are, and the votes if it has any.
        outputs: PNG files to write, each named after a question, e.g. `…/bar.png`.
        across: galaxies for each answer.

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
        likely = _likely_asked(galaxies, question)
        rows = [
            (in_words(answer), _surest(galaxies, question, column, across))
            for answer, column in zip(question.answers, question.columns, strict=True)
        ]
        subtitle = (
            f"The highest expected vote fractions, with {about['credible_level']:.0%} intervals, among the"
            f" galaxies where most volunteers would be asked this question ({len(likely):,})"
        )
        draw_tiles(rows, in_words(question.name), subtitle, output, across)


def draw_surest(descriptions, catalog, answers, title, output, across=8):
    """Draw the galaxies with the highest expected vote fraction for some answers of any questions.

    Args:
        descriptions: Parquet parts of the flat catalogue of posteriors.
        catalog: catalogue (Parquet) that says where the images are, and the votes if it has any.
        answers: {name of a row: column of the answer, such as `bar_strong`}.
        title: title of the figure.
        output: PNG to write.
        across: galaxies for each answer.
    """
    described, about = read_described(descriptions)
    galaxies = _join(described, catalog)
    owner = {column: question for question in about["tree"].questions for column in question.columns}
    rows = []
    for name, column in answers.items():
        likely = len(_likely_asked(galaxies, owner[column]))
        # A name without a line break gets one at its first space.
        name = name if "\n" in name else name.replace(" ", "\n", 1)
        rows.append((f"{name}\n({likely:,})", _surest(galaxies, owner[column], column, across)))
    subtitle = (
        f"The highest expected vote fractions, with {about['credible_level']:.0%} intervals, among the"
        " galaxies where most volunteers would be asked the question (number in brackets)"
    )
    draw_tiles(rows, title, subtitle, output, across)


def _likely_asked(galaxies, question):
    return galaxies[galaxies[f"{question.name}_asked"] >= RELEVANT]


def _surest(galaxies, question, column, across):
    best = _likely_asked(galaxies, question).nlargest(across, f"{column}_fraction")
    return [(row, *_posterior_and_votes(row, question, column)) for row in best.to_dict("records")]


def _join(described, catalog):
    galaxies = described.merge(pd.read_parquet(catalog), on="id_str", suffixes=("", "_catalog"))
    if galaxies.empty:
        raise UserError(
            f"{catalog}: has none of the {len(described)} galaxies that were predicted; give the catalogue"
            " that the predictions were made for."
        )
    return galaxies


def _posterior_and_votes(row, question, column):
    posterior = (
        f"{row[f'{column}_fraction']:.2f}  ({row[f'{column}_low']:.2f} to {row[f'{column}_high']:.2f})"
    )
    if column not in row:
        return posterior, ""
    asked = sum(row[other] for other in question.columns)
    return posterior, f"{row[column]:g} of {asked:g} votes" if asked else "no votes"


def draw_tiles(rows, title, subtitle, output, across):
    """Draw rows of galaxies, with two lines of text below each.

    Args:
        rows: [(name of the row, [(row of a catalogue, first line, second line) for each galaxy])].
        title: title of the figure.
        subtitle: text below the title.
        output: PNG to write.
        across: most galaxies in a row.
    """
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
            shown = name if "\n" in name else name.replace(" ", "\n", 1)
            write(20, top + TILE / 2, shown, va="center", fontsize=15)
            if not tiles:
                write(MARGIN, top + TILE / 2, "no such galaxy", va="center", color=FAINT)
            for position, (row, first, second) in enumerate(tiles):
                left = MARGIN + position * (TILE + GAP)
                place = (left / width, 1 - (top + TILE) / height, TILE / width, TILE / height)
                panel = figure.add_axes(place)
                panel.set_axis_off()
                panel.imshow(tile_pixels(row), interpolation="none")
                write(left, top + TILE + 5, first, va="top", fontsize=12)
                write(left, top + TILE + 23, second, va="top", fontsize=11, color=FAINT)


def tile_pixels(row):
    """Read the complete image of a galaxy in colour, in the size of a tile.

    Args:
        row: row of a catalogue, a dict.

    Returns:
        (pixels, pixels, 3), 0 to 255; one grey pixel if the image cannot be read.
    """
    try:
        return load_row(row, TILE, color=True)
    except BadImage as error:
        log.warning("%s", error)
        return [[[225, 225, 225]]]
