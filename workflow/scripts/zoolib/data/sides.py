"""Which galaxies stay on one side of every split: those of one group, and those that share an image."""

import os
from collections import Counter

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from zoolib.zenodo.archives import read_infos


def read_groups(cells):
    """Read a column that says which galaxies belong together.

    Args:
        cells: (galaxies,) Series of text or numbers.

    Returns:
        (galaxies,) Series of text: `group:` and the cell, "" where it is blank. 7, 7.0 and " 7" are the same:
        one blank makes a column of whole numbers one of floating-point numbers.
    """
    words = [
        "" if pd.isna(cell) else f"{cell:.0f}" if _is_whole(cell) else str(cell).strip()
        for cell in cells.tolist()
    ]
    return pd.Series([word and f"group:{word}" for word in words], index=cells.index, dtype=object)


def _is_whole(cell):
    return isinstance(cell, float) and cell.is_integer()


def sides(names, groups, images):
    """Put together what is linked, directly or through other galaxies.

    Args:
        names: (rows,) Series of id_str; a galaxy of several campaigns may be in several rows.
        groups: (rows,) Series of text, "" for none, as `read_groups` gives it.
        images: (rows,) Series of text, equal for the same image, "" for none.

    Returns:
        (rows,) Series of text, equal for rows that stay together. For a galaxy that is linked with no other
        it is its name, for a group that is linked with no other it is the group's text: neither depends on
        which other galaxies there are.
    """
    rows, nodes, count = [], [], len(names)
    for column in (names, groups, images):
        codes, values = pd.factorize(column.where(column != ""))
        rows.append(np.flatnonzero(codes >= 0))
        nodes.append(codes[rows[-1]] + count)
        count += len(values)
    edges = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(edges[0]), bool), edges), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    alone = (groups == "") | (groups == names)
    found = pd.DataFrame({"alone": alone, "text": names.where(alone, groups)})
    found["component"] = component[: len(names)]
    first = found.sort_values(["alone", "text"]).drop_duplicates("component").set_index("component")["text"]
    return found["component"].map(first)


def images_led_to(places):
    """Find the images that several places lead to, without reading them.

    Args:
        places: data frame of archive, member and file_loc.

    Returns:
        (rows,) Series of text, equal for the same image and "" for no image. A member of a zip is known by
        its size and checksum, a file by what its path, links and hard links lead to.
    """
    found = pd.Series("", index=places.index, dtype=object)
    for archive, members in places["member"][places["archive"] != ""].groupby(places["archive"]):
        known = {info.filename: f"crc {info.CRC:08x} {info.file_size}" for info in read_infos(archive)}
        found[members.index] = members.map(known)
    files = places["file_loc"][places["file_loc"] != ""]
    found[files.index] = files.map(_files_led_to(files.unique()))
    return found


def _files_led_to(paths):
    """{path: text that is equal for all paths to one file}."""
    # Each folder is listed once: asking for each of 300,000 files takes minutes on a cluster's file system.
    folders = {folder: _listing(folder) for folder in {os.path.dirname(path) for path in paths}}
    real, inodes = {}, {}
    for path in paths:
        folder, name = os.path.split(path)
        top, entries = folders[folder]
        entry = entries.get(name)
        linked = entry is None or entry.is_symlink()
        real[path] = os.path.realpath(path) if linked else os.path.join(top, name)
        inodes[real[path]] = _inode(real[path])[1] if linked else entry.inode()
    # A listing's numbers are no proof, because some file systems make them up; the file's own ones are.
    shared = Counter(inodes.values())
    linked = {file: f"inode {_inode(file)}" for file, inode in inodes.items() if shared[inode] > 1}
    return {path: linked.get(file, file) for path, file in real.items()}


def _listing(folder):
    top = os.path.realpath(folder)
    try:
        with os.scandir(top) as entries:
            return top, {entry.name: entry for entry in entries}
    except OSError:
        return top, {}


def _inode(path):
    try:
        about = os.stat(path)
    except OSError:
        return path, path
    return about.st_dev, about.st_ino
