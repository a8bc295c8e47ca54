"""How the galaxies of a task are divided into splits and folds, selected in part, and balanced."""

import hashlib

import numpy as np
import pandas as pd

from zoolib.data.catalogs import SPLITS
from zoolib.job.logs import UserError

# Words that tables and folders use for the splits.
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
WORDS |= {"test": "test", "testing": "test"}
CLASSIFICATIONS = ("binary", "multiclass")
# Number of equally large strata into which the values of a regression are cut, to spread them evenly.
BINS = 5


def read_split(words, places):
    """Read the user's own split.

    Args:
        words: (galaxies,) Series: train, val or test in any usual spelling.
        places: the name of each row in error messages.

    Returns:
        (galaxies,) Series of train, val and test.

    Raises:
        UserError: a cell has another word, or is blank.
    """
    found = words.astype(str).str.strip().str.lower().map(WORDS)
    if found.isna().any():
        first = int(np.flatnonzero(found.isna())[0])
        cell = "blank" if pd.isna(words.iloc[first]) else f"'{words.iloc[first]}'"
        raise UserError(
            f"{places[first]}: the split is {cell}, expected train, val or test; fix the cell, or exclude"
            " such rows with query."
        )
    return found


def strata(table, labels):
    """Sort galaxies into strata of similar ones, so that each part can get its share of each stratum.

    The strata of a classification are its classes, those of a regression are fifths of the sorted values,
    and those of votes are the most frequent answers to the first question.

    Args:
        table: a data frame with the labels' target columns.
        labels: a list of `Label`.

    Returns:
        A list of (galaxies,) integer arrays, one per label: the stratum of each galaxy.
    """
    found = []
    for label in labels:
        if label.kind == "votes":
            found.append(table[label.tree.first_columns].to_numpy().argmax(axis=1))
        elif label.kind in CLASSIFICATIONS:
            found.append(table[label.name].to_numpy(int))
        else:
            ranks = table[label.name].rank(method="first").to_numpy() - 1
            found.append((ranks * BINS / max(len(table), 1)).astype(int))
    return found


def divide(table, labels, shares, seed):
    """Divide galaxies into parts, each with its share of each class.

    The galaxies are sorted by stratum, and within a stratum by a hash of their names. One after the other,
    each goes to the part that lacks most of its share so far. So the shares hold for all galaxies and for any
    stretch of this order, even for small classes. A class with at least as many galaxies as there are parts
    is then in every part.

    If the table has the column `group`, whatever is equal there goes to one part together. A group stands
    where its galaxy of the rarest class would; large groups come first, so that small ones fill the gaps.

    Args:
        table: a data frame with `id_str`, the labels' target columns, and optionally `group`, text.
        labels: a list of `Label`.
        shares: the parts' shares; their sum is 1.
        seed: whole number.

    Returns:
        (galaxies,) array: the number of each galaxy's part.
    """
    shares, alike = np.asarray(shares, float), strata(table, labels)
    group, names = pd.factorize(table["group"] if "group" in table else table["id_str"])
    sizes = np.bincount(group)
    first = _rarest_first(group, alike)
    # lexsort sorts by its last key first.
    position = hash_positions(names, seed)
    line = np.lexsort([np.asarray(names, str), position, -sizes, *(column[first] for column in alike[::-1])])
    parts, given = np.zeros(len(sizes), int), np.zeros(len(shares))
    for number, placed in zip(line, np.cumsum(sizes[line]), strict=True):
        parts[number] = np.argmax(shares * placed - given)
        given[parts[number]] += sizes[number]
    for label, classes in zip(labels, alike, strict=True):
        if label.kind not in CLASSIFICATIONS:
            continue
        for number in np.unique(classes):
            has = np.isin(line, group[classes == number])
            _fill(parts, line[has], len(shares))
    return parts[group]


def _rarest_first(group, alike):
    """The row of each group whose class is the rarest."""
    rarity = np.min([np.bincount(column)[column] for column in alike], axis=0)
    order = np.lexsort([*alike[::-1], rarity])
    _, first = np.unique(group[order], return_index=True)
    return order[first]


def _fill(parts, members, count):
    """Give each part without a member one of the part that has most, if there are enough of them."""
    counts = np.bincount(parts[members], minlength=count)
    for part in np.flatnonzero(counts == 0) if len(members) >= count else ():
        richest = counts.argmax()
        parts[members[parts[members] == richest][-1]] = part
        counts[[richest, part]] += [-1, 1]


