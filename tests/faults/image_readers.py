"""Images, and zips of images: valid files, how the pipeline reads them, and what is a wrong answer."""

import io
import zipfile

import numpy as np

# ---------------------------------------------------------------- images


def noise(edge=24, bands=3, kind=np.uint8):
    """Random pixels, always the same."""
    high = np.iinfo(kind).max
    return np.random.default_rng(5).integers(0, high, (edge, edge, bands), dtype=kind, endpoint=True)


def png_of(mode, form="png", **options):
    """A small picture of one of Pillow's modes."""
    from PIL import Image

    if mode == "I;16":
        image = Image.fromarray(noise(bands=1, kind=np.uint16)[..., 0])
    else:
        image = Image.fromarray(noise(bands=4), "RGBA").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned():
    """EXIF data with an orientation."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def fits_of(kind):
    """A small FITS file: one band, three bands, or bands in extensions; plain or packed."""
    import gzip

    from astropy.io import fits

    bands = np.random.default_rng(6).normal(0.05, 0.05, (3, 16, 16)).astype(">f4")
    units = [fits.PrimaryHDU(bands if kind in ("three bands", "packed") else bands[0])]
    if kind in ("extensions", "tiles"):
        make = fits.ImageHDU if kind == "extensions" else fits.CompImageHDU
        units = [fits.PrimaryHDU(), *(make(band, name=name) for band, name in zip(bands, "grz", strict=True))]
    buffer = io.BytesIO()
    fits.HDUList(units).writeto(buffer)
    return gzip.compress(buffer.getvalue(), mtime=0) if kind == "packed" else buffer.getvalue()


def read_picture(folder, cell):
    """A picture as a shard reads it; its digest is made, too, as for a task's catalogue."""
    from zoolib.data import decoders
    from zoolib.data.images import digest, load_row

    decoders.limit_pixels(16_000_000)
    row = {"archive": "", "member": "", "file_loc": str(folder / "image")}
    digest(row)
    return load_row(row, 24, color=True, raw=True)


def same_array(answer, right, *_):
    """All values are the same."""
    return None if np.array_equal(answer, right) else "other pixels without a word"


def possible_picture(answer, right, *_):
    """It has the shape that was asked for, and finite numbers."""
    if answer.shape != right.shape or answer.dtype != right.dtype or not np.isfinite(answer).all():
        return f"pixels of the shape {answer.shape}, finite: {np.isfinite(answer).all()}"
    return None


def possible_fits(answer, right, folder, cell):
    """Only gzip has a checksum."""
    return (same_array if cell == "packed" else possible_picture)(answer, right)


# ---------------------------------------------------------------- zip

GALAXIES = [f"J{number:03d}" for number in range(24)]


def picture(number):
    """A small picture, another one for each number."""
    from PIL import Image

    image = Image.new("L", (16, 16), 8 * number)
    image.paste(255 - 8 * number, (8, 0, 16, 16))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def zip_of(kind):
    """A zip of the record's layout, or of class folders."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED if kind == "record" else zipfile.ZIP_STORED
    ) as packed:
        for number, name in enumerate(GALAXIES):
            folder = name[:3] if kind == "record" else ("spiral", "smooth")[number % 2]
            packed.writestr(f"top/{folder}/{name}.png", picture(number))
    return buffer.getvalue()


def read_zip(folder, cell):
    """The members as a catalogue or a task finds them, and their bytes; a bad member is a rejected galaxy."""
    import pandas as pd
    from zoolib.data.class_folders import list_labelled
    from zoolib.data.images import BadImage, read
    from zoolib.data.locations import in_archives

    path = str(folder / "images.zip")
    if cell == "class folders":
        rows = list_labelled(path, "label").to_dict("records")
    else:
        names = pd.Series(GALAXIES)
        places, messages = in_archives(names, pd.Series("", names.index), [path])
        rows = places.assign(id_str=names, label=messages)[messages == ""].to_dict("records")
    found = {}
    for row in rows:
        try:
            found[row["id_str"]] = row["label"], read(row)
        except BadImage:
            found[row["id_str"]] = row["label"], None
    return found


def same_members(answer, right, folder, cell):
    """No galaxy has another one's bytes or class; galaxies without an image are rejected with a message."""
    for name, (label, content) in answer.items():
        if name in right and content is not None and (label, content) != right[name]:
            return f"'{name}' has another image or class without a word"
    if cell == "class folders" and set(right) - set(answer):
        return f"{len(set(right) - set(answer))} galaxies are missing without a word"
    return None
