"""Decoded images that a training shows again and again: one copy of each, in memory or in a file."""

import os
import tempfile
from pathlib import Path

import numpy as np

from zoolib.job.logs import log

# Bytes of images that are kept in memory: 3,700 images of 300 px in colour, 11,000 grey ones.
CEILING = 1_000_000_000


class Decoded:
    """A reader of images that decodes each image once.

    More images than `CEILING` are kept in a temporary file. It has no name: it is gone when the process
    ends, however it ends. If the disk is full, images that have no place are decoded each time.

    Args:
        decode: number of a row -> its pixels.
        image_of: (rows,) integers from 0, the image of each row; several rows may show the same one.
        shape: of an image, (size, size, channels).
        dtype: of its pixels.
        folder: where the file goes, not to the folder of TMPDIR: that may itself be in memory.
    """

    def __init__(self, decode, image_of, shape, dtype, folder):
        self.decode, self.image_of = decode, image_of
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.length = int(np.prod(shape)) * self.dtype.itemsize
        self.file, self.is_full = None, False
        # Of each image: its pixels, or whether the file has them.
        self.kept = [None] * (int(image_of.max(initial=-1)) + 1)
        if len(self.kept) * self.length > CEILING:
            Path(folder).mkdir(parents=True, exist_ok=True)
            # It stays open as long as the training reads images.
            self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
            size = len(self.kept) * self.length / 1e9
            log.info("Decoded images are kept in a temporary file, which grows to %.1f GB", size)

    def read(self, row):
        """The pixels of a row's image, (size, size, channels). Several threads may read at the same time."""
        image = self.image_of[row]
        kept = self.kept[image]
        if kept is None:
            kept = self.decode(row)
            self._keep(image, kept)
        elif self.file:
            data = os.pread(self.file.fileno(), self.length, image * self.length)
            kept = np.frombuffer(data, self.dtype).reshape(self.shape)
        return kept

    def _keep(self, image, pixels):
        if not self.file:
            self.kept[image] = pixels
        elif not self.is_full:
            try:
                done = os.pwrite(self.file.fileno(), pixels.tobytes(), image * self.length)
            except OSError as error:
                self.is_full = True
                log.warning(
                    "The temporary file cannot grow (%s): training is slower, because it decodes the other"
                    " images each time that it shows them.",
                    error.strerror,
                )
            else:
                self.kept[image] = True if done == self.length else None
