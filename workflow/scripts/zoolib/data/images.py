"""Pixels: from PNG, JPEG and FITS to square arrays of one size, and to the bytes in shards."""

import hashlib
import io
import os
import stat
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from zoolib.data.decoders import BadImage, decode_image
from zoolib.job.logs import MachineError, UserError, check_machine
from zoolib.zenodo.archives import LARGEST, BadMember, read_member

# Pillow's names of the ways to resample pixels; timm has the same names.
INTERPOLATIONS = tuple(name.lower() for name in Image.Resampling.__members__)
# JPEG: quality 95 keeps faint arms; no subsampling, because the colour of a galaxy changes within few pixels.
# PNG: in the noise of galaxies zlib finds nothing but runs of zeros. To look only for these takes half the
# time, and the files are no larger.
OPTIONS = {
    "jpeg": {"quality": 95, "subsampling": 0},
    "png": {"compress_type": zlib.Z_RLE},
}
# How grey is made of red, green and blue: by their mean (Walmsley et al. 2022, section 5.1), or by luma, as
# Pillow and the Grayscale of torchvision make it (ITU-R BT.601).
GREY = {"mean": (1 / 3, 1 / 3, 1 / 3), "luma": (0.299, 0.587, 0.114)}


def load_image(source, size, color, raw=False, name=None, interpolation="lanczos", known=None, grey="mean"):
    """Read an image and bring it to one size.

    `decoders.decode_image` says which formats there are. An image that is not square is cut to its largest
    central square, which keeps the galaxy and its axis ratio. Pillow resamples the image to the size, and
    averages over all pixels that it merges.

    Args:
        source: the bytes of an image file, or its path.
        size: edge of the result in pixels.
        color: True for three channels (red, green, blue), False for one.
        raw: keep floating point, neither rounded nor clipped to 0-255.
        name: what an error message calls the image; by default its path.
        interpolation: one of `INTERPOLATIONS`.
        known: the digest that its pixels must have, as `digest` gives it.
        grey: how three bands become one, a key of `GREY`.

    Returns:
        (size, size, 3 or 1), 0-255: uint8, or float32 if `raw`.

    Raises:
        BadImage: the file is missing, empty, truncated, or not an image.
        UserError: it has other pixels than `known`.
    """
    if isinstance(source, bytes):
        data, name = source, name or "an image"
    else:
        data, name = _read_file(source, "nothing"), name or str(source)
    pixels = _central_square(decode_image(data, name))
    if known and _digest(pixels) != known:
        raise UserError(
            f"{name}: has other pixels than when the galaxies were listed; list them again, with --forcerun"
            " build_task_catalog."
        )
    if not color:
        bands = pixels.shape[2]
        weights = GREY[grey] if bands == 3 else [1 / bands] * bands
        pixels = pixels @ np.array(weights, np.float32)[:, None]
    elif pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[0] != size:
        planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels, 2, 0)]
        planes = [plane.resize((size, size), Image.Resampling[interpolation.upper()]) for plane in planes]
        pixels = np.stack([np.asarray(plane) for plane in planes], axis=2)
    return pixels if raw else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def read(row):
    """Read the bytes of a galaxy's image file.

    Args:
        row: a mapping with `archive` and `member`, or with `file_loc`; and with `seen`, what was there when
            the galaxies were listed: `file` (without the key too), only its `folder`, or `nothing`.

    Returns:
        bytes.

    Raises:
        BadImage: the member is damaged, or the row of a user's table names a file that was never there.
        MachineError: the file system does not answer, or the file was there when the galaxies were listed.
        UserError: an archive is damaged, or is not the one in which the galaxies were listed.
    """
    seen = row.get("seen", "file")
    if not row.get("archive"):
        return _read_file(row["file_loc"], seen)
    try:
        return read_member(row["archive"], row["member"], listed=seen != "nothing")
    except MachineError:
        raise
    except UserError as error:
        if seen == "file" and not isinstance(error, BadMember):
            raise
        raise BadImage(str(error)) from None


def where(row):
    """What an error message calls a galaxy's image.

    Args:
        row: a mapping with `archive` and `member`, or with `file_loc`.

    Returns:
        A path, or `archive: member`.
    """
    return f"{row['archive']}: {row['member']}" if row.get("archive") else str(row["file_loc"])


