"""The galaxies to predict, from listed images or from shards, a chunk at a time."""

import numpy as np

from zoolib.data import layout, listing
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.logs import UserError
from zoolib.learning import datasets


def open_galaxies(galaxies, image, chunk, of, on_bad):
    """Open one chunk of the galaxies to predict, from listed images or from shards.

    Chunks are cut between blocks, so each block is complete in one chunk. Only the data of this chunk are
    read, however many galaxies the other chunks have.

    Args:
        galaxies: a list of catalogues or lists of galaxies (see `listing.list_galaxies`), or of `.json`
            sidecars of shards.
        image: the `image` section that the model was trained with.
        chunk: number of this chunk.
        of: number of chunks, where the list of galaxies does not say it.
        on_bad: called with a row and a message for each image that cannot be read.

    Returns:
        (iterator over blocks of (id_str, stored images, labels); the chunk's first position among all
        galaxies; the position after its last; the number of all galaxies, 0 for a folder, because more may
        come). New images of a folder begin a block of their own, so positions may leave some numbers out.

    Raises:
        UserError: a file is not a list of galaxies, or shards are damaged or have another size than the model
            expects.
    """
    shards = listing.shards_of(galaxies)
    if shards is None:
        rows, begin, end, count = _bounds(galaxies, chunk, of)
        store = datasets.from_catalog([listing.read_images(galaxies, *rows)], [], image, on_bad=on_bad)
        return _blocks(store), begin, end, count
    paths, counts = list(shards), np.array(list(shards.values()))
    ends = np.cumsum(counts)
    begin, end = layout.bounds_of_chunk(ends[-1], chunk, of)
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


def _bounds(galaxies, chunk, of):
    """(rows of a chunk in lists or catalogues; its first and last position and that of the last galaxy)."""
    cut = layout.read_layout(galaxies[0])
    if cut is None:
        count = listing.count_images(galaxies)
        begin, end = layout.bounds_of_chunk(count, chunk, of)
        return (begin, end), begin, end, count
    if chunk >= len(cut.chunks):
        raise UserError(
            f"{cut.source[0]}: the folder has changed since the command was typed, and has no chunk"
            f" {chunk} any more; type the same command again."
        )
    before = sum(one.count for one in cut.chunks[:chunk])
    one = cut.chunks[chunk]
    return (before, before + one.count), one.position, one.position + one.count, 0


def _blocks(store, *part):
    with datasets.images_read(store):
        yield from datasets.stored_batches(store, layout.BLOCK, *part)
