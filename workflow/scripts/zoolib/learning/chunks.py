"""The galaxies to predict, from listed images or from shards, a chunk at a time."""

import numpy as np

from zoolib.data import listing
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.logs import UserError
from zoolib.learning import datasets

# Chunks are cut between blocks of this many galaxies. Dropout has one seed per block, so the number of chunks
# does not change results.
BLOCK = 128


def open_galaxies(galaxies, image, chunk, of, on_bad):
    """Open one chunk of the galaxies to predict, from listed images or from shards.

    Chunks are cut between blocks, so each block is complete in one chunk. Only the data of this chunk are
    read, however many galaxies the other chunks have.

    Args:
        galaxies: a list of catalogues or lists of galaxies (see `listing.list_galaxies`), or of `.json`
            sidecars of shards.
        image: the `image` section that the model was trained with.
        chunk: number of this chunk.
        of: number of chunks.
        on_bad: called with a row and a message for each image that cannot be read.

    Returns:
        (iterator over blocks of (id_str, stored images, labels); the chunk's first position among all
        galaxies; the position after its last; the number of all galaxies).

    Raises:
        UserError: a file is not a list of galaxies, or shards are damaged or have another size than the model
            expects.
    """
    shards = listing.shards_of(galaxies)
    if shards is None:
        count = listing.count_images(galaxies)
        begin, end = bounds_of_chunk(count, chunk, of)
        part = listing.read_images(galaxies, begin, end)
        store = datasets.from_catalog([part], [], image, on_bad=on_bad)
        return _blocks(store), begin, end, count
    paths, counts = list(shards), np.array(list(shards.values()))
    ends = np.cumsum(counts)
    begin, end = bounds_of_chunk(ends[-1], chunk, of)
    # Open only the shards that hold galaxies of this chunk.
    used = np.flatnonzero((ends > begin) & (ends - counts < end)) if end > begin else np.array([0])
    first = ends[used[0]] - counts[used[0]]
    abouts = [read_sidecar(paths[shard], None, image) for shard in used]
    for shard, about in zip(used, abouts, strict=True):
        if about["count"] != counts[shard]:
            raise UserError(
                f"{paths[shard]}: the shard has {about['count']} galaxies, and had {counts[shard]} when the"
                " target was listed; list it again with `snakemake --forcerun list_galaxies`."
            )
    files = [paths[shard].removesuffix(".json") + ".tfrecord" for shard in used]
    store = datasets.from_shards(files, abouts, {**image, "encoding": abouts[0]["encoding"]})
    return _blocks(store, begin - first, end - first), begin, end, int(ends[-1])


def _blocks(store, *part):
    with datasets.images_read(store):
        yield from datasets.stored_batches(store, BLOCK, *part)


def bounds_of_chunk(count, chunk, of):
    """The galaxies of a chunk: chunks are cut between blocks, so each block is complete in one of them.

    Args:
        count: of all galaxies.
        chunk: its number, from 0.
        of: number of chunks.

    Returns:
        (position of the first galaxy, position after the last one).
    """
    blocks = -(-count // BLOCK)
    return tuple(int(min(number * blocks // of * BLOCK, count)) for number in (chunk, chunk + 1))
