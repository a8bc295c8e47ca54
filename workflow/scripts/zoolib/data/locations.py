"""Where the pixels of each galaxy are: in archives or in folders, found by name."""

import os
from collections import Counter
from pathlib import Path

import pandas as pd

from zoolib.config.folders import check_text, walk
from zoolib.data.tables import IDS, LOCATIONS, find_column, read_batches, read_names
from zoolib.job.logs import UserError, check_machine, log
from zoolib.zenodo import archives

PLACES = ["archive", "member", "file_loc"]


def in_archives(names, files, paths):
    """Find galaxies in zips by the base names of the members; the folders inside the zips do not matter.

    Args:
        names: (galaxies,) Series of id_str.
        files: (galaxies,) Series of the file that the table names, "" where it names none.
        paths: the zips.

    Returns:
        (data frame of archive, member and file_loc, a message for each galaxy without an image and "" for the
        others).

    Raises:
        UserError: an archive is missing or not readable, or two different images have the same base name.
    """
    members = archives.index(paths)
    log.info("%s images in %s", f"{len(members):,}", ", ".join(Path(path).name for path in paths))
    found = _first_found(_base_names(names, files), members)
    pairs = [pair or ("", "") for pair in found]
    places = pd.DataFrame(pairs, index=names.index, columns=PLACES[:2]).astype(str).assign(file_loc="")
    searched = ", ".join(Path(path).name for path in paths)
    return places, _missing(names, files, places["member"] == "", searched)


def in_folder(names, files, folder, beside, key="catalogs[]"):
    """Find galaxies among image files.

    A file that the table names is searched in the folder, then beside the table, then by its base name
    anywhere below the folder. If the table names none, `{id_str}` with any of the known suffixes is searched.

    Args:
        names: (galaxies,) Series of id_str.
        files: (galaxies,) Series of the file that the table names, "" where it names none.
        folder: the folder of images; None if only the table says where they are.
        beside: the folder of the table.
        key: what error messages call the table's entry of the configuration.

    Returns:
        (data frame of archive, member and file_loc, a message for each galaxy without an image and "" for the
        others).

    Raises:
        UserError: there is no such folder, or neither a folder nor a table that says where the images are.
    """
    if folder is None and not (files != "").any():
        raise UserError(
            f"{key}.images: neither archives nor a folder of images is given, and the table has no column"
            " file_loc; give one of them."
        )
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"{folder}: there is no such folder of images; fix {key}.images.")
    bases = [base for base in (folder, beside) if base is not None]
    found = pd.Series(None, index=names.index, dtype=object)
    for base in bases:
        # os.path.join does not change an absolute path.
        joined = files.map(lambda file, base=base: os.path.join(base, file) if file else "")
        found = found.where(found.notna(), joined.where(_are_files(joined), None))
    unclear = pd.Series(False, index=names.index)
    if folder is not None and found.isna().any():
        below, twice = _files_below(folder)
        searched = _first_found(_base_names(names, files), below)
        unclear = found.isna() & searched.isin(twice)
        found = found.where(found.notna() | unclear, searched)
    places = pd.DataFrame({"archive": "", "member": "", "file_loc": found.fillna("")}, index=names.index)
    messages = _missing(names, files, found.isna(), " and ".join(map(str, bases)))
    if unclear.any():
        messages[unclear] = [
            f"{folder}: several files are called '{os.path.basename(path)}'; name the right one in file_loc."
            for path in searched[unclear]
        ]
    return places, messages


def _base_names(names, files):
    """Possible names of the galaxies' files, the most likely first."""
    yield files.map(os.path.basename)
    for suffix in archives.SUFFIXES:
        yield names + suffix


def _first_found(candidates, known):
    found = None
    for candidate in candidates:
        hits = pd.Series([known.get(name) for name in candidate], index=candidate.index, dtype=object)
        found = hits if found is None else found.where(found.notna(), hits)
        if found.notna().all():
            break
    return found


def _are_files(paths, listings=None):
    # One listing of each folder: on a cluster's file system, checking each of 300,000 files takes minutes.
    folders = paths.map(os.path.dirname)
    listings = {} if listings is None else listings
    listings |= {folder: _listing(folder) for folder in set(folders) - set(listings)}
    pairs = zip(folders, paths.map(os.path.basename), strict=True)
    there = [bool(base) and base in listings[folder] for folder, base in pairs]
    return pd.Series(there, index=paths.index, dtype=bool)


def _listing(folder):
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    # A ValueError: a zero byte in a table's path.
    except (OSError, ValueError) as error:
        check_machine(error, folder or ".")
        return set()


def _is_file(entry):
    try:
        return entry.is_file()
    except OSError as error:
        # A link to itself is no file, and its neighbours are.
        check_machine(error, entry.path)
        return False


