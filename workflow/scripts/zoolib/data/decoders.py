"""Decoders: the bytes of PNG, JPEG and FITS files to pixels on one scale."""

import gzip
import io
import re
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

from zoolib.job.logs import UserError, check_machine

# Galaxy Zoo DECaLS: {band: (its plane in red, green, blue; nanomaggies a pixel that become 1)}.
BANDS = {"g": (2, 0.008), "r": (1, 0.014), "z": (0, 0.019)}
BLACK, WHITE = np.arcsinh(-0.5), np.arcsinh(300.0)
# Larger numbers mark pixels that are missing, as NaN does.
MISSING = 1e30
# Rows that are stretched at a time, because that takes several times the memory of the image.
ROWS = 256
# Pillow can read many more formats, some of them by starting other programs.
FORMATS = ("PNG", "JPEG")
# Pillow refuses larger pictures, https://pillow.readthedocs.io/en/stable/reference/limits.html
MOST = 178_956_970
# The most pixels that an image may have; as Pillow's own limit it is one for the process.
_most = MOST


class BadImage(UserError):
    """One image that cannot be used; its galaxy is rejected with the message, and the run continues."""


def limit_pixels(max_pixels):
    """Refuse larger images from now on in this process, before they are decoded.

    Memory is what limits them: decoding a picture takes up to 25 bytes a pixel, and FITS with three bands up
    to 65.

    Args:
        max_pixels: width times height, at most `MOST`, which is the limit until the first call.
    """
    global _most
    _most = max_pixels


def decode_image(data, name):
    """Decode an image file.

    PNG and JPEG: palettes are resolved, transparent parts become black sky, 16 bits are scaled to 8, and a
    picture with an EXIF orientation is turned upright. FITS, also packed: see `stretch`; three bands are one
    array, or three extensions that are named g, r and z (EXTNAME, BAND or FILTER).

    Args:
        data: bytes.
        name: what an error message calls the image.

    Returns:
        (height, width, 3 or 1) float32 on the scale 0-255, the first row on top.

    Raises:
        BadImage: the image is empty, truncated, too large, or not an image, or has a band without a value.
    """
    if not data:
        raise BadImage(f"{name}: the image file is empty (0 bytes); get it again or remove its row.")
    # Damaged bytes make decoders raise many kinds: OSError, SyntaxError, struct.error, zlib.error.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = _unpacked(data, name) if data[:2] == b"\x1f\x8b" else data
            return _decode_fits(plain, name) if plain[:6] == b"SIMPLE" else _decode_picture(plain, name)
    except (BadImage, MemoryError, ImportError):
        raise
    except Image.UnidentifiedImageError:
        raise BadImage(
            f"{name}: is not an image ({len(data)} bytes starting with {data[:8]!r}); expected PNG, JPEG"
            " or FITS."
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name, f"more than {MOST:,}") from None
    except Exception as error:
        # The decoder of FITS is imported here, and too many files may be open.
        check_machine(error, name)
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BadImage(
            f"{name}: the image is truncated or damaged ({reason}); get it again or remove its row."
        ) from error


def _unpacked(data, name):
    # Three bands of eight bytes a pixel, and the headers.
    most = 24 * _most + (1 << 22)
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        plain = packed.read(most + 1)
    if len(plain) > most:
        raise _too_large(name, f"more than {most >> 20:,} MiB of")
    return plain


def _too_large(name, found):
    return BadImage(
        f"{name}: the image has {found} pixels, more than shards.max_pixels ({_most:,}); cut the galaxy out"
        " of it, or raise the limit and the memory of the jobs."
    )


def _check_pixels(name, width, height):
    if width * height > _most:
        raise _too_large(name, f"{width:,} x {height:,}")


def _check_chunks(data):
    """Check the checksums of a PNG file: Pillow leaves out those of the pixels."""
    start, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        end = start + 8 + length
        if len(kind) < 4 or zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"the checksum at byte {end} does not fit")
        start = end + 4


