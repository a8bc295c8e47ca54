"""How a finetuning sees the galaxies of its task: train, val and test, and how often each is shown."""

import numpy as np

from zoolib.config.labels import Label
from zoolib.config.tasks import label_count_of
from zoolib.data.catalogs import SPLITS, Catalog, read_catalog
from zoolib.data.images import BadImage, load_row
from zoolib.data.partition import class_weights, first_few, repeats
from zoolib.job.logs import UserError, log

# Labels that train and val need each: one of each of two classes, or two numbers.
FEWEST = 2
# Images that are looked at to see whether a task's galaxies are grey.
LOOKED_AT = 20


def read_fit(path, fit=""):
    """Read the galaxies of a task as one of its finetunings sees them.

    Args:
        path: `galaxies.parquet` of the task.
        fit: name of the finetuning, as `config.tasks.fit_names` gives it.

    Returns:
        As `cut_fit`.

    Raises:
        UserError: no such file, or not the galaxies of a task; and as `cut_fit`.
    """
    catalog = read_catalog(path)
    if "part" not in catalog.table:
        raise UserError(f"{path}: has no column 'part', expected the galaxies of a task; make it again.")
    return cut_fit(catalog, fit, str(path))


def cut_fit(catalog, fit, where):
    """Cut the galaxies of a task into train, val and test.

    Args:
        catalog: `Catalog` whose table has `part`: with folds the number of the fold, else 0 for train, 1
            for val and 2 for test; its metadata have `labels`, `folds` and `balance`.
        fit: name of the finetuning. `fold0` is tested on part 0 and stopped by part 1, and so on around the
            folds; `fold0-scratch` too. `labels50-1-…` has 50 labels, chosen by the seed 1 from train and
            val: those of val count too, because they decide when training stops.
        where: what error messages call the task.

    Returns:
        {split: `Catalog`}, rows in the order of the table. Where classes are balanced by repeating, the
        table of train has the column `repeats`, how often an epoch shows the galaxy; where they are balanced
        by weights, its metadata have `class_weights`, one number a class.

    Raises:
        UserError: fewer galaxies than the labels that a finetuning is to have, or too few labels for both
            train and val.
    """
    labels = [Label.from_dict(content) for content in catalog.about["labels"]]
    part = catalog.table["part"].to_numpy()
    tables = {
        split: catalog.table[np.isin(part, numbers)].drop(columns="part").reset_index(drop=True)
        for split, numbers in zip(SPLITS, _parts_of(fit, catalog.about["folds"]), strict=True)
    }
    if chosen := label_count_of(fit):
        count, seed = chosen
        sizes = {split: len(tables[split]) for split in ("train", "val")}
        for split, few in _share_labels(sizes, labels, count, where).items():
            tables[split] = first_few(tables[split], labels, few, seed)
    cut = {
        split: Catalog(table, catalog.columns, catalog.tree, {"labels": catalog.about["labels"]})
        for split, table in tables.items()
    }
    return {**cut, "train": _balanced(cut["train"], labels[0], catalog.about["balance"])}


def repeated(table):
    """The galaxies as an epoch shows them: those of small classes several times.

    Args:
        table: of train, from `cut_fit`.

    Returns:
        A data frame without `repeats`, with one row a showing. Each has an `id_str` of its own, on which
        its random view depends, so that an epoch never shows the same view twice.
    """
    if "repeats" not in table:
        return table
    shown = table.loc[table.index.repeat(table["repeats"])]
    again = shown.groupby(level=0).cumcount()
    names = shown["id_str"].where(again == 0, shown["id_str"] + " again " + again.astype(str))
    return shown.assign(id_str=names).drop(columns="repeats").reset_index(drop=True)


def warn_of_grey(table, image, where):
    """Warn where a model that was trained on colour images is given grey ones.

    They are used, as three equal bands; the model has never seen such images.

    Args:
        table: a catalogue of the task; its first few images are looked at.
        image: the section `image` of the model.
        where: what the warning calls the task.

    Returns:
        Whether there was a warning.
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


def _parts_of(fit, folds):
    """Numbers of the parts that are train, val and test."""
    if not folds:
        return [0], [1], [2]
    test = int(fit.removeprefix("fold").removesuffix("-scratch"))
    val = (test + 1) % folds
    return [part for part in range(folds) if part not in (test, val)], [val], [test]


def _share_labels(sizes, labels, count, where):
    """How many of some labels are in train and in val: as all labels are, but two or more each."""
    known = sum(sizes.values())
    if count > known:
        raise UserError(
            f"{where}: label_counts asks for {count} labels, and {known} galaxies are in train and val; leave"
            " the number out, or raise their shares."
        )
    if count < 2 * FEWEST:
        raise UserError(
            f"{where}: label_counts asks for {count} labels, and train and val need {FEWEST} each; ask for"
            f" {2 * FEWEST} or more."
        )
    classes = max((len(label.classes) for label in labels), default=0)
    fewest = min(max(classes, FEWEST), count // 2)
    val = min(max(round(count * sizes["val"] / known), fewest), sizes["val"], count - fewest)
    val = max(val, count - sizes["train"])
    return {"train": count - val, "val": val}


def _balanced(train, label, balance):
    if balance == "none":
        return train
    classes = train.table[label.name].to_numpy(int)
    if balance == "repeat":
        return Catalog(
            train.table.assign(repeats=repeats(classes).astype(np.int32)),
            train.columns,
            train.tree,
            train.about,
        )
    weights = class_weights(classes, len(label.classes) or 2)
    return Catalog(train.table, train.columns, train.tree, {**train.about, "class_weights": weights})
