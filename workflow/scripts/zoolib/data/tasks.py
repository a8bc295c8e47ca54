"""The galaxies of a finetuning task: from labels in a table or in folders to one catalogue."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.config.labels import Label, check_learnable, check_names
from zoolib.data.catalogs import SPLITS, Catalog, write_catalog
from zoolib.data.class_folders import list_labelled
from zoolib.data.fits import cut_fit, repeated
from zoolib.data.partition import CLASSIFICATIONS, divide, hash_positions, own_splits, read_split
from zoolib.data.selection import (
    Cuts,
    find_images,
    listed_twice,
    read_pixels,
    read_rows,
    same_pixels,
    warn_of_votes,
)
from zoolib.data.sides import read_groups, sides
from zoolib.data.tables import read_numbers, select
from zoolib.job.logs import UserError, whole

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
# What to do if the column that a key names is not there.
FIXES = {
    "split": "name the column that says train, val or test, or give shares",
    "group": "name the column that says which galaxies belong together, or set it to null",
}


def build_task(task, fits, seed, output, max_rejected):
    """Make the galaxies of a task: their labels, their images, and the part that each one is in.

    The steps: the query; a name; a label (a wrong one stops the run, a blank one is left out or stops it);
    listed once; an image that can be read; an image of its own; the parts. Galaxies that are left out are
    counted. A galaxy that cannot be used is also a row of `rejected` with the reason.

    Args:
        task: {"name", "labels" (of `Label.to_dict`), "table" or "folders", "test" (another table, whose
            galaxies are all test), "archives" or "images", "id", "location", "query", "group", "missing",
            "balance", "split", "folds"}, of the configuration and with paths in place of names.
        fits: names of its finetunings, as `config.tasks.fit_names` gives them; each must have what it needs.
        seed: whole number.
        output: attributes galaxies (Parquet: a catalogue with the columns `pixels`, the digest of each image,
            and `part`, which `fits.cut_fit` reads; its metadata have the labels with all classes), rejected
            (CSV: id_str, reason) and summary (CSV: step, galaxies).
        max_rejected: largest share of images that may be unreadable.

    Raises:
        UserError: a table, column, folder, archive or query that is missing or wrong; a wrong label; one
            class or value alone; a class with fewer galaxies than splits or folds; an empty split; a group
            that the user's own split puts on two sides; too many unreadable images; more labels asked for
            than there are.
    """
    where = f"finetune.tasks.{task['name']}"
    cuts = Cuts(where)
    labels = [Label.from_dict(content) for content in task["labels"]]
    table, labels = (_from_folders if task["folders"] else read_labelled)(task, labels, cuts)
    if task["test"]:
        tested, labels = read_labelled({**task, "table": task["test"]}, labels, cuts)
        tested = _seen_from(task["table"], tested, task["test"]).assign(split="test")
        table = pd.concat([table.assign(split="train"), tested], ignore_index=True)
    # Only now all classes are known.
    check_names(labels, where)
    table = _with_images(table, labels, task, cuts, max_rejected)
    # In the order of a hash, so that any slice of a catalogue is a random sample.
    table = table.assign(position=hash_positions(table["id_str"], seed))
    table = table.sort_values(["position", "id_str"], ignore_index=True)
    check_learnable(labels, table, where)
    table = table.assign(part=_parts(table, labels, task, seed, where))
    table = table.sort_values("part", kind="stable", ignore_index=True)
    # Votes that are the only label make a catalogue of votes.
    tree = labels[0].tree if len(labels) == 1 else None
    columns = [column for label in labels for column in label.targets]
    about = {
        "labels": [label.to_dict() for label in labels],
        "folds": task["folds"],
        "balance": task["balance"],
    }
    galaxies = Catalog(table, columns, tree, about)
    for fit in fits:
        _check_fit(galaxies, fit, labels, cuts)
    write_catalog(galaxies, output.galaxies)
    for path, lines in ((output.rejected, cuts.rejected()), (output.summary, cuts.summary())):
        with whole(path) as partial:
            lines.to_csv(partial, index=False)


def _with_images(table, labels, task, cuts, max_rejected):
    """The galaxies that are listed once and have an image of their own that can be read."""
    targets = [column for label in labels for column in label.targets]
    same = [*targets, "split"] if "split" in table else targets
    table = _put_together(table, pd.Series("", table.index))
    table = cuts.reject("listed once", table, listed_twice(table, same, "labels or splits"))
    if not task["folders"]:
        places, reasons = find_images(table, task, cuts.key)
        table = cuts.reject("with an image", table.assign(**places), reasons)
    pixels, reasons = read_pixels(table, max_rejected)
    table = cuts.reject("with an image that can be read", table.assign(pixels=pixels), reasons)
    table = _put_together(table, table["pixels"])
    # One image under two names would be learned from and tested on.
    return cuts.reject("with an image of its own", table, same_pixels(table, same, "labels or splits"))


def _put_together(table, images):
    """The table with what each galaxy stays together with; a copy shows it, even if it is not used itself."""
    if "group" not in table:
        return table
    return table.assign(group=sides(table["id_str"], table["group"], images))


def read_labelled(task, labels, cuts):
    """Read the labelled galaxies of a table.

    Args:
        task: {"table", "id", "location", "query", "group", "missing", "split"} as `build_task` takes them.
        labels: a list of `Label`.
        cuts: a `Cuts`, which counts what is left out.

    Returns:
        (data frame of id_str, location, place, the labels' targets, and split and group if the task names
        columns for them; the labels, with all classes).

    Raises:
        UserError: as `build_task`.
    """
    path, where, naming = task["table"], cuts.key, {}
    own = isinstance(task["split"], str)
    beside = {key: task[key] for key, given in (("split", own), ("group", task["group"])) if given}
    plain = [label for label in labels if label.kind != "votes"]

    def needed(available):
        for label in labels:
            if label.kind == "votes":
                naming.update(label.tree.vote_columns(available, path))
            elif label.name not in available:
                raise UserError(
                    f"{path}: has no column '{label.name}', which is to be a label; it has"
                    f" {', '.join(list(available)[:6])}; fix {where}.label."
                )
        for key, column in beside.items():
            if column not in available:
                raise UserError(f"{path}: has no column '{column}', which {where}.{key} names; {FIXES[key]}.")
        return list(dict.fromkeys([*naming.values(), *(label.name for label in plain), *beside.values()]))

    # A class may be called None.
    classes = [label.name for label in plain if label.kind == "multiclass" or label.classes]
    columns, rows, sentences = read_rows(task, needed, cuts, where, classes)
    places = rows["place"].tolist()
    if naming:
        # Nobody's vote is a blank, not a missing label.
        numbers, wrong = read_numbers(columns, naming, places)
        rows = pd.concat([rows, numbers], axis=1)
        sentences = sentences.where(sentences != "", wrong)
        for label in labels:
            if label.kind == "votes":
                warn_of_votes(numbers, label.tree, places)
    if own:
        rows["split"] = read_split(columns[task["split"]], places)
    if task["group"]:
        rows["group"] = read_groups(columns[task["group"]])
    rows, plain, left = _encoded(rows, columns, plain, places, Path(path).name)
    step = "with a name and usable votes" if naming else "with a name"
    rows = cuts.reject(step, rows, sentences)
    if not plain:
        return rows, labels
    read = {label.name: label for label in plain}
    labels = [read.get(label.name, label) for label in labels]
    return _with_labels(rows, plain, left.loc[sentences == ""].reset_index(drop=True), task, cuts), labels


def _seen_from(table, rows, other):
    """Rows of another table, with the images beside it as they are seen from the task's own table."""
    beside = rows["location"].map(lambda file: os.path.join(os.path.dirname(other), file))
    there = (rows["location"] != "") & beside.map(os.path.isfile)
    seen = beside.map(lambda file: os.path.relpath(file, os.path.dirname(table) or "."))
    return rows.assign(location=rows["location"].where(~there, seen))