def _decode_picture(data, name):
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_pixels(name, *image.size)
        if image.format == "PNG":
            _check_chunks(data)
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.float32)[..., None] / 257
        if image.mode == "F":
            raise BadImage(f"{name}: has floating-point pixels of unknown scale; give FITS, PNG or JPEG.")
        ImageOps.exif_transpose(image, in_place=True)
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
        found = [unit for unit in units if unit.is_image and unit.shape]
        if not found:
            raise BadImage(f"{name}: the FITS file has no image; expected (height, width) or three bands.")
        for unit in found:
            _check_pixels(name, unit.shape[-1], unit.shape[-2] if len(unit.shape) > 1 else 1)
        chosen = _bands_of(found, name)
        header = {**units[0].header, **chosen[0].header}
        shape = chosen[0].shape
        if len(chosen) == 1 and not (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))):
            raise BadImage(
                f"{name}: the FITS image has the shape {shape}; expected (height, width) or (3, height,"
                " width) with the bands g, r, z."
            )
        pixels = chosen[0].data if len(chosen) == 1 else np.stack([unit.data for unit in chosen])
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    order = "grz" if len(chosen) > 1 else str(header.get("BANDS", "grz")).strip().lower()
    if len(pixels) == 3 and sorted(order) != sorted(BANDS):
        raise BadImage(f"{name}: the FITS image has the bands '{order}'; expected g, r and z.")
    empty = [number for number, band in enumerate(pixels) if not _known(band).any()]
    if empty:
        which = f"the band {order[empty[0]]} of the FITS image" if len(pixels) == 3 else "the FITS image"
        raise BadImage(f"{name}: {which} has no finite pixel; get it again or remove its row.")
    stretched = stretch(pixels, order)
    if not np.isfinite(stretched).all():
        raise BadImage(f"{name}: the FITS image has values that cannot be scaled; remove its row.")
    # FITS counts rows from the bottom, pictures from the top.
    return stretched[::-1]


def _bands_of(units, name):
    """The one unit that is the image, or the units of the bands g, r and z."""
    if len(units) == 1 or len(units[0].shape) == 3:
        return units[:1]
    letters = [_letter(unit.header) for unit in units]
    bands = {letter: unit for letter, unit in zip(letters, units, strict=True) if letter}
    # Beside one image there may be its errors and masks, which have names of their own.
    others = [
        unit for letter, unit in zip(letters, units, strict=True) if not letter and unit is not units[0]
    ]
    told = all(unit.header.get("EXTNAME", "COMPRESSED_IMAGE") != "COMPRESSED_IMAGE" for unit in others)
    if sum(map(bool, letters)) == len(bands) and (told or len(bands) == len(BANDS)):
        if len(bands) < 2:
            return list(bands.values()) or units[:1]
        chosen = [bands.get(band) for band in BANDS]
        if None not in chosen and len({unit.shape for unit in chosen}) == 1 and len(chosen[0].shape) == 2:
            return chosen
    found = ", ".join(
        f"{letter or unit.header.get('EXTNAME', 'no name')} {unit.shape}"
        for letter, unit in zip(letters, units, strict=True)
    )
    raise BadImage(
        f"{name}: the FITS file has {len(units)} images ({found}); expected one, or the bands g, r and z of"
        " the same shape with these names (EXTNAME, BAND or FILTER)."
    )


def _letter(header):
    """The band that a header names as a word of its own, as in `IMAGE_G` or `r DECam SDSS`."""
    for key in ("EXTNAME", "BAND", "FILTER"):
        words = re.split("[^a-z0-9]+", str(header.get(key, "")).lower())
        bands = [word for word in words if word in BANDS]
        if len(bands) == 1:
            return bands[0]
    return None


def _known(band):
    with np.errstate(invalid="ignore"):
        return np.abs(band) < MISSING


def stretch(bands, order="grz"):
    """Bring FITS fluxes to the 0-255 of the record's PNGs, so that one model works for both.

    This is how Galaxy Zoo DECaLS made its PNGs: each band is multiplied by its own factor (125, 71 and 52
    for g, r and z), mapped by arcsinh, and scaled so that -0.5 is black and 300 is white. Then pixels in
    which one colour dominates are made grey, to remove coloured speckles in the sky: with the mean m of the
    bands and w = sin(π/2·(1 - min(1, max/2.5m))), each value v becomes v·w + m·(1-w) + m·v·(1-w)².
    The unit of a single band is not known. Its values are expressed in sigmas above the sky (the median, and
    sigma from the median absolute deviation), which gives nearly the same.
    Pixels that are not finite, or beyond `MISSING`, are taken as sky. Nothing is clipped here.

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
    stretched = np.empty((*bands.shape[1:], 3), np.float32)
    for start in range(0, len(stretched), ROWS):
        rows = slice(start, start + ROWS)
        stretched[rows] = _stretched(bands[:, rows], order)
    return stretched


def _stretched(bands, order):
    planes = np.empty((*bands.shape[1:], 3), np.float32)
    for band, letter in zip(bands, order, strict=True):
        plane, unit = BANDS[letter]
        planes[..., plane] = np.where(_known(band), band, 0) / unit
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
    known = _known(band)
    sky = np.median(band[known])
    band = np.where(known, band - sky, 0)
    sigma = 1.4826 * np.median(np.abs(band))
    # A simulated image may have no noise; then its brightest pixel becomes white.
    unit = sigma or np.abs(band).max() / 300
    return band / unit if unit else band
