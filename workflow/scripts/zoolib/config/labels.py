"""What a finetuning task learns: labels of several kinds, as numbers that a model can be trained on."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError

KINDS = ("binary", "multiclass", "regression", "votes")
# How tables write yes and no.
WORDS = {"yes": 1, "true": 1, "1": 1, "1.0": 1, "no": 0, "false": 0, "0": 0, "0.0": 0}
# Columns of catalogues, predictions and scores; no label may have one of these names.
RESERVED = (
    "id_str",
    "archive",
    "member",
    "file_loc",
    "location",
    "group",
    "part",
    "pixels",
    "place",
    "position",
    "repeats",
    "split",
    "fit",
    "information",
    "rank",
    "unfamiliar",
)
# What is added to the names of a label's outputs in tables of posteriors and scores.
ENDINGS = ("_low", "_high", "_hd_low", "_hd_high", "_predicted", "_spread", "_rank_low", "_rank_high")


@dataclass(frozen=True)
class Label:
    """One label that a model learns.

    Attributes:
        name: the table's column; for votes, the name of the tree or, beside other labels, one of their own.
        kind: `binary` (no or yes), `multiclass` (one of several classes), `regression` (a number) or
            `votes` (volunteers' answers to the questions of a tree).
        classes: for a multiclass label, the names of the classes in the order of the outputs, empty until
            the table is read; for a binary label, the table's words for no and yes, if not 0 and 1.
        bounds: (lowest, highest) value of a regression, or None for any number.
        yes_above, no_below: they turn a fraction into a binary label: above `yes_above` it is yes, below
            `no_below` it is no, in between there is no label; None if the column holds the label itself.
        tree: for votes, their `DecisionTree`.
    """

    name: str
    kind: str = "binary"
    classes: tuple = ()
    bounds: tuple | None = None
    yes_above: float | None = None
    no_below: float | None = None
    tree: DecisionTree | None = None

    @classmethod
    def from_dict(cls, content):
        """Build a label from plain values: those of the configuration, or those of `to_dict`.

        Args:
            content: {"name", "kind", "classes", "bounds", "yes_above", "no_below", "tree"}; only the
                name is required.

        Returns:
            The label.
        """
        chosen = {key: value for key, value in content.items() if value is not None}
        for key in ("classes", "bounds"):
            if key in chosen:
                chosen[key] = tuple(chosen[key])
        if isinstance(chosen.get("tree"), dict):
            chosen["tree"] = DecisionTree.from_dict(chosen["tree"])
        return cls(**chosen)

    def to_dict(self):
        """The label as plain values; `from_dict` reads them back.

        Returns:
            A dict that can be written as JSON.
        """
        tree = self.tree.to_dict() if self.tree else None
        lists = {key: list(value) if value else None for key, value in (("bounds", self.bounds),)}
        return {**vars(self), **lists, "classes": list(self.classes), "tree": tree}

    @property
    def targets(self):
        """Columns of the catalogue that hold the label: the number of the class, the value, or the votes."""
        return self.tree.columns if self.kind == "votes" else [self.name]

    @property
    def outputs(self):
        """Columns of predictions: the probability of yes or of each class, the value, concentrations."""
        if self.kind == "multiclass":
            return [f"{self.name}_{name}" for name in self.classes]
        return self.targets

    def encode(self, table, origin, places):
        """Turn a table's column into numbers.

        Args:
            table: a data frame.
            origin: the table's name in error messages.
            places: the name of each row in error messages, such as `rings.csv, row 3`.

        Returns:
            (the label, with classes from the table if none were given; (rows,) Series of float64, NaN
            where there is no label; (rows,) boolean Series: whether the cell is blank).

        Raises:
            UserError: the column is missing, a cell has a value that is not allowed, or a multiclass
                label has fewer than two classes.
        """
        if self.name not in table:
            shown = ", ".join(map(str, table.columns[:6])) + (", …" if len(table.columns) > 6 else "")
            raise UserError(
                f"{origin}: has no column '{self.name}' for the label; it has {shown}; fix the label's name."
            )
        cells = table[self.name]
        blank = cells.isna() | (cells.astype(str).str.strip() == "")
        label, numbers, wrong, expected = self._read(cells, blank, origin)
        wrong &= ~blank
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            more = f" (one of {wrong.sum()} such rows)" if wrong.sum() > 1 else ""
            raise UserError(
                f"{places[first]}: the label '{self.name}' is '{cells.iloc[first]}', expected {expected}"
                f"{more}; fix the cell, or exclude such rows with query."
            )
        return label, numbers.where(~blank), blank

    def _read(self, cells, blank, origin):
        """The label, its numbers, which cells are wrong, and what was expected in them."""
        if self.kind == "regression" or self.yes_above is not None:
            numbers = pd.to_numeric(cells, errors="coerce").astype(float)
            wrong = ~np.isfinite(numbers)
            if self.kind == "regression":
                low, high = self.bounds or (-np.inf, np.inf)
                expected = f"a number from {low:g} to {high:g}" if self.bounds else "a number"
                return self, numbers, wrong | (numbers < low) | (numbers > high), expected
            wrong |= (numbers < 0) | (numbers > 1)
            yes, no = numbers > self.yes_above, numbers < self.no_below
            numbers = pd.Series(np.select([yes, no], [1.0, 0.0], np.nan), index=cells.index)
            return self, numbers, wrong, "a fraction from 0 to 1"
        words = cells.map(as_word).where(~blank)
        if self.kind == "binary" and not self.classes:
            numbers = words.str.lower().map(WORDS).astype(float)
            return self, numbers, numbers.isna(), "0 or 1"
        label = self if self.classes else replace(self, classes=_classes(words))
        if len(label.classes) < 2:
            found = f"only the class {label.classes[0]}" if label.classes else "no class"
            raise UserError(
                f"{origin}: the label '{self.name}' has {found}, expected two or more classes; label galaxies"
                " of another class, too."
            )
        numbers = words.map({name: number for number, name in enumerate(label.classes)}).astype(float)
        return label, numbers, numbers.isna(), f"one of {', '.join(label.classes)}"

    def shown(self, number):
        """A target as text: the name of its class, or, if there are no classes, the number itself.

        Args:
            number: a target.

        Returns:
            text.
        """
        return self.classes[int(number)] if self.classes else f"{number:g}"


def kind_of_outputs(labels):
    """What the outputs of a model for some labels are.

    Args:
        labels: a list of `Label`.

    Returns:
        `concentrations` of votes, `probabilities` of classes, `values` where one of the labels is a number,
        or `mixed`: concentrations, and beside them what the other labels have.
    """
    kinds = {label.kind for label in labels}
    if "votes" in kinds:
        return "concentrations" if kinds == {"votes"} else "mixed"
    return "values" if "regression" in kinds else "probabilities"


def by_label(labels, values):
    """Take the outputs of all labels apart.

    Args:
        labels: a list of `Label`.
        values: (galaxies, outputs of all labels, ...).

    Yields:
        (label, its outputs (galaxies, outputs, ...)).
    """
    ends = np.cumsum([len(label.outputs) for label in labels])[:-1]
    yield from zip(labels, np.split(values, ends, axis=1), strict=True)


def _classes(words):
    """The classes in a column, sorted by value if all are numbers, else by alphabet."""
    found = sorted(words.dropna().unique())
    numbers = pd.to_numeric(pd.Series(found, dtype=object), errors="coerce")
    if numbers.notna().all():
        found.sort(key=float)
    return tuple(found)


def as_word(cell):
    """A cell as text; 3.0 becomes 3, as blanks in a column turn its whole numbers into floats.

    Args:
        cell: of a column of a table.

    Returns:
        text.
    """
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def check_names(labels, where):
    """Check that every table has each of its columns once, whatever the labels and classes are called.

    Args:
        labels: a list of `Label`; classes that are not known yet are not checked.
        where: what error messages begin with, such as the task's key.

    Raises:
        UserError: says which label or class it is, and what has the same name.
    """
    taken = dict.fromkeys(RESERVED, "tables of the pipeline")
    for label in labels:
        own = [f"{output}{ending}" for output in label.outputs for ending in ("", *ENDINGS)]
        own += [] if label.name in own or label.kind == "votes" else [label.name]
        if label.kind == "votes" and len(labels) > 1:
            own += _of_questions(label.tree, own)
        for position, column in enumerate(own):
            if column in taken or column in own[:position]:
                other = taken.get(column, f"the label '{label.name}'")
                raise UserError(
                    f"{where}: no label can be called '{label.name}' here: it has a column '{column}', and"
                    f" {other} {'have' if column in RESERVED else 'has'} one of this name too; rename the"
                    " label or its class."
                )
        taken |= dict.fromkeys(own, f"the label '{label.name}'")


def _of_questions(tree, known):
    """What tables have of the questions of a tree, besides the columns of its answers that are known."""
    endings = ("", "_asked", "_entropy", "_information", "_nats")
    names = [f"{question.name}{ending}" for question in tree.questions for ending in endings]
    names += ["all_nats", "all questions", *(f"{answer}_fraction" for answer in tree.columns)]
    return [name for name in dict.fromkeys(names) if name not in known]


def check_learnable(labels, table, origin):
    """Check that there is something to learn: no label has only one value.

    Args:
        labels: a list of `Label`.
        table: data frame with the labels' target columns, as numbers.
        origin: what error messages begin with, such as the task's split.

    Raises:
        UserError: says which label it is, and its only value.
    """
    for label in labels:
        if label.kind == "votes":
            if not table[label.targets].to_numpy().any():
                raise UserError(
                    f"{origin}: none of the {len(table)} galaxies has a vote; use galaxies with votes."
                )
            continue
        values = table[label.name]
        if values.nunique() > 1:
            continue
        shown = label.shown(values.iloc[0]) if len(values) else "nothing"
        both = {"binary": "both 0 and 1", "multiclass": "two or more classes"}
        raise UserError(
            f"{origin}: all {len(values)} galaxies have {label.name} = {shown}, expected"
            f" {both.get(label.kind, 'different values')}; label more galaxies, or change the task's query or"
            " split."
        )
