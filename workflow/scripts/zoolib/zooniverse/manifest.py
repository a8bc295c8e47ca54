"""A subject manifest: the galaxies to label next and their images, for an upload to a Zooniverse project."""

import csv
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from zoolib.data.decoders import BadImage, decode_image, limit_pixels
from zoolib.data.images import encode, read, where
from zoolib.data.locations import rows_of, stem
from zoolib.job.logs import log, progress, whole

# The project builder takes files of less than 1000 KiB, the program `panoptes` those of up to 1024 KiB.
LARGEST = 1_000_000
# What is uploaded as it is: {first bytes: suffix}.
AS_IT_IS = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}
# The project builder refuses / \ : and commas in names of files.
UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
# Volunteers do not see columns that begin with #. No cell may be blank: `panoptes` would take it for a file.
COLUMNS = ["id_str", "#file_loc", "#rank", "#information"]


def write_manifest(ranked, places, voted, count, max_pixels, output):
    """Write the galaxies to label next as a folder for an upload: a manifest and the images.

    Args:
        ranked: CSV of `posteriors.ranking.rank_galaxies`.
        places: tables (Parquet) that say where the images are.
        voted: catalogues (Parquet) of galaxies that have votes already; they are left out.
        count: number of galaxies.
        max_pixels: the largest image that is decoded.
        output: has the paths `manifest` (CSV: id_str, #file_loc, #rank, #information), in whose folder the
            images are written, and `rejected` (id_str, reason). PNG and JPEG are copied; FITS and files that
            are too large for Zooniverse become PNG, or JPEG if that is too large, too.

    Raises:
        UserError: a table or an archive is missing or damaged.
    """
    limit_pixels(max_pixels)
    known = {name for path in voted for name in pq.read_table(path, columns=["id_str"])["id_str"].to_pylist()}
    folder, rows, rejected, passed = Path(output.manifest).parent, {}, [], 0
    with open(ranked, newline="") as file, progress(None, "writing images", total=count) as meter:
        following = csv.DictReader(file)
        while batch := list(islice(following, count - len(rows))):
            wanted = [row for row in batch if row["id_str"] not in known]
            passed += len(batch) - len(wanted)
            images = rows_of(places, [row["id_str"] for row in wanted]) if wanted else {}
            for row in wanted:
                try:
                    name = _write_image(images[row["id_str"]], row, folder, rows)
                except BadImage as error:
                    rejected.append([row["id_str"], str(error)])
                    continue
                rows[name] = [row["id_str"], name, row["rank"], row["information"] or "unknown"]
                meter.update()
    for path in [*folder.glob("*.png"), *folder.glob("*.jpg")]:
        if path.name not in rows:
            path.unlink()
    for path, columns, lines in (
        (output.rejected, ["id_str", "reason"], rejected),
        (output.manifest, COLUMNS, rows.values()),
    ):
        with whole(path) as partial, open(partial, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([columns, *lines])
    log.info("%s: %s galaxies; %s have votes already and are left out", output.manifest, len(rows), passed)
    if len(rows) < count:
        log.warning("There are only %s galaxies to label, expected %s (predict.manifest)", len(rows), count)


def _write_image(image, row, folder, taken):
    """Write an image that Zooniverse takes; returns the name of the file."""
    data, origin = read(image), where(image)
    suffix = next((suffix for start, suffix in AS_IT_IS.items() if data.startswith(start)), None)
    if suffix is None or len(data) > LARGEST:
        data, suffix = _smaller(decode_image(data, origin))
    # The galaxy is found again by the name of its image, so it stays if it can.
    name = UNSAFE.sub("_", stem(Path(image["member"] or image["file_loc"]).name))
    name = f"{name}{suffix}" if f"{name}{suffix}" not in taken else f"{name}_{row['rank']}{suffix}"
    with whole(folder / name) as partial:
        partial.write_bytes(data)
    return name


def _smaller(pixels):
    """(bytes of an image with all its pixels, or with fewer if the file would be too large; suffix)."""
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    data, suffix = encode(pixels, "png"), ".png"
    while len(data) > LARGEST:
        if suffix == ".jpg":
            height, width = (size // 2 * 2 for size in pixels.shape[:2])
            quarters = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
            pixels = np.rint(quarters.mean(axis=(1, 3))).astype(np.uint8)
        data, suffix = encode(pixels, "jpeg"), ".jpg"
    return data, suffix
