"""Stage catalog: whose votes, where the pixels are, and who is in which split."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib import locations
from zoolib.images import BadImage, load_row
from zoolib.logs import UserError, log, whole
from zoolib.tables import IDS, LOCATIONS, find_column, read_names, read_numbers, read_table, select
from zoolib.trees import DecisionTree

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Catalog:
    """What a catalogue file holds.

    Attributes:
        table: one row a galaxy: id_str, archive, member, file_loc, then `columns`.
        columns: names of the votes' or the labels' columns.
        tree: the `DecisionTree` of the votes; None for labels.
    """

    table: pd.DataFrame
    columns: list
    tree: DecisionTree | None


def build_catalog(catalogs, split, seed, output, stratify=False, max_rejected=None):
    """Make the catalogue of each split from tables of votes or labels and from images.

    The cuts, in this order: the query; a name; usable votes or labels; named once; enough votes; an
    image; the split. What the query and `min_votes` leave out is selection, and is counted. What
    cannot be used is counted too, and is a line of `rejected.csv` with its sentence.

    A galaxy that is listed twice with the same votes is used once, as first listed. Listed with
    different votes it is not used at all: nothing says which of them are true, and the order of rows
    must not decide it.

    Args:
        catalogs: a list of mappings with `name`; `table`, a Parquet or CSV file; `tree`, in the form
            of `DecisionTree.to_dict(published=True)`, or `labels`, columns to keep as numbers;
            `archives`, a list of zips, or `images`, a folder; and, if wanted, `min_votes` (for the
            tree's first question), `query` (pandas), `id` and `location` (names of columns).
        split: {"train": share, "val": share, "test": share}, together 1.
        seed: whole number.
        output: has the paths `train`, `val`, `test` (Parquet), `rejected` (id_str, reason) and
            `summary` (step, galaxies).
        stratify: cut each class by itself, in the order of the hash, so that the shares hold in each;
            a class is a value of the labels, or the first question's most frequent answer.
        max_rejected: where no shards are written that would tell, read every image, reject those that
            cannot be read, and stop if they are more than this share; None reads none.

    Raises:
        UserError: a table, column, query, folder or archive that is missing or wrong; catalogues of
            different trees; no galaxy left; too many unreadable images; an empty split.
    """
    shares = [split[name] for name in SPLITS]
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"split: the shares of {', '.join(SPLITS)} are {shares}; expected 1 in total.")
    tree, columns = _what_to_keep(catalogs)
    cuts = _Cuts()
    tables = [_usable_rows(entry, tree, columns, cuts).assign(entry=n) for n, entry in enumerate(catalogs)]
    table = pd.concat(tables, ignore_index=True)
    table = cuts.reject("listed once", table, _listed_twice(table, columns))
    if tree and table["min_votes"].any():
        votes = table[tree.questions[0].columns].sum(axis=1)
        table = cuts.select("enough votes (catalogs[].min_votes)", table, votes >= table["min_votes"])
    places, sentences = _find_images(table, catalogs)
    table = cuts.reject("with an image", table.assign(**places), sentences)
    if max_rejected is not None:
        table = cuts.reject("with an image that can be read", table, _unreadable(table, max_rejected))
    classes = None
    if stratify:
        classes = [table[tree.questions[0].columns].idxmax(axis=1)] if tree else columns
    parts = cut(table, shares, seed, classes)
    for name, part in zip(SPLITS, parts, strict=True):
        cuts.count(f"split {name}", part)
        if part.empty:
            raise UserError(
                f"split.{name}: none of the {len(table)} galaxies falls into it with the share"
                f" {split[name]}; raise the share or select more galaxies."
            )
    for name, part in zip(SPLITS, parts, strict=True):
        write_catalog(Catalog(part, columns, tree), getattr(output, name))
    for path, lines in ((output.rejected, cuts.rejected()), (output.summary, cuts.summary())):
        with whole(path) as partial:
            lines.to_csv(partial, index=False)


def cut(table, shares, seed, classes=None):
    """Cut a table into splits by a hash of each galaxy's name and the seed.

    Without classes a galaxy's split depends on its name alone, not on the rows' order nor on which
    other galaxies there are.

    Args:
        table: a data frame with `id_str`.
        shares: the splits' shares, together 1.
        seed: whole number.
        classes: cut each class by itself: anything that `DataFrame.groupby` takes.

    Returns:
        One data frame a split, sorted by the hash, so that any slice of it is a random sample.
    """
    position = hash_positions(table["id_str"], seed)
    table = table.assign(position=position).sort_values(["position", "id_str"])
    position = table["position"].to_numpy()
    if classes is not None:
        groups = table.groupby(classes)
        position = ((groups.cumcount() + 0.5) / groups["id_str"].transform("size")).to_numpy()
    number = np.searchsorted(np.cumsum(shares)[:-1], position, side="right")
    table = table.drop(columns="position")
    return [table[number == split].reset_index(drop=True) for split in range(len(shares))]


def hash_positions(names, seed):
    """Where galaxies fall between 0 and 1, as if at random.

    Args:
        names: a sequence of text.
        seed: whole number.

    Returns:
        (galaxies,) float64 in [0, 1): the first 53 bits of the SHA-256 of `{seed}:{name}`.
    """
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names)
    return np.array([int.from_bytes(digest[:8], "big") >> 11 for digest in digests], np.int64) / 2.0**53


def write_catalog(catalog, path):
    """Write a catalogue as Parquet; the file's metadata say which tree or labels it holds.

    Args:
        catalog: a `Catalog`.
        path: the file.
    """
    kinds = dict.fromkeys(catalog.columns, np.int32 if catalog.tree else np.float32)
    table = catalog.table[["id_str", *locations.PLACES, *catalog.columns]].astype(kinds)
    about = {"tree": catalog.tree.to_dict() if catalog.tree else None, "columns": catalog.columns}
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, b"zoolib": json.dumps(about).encode()})
    with whole(path) as partial:
        pq.write_table(arrow, partial)


def read_catalog(path):
    """Read a catalogue that `write_catalog` wrote.

    Args:
        path: the file.

    Returns:
        A `Catalog`.

    Raises:
        UserError: missing, not Parquet, or not such a catalogue.
    """
    table = read_table(path)
    about = (pq.read_schema(path).metadata or {}).get(b"zoolib")
    if about is None:
        raise UserError(f"{path}: is not a catalogue of this project; make it with the target 'catalog'.")
    about = json.loads(about)
    tree = DecisionTree.from_dict(about["tree"], path) if about["tree"] else None
    return Catalog(table, about["columns"], tree)


@dataclass
class _Cuts:
    """Counts what is left after each step, and keeps why the rest is not."""

    steps: dict = field(default_factory=dict)
    lines: list = field(default_factory=list)

    def count(self, step, table):
        self.steps[step] = self.steps.get(step, 0) + len(table)
        log.info("%s: %s galaxies", step, f"{len(table):,}")
        return table

    def select(self, step, table, chosen):
        left = table[chosen].reset_index(drop=True)
        if left.empty:
            raise UserError(
                f"catalogs: of {len(table)} galaxies none is left by the step '{step}'; relax it."
            )
        return self.count(step, left)

    def reject(self, step, table, sentences):
        bad = sentences != ""
        self.lines.append(pd.DataFrame({"id_str": table["id_str"][bad], "reason": sentences[bad]}))
        if bad.all():
            first = f": {sentences.iloc[0]}" if len(table) else "."
            raise UserError(
                f"catalogs: none of {len(table)} galaxies passes the step '{step}', the first{first}"
            )
        if bad.any():
            log.info("%s rejected, the first: %s", f"{bad.sum():,}", sentences[bad].iloc[0])
        return self.count(step, table[~bad].reset_index(drop=True))

    def rejected(self):
        return pd.concat(self.lines, ignore_index=True)

    def summary(self):
        return pd.DataFrame({"step": self.steps.keys(), "galaxies": self.steps.values()})


def _what_to_keep(catalogs):
    trees = [DecisionTree.from_dict(entry["tree"]) if entry.get("tree") else None for entry in catalogs]
    labels = [list(entry.get("labels") or []) for entry in catalogs]
    if any(tree != trees[0] for tree in trees) or any(names != labels[0] for names in labels):
        raise UserError(
            "catalogs: the entries have different trees or labels; one tree a run for now, so give them the"
            " same tree or run once for each."
        )
    return trees[0], trees[0].columns if trees[0] else labels[0]


def _usable_rows(entry, tree, columns, cuts):
    path, origin = entry["table"], Path(entry["table"]).name
    found = {}

    def choose(available):
        key = f"catalogs.{entry['name']}"
        found["id"] = find_column(available, entry.get("id"), IDS, path, f"{key}.id")
        found["location"] = find_column(available, entry.get("location"), LOCATIONS, path, f"{key}.location")
        if found["id"] is None:
            raise UserError(
                f"{path}: has no column {' or '.join(IDS)} with the galaxies' names; name it in {key}.id."
            )
        if tree:
            # Namings of a table belong to the entry's own copy of the tree.
            naming = DecisionTree.from_dict(entry["tree"]).vote_columns(available, path)
        else:
            absent = [column for column in columns if column not in available]
            if absent:
                raise UserError(
                    f"{path}: has no column '{absent[0]}', which is to be a label; mend its name."
                )
            naming = {column: column for column in columns}
        found["numbers"] = naming
        needed = {found["id"], found["location"], *naming.values()}
        # A query may ask for any column.
        return [column for column in available if entry.get("query") or column in needed]

    words = [name for name in (*IDS, *LOCATIONS, entry.get("id"), entry.get("location")) if name]
    table = read_table(path, choose, words)
    if table.empty:
        raise UserError(f"{path}: holds no rows; get the table again.")
    cuts.count(f"rows of {origin}", table)
    table["row"] = np.arange(1, len(table) + 1)
    if entry.get("query"):
        chosen = select(table.drop(columns="row"), entry["query"], origin)
        table = cuts.select(f"query ({entry['query']})", table, chosen)
    names, sentences = read_names(table, found["id"], table["row"].to_numpy(), origin)
    numbers, wrong = read_numbers(table, found["numbers"], tree is not None, table["row"].to_numpy(), origin)
    location = table[found["location"]].fillna("").astype(str) if found["location"] else ""
    rows = pd.DataFrame({"id_str": names, "location": location}, index=table.index)
    rows = rows.assign(table=path, row=table["row"], min_votes=entry.get("min_votes") or 0)
    rows = pd.concat([rows, numbers], axis=1)
    what = "votes" if tree else "labels"
    return cuts.reject(f"with a name and usable {what}", rows, sentences.where(sentences != "", wrong))


def _listed_twice(table, columns):
    """A sentence for each row whose galaxy other rows have too, "" for the one that is used."""
    sentences = pd.Series("", index=table.index, dtype=object)
    twice = table[table["id_str"].duplicated(keep=False)]
    distinct = twice[["id_str", *columns]].drop_duplicates()["id_str"]
    contradicted = set(distinct[distinct.duplicated()])
    first = {}
    for index, name, path, row in twice[["id_str", "table", "row"]].itertuples():
        place = f"{Path(path).name}, row {row}"
        if name in contradicted:
            sentences[index] = (
                f"{place}: the galaxy '{name}' is listed more than once and with different numbers;"
                " keep the true row."
            )
        elif name in first:
            sentences[index] = (
                f"{place}: the galaxy '{name}' is listed already ({first[name]}), which is used."
            )
        first.setdefault(name, place)
    return sentences


def _find_images(table, catalogs):
    places, sentences = [], []
    for number, entry in enumerate(catalogs):
        rows = table[table["entry"] == number]
        if entry.get("archives"):
            found = locations.in_archives(rows["id_str"], rows["location"], entry["archives"])
        else:
            beside = Path(entry["table"]).parent
            found = locations.in_folder(rows["id_str"], rows["location"], entry.get("images"), beside)
        places.append(found[0])
        sentences.append(found[1])
    return pd.concat(places), pd.concat(sentences)


def _unreadable(table, max_rejected):
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
            f" read, allowed are {max_rejected:.1%}; mend them or raise the limit; the first: {bad.iloc[0]}"
        )
    return sentences
