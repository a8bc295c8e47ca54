"""Which galaxies of a table can be used: the steps that catalogues of votes and of labels have in common."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.data import locations
from zoolib.data.images import BadImage, digest
from zoolib.data.tables import IDS, LOCATIONS, find_column, place_of, read_names, read_table, select
from zoolib.job.logs import UserError, log


@dataclass
class Cuts:
    """Counts the galaxies that are left after each step, and stores why others are rejected.

    Attributes:
        key: what error messages call the table's entry of the configuration.
        steps: {step: galaxies left}.
        rows: data frames of id_str and reason.
    """

    key: str = "catalogs"
    steps: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)

    def count(self, step, table):
        """Count the galaxies that are left after a step.

        Args:
            step: its name.
            table: a data frame, one row a galaxy.

        Returns:
            The table.
        """
        self.steps[step] = self.steps.get(step, 0) + len(table)
        log.info("%s: %s galaxies", step, f"{len(table):,}")
        return table

    def select(self, step, table, chosen):
        """Remove the galaxies that are not wanted.

        Args:
            step: its name.
            table: a data frame, one row a galaxy.
            chosen: (rows,) boolean.

        Returns:
            The chosen rows, with the index 0, 1, ….

        Raises:
            UserError: no row is chosen.
        """
        left = table[chosen].reset_index(drop=True)
        if left.empty:
            raise UserError(
                f"{self.key}: none of {len(table)} galaxies is left after the step '{step}'; relax it."
            )
        return self.count(step, left)

    def reject(self, step, table, reasons):
        """Remove the galaxies that cannot be used, and store the reasons.

        Args:
            step: its name.
            table: a data frame with `id_str`.
            reasons: (rows,) Series of messages, "" for rows that can be used.

        Returns:
            The rows that can be used, with the index 0, 1, ….

        Raises:
            UserError: no row can be used.
        """
        bad = reasons != ""
        self.rows.append(pd.DataFrame({"id_str": table["id_str"][bad], "reason": reasons[bad]}))
        if bad.all():
            first = f": {reasons.iloc[0]}" if len(table) else "."
            raise UserError(
                f"{self.key}: none of {len(table)} galaxies passes the step '{step}', the first{first}"
            )
        if bad.any():
            log.info("%s rejected, the first: %s", f"{bad.sum():,}", reasons[bad].iloc[0])
        return self.count(step, table[~bad].reset_index(drop=True))

    def rejected(self):
        """All rejected galaxies, as a data frame of id_str and reason."""
        return pd.concat(self.rows, ignore_index=True)

    def summary(self):
        """How many galaxies are left after each step, as a data frame of step and galaxies."""
        return pd.DataFrame({"step": self.steps.keys(), "galaxies": self.steps.values()})


def read_rows(entry, needed, cuts, key="catalogs[]", literal=()):
    """Read a table of galaxies, apply its query, and find the galaxies' names and image files.

    Args:
        entry: a mapping with `table`, a Parquet or CSV file, and optionally `query` (pandas), `id` and
            `location` (names of columns).
        needed: function from the table's columns to those to read besides the names and files.
        cuts: a `Cuts`.
        key: what error messages call the entry.
        literal: columns in which None or NA is a word.

    Returns:
        (the table's columns; a data frame of id_str, location ("" where the table names no file) and place,
        which is what messages call the row; a message for each row without a name and "" for the others).

    Raises:
        UserError: a table, a column or a query is missing or wrong, or there are no rows.
    """
    path, origin = entry["table"], Path(entry["table"]).name
    found = {}

    def choose(available):
        found["id"] = find_column(available, entry.get("id"), IDS, path, f"{key}.id")
        found["location"] = find_column(available, entry.get("location"), LOCATIONS, path, f"{key}.location")
        if found["id"] is None:
            raise UserError(
                f"{path}: has no column {' or '.join(IDS)} with the galaxies' names; name it in {key}.id."
            )
        wanted = {found["id"], found["location"], *needed(available)}
        # A query may use any column.
        return [column for column in available if entry.get("query") or column in wanted]

    words = [name for name in (*IDS, *LOCATIONS, entry.get("id"), entry.get("location")) if name]
    table = read_table(path, choose, words, literal)
    if table.empty:
        raise UserError(f"{path}: has no rows; get the table again.")
    cuts.count(f"rows of {origin}", table)
    numbers = pd.Series(range(1, len(table) + 1))
    if entry.get("query"):
        chosen = select(table, entry["query"], origin, f"{key}.query")
        table = cuts.select(f"query ({entry['query']})", table, chosen)
        numbers = numbers[chosen].reset_index(drop=True)
    names, messages = read_names(table, found["id"], numbers.to_numpy(), origin)
    location = table[found["location"]].fillna("").astype(str) if found["location"] else ""
    places = [place_of(origin, number) for number in numbers]
    rows = {"id_str": names, "location": location, "place": places}
    return table, pd.DataFrame(rows, index=table.index), messages


def warn_of_votes(numbers, tree, places):
    """Warn of questions with more votes than the answers that lead to them, as other columns would have.

    Volunteers may answer a question with several answers, so this is no error.

    Args:
        numbers: data frame of votes; NaN where they could not be read.
        tree: the `DecisionTree`; questions without columns are left out.
        places: what messages call each row.
    """
    found, first = np.zeros(len(numbers), bool), None
    for question in tree.questions:
        # A table has the votes of one campaign.
        if not question.after or not set(question.columns) <= set(numbers):
            continue
        votes, led = (
            numbers[list(names)].sum(axis=1).to_numpy() for names in (question.columns, question.after)
        )
        more = votes > led
        if more.any() and first is None:
            row, before = more.argmax(), " and ".join(question.after)
            first = (
                f"{places[row]}: '{question.name}' has {votes[row]:g} votes, and '{before}' only {led[row]:g}"
            )
        found |= more
    if first:
        log.warning(
            "%s. %s of %s galaxies have more votes for a question than for the answers that lead to it: check"
            " that the columns are those of the tree '%s'",
            *(first, f"{found.sum():,}", f"{len(found):,}", tree.name),
        )


def listed_twice(table, columns, what="numbers"):
    """Find galaxies that are listed more than once.

    Args:
        table: a data frame of id_str, place and `columns`.
        columns: those that must be equal in all rows of a galaxy.
        what: what they contain, for the messages.

    Returns:
        A message for each row whose galaxy is in other rows too, and "" for the row that is used.
    """
    messages = pd.Series("", index=table.index, dtype=object)
    twice = table[table["id_str"].duplicated(keep=False)]
    distinct = twice[["id_str", *columns]].drop_duplicates()["id_str"]
    contradicted = set(distinct[distinct.duplicated()])
    first = {}
    for index, name, place in twice[["id_str", "place"]].itertuples():
        if name in contradicted:
            messages[index] = (
                f"{place}: the galaxy '{name}' is listed more than once and with different {what};"
                " keep the right row."
            )
        elif name in first:
            messages[index] = (
                f"{place}: the galaxy '{name}' is listed already ({first[name]}); that row is used."
            )
        first.setdefault(name, place)
    return messages


def same_pixels(table, columns, what):
    """Find images that are those of another galaxy: copies, links, one file under two names.

    Args:
        table: a data frame of id_str, place, pixels (a digest of the image) and `columns`.
        columns: those that must be equal in all galaxies that have the same pixels.
        what: what they contain, for the messages.

    Returns:
        A message for each galaxy whose pixels are those of another one, and "" for the galaxy that is used.
    """
    messages = pd.Series("", index=table.index, dtype=object)
    twice = table[table["pixels"].duplicated(keep=False)]
    for _, alike in twice.groupby("pixels", sort=False):
        contradicted = len(alike[columns].drop_duplicates()) > 1
        for number, (index, name, place) in enumerate(alike[["id_str", "place"]].itertuples()):
            other = alike.iloc[0 if number else 1]
            told = (
                f"{place}: the galaxy '{name}' has the same pixels as '{other['id_str']}' ({other['place']})"
            )
            if contradicted:
                messages[index] = f"{told}, but different {what}; keep the right one."
            elif number:
                messages[index] = f"{told}, which is used."
    return messages


def find_images(rows, entry, key="catalogs[]"):
    """Find the images of one table's galaxies.

    Args:
        rows: a data frame of id_str and location.
        entry: a mapping with `table`, and `archives`, a list of zips, or `images`, a folder.
        key: what error messages call the entry.

    Returns:
        (data frame of archive, member and file_loc, a message for each galaxy without an image and "" for the
        others).

    Raises:
        UserError: a folder or archive is missing or wrong.
    """
    if entry.get("archives"):
        return locations.in_archives(rows["id_str"], rows["location"], entry["archives"])
    beside = Path(entry["table"]).parent
    return locations.in_folder(rows["id_str"], rows["location"], entry.get("images"), beside, key)


def read_pixels(table, max_rejected):
    """Read every image: which ones cannot be read, and the digests of the others.

    Needed where no shards are written, which would find both.

    Args:
        table: a data frame of archive, member and file_loc.
        max_rejected: the largest share of images that may be unreadable.

    Returns:
        (the digest of each image, see `images.digest`; a message for each image that cannot be read and ""
        for the others).

    Raises:
        UserError: a larger share is unreadable.
    """

    def look(row):
        try:
            return digest(row), ""
        except BadImage as error:
            return "", str(error)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(look, table[locations.PLACES].to_dict("records")))
    found = pd.DataFrame(found, index=table.index, columns=["pixels", "message"], dtype=object)
    bad = found["message"][found["message"] != ""]
    if len(bad) > max_rejected * len(table):
        raise UserError(
            f"shards.max_rejected: {len(bad)} of {len(table)} images ({len(bad) / len(table):.1%}) cannot be"
            f" read, expected {max_rejected:.1%} or less; fix them or raise the limit; first: {bad.iloc[0]}"
        )
    return found["pixels"], found["message"]
