"""Labels from folders named by class, on disk or in a zip, optionally inside train, val and test."""

import os
from pathlib import Path, PurePosixPath

import pandas as pd

from zoolib.config.folders import check_text, shown, walk
from zoolib.data.locations import stem
from zoolib.data.partition import WORDS
from zoolib.job.logs import UserError
from zoolib.zenodo.archives import SUFFIXES, check_names, read_infos


def list_labelled(source, label):
    """List the images of folders that are named by class.

    Args:
        source: a folder, or a zip of a folder. It contains one folder for each class, or folders train, val
            and test that do; a folder that contains nothing but one other folder is skipped.
        label: name of the column for the class.

    Returns:
        A data frame of id_str (the image's base name without its suffix), archive, member, file_loc, place
        (the image's path, for messages), split (None if the folders have no split) and the label.

    Raises:
        UserError: no such folder or zip, images outside of class folders, a class without an image, fewer
            than two classes.
    """
    files, folders, again = (_in_zip if Path(source).is_file() else _in_folder)(source)
    top = _top(files, folders)
    files = {path.relative_to(top): place for path, place in files.items()}
    folders = sorted(path.relative_to(top) for path in folders if path != top and path.is_relative_to(top))
    # They are splits only if all top folders have such names: a class may be called test.
    split = bool(folders) and all(path.parts[0].lower() in WORDS for path in folders)
    depth = 2 if split else 1
    classes = {path.parts for path in folders if len(path.parts) == depth}
    _check_links(source, again, top, depth)
    outside = sorted(path for path in files if len(path.parts) <= depth)
    if outside:
        raise UserError(
            f"{source}: the image '{top / outside[0]}' is not in the folder of a class; expected one folder"
            " for each class, or train, val and test with such folders in each; move it."
        )
    empty = sorted(parts for parts in classes if not any(path.parts[:depth] == parts for path in files))
    if empty:
        raise UserError(
            f"{source}: the folder '{top.joinpath(*empty[0])}' has no image; put images of the class there,"
            " or remove the folder."
        )
    names = sorted({parts[-1] for parts in classes})
    if len(names) < 2:
        raise UserError(
            f"{source}: has the classes {', '.join(names) or 'none'}, expected two folders or more, each"
            " named by its class."
        )
    bases = [stem(path.name) for path in files]
    # Base names are the names of galaxies; if two folders have the same one, folders are part of all names.
    alone = len(set(bases)) == len(bases)
    return pd.DataFrame(
        [
            {
                "id_str": stem(path.name) if alone else str(path.parent / stem(path.name)),
                **place,
                "place": str(PurePosixPath(source) / top / path),
                "split": path.parts[0] if split else None,
                label: path.parts[depth - 1],
            }
            for path, place in sorted(files.items())
        ]
    )


def _check_links(source, again, top, depth):
    twice = sorted(path for path in again if len(path.parts) == len(top.parts) + depth)
    if twice:
        raise UserError(
            f"{source}: the link '{twice[0]}' leads to a folder that is found already"
            f" ({os.path.realpath(Path(source) / twice[0])}), so its images would be in two classes; remove"
            " the link."
        )


def _is_image(path):
    # macOS adds a hidden file beside each file of a zip.
    return path.name.lower().endswith(SUFFIXES) and not any(
        part.startswith((".", "__MACOSX")) for part in path.parts
    )


def _in_folder(source):
    if not Path(source).is_dir():
        raise UserError(f"{source}: there is no such folder; fix finetune.tasks[].folders.")
    files, folders, again = {}, set(), set()
    for found, kind in walk(source):
        path = PurePosixPath(found).relative_to(source)
        if kind == "broken":
            raise UserError(
                f"{shown(found)}: is a link to something that is not there; restore what it leads"
                " to, or remove the link."
            )
        if kind == "folder" or _is_image(path):
            check_text(found)
        if kind == "folder":
            folders.add(path)
        elif kind == "again":
            again.add(path)
        elif _is_image(path):
            files[path] = {"archive": "", "member": "", "file_loc": found}
    return _some(files, source), folders, again


def _in_zip(source):
    files, folders = {}, set()
    # Here the folders of the members are the labels.
    check_names(source)
    for info in read_infos(source):
        path = PurePosixPath(info.filename)
        if _is_image(path):
            files[path] = {"archive": str(source), "member": info.filename, "file_loc": ""}
        if info.is_dir() and not path.parts[0].startswith((".", "__MACOSX")):
            folders.add(path)
    # A zip may not list its folders.
    folders |= {parent for path in files for parent in path.parents if parent.parts}
    return _some(files, source), folders, set()


def _some(files, source):
    if not files:
        raise UserError(
            f"{source}: no image found; expected {', '.join(SUFFIXES)} in folders named by class."
        )
    return files


def _top(files, folders):
    """The folder that contains the classes or the splits."""
    top = PurePosixPath()
    while True:
        below = [path for path in folders if path.parent == top]
        if len(below) != 1 or any(path.parent == top for path in files):
            return top
        # If there is one class only, it is not skipped.
        if not any(path.parent == below[0] for path in folders):
            return top
        top = below[0]
