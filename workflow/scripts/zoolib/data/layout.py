"""How the galaxies of a target are cut into chunks, one for each job."""

import json
import os
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.job.logs import UserError, check_machine
from zoolib.job.provenance import hash_of

# Chunks are cut between blocks of this many galaxies. Dropout has one seed per block, so the number of chunks
# does not change results.
BLOCK = 128


class Chunk(NamedTuple):
    """A chunk of a folder's galaxies.

    Attributes:
        position: of its first galaxy; it seeds dropout and never changes.
        count: its galaxies.
        revision: rises when one of them changes or goes.
    """

    position: int
    count: int
    revision: int


class Layout(NamedTuple):
    """How the galaxies of a folder are cut into chunks.

    Attributes:
        source: [folder, what names are (see `names_of`), number of chunks of the first listing].
        chunks: a list of `Chunk`.
        end: the position after the last one.
        folders: {path of the folder and of each one below: time of its last change in ns, 0 for just now}.
    """

    source: list
    chunks: list
    end: int
    folders: dict


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


def read_layout(path):
    """How the galaxies of a list are cut into chunks.

    Args:
        path: a list of galaxies.

    Returns:
        A `Layout`; None if there is no such list, or one that was not made from a folder.

    Raises:
        UserError: the list is damaged.
    """
    if not os.path.exists(path):
        return None
    try:
        schema = pq.read_schema(path)
        about = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        if not {"layout", "checksum"} & set(about) and "chunk" not in schema.names:
            return None
        # Parquet has no checksum of its metadata.
        if about.get("checksum") != hash_of(about.get("layout")):
            raise ValueError("its layout is not the one that was written")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from None
    found = json.loads(about["layout"])
    return Layout(**{**found, "chunks": [Chunk(*chunk) for chunk in found["chunks"]]})


def metadata_of(layout):
    """The metadata of a list that `read_layout` reads.

    Args:
        layout: a `Layout`.

    Returns:
        {name: text}.
    """
    text = json.dumps(layout._asdict())
    return {"layout": text, "checksum": hash_of(text)}


def damaged(path, error):
    """Make the error for a list that cannot be read.

    Args:
        path: the list.
        error: what its reader has raised.

    Returns:
        `UserError`, to be raised.

    Raises:
        MachineError: the file system does not answer.
    """
    check_machine(error, path)
    reason = " ".join(str(error).split())
    return UserError(f"{path}: is not a list of galaxies ({reason}); remove it and predict again.")


def rounded(count):
    """The smallest multiple of a block that is not less than a count."""
    return -(-count // BLOCK) * BLOCK