def own_splits(table, labels, shares, seed, where):
    """Use the user's own split; if val or test is missing, it is cut from the training galaxies.

    Args:
        table: a data frame of id_str, the labels' targets, `split`, with the words train, val and test, and
            optionally `group`: what is equal there must be in one split.
        labels: a list of `Label`.
        shares: {"train", "val", "test": share}, used for a split that is missing.
        seed: whole number.
        where: the task's name in error messages.

    Returns:
        (galaxies,) array: 0 for train, 1 for val, 2 for test.

    Raises:
        UserError: there is no galaxy to train on, or a group is in two splits.
    """
    _check_sides(table, where)
    numbers = dict(zip(SPLITS, range(3), strict=True))
    number = table["split"].map(numbers).to_numpy(int, copy=True)
    if not (number == 0).any():
        raise UserError(f"{where}: the split has no galaxy in train, expected one or more; add some.")
    missing = [0, *(part for part in (1, 2) if not (number == part).any())]
    if len(missing) > 1:
        learned = table[number == 0]
        weights = np.array([shares[SPLITS[part]] for part in missing])
        cut = divide(learned, labels, weights / weights.sum(), seed)
        number[number == 0] = np.array(missing)[cut]
    return number


def _check_sides(table, where):
    if "group" not in table:
        return
    apart = table[table.groupby("group")["split"].transform("nunique") > 1]
    if apart.empty:
        return
    alike = apart[apart["group"] == apart["group"].iloc[0]].drop_duplicates("split")
    (one, first), (other, second) = alike[["id_str", "split"]].to_numpy()[:2]
    raise UserError(
        f"{where}.split: the galaxies '{one}' and '{other}' are in the same group"
        f" '{alike['group'].iloc[0].removeprefix('group:')}', but in {first} and {second} (one of"
        f" {apart['group'].nunique()} such groups); put each group into one split, or give shares."
    )


def first_few(table, labels, count, seed):
    """Choose some galaxies of a catalogue, with the same share of each class.

    The galaxies of a smaller count are among those of a larger one. Each class has one galaxy before any has
    two.

    Args:
        table: a data frame with `id_str` and the labels' target columns.
        labels: a list of `Label`.
        count: the number of galaxies to choose.
        seed: whole number; another seed chooses other galaxies.

    Returns:
        A data frame of `count` rows, in the order of the table.
    """
    position = hash_positions(table["id_str"], seed)
    alike = pd.DataFrame(dict(enumerate(strata(table, labels)))).assign(position=position)
    within = alike.groupby(list(alike.columns[:-1]))["position"]
    rank = within.rank(method="first")
    place = (rank - 0.5) / within.transform("size")
    chosen = np.lexsort([position, place, rank > 1])[:count]
    return table.iloc[np.sort(chosen)].reset_index(drop=True)


def repeats(classes):
    """How often to show each galaxy in an epoch, so that all classes are shown equally often.

    Args:
        classes: (galaxies,) each galaxy's class.

    Returns:
        (galaxies,) integers of 1 or more; their sum is the same for each class: the size of the largest one.
    """
    classes = pd.Series(np.asarray(classes))
    sizes = classes.groupby(classes).transform("size")
    largest, number = sizes.max(), classes.groupby(classes).cumcount()
    return (largest // sizes + (number < largest % sizes)).to_numpy(int)


def class_weights(classes, count):
    """Weights of the classes in the loss: each class has the same total weight, and the mean weight is 1.

    Args:
        classes: (galaxies,) each galaxy's class.
        count: the number of classes.

    Returns:
        A list of floats, in the order of the classes.
    """
    sizes = np.bincount(np.asarray(classes, int), minlength=count)
    return (len(classes) / (count * np.maximum(sizes, 1))).tolist()


def cut(table, shares, seed):
    """Cut a table into splits by a hash of each galaxy's name and the seed.

    A galaxy's split depends only on its name, not on the order of rows and not on the other galaxies. With a
    column `group` it depends on the text there instead, so that what is equal there is in one split.

    Args:
        table: a data frame with `id_str` and optionally `group`.
        shares: the splits' shares; their sum is 1.
        seed: whole number.

    Returns:
        One data frame per split, sorted by the hash of the names, so that any slice of it is a random sample.
    """
    table = table.assign(position=hash_positions(table["id_str"], seed))
    table = table.sort_values(["position", "id_str"])
    position = hash_positions(table["group"], seed) if "group" in table else table["position"].to_numpy()
    number = np.searchsorted(np.cumsum(shares)[:-1], position, side="right")
    table = table.drop(columns="position")
    return [table[number == split].reset_index(drop=True) for split in range(len(shares))]


def hash_positions(names, seed):
    """A position between 0 and 1 for each galaxy, which looks random but depends only on name and seed.

    Args:
        names: a sequence of text.
        seed: whole number.

    Returns:
        (galaxies,) float64 in [0, 1): the first 53 bits of the SHA-256 of `{seed}:{name}`.
    """
    digests = (hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names)
    return np.array([int.from_bytes(digest[:8], "big") >> 11 for digest in digests], np.int64) / 2.0**53
