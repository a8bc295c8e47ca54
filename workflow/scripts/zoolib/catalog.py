"""Stage catalog: the votes of each galaxy, where its pixels are, and which split it is in."""

import pandas as pd

from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import SPLITS, Catalog, write_catalog
from zoolib.data.partition import cut
from zoolib.data.selection import Cuts, find_images, listed_twice, read_rows, warn_of_votes
from zoolib.data.sides import images_led_to, read_groups, sides
from zoolib.data.tables import read_numbers
from zoolib.job.logs import UserError, log, whole


def build_catalog(catalogs, split, seed, output):
    """Make the catalogue of each split from tables of votes and from images.

    The cuts, in this order: the query; a name; usable votes; listed once; enough votes; an image; the split.
    What the query and `min_votes` leave out was not selected; it is counted. What cannot be used is counted
    too, and is a row of `rejected.csv` with the reason.

    Tables of different trees are different campaigns. A galaxy of several campaigns becomes one row with the
    votes of all of them, after each campaign's own cut on votes.

    Within a campaign, a galaxy that is listed twice with the same votes is used once, as it is listed first.
    If it is listed with different votes, it is not used at all: it is not known which votes are true, and the
    order of rows must not decide.

    Galaxies that share a group or an image are in one split, see `data.sides`.

    Args:
        catalogs: a list of mappings with `name`; `table`, a Parquet or CSV file; `tree`, in the form
            of `DecisionTree.to_dict(published=True)`; `archives`, a list of zips, or `images`, a folder;
            and optionally `min_votes` (on the first question of the entry's tree), `query` (pandas),
            `id` and `location` (names of columns).
        split: {"train": share, "val": share, "test": share}, together 1, and optionally `group`, a column.
        seed: whole number.
        output: has the paths `train`, `val`, `test` (Parquet), `rejected` (id_str, reason) and
            `summary` (step, galaxies).

    Raises:
        UserError: a table, column, query, folder or archive that is missing or wrong; no galaxy left; an
            empty split.
    """
    shares = _shares(split)
    tree = DecisionTree.union([DecisionTree.from_dict(entry["tree"]) for entry in catalogs])
    columns, cuts = tree.columns, Cuts()
    table = _usable_rows(catalogs, tree, split.get("group"), cuts)
    campaigns = [part for _, part in table.groupby("campaign", sort=False)]
    reasons = pd.concat([listed_twice(part, columns) for part in campaigns])
    table = cuts.reject("listed once", table, reasons[table.index])
    if table["min_votes"].any():
        # A row has votes of one campaign only, so this sum is the number of its volunteers.
        votes = table[tree.first_columns].sum(axis=1)
        table = cuts.select("enough votes (catalogs[].min_votes)", table, votes >= table["min_votes"])
    table, reasons = _find_images(table, catalogs)
    if len(campaigns) > 1:
        table, reasons = _one_row_a_galaxy(table, columns, reasons)
        cuts.count("galaxies of all campaigns together", table)
    table = cuts.reject("with an image", table, reasons)
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
    for path, rows in ((output.rejected, cuts.rejected()), (output.summary, cuts.summary())):
        with whole(path) as partial:
            rows.to_csv(partial, index=False)


def _shares(split):
    shares = [split[name] for name in SPLITS]
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"split: the shares of {', '.join(SPLITS)} are {shares}; expected 1 in total.")
    return shares


def _usable_rows(catalogs, tree, group, cuts):
    """The rows of all tables that have a name and votes, with what each galaxy stays together with."""
    tables = [_of_entry(entry, tree, group, cuts).assign(entry=n) for n, entry in enumerate(catalogs)]
    table = pd.concat(tables, ignore_index=True)
    # A row that is left out later still shows what belongs together.
    return table.assign(group=sides(table["id_str"], table["group"], pd.Series("", table.index)))


def _of_entry(entry, tree, group, cuts):
    # How published tables name the votes belongs to the entry's own tree.
    own, naming = DecisionTree.from_dict(entry["tree"]), {}

    def needed(available):
        found = own.vote_columns(available, entry["table"])
        naming.update(zip(tree.columns_of(own.name), found.values(), strict=True))
        if group and group not in available:
            raise UserError(
                f"{entry['table']}: has no column '{group}', which split.group names; name a column that each"
                " table has, or set it to null."
            )
        return [*naming.values(), *([group] if group else [])]

    table, rows, reasons = read_rows(entry, needed, cuts, f"catalogs.{entry['name']}")
    numbers, wrong = read_numbers(table, naming, rows["place"])
    warn_of_votes(numbers, tree, rows["place"].tolist())
    rows = rows.assign(min_votes=entry.get("min_votes") or 0, campaign=own.name)
    rows["group"] = read_groups(table[group]) if group else ""
    # No volunteer was asked what only other campaigns ask.
    rows = pd.concat([rows, numbers.reindex(columns=tree.columns, fill_value=0.0)], axis=1)
    return cuts.reject("with a name and usable votes", rows, reasons.where(reasons != "", wrong))


def _one_row_a_galaxy(table, columns, reasons):
    """Combine a galaxy's campaigns: all its votes, and the first image that was found."""
    table = table.assign(reason=reasons, missing=reasons != "").sort_values("missing", kind="stable")
    votes = table.groupby("id_str")[columns].sum()
    galaxies = table.drop_duplicates("id_str").sort_index().reset_index(drop=True)
    galaxies[columns] = votes.loc[galaxies["id_str"]].to_numpy()
    return galaxies, galaxies["reason"]


def _find_images(table, catalogs):
    """The table with the place of each image, and the messages of `selection.find_images`."""
    found = [find_images(table[table["entry"] == number], entry) for number, entry in enumerate(catalogs)]
    places, reasons = (pd.concat(parts).loc[table.index] for parts in zip(*found, strict=True))
    together = sides(table["id_str"], table["group"], images_led_to(places))
    if shared := together.duplicated(keep=False).sum():
        log.info("%s rows share a galaxy, a group or an image with another row", f"{shared:,}")
    return table.assign(**places, group=together), reasons
