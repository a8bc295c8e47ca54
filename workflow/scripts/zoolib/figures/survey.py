"""The galaxies of a survey for which a model gives the highest values, and those that it does not know."""

import pandas as pd

from zoolib.figures.gallery import draw_tiles
from zoolib.job.words import in_words
from zoolib.posteriors.files import read_described
from zoolib.posteriors.unfamiliar import UNLIKE

# Most rows of a figure: a tree or a list of labels may have more answers.
ROWS = 8
COLUMNS = ["id_str", "archive", "member", "file_loc"]


def draw_survey(descriptions, places, title, output, across=6):
    """Draw the galaxies with the highest values, and those most unlike the training set, of a survey.

    The values are the expected vote fractions of the answers to the first question, or the labels. One part
    of the catalogue is read at a time, so the memory does not grow with the survey.

    Args:
        descriptions: Parquet parts of the flat catalogue.
        places: Parquet files with the columns `COLUMNS`.
        title: title of the figure.
        output: PNG to write.
        across: galaxies in a row.
    """
    head, about = read_described(descriptions[:1])
    shown = {**_values(head, about["tree"]), "unlike the training set": ("unfamiliar",)}
    best, count = {}, 0
    for part in descriptions:
        table, _ = read_described([part], list(dict.fromkeys(sum(shown.values(), ()))))
        count += len(table)
        for name, (value, *_) in shown.items():
            best[name] = pd.concat([best.get(name), table]).nlargest(across, value)
    found = _places(places, {galaxy for rows in best.values() for galaxy in rows["id_str"]})
    rows = []
    for name, (value, *ends) in shown.items():
        chosen = best[name] if ends else best[name][best[name][value] > UNLIKE]
        tiles = [(found[row["id_str"]], *_lines(row, value, ends)) for row in chosen.to_dict("records")]
        rows.append((in_words(name), tiles))
    subtitle = (
        f"The highest values, with {about['credible_level']:.0%} intervals, and the galaxies most unlike the"
        f" training set (unfamiliar above {UNLIKE}). Galaxies in all: {count:,}"
    )
    draw_tiles(rows, title, subtitle, output, across)


def _values(table, tree):
    """What each row shows: {its name: the columns of the value and of the ends of its interval}."""
    if tree:
        question = tree.questions[0]
        named = zip(question.answers, question.columns, strict=True)
        shown = {
            answer: tuple(f"{column}_{end}" for end in ("fraction", "low", "high"))
            for answer, column in named
        }
    else:
        labels = [name for name in table if f"{name}_hd_low" in table]
        shown = {label: (label, f"{label}_low", f"{label}_high") for label in labels}
    return dict(list(shown.items())[:ROWS])


def _lines(row, value, ends):
    """The two lines below a galaxy."""
    text = f"{row[value]:.3g}" + (f"  ({row[ends[0]]:.3g} to {row[ends[1]]:.3g})" if ends else "")
    return text, row["id_str"]


def _places(paths, names):
    """Where the images of some galaxies are: {id_str: row}."""
    tables = [pd.read_parquet(path, columns=COLUMNS, filters=[("id_str", "in", names)]) for path in paths]
    return {row["id_str"]: row for table in tables for row in table.to_dict("records")}