def _from_folders(task, labels, cuts):
    """The labelled galaxies of class folders."""
    source = task["folders"]
    table = list_labelled(source, labels[0].name)
    origin = Path(source).name
    cuts.count(f"images in {origin}", table)
    if table["split"].isna().all():
        table = table.drop(columns="split")
    elif task["folds"] or task["split"]:
        raise UserError(
            f"{cuts.key}: {source} has its own split into {', '.join(sorted(set(table['split'])))}, and the"
            f" task has {'folds' if task['folds'] else 'split'} too; set that to null, or give one of the"
            " folders."
        )
    if task["query"]:
        table = cuts.select(
            f"query ({task['query']})", table, select(table, task["query"], origin, f"{cuts.key}.query")
        )
    if "split" in table:
        table["split"] = read_split(table["split"], table["place"].tolist())
    rows, labels, left = _encoded(table, table, labels, table["place"].tolist(), origin)
    return _with_labels(rows, labels, left, task, cuts), labels


def _encoded(rows, columns, labels, places, origin):
    """The rows with targets, the labels with their classes, and which cells are blank."""
    found, blanks = [], {}
    for label in labels:
        label, numbers, blank = label.encode(columns, origin, places)
        found.append(label)
        blanks[label.name] = blank
        rows = rows.assign(**{label.name: numbers})
    return rows, found, pd.DataFrame(blanks).assign(place=places)


