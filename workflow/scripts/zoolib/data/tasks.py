"""Stage finetune, the data: from labels, wherever they come from, to the catalogues of a task's trainings."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.config.labels import Label, check_learnable
from zoolib.data.catalogs import SPLITS, Catalog, write_catalog
from zoolib.data.class_folders import list_labelled
from zoolib.data.images import BadImage, load_row
from zoolib.data.partition import (
    CLASSIFICATIONS,
    class_weights,
    divide,
    first_few,
    hash_positions,
    own_splits,
    read_split,
    repeats,
)
from zoolib.data.selection import Cuts, find_images, listed_twice, read_rows, unreadable
from zoolib.data.tables import read_numbers, select
from zoolib.job.logs import UserError, log, whole

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
# Images that are looked at to tell whether a task's galaxies are grey.
LOOKED_AT = 20


def build_task(task, fits, seed, catalogs, rejected, summary, max_rejected):
    """Make the catalogues of all trainings of a task.

    The steps: the query; a name; a label (a wrong one stops the run, a blank one is left out or stops it);
    listed once; an image that can be read; the split. What is left out is counted, and what cannot be used
    is a line of `rejected` with its sentence too.

    A training catalogue has the column `repeats` where the task balances its classes by repeating: how
    often an epoch is to show the galaxy (see `repeated`). Where it balances by weights, `class_weights` of
    its metadata has one number a class. `labels` of the metadata says what is learned, with all classes.

    Args:
        task: {"name", "labels" (of `Label.to_dict`), "table" or "folders", "archives" or "images",
            "id", "location", "query", "missing", "balance", "split", "folds"}, of the configuration and with
            paths in place of names.
        fits: names of its trainings, as `task_agreement.fit_names` gives them.
        seed: whole number.
        catalogs: paths of Parquet files to write: train, val and test of the first training, of the next …
        rejected: CSV to write: id_str, reason.
        summary: CSV to write: step, galaxies.
        max_rejected: largest share of images that may be unreadable.

    Raises:
        UserError: a table, column, folder, archive or query that is missing or wrong; a wrong label; one
            class or value alone; a class with fewer galaxies than splits or folds; an empty split; too many
            unreadable images; a count of labels that there are not.
    """
    where = f"finetune.tasks.{task['name']}"
    cuts = Cuts(where)
    labels = [Label.from_dict(content) for content in task["labels"]]
    table, labels = (_from_folders if task["folders"] else _from_table)(task, labels, cuts)
    targets = [column for label in labels for column in label.targets]
    same = [*targets, "split"] if "split" in table else targets
    table = cuts.reject("listed once", table, listed_twice(table, same, "labels or splits"))
    if not task["folders"]:
        places, sentences = find_images(table, task, where)
        table = cuts.reject("with an image", table.assign(**places), sentences)
        # One image under two names would be learned from and tested on.
        images = table[["archive", "member", "file_loc"]].agg("".join, axis=1)
        sentences = listed_twice(table.assign(id_str=images), same, "labels or splits")
        table = cuts.reject("with an image of its own", table, sentences)
    table = cuts.reject("with an image that can be read", table, unreadable(table, max_rejected))
    # In the order of a hash, so that any slice of a catalogue is a random sample.
    table = table.assign(position=hash_positions(table["id_str"], seed))
    table = table.sort_values(["position", "id_str"], ignore_index=True)
    check_learnable(labels, table, where)
    parts, count = _parts(table, labels, task, seed, where)
    written = zip(product(fits, SPLITS), catalogs, strict=True)
    paths = {(fit, split): path for (fit, split), path in written}
    for fit in fits:
        numbers = _split_numbers(fit, count)
        tables = [table[np.isin(parts, chosen)].reset_index(drop=True) for chosen in numbers]
        _write_fit(fit, tables, labels, task["balance"], cuts, where, paths)
    for path, lines in ((rejected, cuts.rejected()), (summary, cuts.summary())):
        with whole(path) as partial:
            lines.to_csv(partial, index=False)


def repeated(table):
    """The galaxies as an epoch shows them: those of small classes several times.

    Args:
        table: a training catalogue.

    Returns:
        A data frame without `repeats`, with one row a showing. Each has an `id_str` of its own, on which
        its random view depends, so that no view is shown twice in an epoch.
    """
    if "repeats" not in table:
        return table
    shown = table.loc[table.index.repeat(table["repeats"])]
    again = shown.groupby(level=0).cumcount()
    names = shown["id_str"].where(again == 0, shown["id_str"] + " again " + again.astype(str))
    return shown.assign(id_str=names).drop(columns="repeats").reset_index(drop=True)


def warn_of_grey(table, image, where):
    """Say that a model which knows colours is given grey images, where that is so.

    They are used, as three equal bands; the model has never seen such.

    Args:
        table: a catalogue of the task; its first few images are looked at.
        image: the `image` section of the model.
        where: what the sentence calls the task.

    Returns:
        Whether it was said.
    """
    if not image["color"]:
        return False
    for row in table[:LOOKED_AT].to_dict("records"):
        try:
            pixels = load_row(row, 64, color=True).astype(int)
        except BadImage:
            continue
        if np.ptp(pixels, axis=2).max() > 0:
            return False
    log.warning(
        "%s: the model was trained on colour images and these are grey; they are used as three equal bands,"
        " but a model that was trained with image.color: false will know them better",
        where,
    )
    return True


def _from_table(task, labels, cuts):
    """The labelled galaxies of a table, with where each stands in it."""
    path, where, naming = task["table"], cuts.key, {}
    own = isinstance(task["split"], str)

    def needed(available):
        for label in labels:
            if label.kind == "votes":
                naming.update(label.tree.vote_columns(available, path))
            elif label.name not in available:
                raise UserError(
                    f"{path}: has no column '{label.name}', which is to be a label; it has"
                    f" {', '.join(list(available)[:6])}; fix {where}.label."
                )
        if own and task["split"] not in available:
            raise UserError(
                f"{path}: has no column '{task['split']}', which {where}.split names; name the column that"
                " says train, val or test, or give shares."
            )
        return [*naming.values(), *(label.name for label in labels), *([task["split"]] if own else [])]

    # A class may be called None.
    classes = [label.name for label in labels if label.kind == "multiclass" or label.classes]
    columns, rows, sentences = read_rows(task, needed, cuts, where, classes)
    places = rows["place"].tolist()
    if naming:
        # Votes are the only label: nobody's vote is a blank.
        numbers, wrong = read_numbers(columns, naming, places)
        rows = pd.concat([rows, numbers], axis=1)
        sentences = sentences.where(sentences != "", wrong)
    if own:
        rows["split"] = read_split(columns[task["split"]], places)
    if not naming:
        rows, labels, left = _encoded(rows, columns, labels, places, Path(path).name)
    step = "with a name and usable votes" if naming else "with a name"
    rows = cuts.reject(step, rows, sentences)
    if naming:
        return rows, labels
    return _with_labels(rows, labels, left.loc[sentences == ""].reset_index(drop=True), task, cuts), labels


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
    """(each galaxy's part, how many there are): folds, or train, val and test."""
    shares = task["split"] if isinstance(task["split"], dict) else SHARES
    if "split" in table:
        return own_splits(table, labels, shares, seed, where), None
    count = task["folds"] or len(SPLITS)
    for label in labels:
        if label.kind in CLASSIFICATIONS:
            _check_members(table, label, count, "folds" if task["folds"] else "splits", where)
    if len(table) < count:
        raise UserError(f"{where}: {len(table)} galaxies are fewer than {count} parts; label more galaxies.")
    chosen = [1 / count] * count if task["folds"] else [shares[split] for split in SPLITS]
    return divide(table, labels, chosen, seed), task["folds"]


def _check_members(table, label, count, parts, where):
    classes = len(label.classes) or 2
    sizes = np.bincount(table[label.name].astype(int), minlength=classes)
    rare = int(sizes.argmin())
    if sizes[rare] < count:
        raise UserError(
            f"{where}: the class '{label.shown(rare)}' of {label.name} has {sizes[rare]} galaxies, fewer than"
            f" the {count} {parts}; label more of them, leave the class out by query, or"
            f" {'lower folds' if parts == 'folds' else 'give a split of your own'}."
        )


def _split_numbers(fit, count):
    """Numbers of the parts that are train, val and test in a training."""
    if not count:
        return [0], [1], [2]
    test = int(fit.removeprefix("fold"))
    val = (test + 1) % count
    return [part for part in range(count) if part not in (test, val)], [val], [test]


def _write_fit(fit, tables, labels, balance, cuts, where, paths):
    train, val, test = tables
    where = f"{where}, {fit}" if fit else where
    if fit.startswith("labels"):
        number, seed, _ = fit.removeprefix("labels").split("-")
        if int(number) > len(train):
            raise UserError(
                f"{where}: label_counts asks for {number} labels, and {len(train)} galaxies are in train;"
                " leave the number out, or raise the share of train."
            )
        train = first_few(train, labels, int(number), int(seed))
    about = {"labels": [label.to_dict() for label in labels]}
    check_learnable(labels, train, f"{where}, train")
    if balance != "none":
        classes = train[labels[0].name].to_numpy(int)
        if balance == "repeat":
            train = train.assign(repeats=repeats(classes))
        else:
            about["class_weights"] = class_weights(classes, len(labels[0].classes) or 2)
    tree = labels[0].tree
    columns = tree.columns if tree else [label.name for label in labels]
    for split, part in zip(SPLITS, (train, val, test), strict=True):
        if part.empty:
            raise UserError(f"{where}: no galaxy is in {split}; label more galaxies, or raise its share.")
        write_catalog(Catalog(part, columns, tree, about), paths[fit, split])
        cuts.count(f"{fit or 'split'} {split}", part)
    if "repeats" in train:
        cuts.count(f"{fit or 'split'} train, shown an epoch", repeated(train))
