"""Stage shards: the galaxies of a catalogue in its order, with images decoded, scaled and encoded."""

import hashlib
import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.data.images import BadImage, encode, load_image, read, where
from zoolib.data.tfrecords import read_sidecar, write_records, write_sidecar
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.job.provenance import versions

# Images that are decoded before they are written; more would only need more memory.
AHEAD = 256
# The digest of an image in which all pixels are equal: two such images need not be of one galaxy.
EMPTY = "all"
# How pixels are made, if not in the usual way.
HOW = ("grey", "interpolation")
# What a sidecar says of each galaxy, and of its split.
SHARED = ("digests", "ids", "split")
# The files of a shard, in the folder of its split.
FILE_OF_SHARD = re.compile(r"\d+\.(tfrecord|parquet|json|rejected\.csv)")


def write_shard(catalog, shard, of, image, output, enabled=True, threads=2):
    """Write one shard of a catalogue: TFRecords of `id_str`, `image` and `votes`, and a sidecar.

    An image that cannot be read is a row of `rejected`, and its galaxy is not in the shard.

    Args:
        catalog: a split's catalogue; the name of the file is the name of the split.
        shard: number of the shard, from 0; it takes the rows [shard·N // of, (shard + 1)·N // of).
        of: number of shards of the split.
        image: has `size` (pixels), `color` (bool) and `encoding` (png, jpeg or raw), and perhaps `grey` and
            `interpolation` (see `images.load_image`).
        output: has the paths `shard`, `about` (JSON) and `rejected` (CSV: id_str, reason).
        enabled: False writes, without pixels, the catalogue's rows whose image can be read (Parquet).
        threads: number of images that are decoded at the same time.

    Raises:
        UserError: fewer galaxies than shards, or no such catalogue.
    """
    content, split = read_catalog(catalog), Path(catalog).stem
    columns = content.columns
    table = _rows_of_shard(content.table, split, shard, of)
    stored = {key: image[key] for key in ("size", "color", "encoding", *HOW) if key in image}
    source = hashlib.sha256(json.dumps([stored, columns]).encode())
    votes = table[columns].to_numpy(np.float32)
    reasons, digests = [], []

    def packed():
        what = f"{split} shard {shard} of {of}"
        for row, (data, pixels, reason) in enumerate(_pack(table, stored, threads, what, enabled)):
            reasons.append(reason)
            if reason is None:
                name = table["id_str"][row].encode()
                digests.append(pixels)
                source.update(name + b"\0" + votes[row].tobytes() + pixels.encode())
                yield name, data, votes[row]

    galaxies = packed()
    if enabled:
        write_records(galaxies, output.shard)
    for _ in galaxies:
        # If no records are written, the images must still be read to know which are good, and what they show.
        pass
    kept = np.array([reason is None for reason in reasons], bool)
    if not enabled:
        write_catalog(Catalog(table[kept], columns, content.tree), output.shard)
    bad = table.loc[~kept, ["id_str"]].assign(reason=[reason for reason in reasons if reason])
    with whole(output.rejected) as partial:
        bad.to_csv(partial, index=False)
    about = {"split": split, "shard": shard, "of": of, "count": int(kept.sum()), "rejected": len(bad)}
    about |= {"file": Path(output.shard).name, "bytes": Path(output.shard).stat().st_size}
    about |= _contents(stored, content) | {"source": source.hexdigest(), "versions": versions()}
    about |= {"ids": table["id_str"][kept].tolist(), "digests": digests}
    write_sidecar(output.about, about)
    log.info("%s galaxies written, %s rejected", f"{kept.sum():,}", f"{len(bad):,}")


