"""Which galaxies of a table can be used: the steps that catalogues of votes and of labels share."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from zoolib.data import locations
from zoolib.data.images import BadImage, load_row
from zoolib.data.tables import IDS, LOCATIONS, find_column, read_names, read_table, select
from zoolib.job.logs import UserError, log


@dataclass
class Cuts:
    """Counts what is left after each step, and keeps why the rest is not.

    Attributes:
        key: of the configuration, whose galaxies these are.
        steps: {step: galaxies left}.
        lines: data frames of id_str and reason.
    """

    key: str = "catalogs"
    steps: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)

    def count(self, step, table):
        """Note how many galaxies a step left.

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
        """Leave out what was not asked for.

        Args:
            step: its name.
            table: a data frame, one row a galaxy.
            chosen: (rows,) boolean.

        Returns:
            The rows that are chosen, numbered anew.

        Raises:
            UserError: none is.
        """
        left = table[chosen].reset_index(drop=True)
        if left.empty:
            raise UserError(
                f"{self.key}: of {len(table)} galaxies none is left by the step '{step}'; relax it."
            )
        return self.count(step, left)

    def reject(self, step, table, sentences):
        """Leave out what cannot be used, and keep why.

        Args:
            step: its name.
            table: a data frame with `id_str`.
            sentences: (rows,) Series, "" for what can be used.

        Returns:
            The rows that can be used, numbered anew.

        Raises:
            UserError: none can.
        """
        bad = sentences != ""
        self.lines.append(pd.DataFrame({"id_str": table["id_str"][bad], "reason": sentences[bad]}))
        if bad.all():
            first = f": {sentences.iloc[0]}" if len(table) else "."
            raise UserError(
                f"{self.key}: none of {len(table)} galaxies passes the step '{step}', the first{first}"
            )
        if bad.any():
            log.info("%s rejected, the first: %s", f"{bad.sum():,}", sentences[bad].iloc[0])
        return self.count(step, table[~bad].reset_index(drop=True))

    def rejected(self):
        """All that was rejected, as a data frame of id_str and reason."""
        return pd.concat(self.lines, ignore_index=True)

    def summary(self):
        """What each step left, as a data frame of step and galaxies."""
        return pd.DataFrame({"step": self.steps.keys(), "galaxies": self.steps.values()})


def read_rows(entry, needed, cuts, key="catalogs[]", literal=()):
    """Read a table of galaxies, apply its query, and find the galaxies' names and image files.

    Args:
        entry: a mapping with `table`, a Parquet or CSV file, and if wanted `query` (pandas), `id` and
            `location` (names of columns).
        needed: function of the table's columns that gives those to read besides the names and files.
        cuts: a `Cuts`.
        key: what error messages call the entry.
        literal: columns in which None or NA is a word.

    Returns:
        (the table's columns; a data frame of id_str, location ("" where the table names no file) and place,
        what sentences call the row; a sentence for each row without a name and "" for the others).

    Raises:
        UserError: a table, a column or a query that is missing or wrong; no rows.
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
        # A query may ask for any column.
        return [column for column in available if entry.get("query") or column in wanted]

    words = [name for name in (*IDS, *LOCATIONS, entry.get("id"), entry.get("location")) if name]
    table = read_table(path, choose, words, literal)
    if table.empty:
        raise UserError(f"{path}: holds no rows; get the table again.")
    cuts.count(f"rows of {origin}", table)
    numbers = pd.Series(range(1, len(table) + 1))
    if entry.get("query"):
        chosen = select(table, entry["query"], origin, f"{key}.query")
        table = cuts.select(f"query ({entry['query']})", table, chosen)
        numbers = numbers[chosen].reset_index(drop=True)
    names, sentences = read_names(table, found["id"], numbers.to_numpy(), origin)
    location = table[found["location"]].fillna("").astype(str) if found["location"] else ""
    places = [f"{origin}, row {number}" for number in numbers]
    rows = {"id_str": names, "location": location, "place": places}
    return table, pd.DataFrame(rows, index=table.index), sentences


def listed_twice(table, columns, what="numbers"):
    """Find galaxies that are listed more than once.

    Args:
        table: a data frame of id_str, place and `columns`.
        columns: those that must say the same of a galaxy wherever it is listed.
        what: what they hold, for the sentences.

    Returns:
        A sentence for each row whose galaxy other rows have too, "" for the one that is used.
    """
    sentences = pd.Series("", index=table.index, dtype=object)
    twice = table[table["id_str"].duplicated(keep=False)]
    distinct = twice[["id_str", *columns]].drop_duplicates()["id_str"]
    contradicted = set(distinct[distinct.duplicated()])
    first = {}
    for index, name, place in twice[["id_str", "place"]].itertuples():
        if name in contradicted:
            sentences[index] = (
                f"{place}: the galaxy '{name}' is listed more than once and with different {what};"
                " keep the true row."
            )
        elif name in first:
            sentences[index] = (
                f"{place}: the galaxy '{name}' is listed already ({first[name]}), which is used."
            )
        first.setdefault(name, place)
    return sentences


def find_images(rows, entry, key="catalogs[]"):
    """Find the images of one table's galaxies.

    Args:
        rows: a data frame of id_str and location.
        entry: a mapping with `table`, and `archives`, a list of zips, or `images`, a folder.
        key: what error messages call the entry.

    Returns:
        (data frame of archive, member and file_loc, a sentence for each galaxy without an image and ""
        for the others).

    Raises:
        UserError: a folder or archive that is missing or wrong.
    """
    if entry.get("archives"):
        return locations.in_archives(rows["id_str"], rows["location"], entry["archives"])
    beside = Path(entry["table"]).parent
    return locations.in_folder(rows["id_str"], rows["location"], entry.get("images"), beside, key)


def unreadable(table, max_rejected):
    """Read every image, where no shards are written that would tell which cannot be read.

    Args:
        table: a data frame of archive, member and file_loc.
        max_rejected: largest share of images that may be unreadable.

    Returns:
        A sentence for each image that cannot be read, "" for the others.

    Raises:
        UserError: more than the share are.
    """

    def why(row):
        try:
            # The size is none of the reasons; a small one is soon resampled.
            load_row(row, 16, color=False)
        except BadImage as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(why, table[locations.PLACES].to_dict("records")))
    sentences = pd.Series(found, index=table.index, dtype=object)
    bad = sentences[sentences != ""]
    if len(bad) > max_rejected * len(table):
        raise UserError(
            f"shards.max_rejected: {len(bad)} of {len(table)} images ({len(bad) / len(table):.1%}) cannot be"
            f" read, allowed are {max_rejected:.1%}; fix them or raise the limit; the first: {bad.iloc[0]}"
        )
    return sentences
