"""What the page knows of each galaxy: the flat catalogue, its information, its votes or labels, its image."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from zoolib.config.labels import Label
from zoolib.data.locations import PLACES
from zoolib.data.tables import read_batches
from zoolib.job.words import in_words
from zoolib.posteriors.columns import meanings
from zoolib.posteriors.files import read_described
from zoolib.posteriors.with_votes import read_votes

# Rows of a table that are read together.
ROWS = 65_536
# A page has at most so many galaxies: more would fill the memory of a browser, and a folder of sheets.
MOST = 100_000
# What the page calls the columns of an answer or an output, and of a question or label.
OF_ANSWERS = {
    "_fraction": "expected fraction",
    "": "mean",
    "_low": "low end of the interval",
    "_high": "high end of the interval",
    "_hd_low": "low end of the densest interval",
    "_hd_high": "high end of the densest interval",
    "_fraction_with_votes": "expected fraction with votes",
    "_fraction_with_votes_low": "low end with votes",
    "_fraction_with_votes_high": "high end with votes",
    "_votes": "votes",
}
OF_QUESTIONS = {"_asked": "asked", "_entropy": "entropy", "_information": "information", "_label": "label"}
# What the columns mean that the flat catalogue does not have.
ADDED = {
    "_votes": "volunteers who gave this answer",
    "_label": "what the table of labels says",
    "_information": "the part of the information that is about this question or label, in nats",
}
# Endings of columns that are shares, from 0 to 1.
SHARES = ("_fraction", "_asked", "_fraction_with_votes", "unfamiliar")
INFORMATION = "how much votes, or one more label, would say about the model, in nats"


class Panel(NamedTuple):
    """A question of a tree or a label, as the page shows it.

    Attributes:
        name: of the question or label.
        title: its name in words.
        columns: names of its answers or outputs.
        answers: what the page calls these.
        after: columns of the answers that lead here.
        kind: `votes`, `classes` (their probabilities) or `number`.
        low: where the axis of its posteriors begins.
        high: where it ends.
    """

    name: str
    title: str
    columns: list
    answers: list
    after: list
    kind: str
    low: float = 0.0
    high: float = 1.0


def choose(parts, most=MOST):
    """Choose the galaxies of a page.

    If there are too many, those with the smallest hashes of their names are taken: a random choice that does
    not change much when galaxies come to the target.

    Args:
        parts: Parquet files of a flat catalogue.
        most: galaxies on a page.

    Returns:
        (rows (galaxies,) of each part, as a list; the number of all galaxies).

    Raises:
        UserError: a file is not such a catalogue, or the parts do not belong together.
    """
    names = read_described(parts, [])[0]["id_str"].to_numpy(object)
    ends = np.cumsum([pq.read_metadata(part).num_rows for part in parts])
    chosen = np.ones(len(names), bool)
    if len(names) > most:
        hashes = pd.util.hash_array(names)
        chosen = hashes <= np.partition(hashes, most - 1)[most - 1]
    return [np.flatnonzero(some) for some in np.split(chosen, ends[:-1])], len(names)


def read_flat(parts, rows):
    """Some rows of a flat catalogue.

    Args:
        parts: its Parquet files.
        rows: of each part, as `choose` gives them.

    Returns:
        (data frame, what `read_described` says about it).

    Raises:
        UserError: a file is not such a catalogue.
    """
    frames = []
    for part, some in zip(parts, rows, strict=True):
        frame, about = read_described([part])
        frames.append(frame.iloc[some])
    return pd.concat(frames, ignore_index=True), about


def read_information(ranked, names):
    """The information of galaxies.

    Args:
        ranked: `label_next.csv` of their target.
        names: (galaxies,) id_str.

    Returns:
        Data frame of information and, if there are several, that of each question or label.
    """
    found = [
        table[table["id_str"].isin(names)].drop(columns="rank")
        for table in read_batches(ranked, lambda columns: columns, ("id_str",), ROWS)
    ]
    return pd.concat(found).set_index("id_str").reindex(names).astype(np.float32).reset_index(drop=True)


def read_rows(tables, names):
    """Where the images of galaxies are.

    Args:
        tables: catalogues or lists of galaxies.
        names: (galaxies,) id_str.

    Returns:
        A list of dicts with archive, member, file_loc and, of a list, what was `seen` there; None for a
        galaxy that no table has.
    """
    found, index, wanted = [None] * len(names), pd.Index(names), ("id_str", *PLACES, "seen")

    def choose_columns(columns):
        return [name for name in wanted if name in columns]

    for path in tables:
        for table in read_batches(path, choose_columns, wanted, ROWS):
            places = index.get_indexer(table["id_str"])
            for place, row in zip(places, table.to_dict("records"), strict=True):
                if place >= 0:
                    found[place] = row
    return found


def read_said(tables, panels, opened, names):
    """What volunteers or labels say of galaxies.

    Args:
        tables: catalogues, or tables of a user, which may have votes or labels.
        panels: from `panels_of`.
        opened: the `Predictions` of the galaxies.
        names: (galaxies,) id_str.

    Returns:
        Data frame with the columns `{answer}_votes` and `{label}_label`; without columns if no table has any.
    """
    said = {}
    labels = opened.named_labels or []
    trees = [opened.tree] if opened.tree else [label.tree for label in labels if label.kind == "votes"]
    for tree in trees:
        votes = read_votes(tables, tree, names)
        if votes is not None:
            said |= {f"{name}_votes": votes[:, number] for number, name in enumerate(tree.columns)}
    of_labels = [panel.name for panel in panels if panel.kind != "votes"]
    if of_labels:
        known = _columns(tables, of_labels, names)
        said |= {f"{name}_label": known[name] for name in known}
    return pd.DataFrame(said, dtype=np.float32)


def _columns(tables, wanted, names):
    """Columns of numbers by the galaxies' names; those that no table has are left out."""
    found, index = {}, pd.Index(names)

    def choose_columns(columns):
        return [name for name in columns if name in ("id_str", *wanted)]

    for path in tables:
        for table in read_batches(path, choose_columns, ("id_str",), ROWS):
            if "id_str" not in table:
                break
            rows = index.get_indexer(table["id_str"])
            for name in table.columns.drop("id_str"):
                numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
                column = found.setdefault(name, np.full(len(names), np.nan))
                column[rows[rows >= 0]] = numbers[rows >= 0]
    return found


