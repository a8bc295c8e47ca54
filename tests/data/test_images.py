import errno
import gzip
import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from zoolib.data import decoders, images
from zoolib.data.images import BadImage, load_image
from zoolib.job.logs import MachineError, UserError
from zoolib.zenodo import archives

NOISE = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def packed(array, kind="png", mode=None, **options):
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fits_bytes(array, **header):
    unit = fits.PrimaryHDU(array)
    unit.header.update(header)
    buffer = io.BytesIO()
    unit.writeto(buffer)
    return buffer.getvalue()


def test_colour_is_kept_and_grey_is_the_mean_of_the_bands():
    data = packed(NOISE)
    assert np.array_equal(load_image(data, 40, color=True), NOISE)
    grey = load_image(data, 40, color=False)
    assert grey.dtype == np.uint8 and grey.shape == (40, 40, 1)
    assert np.array_equal(grey[..., 0], np.rint(NOISE.mean(axis=2)))


def test_luma_is_pillow_s_and_one_band_stays_as_it_is():
    luma = load_image(packed(NOISE), 40, color=False, grey="luma")[..., 0].astype(int)
    assert np.abs(luma - np.asarray(Image.fromarray(NOISE).convert("L"))).max() <= 1
    assert np.abs(luma - NOISE.mean(axis=2)).max() > 30
    one = load_image(packed(NOISE[..., 0]), 40, color=False, grey="luma")
    assert np.array_equal(one[..., 0], NOISE[..., 0])


def test_raw_is_neither_rounded_nor_clipped():
    raw = load_image(packed(NOISE), 40, color=False, raw=True)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw[..., 0], NOISE.mean(axis=2), atol=1e-4)


def test_a_smaller_size_averages_over_the_pixels_it_merges():
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = load_image(packed(checks), 16, color=False)
    # Nearest neighbours would be all black or all white, and show aliasing.
    assert abs(small[2:-2, 2:-2].astype(int) - 127.5).max() < 3


@pytest.mark.parametrize(
    "height, width, box", [(40, 60, (slice(0, 40), slice(10, 50))), (60, 40, (slice(10, 50),))]
)
def test_an_image_that_is_not_square_is_cut_to_its_centre(height, width, box):
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(load_image(packed(pixels), 40, color=True), pixels[box])


