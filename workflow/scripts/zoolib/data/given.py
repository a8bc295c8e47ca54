"""Images that a Python user gives: paths, folders, arrays and PIL images, as rows that a dataset reads."""

import numbers
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zoolib.config.folders import walk
from zoolib.data.locations import stem
from zoolib.job.logs import UserError
from zoolib.zenodo.archives import SUFFIXES

ACCEPTED = (
    "a path, a folder, a PIL image, an array of 0 to 255 (height, width) or (height, width, 1 or 3), or a"
    " list of these"
)


def rows_of(images, folder):
    """Rows for `datasets.from_catalog`.

    Args:
        images: what `ACCEPTED` says; an array with four axes is a list, and so is one with three axes whose
            last one is neither 1 nor 3.
        folder: an existing folder, where images that are not files become files.

    Returns:
        pandas.DataFrame of id_str, archive, member, file_loc, seen. The name of a file without its suffix is
        its id_str, all others have their position from 0.

    Raises:
        UserError: there is no image, one is of another kind, or an array is not on the scale 0-255.
    """
    found = []
    for position, one in enumerate(_listed(images)):
        if not isinstance(one, (str, Path)):
            found.append((str(position), str(_saved(one, position, folder))))
        elif Path(one).is_dir():
            found += _inside(one)
        else:
            found.append((stem(Path(one).name), str(one)))
    if not found:
        raise UserError(f"No image is given, expected at least one; give {ACCEPTED}.")
    table = pd.DataFrame(found, columns=["id_str", "file_loc"])
    return table.assign(archive="", member="", seen="nothing")


def _listed(images):
    if isinstance(images, (str, Path, Image.Image)):
        return [images]
    if isinstance(images, np.ndarray):
        is_one = images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3))
        return [images] if is_one else list(images)
    try:
        return list(images)
    except TypeError:
        raise UserError(f"images is {type(images).__name__}, expected {ACCEPTED}.") from None


def _inside(folder):
    paths = sorted(found.path for found in walk(folder) if found.kind == "file")
    paths = [path for path in paths if path.lower().endswith(SUFFIXES)]
    if not paths:
        raise UserError(f"{folder}: no image found; expected {', '.join(SUFFIXES)}.")
    return [(stem(Path(path).name), path) for path in paths]


def _saved(image, position, folder):
    """Write an image without a file as PNG."""
    path = Path(folder) / f"{position}.png"
    if isinstance(image, Image.Image):
        image = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
        image.save(path)
        return path
    pixels = _pixels(image, f"image {position}")
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


def _pixels(image, name):
    """(height, width, 1 or 3) uint8."""
    pixels = np.asarray(image)
    if not pixels.size or not np.issubdtype(pixels.dtype, np.number) or isinstance(image, numbers.Number):
        raise UserError(f"{name} is {type(image).__name__}, expected {ACCEPTED}.")
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UserError(f"{name} is an array of the shape {np.shape(image)}, expected {ACCEPTED}.")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):
        raise UserError(f"{name}: has numbers from {low:g} to {high:g}, expected 0 to 255; scale it first.")
    if np.issubdtype(pixels.dtype, np.floating) and 0 < high <= 1:
        raise UserError(f"{name}: its largest number is {high:g}, expected 0 to 255; multiply it by 255.")
    return np.rint(pixels).astype(np.uint8)