def _rows_of_shard(table, split, shard, of):
    if len(table) < of:
        raise UserError(
            f"shards.count.{split}: {len(table)} galaxies cannot fill {of} shards; lower the number to"
            f" {len(table)} or fewer, or select more galaxies."
        )
    return table[shard * len(table) // of : (shard + 1) * len(table) // of].reset_index(drop=True)


def _contents(stored, catalog):
    """What a sidecar says of a shard's images and votes."""
    return {
        "size": stored["size"],
        "channels": 3 if stored["color"] else 1,
        "encoding": stored["encoding"],
        "tree": catalog.tree.to_dict() if catalog.tree else None,
        "columns": catalog.columns,
        **{key: stored[key] for key in HOW if key in stored},
    }


def check_rejected(abouts, rejected, max_rejected, output):
    """Collect the rejected images of all shards, and stop if there are too many or if splits share images.

    Shards that an earlier configuration with more shards, or with another `shards.enabled`, has left in the
    same folders are deleted: whoever reads the folder would mix them in.

    Args:
        abouts: the shards' sidecars.
        rejected: the shards' tables of rejected images, in the same order.
        max_rejected: the largest share of all images that may be unreadable.
        output: CSV to write: id_str, reason, split.

    Raises:
        UserError: a larger share is unreadable, or galaxies of two splits have the same pixels.
    """
    sidecars = [read_sidecar(path) for path in abouts]
    tables = [
        pd.read_csv(path, dtype=str).assign(split=about["split"])
        for path, about in zip(rejected, sidecars, strict=True)
    ]
    table = pd.concat(tables, ignore_index=True)
    total = sum(about["count"] + about["rejected"] for about in sidecars)
    log.info("%s of %s images rejected", f"{len(table):,}", f"{total:,}")
    if len(table) > max_rejected * total:
        where_from = next(path for path, rows in zip(rejected, tables, strict=True) if len(rows))
        raise UserError(
            f"shards.max_rejected: {len(table)} of {total} images ({len(table) / total:.1%}) cannot be read,"
            f" expected {max_rejected:.1%} or less; fix them or raise the limit; {where_from} lists the"
            f" first: {table['reason'][0]}"
        )
    _check_splits(abouts, sidecars)
    _delete_others(abouts, rejected, sidecars)
    with whole(output) as partial:
        table.to_csv(partial, index=False)


def _check_splits(abouts, sidecars):
    """Stop if galaxies of two splits have the same pixels: one would be scored on what was learned."""
    older = next((path for path, about in zip(abouts, sidecars, strict=True) if "digests" not in about), None)
    if older:
        raise UserError(
            f"{older}: an older version has written this shard, without digests of its pixels; write the"
            " shards again with `snakemake --forcerun write_shard`."
        )
    galaxies = pd.concat([pd.DataFrame({key: about[key] for key in SHARED}) for about in sidecars])
    galaxies = galaxies[~galaxies["digests"].str.startswith(EMPTY)].drop_duplicates(["digests", "split"])
    same = galaxies[galaxies.duplicated("digests", keep=False)].groupby("digests", sort=False)
    if not same.ngroups:
        return
    named = [
        " and ".join(f"{row.ids} ({row.split})" for row in group.itertuples())
        for _, group in itertools.islice(same, 3)
    ]
    raise UserError(
        f"catalogs: galaxies of different splits have the same pixels, expected no image to be in two splits;"
        f" {same.ngroups} image(s): {'; '.join(named)}; remove all but one row of each from the table (or by"
        " catalogs[].query), or keep them in one split with split.group."
    )


def _delete_others(abouts, rejected, sidecars):
    """Delete the files of shards that lie in the folders of these shards and do not belong to them."""
    files = [Path(path).with_name(about["file"]) for path, about in zip(abouts, sidecars, strict=True)]
    kept = {Path(path) for path in [*abouts, *rejected, *files]}
    found = {path for folder in {path.parent for path in kept} for path in folder.iterdir()}
    others = sorted(path for path in found - kept if FILE_OF_SHARD.fullmatch(path.name))
    for path in others:
        path.unlink()
    if others:
        log.info("%d files of an earlier shards.count or shards.enabled deleted", len(others))


def _pack(table, stored, threads, what, enabled):
    """For each row: (encoded image, digest of its pixels, None), or (None, None, why it is rejected)."""
    how = {key: stored[key] for key in HOW if key in stored}

    def pack(row):
        try:
            data = read(row)
            raw = stored["encoding"] == "raw"
            pixels = load_image(data, stored["size"], stored["color"], raw, where(row), **how)
        except BadImage as error:
            return None, None, str(error)
        return encode(pixels, stored["encoding"]) if enabled else None, _digest(pixels), None

    rows = table[["archive", "member", "file_loc"]].to_dict("records")
    with ThreadPoolExecutor(threads) as pool, progress(None, what, total=len(rows)) as meter:
        for start in range(0, len(rows), AHEAD):
            for result in pool.map(pack, rows[start : start + AHEAD]):
                yield result
                meter.update()


def _digest(pixels):
    """16 digits, equal for equal pixels; of an image without content its only value, after `EMPTY`."""
    if (pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():
        return f"{EMPTY} {pixels[0, 0].tolist()}"
    return hashlib.blake2b(pixels.tobytes(), digest_size=8).hexdigest()
