"""Stage search: rank a target's galaxies by what they look like.

Python users: `zoolib.api.similar("J1237+12", "results/demo/predict/all/representations.hdf5")`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.data.tables import place_of, read_table
from zoolib.job.logs import UserError, log, whole
from zoolib.likeness.rankings import more_like, nearest, odd_and_wanted, oddness
from zoolib.likeness.representations import Representations, read_representations

ANSWERS = {"yes": True, "no": False}


def similar(galaxies, representations, count=32):
    """The galaxies that look most like given ones.

    Args:
        galaxies: id_str of one galaxy, or a list of them.
        representations: path of a target's `representations.hdf5`, or `Representations` in memory.
        count: neighbours of each.

    Returns:
        pandas.DataFrame of (given galaxy), rank, id_str, score (likeness, at most 1). A galaxy is not its own
        neighbour.

    Raises:
        UserError: a galaxy is not in the file, or the file cannot be read.
    """
    known = _opened(representations)
    wanted = known.rows_of(_names(galaxies), "galaxies")
    rows, scores = nearest(known.directions, wanted, count)
    table = {"of": np.repeat(known.id_str[wanted], rows.shape[1])}
    table |= {"rank": np.tile(np.arange(1, rows.shape[1] + 1), len(wanted))}
    return pd.DataFrame({**table, "id_str": known.id_str[rows.ravel()], "score": scores.ravel()})


def find_more(yes, representations, no=(), seed=42):
    """All galaxies, those first that look most like wanted ones (see `rankings.more_like`).

    Args:
        yes: id_str of the wanted galaxies: five to twenty are enough to begin with.
        representations: path of a target's `representations.hdf5`, or `Representations` in memory.
        no: id_str of galaxies that are not wanted.
        seed: chooses the galaxies that stand for all others.

    Returns:
        pandas.DataFrame of rank, id_str, score.

    Raises:
        UserError: there is no wanted galaxy, a galaxy is not in the file, or the file cannot be read.
    """
    known, (yes, no) = _with_answers(representations, yes, no)
    if not len(yes):
        raise UserError("No wanted galaxy is given, expected at least one; give the id_str of some.")
    return _ranked(known, more_like(known.directions, yes, no, seed))


def find_odd(representations, yes=(), no=(), seed=42):
    """All galaxies, those first that look least like others (see `rankings.oddness`).

    Args:
        representations: path of a target's `representations.hdf5`, or `Representations` in memory.
        yes: id_str of odd galaxies that are interesting: galaxies like these come first.
        no: id_str of odd galaxies that are not.
        seed: chooses the galaxies that all are compared with, where there are more than 1,000.

    Returns:
        pandas.DataFrame of rank, id_str, score: without answers the distance to the 20th nearest galaxy,
        relative to the median; with answers its logarithm and the score of a regression on them.

    Raises:
        UserError: a galaxy is not in the file, or the file cannot be read.
    """
    known, (yes, no) = _with_answers(representations, yes, no)
    odd = oddness(known.values, seed)
    return _ranked(known, odd_and_wanted(odd, known.directions, yes, no, seed))


def _opened(representations):
    known = representations
    return known if isinstance(known, Representations) else read_representations(known)


def _names(galaxies):
    return list(dict.fromkeys([galaxies] if isinstance(galaxies, str) else galaxies))


def _with_answers(representations, yes, no):
    known, yes, no = _opened(representations), _names(yes), _names(no)
    if both := set(yes) & set(no):
        raise UserError(f"The galaxy '{min(both)}' has both yes and no; keep one of them.")
    return known, [known.rows_of(names, "galaxies") for names in (yes, no)]


def _ranked(known, scores):
    order = np.argsort(-scores, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    return pd.DataFrame({"rank": ranks, "id_str": known.id_str[order], "score": scores[order]})


def search_galaxies(representations, how, examples, answers, count, seed, output):
    """Rank galaxies, and list those to look at next.

    Args:
        representations: HDF5 of a target (see `likeness.representations`).
        how: `similar`, `more` or `odd`, as the functions above.
        examples: names of galaxies, or the path of a table with a column id_str; [] for `odd`.
        answers: path of a table with the columns id_str and answer (yes, no or blank), or None. For `more`
            and `odd`, a "yes" asks for more of this kind, and a "no" for less. It need not be there yet.
        count: neighbours of each example; galaxies in the list to look at next.
        seed: of the run.
        output: attributes ranked (CSV: rank, id_str, score, and for `similar` the example as `of`) and next
            (CSV: id_str, score, answer; the first galaxies that nobody has answered, to fill in).

    Raises:
        UserError: an example or an answer is of no galaxy of the target, or a file cannot be read.
    """
    known, names = read_representations(representations), read_examples(examples)
    known.rows_of(names, examples if isinstance(examples, str) else "search[].examples")
    yes, no = read_answers(answers) if answers and Path(answers).is_file() else ([], [])
    known.rows_of(yes + no, answers)
    # Whoever has changed their mind about an example has said so.
    yes = [*(name for name in names if name not in no), *yes]
    if how == "similar":
        table = similar(names, known, count)
    elif how == "more":
        table = find_more(yes, known, no, seed)
    else:
        table = find_odd(known, yes, no, seed)
    unseen = table[~table["id_str"].isin([*names, *yes, *no])]
    # The nearest of all examples come first.
    unseen = unseen.sort_values("rank", kind="stable").drop_duplicates("id_str").head(count)
    for path, some in (
        (output.ranked, table),
        (output.next, unseen[["id_str", "score"]].assign(answer="")),
    ):
        with whole(path) as partial:
            some.to_csv(partial, index=False, float_format="%.4f")
    log.info("%s: %s galaxies, %d yes, %d no", how, f"{len(known.id_str):,}", len(set(yes)), len(no))
    if answers and not Path(answers).is_file():
        log.info(
            "%s is not there yet: fill in the column answer of %s, and save it there", answers, output.next
        )


def read_examples(examples):
    """The names of galaxies: a list as it is, or the column id_str of a table."""
    if not isinstance(examples, str | Path):
        return list(examples)
    table = read_table(examples)
    if "id_str" not in table:
        raise UserError(
            f"{examples}: has the columns {', '.join(map(str, table.columns[:6]))}, expected id_str, the"
            " names of the examples."
        )
    return list(dict.fromkeys(table["id_str"].dropna().astype(str)))


def read_answers(path):
    """What a user has answered.

    Args:
        path: a table with the columns id_str and answer: yes, no or blank.

    Returns:
        (names with yes, names with no).

    Raises:
        UserError: a column is missing, an answer is another word, or a galaxy has both answers.
    """
    table = read_table(path, words=("id_str", "answer"))
    missing = {"id_str", "answer"} - set(table)
    if missing:
        raise UserError(
            f"{path}: the column {min(missing)} is missing, found {', '.join(map(str, table.columns[:6]))};"
            " expected id_str and answer, as in next.csv."
        )
    found = {}
    for row, (name, said) in enumerate(zip(table["id_str"], table["answer"], strict=True), 1):
        word = "" if pd.isna(said) else str(said).strip().lower()
        if not word:
            continue
        if word not in ANSWERS:
            raise UserError(f"{place_of(path, row)}: the answer is '{said}', expected yes, no or nothing.")
        if found.setdefault(str(name), ANSWERS[word]) != ANSWERS[word]:
            raise UserError(f"{path}: the galaxy '{name}' has both yes and no; keep one of them.")
    return tuple([name for name, said in found.items() if said == wanted] for wanted in (True, False))