def test_every_kind_of_picture_gives_the_same_galaxy():
    grey = NOISE[..., 0]
    for data in (packed(grey), packed(grey.astype(np.uint16) * 257)):
        assert np.array_equal(load_image(data, 40, color=False)[..., 0], grey)
        assert np.array_equal(load_image(data, 40, color=True), np.repeat(grey[..., None], 3, axis=2))
    palette = packed(NOISE // 128 * 255, mode="P", palette=Image.Palette.WEB)
    assert Image.open(io.BytesIO(palette)).mode == "P"
    assert load_image(palette, 40, color=True).std() > 50
    assert np.array_equal(
        load_image(packed(grey // 128 * 255, mode="1"), 40, False)[..., 0], grey // 128 * 255
    )
    jpeg = load_image(packed(np.full_like(NOISE, 90), "jpeg"), 40, color=True)
    assert abs(jpeg.astype(int) - 90).max() <= 1


def test_transparent_parts_are_black_sky():
    clear = np.dstack([np.full((40, 40, 3), 200, np.uint8), np.zeros((40, 40), np.uint8)])
    clear[10:30, 10:30, 3] = 255
    pixels = load_image(packed(clear), 40, color=True)
    assert pixels[0, 0].tolist() == [0, 0, 0] and pixels[20, 20].tolist() == [200, 200, 200]


def test_fits_is_stretched_as_galaxy_zoo_decals_did():
    # With the same value in all bands, w is sin(π/2·0.6), and the result is v·w + v·(1-w) + v²·(1-w)².
    units = np.array([0.008, 0.014, 0.019])[:, None, None]
    pixels = load_image(fits_bytes((np.ones((3, 8, 8)) * 10 * units).astype(">f4")), 8, color=True, raw=True)
    value = (np.arcsinh(10) - np.arcsinh(-0.5)) / (np.arcsinh(300) - np.arcsinh(-0.5))
    grey = 1 - np.sin(np.pi / 2 * 0.6)
    np.testing.assert_allclose(pixels, 255 * (value + (value * grey) ** 2), rtol=1e-5)


def test_bands_go_to_their_colours_in_any_order():
    red = np.zeros((3, 8, 8), np.float32)
    red[2] = 0.1
    pixels = load_image(fits_bytes(red), 8, color=True)
    assert pixels[4, 4, 0] > pixels[4, 4, 1] and pixels[4, 4, 0] > pixels[4, 4, 2]
    assert np.array_equal(load_image(fits_bytes(red[::-1].copy(), BANDS="zrg"), 8, color=True), pixels)


def test_the_last_row_of_fits_is_on_top():
    band = np.random.default_rng(3).normal(0, 1, (8, 8)).astype(np.float32)
    band[7] += 50
    pixels = load_image(fits_bytes(band), 8, color=False)
    assert pixels[0].mean() > 2 * pixels[7].mean()


def test_one_band_does_not_depend_on_its_unit():
    band = np.random.default_rng(4).normal(5, 1, (32, 32)).astype(np.float32)
    band[10:20, 10:20] += 30
    one = load_image(fits_bytes(band), 32, color=False)
    other = load_image(fits_bytes(band * 1000), 32, color=False)
    assert abs(one.astype(int) - other).max() <= 1
    assert one[15, 15] > one[0, 0] + 50


def test_pixels_that_are_not_finite_are_taken_as_sky():
    band = np.random.default_rng(5).normal(5, 1, (3, 16, 16)).astype(np.float32)
    band[:, 4, 4] = np.nan
    band[:, 5, 5] = np.inf
    assert np.isfinite(load_image(fits_bytes(band), 16, color=False, raw=True)).all()
    assert np.isfinite(load_image(fits_bytes(band[0]), 16, color=False, raw=True)).all()
    assert np.isfinite(
        load_image(fits_bytes(np.zeros((16, 16), np.float32)), 16, color=False, raw=True)
    ).all()


def in_extensions(bands, key="EXTNAME", first=None):
    """A FITS file with one extension for each of {its name: array}."""
    units = fits.HDUList([fits.PrimaryHDU(first)])
    for name, band in bands.items():
        units.append(fits.ImageHDU(band))
        if not name.startswith("?"):
            units[-1].header[key] = name
    buffer = io.BytesIO()
    units.writeto(buffer)
    return buffer.getvalue()


CUBE = np.random.default_rng(6).normal(0.01, 0.01, (3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(
    "key, names", [("EXTNAME", "grz"), ("BAND", "GRZ"), ("FILTER", ["g DECam SDSS c0001", "r DECam", "z"])]
)
def test_bands_in_three_extensions_are_the_same_as_in_one(key, names):
    whole = load_image(fits_bytes(CUBE), 8, color=True)
    bands = dict(zip(names, CUBE, strict=True))
    assert np.array_equal(load_image(in_extensions(bands, key), 8, color=True), whole)
    # In any order, and with other images beside them.
    turned = dict(reversed(bands.items())) | {"?": np.ones((4, 4))}
    assert np.array_equal(load_image(in_extensions(turned, key), 8, color=True), whole)


def test_errors_and_masks_beside_an_image_are_no_bands():
    alone = load_image(fits_bytes(CUBE[0]), 8, color=False)
    beside = {"SCI": CUBE[0], "ERR": CUBE[1], "DQ": CUBE[2]}
    assert np.array_equal(load_image(in_extensions(beside), 8, color=False), alone)
    beside = {"ERR": CUBE[1], "DQ": CUBE[2]}
    assert np.array_equal(load_image(in_extensions(beside, first=CUBE[0]), 8, color=False), alone)
    beside = {"MASK": CUBE[1], "r": CUBE[0]}
    assert np.array_equal(load_image(in_extensions(beside), 8, color=False), alone)


def test_numbers_that_mark_missing_pixels_are_taken_as_sky():
    bands = CUBE.copy()
    bands[1, 2, 2] = -3.4e38
    sky = np.where(bands < -1e30, 0, bands)
    assert np.array_equal(load_image(fits_bytes(bands), 8, True), load_image(fits_bytes(sky), 8, True))


def test_rows_are_stretched_in_pieces(monkeypatch):
    whole = load_image(fits_bytes(CUBE), 8, color=True, raw=True)
    monkeypatch.setattr(decoders, "ROWS", 3)
    assert np.array_equal(load_image(fits_bytes(CUBE), 8, color=True, raw=True), whole)


def test_a_picture_with_an_orientation_is_upright():
    exif = Image.Exif()
    # The camera was turned: the picture is to be shown a quarter to the right.
    exif[0x0112] = 6
    for kind in ("jpeg", "png"):
        shown = load_image(packed(NOISE, kind), 40, color=True)
        turned = load_image(packed(NOISE, kind, exif=exif), 40, color=True)
        assert np.array_equal(turned, np.rot90(shown, -1))


@pytest.fixture
def at_most_1000_pixels():
    decoders.limit_pixels(1000)
    yield
    decoders.limit_pixels(decoders.MOST)


def compressed(array):
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(array)]).writeto(buffer)
    return buffer.getvalue()


def bomb_of_zeros():
    header = fits_bytes(np.zeros((4, 4), np.float32))
    return gzip.compress(header + bytes(1 << 23))


@pytest.mark.parametrize(
    "data, found",
    [
        (packed(NOISE), "has 40 x 40 pixels"),
        (packed(NOISE, "jpeg"), "has 40 x 40 pixels"),
        # Nothing but the header is there: it is refused before it is decoded.
        (packed(NOISE)[:60], "has 40 x 40 pixels"),
        (fits_bytes(np.zeros((3, 40, 40), np.float32))[:2880], "has 40 x 40 pixels"),
        (compressed(np.zeros((40, 40), np.float32)), "has 40 x 40 pixels"),
        (bomb_of_zeros(), "has more than 4 MiB of pixels"),
    ],
)
def test_a_large_image_is_refused_before_it_is_decoded(data, found, at_most_1000_pixels):
    with pytest.raises(BadImage, match=f"J1: the image {found}, more than shards.max_pixels .1,000.; cut"):
        load_image(data, 20, color=False, name="J1")


def test_pillow_s_own_limit_is_the_same_message():
    # A picture of 20,000 x 20,000 pixels, of which there is nothing but the header.
    header = packed(NOISE)[:16] + (20000).to_bytes(4, "big") * 2 + packed(NOISE)[24:29]
    data = header + zlib.crc32(header[12:]).to_bytes(4, "big") + packed(NOISE)[33:]
    with pytest.raises(BadImage, match="more than shards.max_pixels .178,956,970."):
        load_image(data, 20, color=False)


def test_other_formats_are_refused():
    # Pillow would start another program for some of them.
    with pytest.raises(BadImage, match="is not an image .* expected PNG, JPEG or FITS"):
        load_image(packed(NOISE, "tiff"), 20, color=False)


def test_real_cutouts_look_like_the_records_pictures(real_data):
    files = sorted((real_data / "fits").iterdir())
    assert len(files) == 5 and sum(file.suffix == ".gz" for file in files) == 2
    pictures = [load_image(file, 100, color=True) for file in sorted((real_data / "images").iterdir())[:40]]
    skies = [np.percentile(picture, 25) for picture in pictures]
    for file in files:
        pixels = load_image(file, 100, color=True)
        assert pixels.shape == (100, 100, 3)
        # A galaxy in the middle, on a sky as dark as in the pictures.
        sky = np.percentile(pixels, 25)
        assert pixels[45:55, 45:55].mean() > 2 * sky
        assert min(skies) - 3 <= sky <= max(skies)
        raw = load_image(file, 100, color=False, raw=True)
        assert raw.shape == (100, 100, 1) and len(np.unique(raw)) > 5000
        stored = load_image(file, 100, color=False)
        np.testing.assert_allclose(np.clip(raw, 0, 255), stored, atol=0.51)


GOOD = packed(NOISE)


def test_a_picture_whose_pixels_do_not_fit_its_checksums_is_refused():
    # Stored without compression, so that every byte of a pixel can be another one.
    plain = packed(NOISE, compress_level=0)
    for data in (plain, GOOD):
        for place in range(60, len(data) - 20, len(data) // 20):
            damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            with pytest.raises(BadImage, match="truncated or damaged"):
                load_image(damaged, 40, color=True)
    with pytest.raises(BadImage, match="the checksum at byte .* does not fit"):
        load_image(plain[:500] + b"?" + plain[501:], 40, color=True)


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "empty (0 bytes)"),
        (b"<html>404 Not Found</html>", "not an image"),
        (GOOD[: len(GOOD) // 2], "truncated or damaged"),
        (GOOD[:20], "truncated or damaged"),
        (packed(NOISE, "jpeg")[:600], "truncated or damaged"),
        (fits_bytes(np.zeros((3, 100, 100), np.float32))[:4000], "truncated or damaged"),
        (gzip.compress(fits_bytes(np.zeros((9, 9), np.float32)), mtime=0)[:60], "truncated or damaged"),
        (fits_bytes(np.zeros((2, 9, 9), np.float32)), "(2, 9, 9)"),
        (fits_bytes(np.zeros((3, 9, 9), np.float32), BANDS="ugr"), "'ugr'"),
        (fits_bytes(np.full((9, 9), np.nan, np.float32)), "no finite pixel"),
        (fits_bytes(None), "no image"),
        (fits_bytes(np.stack([CUBE[0], CUBE[0] * np.nan, CUBE[0]])), "the band r of the FITS image has no"),
        (in_extensions({"g": CUBE[0], "r": CUBE[1], "z": CUBE[2] * np.nan}), "the band z of the FITS image"),
        (in_extensions({"?1": CUBE[0], "?2": CUBE[1], "?3": CUBE[2]}), "has 3 images (no name (8, 8), no"),
        (in_extensions({"g": CUBE[0], "r": CUBE[1]}), "has 2 images (g (8, 8), r (8, 8)); expected one, or"),
        (in_extensions({"g": CUBE[0], "r": CUBE[1], "z": CUBE[2, 1:]}), "z (7, 8)); expected one, or"),
        (
            in_extensions({"g": CUBE[0], "r": CUBE[1], "z_r": CUBE[2]}),
            "expected one, or the bands g, r and z",
        ),
    ],
)
def test_a_bad_image_is_one_message(data, words):
    with pytest.raises(BadImage) as caught:
        load_image(data, 20, color=False, name="J1.png")
    assert str(caught.value).startswith("J1.png: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_says_where_its_image_is(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(GOOD)
    row = {"id_str": "a", "archive": "", "member": "", "file_loc": str(file)}
    assert images.read(row) == GOOD and images.where(row) == str(file)
    never = {**row, "file_loc": str(tmp_path / "b.png"), "seen": "nothing"}
    with pytest.raises(BadImage, match="b.png: the image cannot be read"):
        images.load_row(never, 20, color=False)
    with pytest.raises(BadImage, match="null byte"):
        images.load_row({**never, "file_loc": "a\0.png"}, 20, color=False)
    inside = {"archive": str(tmp_path / "no.zip"), "member": "x/a.png", "file_loc": "", "seen": "nothing"}
    with pytest.raises(BadImage, match="no.zip"):
        images.load_row(inside, 20, color=False)


def test_an_image_that_was_listed_and_is_gone_is_no_bad_image(tmp_path):
    (tmp_path / "sky").mkdir()
    row = {"archive": "", "member": "", "file_loc": str(tmp_path / "sky" / "b.png")}
    inside = {"archive": str(tmp_path / "no.zip"), "member": "x/a.png", "file_loc": ""}
    for lost in (row, inside, {**row, "seen": "folder"}, {**inside, "seen": "folder"}):
        with pytest.raises(MachineError, match="is gone, but .* listed"):
            images.read(lost)
    # The folder has other images: the row of the user's table is wrong.
    (tmp_path / "sky" / "a.png").write_bytes(GOOD)
    with pytest.raises(BadImage, match="b.png"):
        images.read({**row, "seen": "folder"})


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_an_error_of_the_system_is_no_bad_image(tmp_path, monkeypatch, number):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed_images:
        packed_images.writestr("x/a.png", GOOD)

    def fails(*_):
        raise OSError(number, os.strerror(number))

    rows = [
        {"archive": "", "member": "", "file_loc": str(tmp_path / "a.png"), "seen": "nothing"},
        {"archive": str(tmp_path / "a.zip"), "member": "x/a.png", "file_loc": ""},
    ]
    monkeypatch.setattr(Path, "read_bytes", fails)
    monkeypatch.setattr(zipfile.ZipFile, "open", fails)
    for row in rows:
        with pytest.raises(MachineError, match=f"a.(png|zip): .*{os.strerror(number)}"):
            images.load_row(row, 20, color=False)
    # The archive cannot be opened, neither to list it nor to read it.
    archives._handles.clear()
    monkeypatch.setattr(zipfile, "ZipFile", fails)
    for read in (lambda: images.read(rows[1]), lambda: archives.index([tmp_path / "a.zip"])):
        with pytest.raises(MachineError, match="a.zip"):
            read()
    monkeypatch.setattr(decoders, "_decode_fits", fails)
    with pytest.raises(MachineError, match="b.fits"):
        load_image(b"SIMPLE", 20, color=False, name="b.fits")


def test_an_archive_that_was_replaced_ends_the_job(tmp_path):
    row = {"archive": str(tmp_path / "a.zip"), "member": "x/a.png", "file_loc": ""}
    (tmp_path / "a.zip").write_bytes(b"half")
    for words in ("is not a complete zip archive", "has no member 'x/a.png'"):
        with pytest.raises(UserError, match=words) as caught:
            images.read(row)
        assert not isinstance(caught.value, BadImage | MachineError)
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed_images:
            packed_images.writestr("x/b.png", GOOD)


def test_lossless_encodings_come_back_as_they_were():
    for color in (True, False):
        pixels = load_image(GOOD, 30, color)
        again = images.decode(images.encode(pixels, "png"), "png", pixels.shape)
        assert again.dtype == np.uint8 and np.array_equal(again, pixels)
        raw = load_image(GOOD, 30, color, raw=True)
        assert np.array_equal(images.decode(images.encode(raw, "raw"), "raw", raw.shape), raw)
    with pytest.raises(BadImage, match="expected 31 by 31"):
        images.decode(images.encode(raw, "raw"), "raw", (31, 31, 1))


def test_jpeg_is_smaller_and_close(real_data):
    pixels = load_image(next((real_data / "images").iterdir()), 200, color=False)
    data = images.encode(pixels, "jpeg")
    assert len(data) < 0.8 * len(images.encode(pixels, "png"))
    assert abs(images.decode(data, "jpeg", pixels.shape).astype(int) - pixels).mean() < 2


def test_an_encoder_s_interpolation_is_pillow_s():
    found = {word: load_image(packed(NOISE), 16, True, interpolation=word) for word in ("bicubic", "lanczos")}
    pillow = Image.fromarray(NOISE).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.abs(found["bicubic"].astype(int) - np.asarray(pillow)).max() <= 1
    assert np.abs(found["bicubic"].astype(int) - found["lanczos"]).max() > 3


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="pipe.png: is not an image file of at most 1,024 MiB"):
        load_image(tmp_path / "pipe.png", 20, color=False)
    with open(tmp_path / "long.png", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(BadImage, match="long.png: is not an image file"):
        load_image(tmp_path / "long.png", 20, color=False)