def load_row(row, size, color, raw=False, interpolation="lanczos", grey="mean"):
    """`load_image` for a row of a catalogue.

    Args:
        row: a mapping with `archive` and `member`, or with `file_loc`; and with `pixels` if it is known which
            ones they must be, see `digest`.
        size: edge of the result in pixels.
        color: True for three channels, False for one.
        raw: keep floating point.
        interpolation: one of `INTERPOLATIONS`.
        grey: a key of `GREY`.

    Returns:
        (size, size, 3 or 1), 0-255: uint8, or float32 if `raw`.

    Raises:
        BadImage, MachineError, UserError: as `read`; BadImage if it is empty, truncated, or not an image;
            UserError if it has other pixels.
    """
    return load_image(read(row), size, color, raw, where(row), interpolation, row.get("pixels"), grey)


def digest(row):
    """A hash of a galaxy's pixels, by which two images are the same for every model.

    It is of the decoded pixels of the central square, before they are resampled: the bytes of a file change
    with how it is packed, its comments and its times, and nothing of these is ever seen. Grey stored as
    three equal bands is grey.

    Args:
        row: a mapping with `archive` and `member`, or with `file_loc`.

    Returns:
        32 hexadecimal digits.

    Raises:
        BadImage, MachineError, UserError: as `load_row`.
    """
    return _digest(_central_square(decode_image(read(row), where(row))))


def _digest(pixels):
    with np.errstate(invalid="ignore"):
        small = pixels.astype(np.uint8)
    # A quarter of the numbers to hash, for all but FITS.
    pixels = small if (small == pixels).all() else pixels
    pixels = pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels
    found = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(pixels))
    return found.hexdigest()


def encode(pixels, encoding):
    """Encode an image for a shard.

    Args:
        pixels: (size, size, 3 or 1), 0-255.
        encoding: png (lossless), jpeg (quality 95) or raw (float32, little-endian, row by row).

    Returns:
        bytes.
    """
    if encoding == "raw":
        return pixels.astype("<f4").tobytes()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    image.save(buffer, encoding, **OPTIONS[encoding])
    return buffer.getvalue()


def decode(data, encoding, shape):
    """Decode an image that `encode` encoded.

    Args:
        data: bytes.
        encoding: png, jpeg or raw.
        shape: (size, size, 3 or 1), as the shard's sidecar says.

    Returns:
        An array of this shape: uint8, or float32 for raw.

    Raises:
        BadImage: the image has another shape.
    """
    pixels = np.frombuffer(data, "<f4") if encoding == "raw" else decode_image(data, "a stored image")
    if pixels.size != np.prod(shape):
        raise BadImage(
            f"a stored image has {pixels.size} numbers, expected {shape[0]} by {shape[1]} pixels in"
            f" {shape[2]} channels; write the shards again."
        )
    return pixels.reshape(shape).astype(np.float32 if encoding == "raw" else np.uint8)


def _read_file(path, seen):
    if _is_endless(path):
        raise BadImage(f"{path}: is not an image file of at most {LARGEST >> 20:,} MiB; remove its row.")
    try:
        return Path(path).read_bytes()
    # A ValueError: a zero byte in the name.
    except (OSError, ValueError) as error:
        check_machine(error, path)
        if isinstance(error, FileNotFoundError | NotADirectoryError) and _is_lost(path, seen):
            raise MachineError(
                f"{path}: the image is gone, but it was there when the galaxies were listed; if its folder is"
                " away, type the same command again when it is back; if you have removed it, list the"
                " galaxies again (--forcerun list_galaxies for a folder to predict, else --forcerun"
                " build_catalog)."
            ) from error
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(
            f"{path}: the image cannot be read ({reason}); restore the file or remove its row."
        ) from None


def _is_endless(path):
    """Whether reading would never end, as that of a pipe, or fill the memory."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)) or about.st_size > LARGEST


def _is_lost(path, seen):
    """Whether an image that is not there was there before, or its folder is away."""
    if seen != "folder":
        return seen == "file"
    try:
        with os.scandir(Path(path).parent) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _central_square(pixels):
    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return pixels[top : top + edge, left : left + edge]
