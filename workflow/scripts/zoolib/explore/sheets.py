"""Images of galaxies on sheets: one file has several galaxies, so that a folder has not a million files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from zoolib.data.images import BadImage, decode, load_row
from zoolib.data.listing import shards_of
from zoolib.data.tfrecords import parse, read_sidecar
from zoolib.job.logs import log, progress

# Galaxies in a row of a sheet, and on a sheet.
ACROSS = 5
GROUP = ACROSS * ACROSS
# Pixels of an image in the galaxy's own view, and in the grid.
LARGE, SMALL = 256, 120
# A galaxy whose image cannot be read.
PLACEHOLDER = 225
# WebP: the fastest method takes a quarter of the time of the default one, and the files are no larger.
OPTIONS = {"quality": 80, "method": 0}
# Messages of bad images that the log has.
TOLD = 3


class Sheets:
    """Sheets of the images of some galaxies, written as soon as all images of a sheet are there.

    Args:
        folder: where `images/0.webp` and `thumbs/0.webp` are written, and so on.
        count: number of galaxies; galaxy 30 is on sheet 30 // GROUP.
    """

    def __init__(self, folder, count):
        self.folder, self.count = Path(folder), count
        self.waiting = {}
        for kind in ("images", "thumbs"):
            (self.folder / kind).mkdir(parents=True)

    def put(self, number, pixels):
        """Put the image of a galaxy on its sheet.

        Args:
            number: of the galaxy.
            pixels: (LARGE, LARGE, 3) uint8; None if there is none.
        """
        sheet = number // GROUP
        tiles = self.waiting.setdefault(sheet, {})
        tiles[number % GROUP] = pixels
        if len(tiles) == min(GROUP, self.count - sheet * GROUP):
            self._write(sheet, self.waiting.pop(sheet))

    def _write(self, sheet, tiles):
        down = -(-len(tiles) // ACROSS)
        for kind, edge in (("images", LARGE), ("thumbs", SMALL)):
            canvas = Image.new("RGB", (ACROSS * edge, down * edge), (PLACEHOLDER,) * 3)
            for place, pixels in tiles.items():
                if pixels is not None:
                    tile = Image.fromarray(pixels)
                    tile = tile if edge == LARGE else tile.resize((edge, edge), Image.Resampling.LANCZOS)
                    canvas.paste(tile, (place % ACROSS * edge, place // ACROSS * edge))
            canvas.save(self.folder / kind / f"{sheet}.webp", **OPTIONS)


def write_sheets(names, rows, shards, folder, threads=1):
    """Write the images of galaxies on sheets.

    Args:
        names: (galaxies,) id_str.
        rows: rows of a catalogue for these galaxies, dicts, or None where no table says where the image is.
        shards: lists of shards to look for the galaxies in; [] takes the images of the rows.
        folder: see `Sheets`.
        threads: sheets that are made at once.

    Returns:
        Numbers of the galaxies without an image.

    Raises:
        MachineError: the file system does not answer, or an image is gone.
        UserError: a shard is damaged.
    """
    sheets, bad = Sheets(folder, len(names)), []

    def fill(first):
        """Read and write one sheet; returns (number, reason) of each image that cannot be read."""
        reasons = []
        for number in range(first, min(first + GROUP, len(names))):
            pixels = None
            try:
                if rows[number] is None:
                    raise BadImage(f"{names[number]}: no table says where its image is.")
                pixels = load_row(rows[number], LARGE, color=True)
            except BadImage as error:
                reasons.append((number, str(error)))
            sheets.put(number, pixels)
        return reasons

    with progress(None, "reading images", total=len(names)) as meter:
        if shards:
            bad = _from_shards(names, shards, sheets, meter)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for reasons in pool.map(fill, range(0, len(names), GROUP)):
                    bad += reasons
                    meter.update(GROUP)
    for _, reason in bad[:TOLD]:
        log.warning("%s", reason)
    if bad:
        log.warning("%s of %s galaxies have no image", f"{len(bad):,}", f"{len(names):,}")
    return [number for number, _ in bad]


def _from_shards(names, lists, sheets, meter):
    """Put the images of shards on sheets; returns (number, reason) of each galaxy that is in no shard."""
    import tensorflow as tf

    wanted = {name: number for number, name in enumerate(names)}
    for sidecar in shards_of(lists):
        about = read_sidecar(sidecar)
        shape = (about["size"], about["size"], about["channels"])
        for record in tf.data.TFRecordDataset(sidecar.removesuffix(".json") + ".tfrecord"):
            found = parse(record)
            number = wanted.pop(found["id_str"].numpy().decode(), None)
            if number is not None:
                pixels = decode(found["image"].numpy(), about["encoding"], shape)
                sheets.put(number, _of_stored(pixels))
                meter.update()
    for number in wanted.values():
        sheets.put(number, None)
    return [(number, f"{name}: is in none of the shards.") for name, number in wanted.items()]


def _of_stored(pixels):
    """(LARGE, LARGE, 3) uint8 of an image of a shard."""
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((LARGE, LARGE), Image.Resampling.LANCZOS))