def panels_of(opened, frame):
    """The questions and labels of some predictions, in the order of the columns of the predictions.

    Args:
        opened: `Predictions`.
        frame: their flat catalogue, whose values say where the axes of numbers end.

    Returns:
        A list of `Panel`.
    """
    if opened.tree:
        return _of_tree(opened.tree)
    kind = "regression" if opened.kind == "values" else "binary"
    panels = []
    for label in opened.named_labels or [Label(name, kind) for name in opened.columns]:
        if label.kind == "votes":
            panels += _of_tree(label.tree)
            continue
        panel = Panel(label.name, in_words(label.name), label.outputs, [""], [], "number")
        if label.kind == "multiclass":
            panel = panel._replace(answers=list(label.classes), kind="classes")
        elif label.kind == "binary":
            words = label.classes[1:] or ("yes",)
            panel = panel._replace(answers=list(words), kind="classes")
        else:
            low, high = _axis(frame, label.name)
            panel = panel._replace(low=low, high=high)
        panels.append(panel)
    return panels


def _of_tree(tree):
    return [
        Panel(
            question.name,
            in_words(question.name),
            question.columns,
            [in_words(answer) for answer in question.answers],
            list(question.after),
            "votes",
        )
        for question in tree.questions
    ]


def _axis(frame, name):
    """Where the axis of a number begins and ends: somewhat beyond all intervals."""
    low, high = frame[f"{name}_low"].min(), frame[f"{name}_high"].max()
    beyond = 0.25 * (high - low) or 1.0
    return float(low - beyond), float(high + beyond)


def describe_columns(frame, panels, level):
    """What the page says of each column.

    Args:
        frame: data frame of numbers.
        panels: from `panels_of`.
        level: mass of the intervals.

    Returns:
        A list of dicts: name, group (the title of its panel, or ""), title (what it is within the group),
        about (a sentence), low and high (of its values, or 0 to 1 for shares).
    """
    groups, added = {}, {"information": INFORMATION}
    for panel in panels:
        names = {f"{panel.name}{ending}": (ending, word) for ending, word in OF_QUESTIONS.items()}
        for column, answer in zip(panel.columns, panel.answers, strict=True):
            for ending, word in OF_ANSWERS.items():
                names.setdefault(f"{column}{ending}", (ending, f"{answer}: {word}" if answer else word))
        for name, (ending, word) in names.items():
            groups[name] = panel.title, word
            added |= {name: ADDED[ending]} if ending in ADDED else {}
    found, said = [], meanings(["id_str", *frame], level)
    for name, values in frame.items():
        group, title = groups.get(name, ("", in_words(name)))
        low, high = np.fmin.reduce(values, initial=np.inf), np.fmax.reduce(values, initial=-np.inf)
        if low > high:
            # Nothing is known of any galaxy.
            low, high = 0.0, 0.0
        elif name.endswith(SHARES):
            low, high = 0.0, 1.0
        else:
            low, high = _rounded(low, high)
        about = {"name": name, "group": group, "title": title}
        about |= {"about": added.get(name) or said[name].description}
        found.append({**about, "low": low, "high": high})
    return found


def _rounded(low, high):
    """Ends with four digits that hold all values."""
    step = 10.0 ** np.floor(np.log10(max(abs(low), abs(high), 1e-30)) - 3)
    return tuple(float(f"{end * step:.4g}") for end in (np.floor(low / step), np.ceil(high / step)))
