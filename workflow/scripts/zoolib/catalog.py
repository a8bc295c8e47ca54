"""Stage catalog: whose votes, where the pixels are, and who is in which split."""

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib import locations
from zoolib.logs import UserError, whole
from zoolib.selection import Cuts, find_images, listed_twice, read_rows
from zoolib.tables import read_numbers, read_table
from zoolib.trees import DecisionTree

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Catalog:
    """What a catalogue file holds.

    Attributes:
        table: one row a galaxy: id_str, archive, member, file_loc, then `columns`.
        columns: names of the votes' or the labels' columns.
        tree: the `DecisionTree` of the votes; None for labels.
        about: what else the file's metadata say, plain values.
    """

    table: pd.DataFrame
    columns: list
    tree: DecisionTree | None
    about: dict = field(default_factory=dict)


def build_catalog(catalogs, split, seed, output):
    """Make the catalogue of each split from tables of votes and from images.

    The cuts, in this order: the query; a name; usable votes; named once; enough votes; an
    image; the split. What the query and `min_votes` leave out is selection, and is counted. What
    cannot be used is counted too, and is a line of `rejected.csv` with its sentence.

    Tables of different trees are different campaigns. A galaxy of several campaigns becomes one row with
    the votes of all of them, after the cut on votes, which is each campaign's own.

    A galaxy that is listed twice with the same votes is used once, as first listed. Listed with
    different votes it is not used at all: nothing says which of them are true, and the order of rows
    must not decide it. Both hold for the tables of one campaign.

    Args:
        catalogs: a list of mappings with `name`; `table`, a Parquet or CSV file; `tree`, in the form
            of `DecisionTree.to_dict(published=True)`; `archives`, a list of zips, or `images`, a folder;
            and, if wanted, `min_votes` (on the first question of the entry's tree), `query` (pandas),
            `id` and `location` (names of columns).
        split: {"train": share, "val": share, "test": share}, together 1.
        seed: whole number.
        output: has the paths `train`, `val`, `test` (Parquet), `rejected` (id_str, reason) and
            `summary` (step, galaxies).

    Raises:
        UserError: a table, column, query, folder or archive that is missing or wrong; no galaxy left; an
            empty split.
    """
    shares = [split[name] for name in SPLITS]
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"split: the shares of {', '.join(SPLITS)} are {shares}; expected 1 in total.")
    tree = DecisionTree.union([DecisionTree.from_dict(entry["tree"]) for entry in catalogs])
    columns, cuts = tree.columns, Cuts()
    tables = [_usable_rows(entry, tree, columns, cuts).assign(entry=n) for n, entry in enumerate(catalogs)]
    table = pd.concat(tables, ignore_index=True)
    campaigns = [part for _, part in table.groupby("campaign", sort=False)]
    sentences = pd.concat([listed_twice(part, columns) for part in campaigns])
    table = cuts.reject("listed once", table, sentences[table.index])
    if table["min_votes"].any():
        # A row has votes of its own campaign only, so this sum is the number of its volunteers.
        votes = table[tree.first_columns].sum(axis=1)
        table = cuts.select("enough votes (catalogs[].min_votes)", table, votes >= table["min_votes"])
    places, sentences = _find_images(table, catalogs)
    table = table.assign(**places)
    if len(campaigns) > 1:
        table, sentences = _one_row_a_galaxy(table, columns, sentences)
        cuts.count("galaxies of all campaigns together", table)
    table = cuts.reject("with an image", table, sentences)
    parts = cut(table, shares, seed)
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


def cut(table, shares, seed):
    """Cut a table into splits by a hash of each galaxy's name and the seed.

    A galaxy's split depends on its name alone, not on the rows' order nor on which other galaxies there are.

    Args:
        table: a data frame with `id_str`.
        shares: the splits' shares, together 1.
        seed: whole number.

    Returns:
        One data frame a split, sorted by the hash, so that any slice of it is a random sample.
    """
    position = hash_positions(table["id_str"], seed)
    table = table.assign(position=position).sort_values(["position", "id_str"])
    position = table["position"].to_numpy()
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

    A column `repeats`, how often an epoch shows the galaxy, is written where the table has it.

    Args:
        catalog: a `Catalog`.
        path: the file.
    """
    kinds = dict.fromkeys(catalog.columns, np.int32 if catalog.tree else np.float32)
    table = catalog.table[["id_str", *locations.PLACES, *catalog.columns]].astype(kinds)
    if "repeats" in catalog.table:
        table["repeats"] = catalog.table["repeats"].astype(np.int32)
    tree = catalog.tree.to_dict() if catalog.tree else None
    about = {"tree": tree, "columns": catalog.columns, **catalog.about}
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
    tree, columns = about.pop("tree"), about.pop("columns")
    return Catalog(table, columns, DecisionTree.from_dict(tree, path) if tree else None, about)


def _usable_rows(entry, tree, columns, cuts):
    # The namings of published tables belong to the entry's own tree.
    own, naming = DecisionTree.from_dict(entry["tree"]), {}

    def votes(available):
        found = own.vote_columns(available, entry["table"])
        naming.update(zip(tree.columns_of(own.name), found.values(), strict=True))
        return naming.values()

    table, rows, sentences = read_rows(entry, votes, cuts, f"catalogs.{entry['name']}")
    numbers, wrong = read_numbers(table, naming, rows["place"])
    rows = rows.assign(min_votes=entry.get("min_votes") or 0, campaign=own.name)
    # What other campaigns ask, nobody was asked here.
    rows = pd.concat([rows, numbers.reindex(columns=columns, fill_value=0.0)], axis=1)
    return cuts.reject("with a name and usable votes", rows, sentences.where(sentences != "", wrong))


def _one_row_a_galaxy(table, columns, sentences):
    """Put a galaxy's campaigns together: all its votes, and the first image that was found."""
    table = table.assign(reason=sentences, missing=sentences != "").sort_values("missing", kind="stable")
    votes = table.groupby("id_str")[columns].sum()
    galaxies = table.drop_duplicates("id_str").sort_index().reset_index(drop=True)
    galaxies[columns] = votes.loc[galaxies["id_str"]].to_numpy()
    return galaxies, galaxies["reason"]


def _find_images(table, catalogs):
    found = [find_images(table[table["entry"] == number], entry) for number, entry in enumerate(catalogs)]
    return pd.concat([places for places, _ in found]), pd.concat([sentences for _, sentences in found])
