"""Pixels: from PNG, JPEG and FITS to square arrays of one size, and to the bytes in shards."""

import gzip
import hashlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from zoolib.job.logs import MachineError, UserError, check_machine
from zoolib.zenodo.archives import BadMember, read_member

# Galaxy Zoo DECaLS: {band: (its plane in red, green, blue; nanomaggies a pixel that become 1)}.
BANDS = {"g": (2, 0.008), "r": (1, 0.014), "z": (0, 0.019)}
BLACK, WHITE = np.arcsinh(-0.5), np.arcsinh(300.0)
# Pillow's names of the ways to resample pixels; timm has the same names.
INTERPOLATIONS = tuple(name.lower() for name in Image.Resampling.__members__)
# Quality 95 keeps faint arms. No subsampling: the colour of a galaxy changes within a few pixels.
JPEG = {"quality": 95, "subsampling": 0}


class BadImage(UserError):
    """One image that cannot be used; its galaxy is rejected with the message, and the run continues."""


def load_image(source, size, color, raw=False, name=None, interpolation="lanczos", known=None):
    """Read an image and bring it to one size.

    PNG and JPEG: palettes are resolved, transparent parts become black sky, 16 bits are scaled to 8. FITS:
    see `stretch`. An image that is not square is cut to its largest central square, which keeps the galaxy
    and its axis ratio. Grey is the mean over the bands (Walmsley et al. 2022, section 5.1). Pillow resamples
    the image to the size, and averages over all pixels that it merges.

    Args:
        source: the bytes of an image file, or its path.
        size: edge of the result in pixels.
        color: True for three channels (red, green, blue), False for one.
        raw: keep floating point, neither rounded nor clipped to 0-255.
        name: what an error message calls the image; by default its path.
        interpolation: one of `INTERPOLATIONS`.
        known: the digest that its pixels must have, as `digest` gives it.

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
    pixels = _central_square(_decode(data, name))
    if known and _digest(pixels) != known:
        raise UserError(
            f"{name}: has other pixels than when the galaxies were listed; list them again, with --forcerun"
            " build_task_catalog."
        )
    if not color:
        pixels = pixels @ np.full((pixels.shape[2], 1), 1 / pixels.shape[2], np.float32)
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


def load_row(row, size, color, raw=False, interpolation="lanczos"):
    """`load_image` for a row of a catalogue.

    Args:
        row: a mapping with `archive` and `member`, or with `file_loc`; and with `pixels` if it is known which
            ones they must be, see `digest`.
        size: edge of the result in pixels.
        color: True for three channels, False for one.
        raw: keep floating point.
        interpolation: one of `INTERPOLATIONS`.

    Returns:
        (size, size, 3 or 1), 0-255: uint8, or float32 if `raw`.

    Raises:
        BadImage, MachineError, UserError: as `read`; BadImage if it is empty, truncated, or not an image;
            UserError if it has other pixels.
    """
    return load_image(read(row), size, color, raw, where(row), interpolation, row.get("pixels"))


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
    return _digest(_central_square(_decode(read(row), where(row))))


def _digest(pixels):
    with np.errstate(invalid="ignore"):
        small = pixels.astype(np.uint8)
    # A quarter of the numbers to hash, for all but FITS.
    pixels = small if (small == pixels).all() else pixels
    pixels = pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels
    found = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(pixels))
    return found.hexdigest()


def stretch(bands, order="grz"):
    """Bring FITS fluxes to the 0-255 of the record's PNGs, so that one model works for both.

    This is how Galaxy Zoo DECaLS made its PNGs: each band is multiplied by its own factor (125, 71 and 52
    for g, r and z), mapped by arcsinh, and scaled so that -0.5 is black and 300 is white. Then pixels in
    which one colour dominates are made grey, to remove coloured speckles in the sky: with the mean m of the
    bands and w = sin(π/2·(1 - min(1, max/2.5m))), each value v becomes v·w + m·(1-w) + m·v·(1-w)².
    The unit of a single band is not known. Its values are expressed in sigmas above the sky (the median, and
    sigma from the median absolute deviation), which gives nearly the same.
    Pixels that are not finite are taken as sky. Nothing is clipped here.

    Args:
        bands: (3, height, width) in nanomaggies a pixel, or (1, height, width) in any unit.
        order: the bands' letters.

    Returns:
        (height, width, 3) red, green, blue, or (height, width, 1); float32, white is 255.

    Source:
        Walmsley et al. 2022, section 2 (the images); Willett's and Walmsley's scripts for Galaxy Zoo
        DECaLS, https://github.com/zooniverse/decals
    """
    if len(bands) == 1:
        return 255 * _arcsinh(_in_sigmas(bands[0].astype(np.float32)))[..., None]
    planes = np.empty((*bands.shape[1:], 3), np.float32)
    for band, letter in zip(bands, order, strict=True):
        plane, unit = BANDS[letter]
        planes[..., plane] = np.where(np.isfinite(band), band, 0) / unit
    planes = _arcsinh(planes)
    mean = planes.mean(axis=2, keepdims=True)
    # If the mean is black or less, there is no colour to keep.
    excess = planes.max(axis=2, keepdims=True) / np.where(mean > 0, 2.5 * mean, np.inf)
    colour = np.where(mean > 0, np.sin(np.pi / 2 * (1 - np.minimum(excess, 1))), 0).astype(np.float32)
    grey = 1 - colour
    return 255 * (planes * colour + mean * grey + mean * planes * grey**2)


def _arcsinh(values):
    return (np.arcsinh(values) - np.float32(BLACK)) / np.float32(WHITE - BLACK)


def _in_sigmas(band):
    known = np.isfinite(band)
    sky = np.median(band[known])
    band = np.where(known, band - sky, 0)
    sigma = 1.4826 * np.median(np.abs(band))
    # A simulated image may have no noise; then its brightest pixel becomes white.
    unit = sigma or np.abs(band).max() / 300
    return band / unit if unit else band


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
    image.save(buffer, encoding, **(JPEG if encoding == "jpeg" else {}))
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
    pixels = np.frombuffer(data, "<f4") if encoding == "raw" else _decode(data, "a stored image")
    if pixels.size != np.prod(shape):
        raise BadImage(
            f"a stored image has {pixels.size} numbers, expected {shape[0]} by {shape[1]} pixels in"
            f" {shape[2]} channels; write the shards again."
        )
    return pixels.reshape(shape).astype(np.float32 if encoding == "raw" else np.uint8)


def _read_file(path, seen):
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


def _is_lost(path, seen):
    """Whether an image that is not there was there before, or its folder is away."""
    if seen != "folder":
        return seen == "file"
    try:
        with os.scandir(Path(path).parent) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _decode(data, name):
    """Bytes to (height, width, 3 or 1) float32 on the scale 0-255."""
    if not data:
        raise BadImage(f"{name}: the image file is empty (0 bytes); get it again or remove its row.")
    # Damaged bytes make decoders raise many kinds: OSError, SyntaxError, struct.error, zlib.error.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = data[:2] == b"\x1f\x8b"
            plain = gzip.decompress(data) if packed else data
            return _decode_fits(plain, name) if plain[:6] == b"SIMPLE" else _decode_picture(plain, name)
    except (BadImage, MemoryError, ImportError):
        raise
    except Image.UnidentifiedImageError:
        raise BadImage(
            f"{name}: is not an image ({len(data)} bytes starting with {data[:8]!r}); expected PNG, JPEG"
            " or FITS."
        ) from None
    except Exception as error:
        # The decoder of FITS is imported here, and too many files may be open.
        check_machine(error, name)
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BadImage(
            f"{name}: the image is truncated or damaged ({reason}); get it again or remove its row."
        ) from error


def _decode_picture(data, name):
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.float32)[..., None] / 257
        if image.mode == "F":
            raise BadImage(f"{name}: has floating-point pixels of unknown scale; give FITS, PNG or JPEG.")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        image = image.convert("L" if image.mode in ("1", "L") else "RGB")
        pixels = np.asarray(image).astype(np.float32)
        return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode_fits(data, name):
    # Importing it takes half a second, which only FITS files need.
    from astropy.io import fits

    with fits.open(io.BytesIO(data), memmap=False) as units:
        unit = next((unit for unit in units if unit.is_image and unit.data is not None), None)
        if unit is None:
            raise BadImage(f"{name}: the FITS file has no image; expected (height, width) or three bands.")
        pixels, header = unit.data, {**units[0].header, **unit.header}
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    order = str(header.get("BANDS", "grz")).strip().lower()
    if pixels.ndim != 3 or len(pixels) not in (1, 3):
        raise BadImage(
            f"{name}: the FITS image has the shape {unit.shape}; expected (height, width) or"
            " (3, height, width) with the bands g, r, z."
        )
    if len(pixels) == 3 and sorted(order) != sorted(BANDS):
        raise BadImage(f"{name}: the FITS image has the bands '{order}'; expected g, r and z.")
    if not np.isfinite(pixels).any():
        raise BadImage(f"{name}: the FITS image has no finite pixel; remove its row.")
    # FITS counts rows from the bottom, pictures from the top.
    return stretch(pixels, order)[::-1]


def _central_square(pixels):
    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return pixels[top : top + edge, left : left + edge]