def _files_below(folder):
    """All images below a folder as {base name: path}, and the paths whose base name is not unique."""
    # A link that leads nowhere is no image: its galaxy is rejected.
    paths = sorted(
        path for path, kind in walk(folder) if kind == "file" and path.lower().endswith(archives.SUFFIXES)
    )
    for path in paths:
        check_text(path)
    counts = Counter(map(os.path.basename, paths))
    below = {os.path.basename(path): path for path in paths}
    return below, {path for name, path in below.items() if counts[name] > 1}


def _missing(names, files, without, searched):
    messages = pd.Series("", index=names.index, dtype=object)
    wanted = files.where(files != "", names + archives.SUFFIXES[0])[without]
    messages[without] = [f"no image '{file}' in {searched}; get it or remove the row." for file in wanted]
    return messages


def read_places(path, rows, name=None, location=None):
    """Read which galaxies are in a catalogue and where the pixels are; votes are not read.

    Args:
        path: a catalogue of this project, or a table (Parquet or CSV) in Zoobot's convention: `id_str` and
            `file_loc`, which is absolute or relative to the working directory or to the table's folder.
        rows: number of galaxies that are read at a time.
        name: the column of the names, where it is not one of `tables.IDS`.
        location: the column of the files, where it is not one of `tables.LOCATIONS`.

    Yields:
        Data frames of id_str, archive, member and file_loc, in the order of the table.

    Raises:
        UserError: no such table, no column of names or of files, a galaxy without a name, or no galaxy.
    """
    found, listings = {}, {}

    def choose(columns):
        found["id"] = find_column(columns, name, IDS, path, "id of its target")
        found["location"] = find_column(columns, location, LOCATIONS, path, "location of its target")
        found["archived"] = [name for name in PLACES[:2] if name in columns]
        if found["id"] is None or not (found["location"] or len(found["archived"]) == 2):
            raise UserError(
                f"{path}: is not a catalogue to predict for, it has the columns {', '.join(columns[:6])};"
                f" expected {' or '.join(IDS)} and {' or '.join(LOCATIONS)}; for other names set id and"
                " location of the target in predict.targets[]."
            )
        return list(dict.fromkeys(filter(None, [found["id"], found["location"], *found["archived"]])))

    words = (*IDS, *LOCATIONS, *PLACES, *filter(None, [name, location]))
    for table in read_batches(path, choose, words, rows):
        if table.empty:
            raise UserError(f"{path}: has no galaxy to predict for; get the table again.")
        names, blank = read_names(table, found["id"], table.index + 1, Path(path).name)
        if (blank != "").any():
            raise UserError(blank[blank != ""].iloc[0])
        columns = {name: table[name].fillna("").astype(str) if name in table else "" for name in PLACES[:2]}
        files = pd.Series("", table.index)
        if found["location"]:
            files = table[found["location"]].fillna("").astype(str)
        columns["file_loc"] = _from_here(files, Path(path).parent, listings)
        yield pd.DataFrame({"id_str": names, **columns}, index=table.index)


def _from_here(files, folder, listings):
    """Paths as they are; those of files that exist only relative to a folder, with the folder before them."""
    # An absolute path needs no search.
    relative = files[(files != "") & ~files.map(os.path.isabs)]
    beside = relative.map(lambda file: os.path.join(folder, file))
    there = _are_files(relative, listings) | ~_are_files(beside, listings)
    files = files.copy()
    files[relative.index] = relative.where(there, beside)
    return files


def rows_of(places, names):
    """Find where the images of some galaxies are.

    Args:
        places: tables (Parquet) with the columns id_str, archive, member and file_loc.
        names: id_str of the galaxies.

    Returns:
        {id_str: the row of a table, a dict}.

    Raises:
        UserError: a galaxy is in none of the tables.
    """
    found = {}
    for path in places:
        table = pd.read_parquet(path, columns=["id_str", *PLACES], filters=[("id_str", "in", list(names))])
        found |= {row["id_str"]: row for row in table.to_dict("records")}
    missing = set(names) - set(found)
    if missing:
        raise UserError(
            f"{', '.join(map(str, places))}: the galaxy '{min(missing)}' is missing, but is in the ranking;"
            " list the galaxies again (--forcerun list_galaxies)."
        )
    return found


def stem(name):
    """The id_str of an image file's galaxy: its base name without the suffix.

    Args:
        name: ends in one of `archives.SUFFIXES`.

    Returns:
        The name without the suffix; `.fits.gz` is one suffix.

    Raises:
        UserError: it ends in none of them.
    """
    for ending in sorted(archives.SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    raise UserError(
        f"{name}: is not the name of an image; expected one that ends in {', '.join(archives.SUFFIXES)}."
    )