def _with_labels(rows, labels, blanks, task, cuts):
    """Leave out galaxies without a label, or stop at them, and those between yes and no."""
    names = [label.name for label in labels]
    blank = blanks[names].any(axis=1)
    if blank.any() and task["missing"] == "refuse":
        first = blanks[blank].iloc[0]
        raise UserError(
            f"{first['place']}: the label '{next(name for name in names if first[name])}' is blank, as in"
            f" {blank.sum()} of {len(blanks)} rows; label the galaxies, or set missing of {cuts.key} to drop."
        )
    rows = cuts.select("with a label", rows, ~blank.to_numpy())
    for label in labels:
        if label.yes_above is not None:
            step = f"{label.name} above {label.yes_above:g} or below {label.no_below:g}"
            rows = cuts.select(step, rows, rows[label.name].notna().to_numpy())
    return rows


def _parts(table, labels, task, seed, where):
    """Each galaxy's part: with folds the number of the fold, else 0 for train, 1 for val and 2 for test."""
    shares = task["split"] if isinstance(task["split"], dict) else SHARES
    if "split" in table:
        return own_splits(table, labels, shares, seed, where)
    count = task["folds"] or len(SPLITS)
    for label in labels:
        if label.kind in CLASSIFICATIONS:
            _check_members(table, label, count, "folds" if task["folds"] else "splits", where)
    alone = table["group"].nunique() if "group" in table else len(table)
    if alone < count:
        what = "groups of galaxies" if "group" in table else "galaxies"
        raise UserError(f"{where}: {alone} {what} are fewer than {count} parts; label more galaxies.")
    chosen = [1 / count] * count if task["folds"] else [shares[split] for split in SPLITS]
    return divide(table, labels, chosen, seed)


def _check_members(table, label, count, parts, where):
    classes = len(label.classes) or 2
    what, alone = "galaxies", table
    if "group" in table:
        what, alone = "groups of galaxies", table.drop_duplicates(["group", label.name])
    sizes = np.bincount(alone[label.name].astype(int), minlength=classes)
    rare = int(sizes.argmin())
    if sizes[rare] < count:
        raise UserError(
            f"{where}: the class '{label.shown(rare)}' of {label.name} has {sizes[rare]} {what}, fewer than"
            f" the {count} {parts}; label more of them, leave the class out by query, or"
            f" {'lower folds' if parts == 'folds' else 'give a split of your own'}."
        )


def _check_fit(galaxies, fit, labels, cuts):
    """Stop where a finetuning has too little to learn from; count the galaxies of its splits."""
    where = f"{cuts.key}, {fit}" if fit else cuts.key
    splits = cut_fit(galaxies, fit, where)
    check_learnable(labels, splits["train"].table, f"{where}, train")
    for split, catalog in splits.items():
        if catalog.table.empty:
            raise UserError(f"{where}: no galaxy is in {split}; label more galaxies, or raise its share.")
        cuts.count(f"{fit or 'split'} {split}", catalog.table)
    if "repeats" in splits["train"].table:
        cuts.count(f"{fit or 'split'} train, shown an epoch", repeated(splits["train"].table))
