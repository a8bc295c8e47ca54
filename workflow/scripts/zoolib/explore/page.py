"""The page of a target: its program, its data as scripts, and its images on sheets."""

import base64
import html
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.data.listing import shards_of
from zoolib.explore.densities import BINS, as_bytes, densities
from zoolib.explore.sheets import ACROSS, GROUP, LARGE, SMALL, write_sheets
from zoolib.explore.table import (
    choose,
    describe_columns,
    panels_of,
    read_flat,
    read_information,
    read_rows,
    read_said,
)
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.summary import RELEVANT
from zoolib.posteriors.unfamiliar import UNLIKE

# The file with this name is the page, the others lie in the folder of `FILES` beside it.
PAGE, FILES = "index.html", "files"


def write_explorer(program, predicted, images, votes, about, output, threads=1):
    """Write a page on which the galaxies of a target are sorted, filtered and looked at.

    Args:
        program: files of the page itself: `index.html`, its scripts, styles and libraries.
        predicted: attributes catalog (Parquet parts of the flat catalogue), chunks (HDF5 parts of the
            predictions), recalibrations (see `open_predictions`) and ranked (CSV of the information).
        images: tables that say where the images are; or a list of shards.
        votes: tables that may have votes or labels.
        about: attributes run, target and cuts (`DecisionTree.cuts`).
        output: `index.html` to write; its files go to `files/` beside it.
        threads: images that are read at once.

    Raises:
        MachineError: the file system does not answer, or an image is gone.
        UserError: a file cannot be read, or there is no galaxy.
    """
    rows, count = choose(predicted.catalog)
    frame, described = read_flat(predicted.catalog, rows)
    names = frame.pop("id_str").to_numpy(str)
    if not len(names):
        raise UserError(f"{predicted.catalog[0]}: has no galaxy to look at, expected at least one.")
    with open_predictions(predicted.chunks[0], predicted.recalibrations) as opened:
        panels = panels_of(opened, frame)
        said = read_said(votes, panels, opened, names)
    frame = pd.concat([frame, read_information(predicted.ranked, names), said], axis=1).astype(np.float32)
    partial = Path(output).parent / f".{os.getpid()}.{FILES}"
    # A job that was killed has left its folder behind.
    for left_over in partial.parent.glob(f".*.{FILES}"):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        _write_columns(frame, names, partial)
        _write_galaxies(frame, _densities(predicted, rows, panels), partial)
        shards = shards_of(images) or {}
        places = [None] * len(names) if shards else read_rows(images, names)
        missing = write_sheets(names, places, list(shards), partial, threads)
        _write(partial, "places", _places(places))
        content = {"run": about.run, "target": about.target, "galaxies": len(names), "of": count}
        content |= _described(frame, panels, about.cuts, described["credible_level"])
        content["missing"] = missing
        _write(partial, "about", content)
        _put_program(program, partial, Path(output), f"{about.run}, {about.target}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if len(names) < count:
        log.warning(
            "The page has %s of %s galaxies, a random choice by a hash of their names; for others, predict a"
            " table of them as a target of its own",
            *(f"{number:,}" for number in (len(names), count)),
        )
    log.info("%s: %s galaxies; open it in a browser", output, f"{len(names):,}")


def _described(frame, panels, cuts, level):
    """What the page knows of its columns, questions and cuts, and of the form of its data."""
    return {
        "level": level,
        "columns": describe_columns(frame, panels, level),
        "panels": [panel._asdict() for panel in panels],
        "cuts": _cuts(frame, cuts),
        "sizes": {"bins": BINS, "group": GROUP, "across": ACROSS, "large": LARGE, "small": SMALL},
        "unlike": UNLIKE,
        "relevant": RELEVANT,
    }


def _densities(predicted, rows, panels):
    """(galaxies, outputs, BINS) uint8 of all galaxies of the page."""
    ranges = np.array([(panel.low, panel.high) for panel in panels for _ in panel.columns]).T
    found = []
    with progress(None, "computing densities", total=sum(map(len, rows))) as meter:
        for chunk, some in zip(predicted.chunks, rows, strict=True):
            with open_predictions(chunk, predicted.recalibrations) as opened:
                for block, values, weights in opened.blocks():
                    inside = some[(some >= block.start) & (some < block.stop)] - block.start
                    own = None if weights is None else weights[inside]
                    found.append(as_bytes(densities(opened, values[inside], own, ranges)))
                    meter.update(len(inside))
    return np.concatenate(found)


def _write_columns(frame, names, folder):
    """Each column in a file of its own: a page reads those that it sorts and filters by."""
    _write(folder, "names", names.tolist())
    for number, name in enumerate(frame):
        _write(folder, f"columns/{number}", _packed(frame[name].to_numpy()))


def _write_galaxies(frame, found, folder):
    """All numbers of a galaxy in one place, in the same groups as the images."""
    numbers = frame.to_numpy(np.float32)
    for group, first in enumerate(range(0, len(numbers), GROUP)):
        here = slice(first, first + GROUP)
        _write(folder, f"galaxies/{group}", [_packed(numbers[here]), _packed(found[here])])


def _places(rows):
    """Where the images are, for the tables that the page saves: paths that are right in any folder."""
    rows = [row or {} for row in rows]
    archives = sorted({row.get("archive") or "" for row in rows})
    return {
        "archives": [archive and os.path.abspath(archive) for archive in archives],
        "archive": [archives.index(row.get("archive") or "") for row in rows],
        "member": [row.get("member") or "" for row in rows],
        "file_loc": [row.get("file_loc") and os.path.abspath(row["file_loc"]) or "" for row in rows],
    }


def _cuts(frame, cuts):
    """The cuts that the catalogue has: the column, what it asks for, and how many galaxies pass."""
    found = []
    for cut in cuts:
        if f"cut_{cut.name}" not in frame:
            continue
        limit = f"less than {cut.below:g}" if cut.above is None else f"more than {cut.above:g}"
        answers = " and ".join(cut.answers)
        about = f"expected fraction of {answers} {limit}, where at least {RELEVANT:.0%} are asked"
        passed = int(frame[f"cut_{cut.name}"].sum())
        found.append({"column": f"cut_{cut.name}", "name": cut.name, "about": about, "galaxies": passed})
    return found


def _packed(numbers):
    """Numbers as text: their bytes, the smallest first, in base 64."""
    kind = numbers.dtype.newbyteorder("<")
    return base64.b64encode(np.ascontiguousarray(numbers, kind).tobytes()).decode()


def _write(folder, name, content):
    """Write data as a script: a page that is opened from a disk may not read files, but may run scripts."""
    path = folder / "data" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"zoo.received({json.dumps(name)}, {json.dumps(content, allow_nan=False)});\n")


def _put_program(program, partial, output, title):
    """Put the page's own files to its data, and all of it into place; the page itself comes last."""
    for path in map(Path, program):
        if path.name != PAGE:
            shutil.copyfile(path, partial / path.name)
    (page,) = (path for path in map(Path, program) if path.name == PAGE)
    files = output.parent / FILES
    output.unlink(missing_ok=True)
    shutil.rmtree(files, ignore_errors=True)
    os.replace(partial, files)
    with whole(output) as written:
        written.write_text(page.read_text().replace("{{ title }}", html.escape(title)))
