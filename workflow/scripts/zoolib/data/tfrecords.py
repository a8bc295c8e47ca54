"""Shards, the files that training reads: TFRecords of images and votes, each with a sidecar about it."""

import json
from pathlib import Path

from zoolib.job.gpus import load_tensorflow
from zoolib.job.logs import UserError, whole
from zoolib.job.provenance import hash_of


def write_records(galaxies, path):
    """Write a shard.

    Args:
        galaxies: an iterable of (id_str as bytes, encoded image as bytes, votes as float32 array).
        path: the file.
    """
    tf = load_tensorflow()

    def several(kind, name, values):
        return tf.train.Feature(**{name: kind(value=values)})

    with whole(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
        for name, data, votes in galaxies:
            features = {
                "id_str": several(tf.train.BytesList, "bytes_list", [name]),
                "image": several(tf.train.BytesList, "bytes_list", [data]),
                "votes": several(tf.train.FloatList, "float_list", votes.tolist()),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            # The features are a map; without a fixed order two runs would write different files.
            writer.write(example.SerializeToString(deterministic=True))


def parse(serialised):
    """Read one record of a shard, inside tf.data.

    Args:
        serialised: scalar string tensor.

    Returns:
        {"id_str": scalar string, "image": scalar string (encoded), "votes": (columns,) float32}.
    """
    import tensorflow as tf

    return tf.io.parse_single_example(
        serialised,
        {
            "id_str": tf.io.FixedLenFeature([], tf.string),
            "image": tf.io.FixedLenFeature([], tf.string),
            "votes": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
        },
    )


def read_sidecar(path, columns=None, image=None):
    """Read a shard's sidecar, and check that the shard is the expected one.

    Args:
        path: the `.json` beside the shard.
        columns: the votes' columns that the shard must have, in this order; None for any.
        image: has the `size` and `color`, and perhaps the `grey`, that the shard must have; None for any.

    Returns:
        The sidecar as a dict: split, shard, of, file (name of the shard), bytes (its size), count, rejected,
        size, channels, encoding, grey and interpolation if they are not the usual ones, tree (a dict or
        None), columns, source (hash of the galaxies, their votes and pixels, in their order), versions, ids,
        digests (of each galaxy's pixels), checksum (of all the rest; one of an older version has none).

    Raises:
        UserError: the file is missing or is not a sidecar, or the shard has another tree or size.
    """
    try:
        about = json.loads(Path(path).read_text())
        size, channels, found = about["size"], about["channels"], about["columns"]
        if about.get("checksum", checksum := _checksum(about)) != checksum:
            raise ValueError("its checksum is wrong")
        count, encoding = int(about["count"]), about["encoding"]
        if len(about.get("ids", [None] * count)) != count or encoding not in ("png", "jpeg", "raw"):
            raise ValueError("what it says does not fit together")
    except FileNotFoundError:
        raise UserError(
            f"{path}: the shard's sidecar is missing; write the shards with the target 'shards'."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path}: is not the sidecar of a shard, or is damaged; write the shards again."
        ) from None
    if columns is not None and found != list(columns):
        name = f"the tree '{about['tree']['name']}'" if about.get("tree") else "labels"
        strange = next((column for column in found if column not in columns), "the same in another order")
        raise UserError(
            f"{path}: the shard has {name} ({len(found)} columns, among them {strange}), expected"
            f" {len(columns)} columns, among them {', '.join(list(columns)[:3])}; write the shards again with"
            " this tree or choose the shard's tree."
        )
    if image is not None and (size, channels) != (image["size"], 3 if image["color"] else 1):
        raise UserError(
            f"{path}: the shard's images are {size} pixels wide in {channels} channels, expected"
            f" {image['size']} in {3 if image['color'] else 1} (image.size, image.color); write the shards"
            " again with these settings."
        )
    greys = [found.get("grey", "mean") for found in (about, image or about)]
    if channels == 1 and greys[0] != greys[1]:
        raise UserError(
            f"{path}: the shard's images were made grey by {greys[0]}, expected {greys[1]} (image.grey);"
            " write the shards again with this setting."
        )
    return about


def write_sidecar(path, about):
    """Write a shard's sidecar.

    Args:
        path: the `.json` beside the shard.
        about: see `read_sidecar`, without the checksum.
    """
    # As it will be read: JSON has no tuples, and all its keys are text.
    content = json.loads(json.dumps(about))
    with whole(path) as partial:
        partial.write_text(json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n")


def _checksum(about):
    return hash_of({key: about[key] for key in about if key != "checksum"})


def damaged(path, found):
    """The error that a shard is not as it was written.

    Args:
        path: the shard.
        found: what is wrong with it.

    Returns:
        UserError.
    """
    return UserError(
        f"{path}: the shard is damaged, {found}; if this run has written it, delete it and type the same"
        " command again, which writes only this shard again; if not, copy it again."
    )


def check_shard(path, about):
    """Check, without reading a shard, that it is as long as it was when it was written.

    A damaged byte does not change the length: reading finds it by the checksum of its record.

    Args:
        path: the shard, or the list that replaces it where `shards.enabled` is false.
        about: its sidecar; that of an older version has no `bytes`, and only the file's presence is checked.

    Raises:
        UserError: there is no such file, it has another length, or its sidecar is about another file.
    """
    path = Path(path)
    if about.get("file", path.name) != path.name:
        raise UserError(
            f"{path}: the sidecar beside it is about {about['file']}, expected one about {path.name}; write"
            " the shards again with the target 'shards', with the same shards.enabled."
        )
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such shard, but it has a sidecar; write it again with the target 'shards',"
            " or copy it from where its sidecar comes from."
        ) from None
    if size != about.get("bytes", size):
        raise damaged(path, f"it has {size:,} bytes, and its sidecar says {about['bytes']:,}")
