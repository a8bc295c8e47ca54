"""Files of predictions (HDF5 in Zoobot's layout): reading them, and describing them galaxy by galaxy."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.logs import UserError, log, progress, whole
from zoolib.posteriors import describe
from zoolib.trees import DecisionTree

# Galaxies that are in memory at once, for each thread.
BLOCK = 512


@dataclass(frozen=True)
class Predictions:
    """An open file of predictions.

    Attributes:
        path: the file.
        kind: what its numbers are, `concentrations` or e.g. `probabilities`.
        tree: the `DecisionTree`, None where the numbers belong to labels instead.
        columns: names of the answers, in the order of the second axis.
        id_str: (galaxies,) names of the galaxies.
        values: the HDF5 dataset (galaxies, answers, samples).
    """

    path: str
    kind: str
    tree: DecisionTree | None
    columns: list
    id_str: np.ndarray
    values: h5py.Dataset

    def blocks(self, size=BLOCK):
        """Read the galaxies in order, a block at a time.

        Args:
            size: galaxies of a block.

        Yields:
            (slice of the galaxies, (galaxies, answers, samples) float64).

        Raises:
            UserError: a number that no model gives, such as where a part of the file is missing.
        """
        for start in range(0, len(self.id_str), size):
            rows = slice(start, min(start + size, len(self.id_str)))
            values = self.values[rows].astype(float)
            good = np.isfinite(values) & (values > 0 if self.kind == "concentrations" else values >= 0)
            if not good.all():
                galaxy, answer, sample = np.argwhere(~good)[0]
                raise UserError(
                    f"{self.path}: sample {sample} of '{self.columns[answer]}' for galaxy"
                    f" '{self.id_str[start + galaxy]}' is {values[galaxy, answer, sample]:g}, expected a"
                    f" positive number; a part of the predictions is missing or broken, predict it again."
                )
            yield rows, values


@contextlib.contextmanager
def open_predictions(path):
    """Open a file of predictions.

    Args:
        path: HDF5 with the datasets `predictions`, `id_str` and `label_cols`; it may be virtual.

    Yields:
        `Predictions`.

    Raises:
        UserError: no such file, no HDF5, or a dataset is missing.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: cannot be read as predictions in HDF5 ({error}); predict again.") from None
    with file:
        missing = {"predictions", "id_str", "label_cols"} - set(file)
        if missing:
            raise UserError(
                f"{path}: the dataset '{min(missing)}' is missing, found {', '.join(file) or 'none'};"
                " predictions have predictions, id_str and label_cols."
            )
        kind = str(file.attrs.get("kind", "concentrations"))
        tree = None
        if kind == "concentrations":
            if "tree" not in file.attrs:
                raise UserError(f"{path}: the attribute 'tree' is missing; predict again with this project.")
            tree = DecisionTree.from_dict(json.loads(file.attrs["tree"]), path)
        columns = [str(name) for name in file["label_cols"].asstr()[:]]
        if tree and columns != tree.columns:
            raise UserError(
                f"{path}: label_cols ({', '.join(columns[:3])}, …) are not the answers of its tree"
                f" ({', '.join(tree.columns[:3])}, …); predict again with this project."
            )
        yield Predictions(str(path), kind, tree, columns, file["id_str"].asstr()[:], file["predictions"])


def describe_posteriors(predictions, output, credible_level, threads=1):
    """Write the flat catalogue of a file of predictions, whose columns `posteriors.describe` names.

    Args:
        predictions: HDF5 of predictions.
        output: Parquet to write; its metadata hold kind, credible_level and tree.
        credible_level: mass of the intervals, between 0 and 1.
        threads: blocks of galaxies that are described at once.

    Raises:
        UserError: the predictions cannot be read.
    """
    with open_predictions(predictions) as opened, whole(output) as partial:

        def table_of(block):
            rows, values = block
            described = describe(opened.id_str[rows], values, opened, credible_level)
            return pa.Table.from_pandas(described, preserve_index=False)

        empty = np.ones((0, *opened.values.shape[1:]))
        about = {"kind": opened.kind, "credible_level": str(credible_level)}
        about |= {"tree": json.dumps(opened.tree.to_dict())} if opened.tree else {}
        columns = describe([], empty, opened, credible_level).columns[1:]
        fields = [("id_str", pa.string()), *((name, pa.float32()) for name in columns)]
        schema = pa.schema(fields, metadata=about)
        with (
            pq.ParquetWriter(partial, schema) as writer,
            ThreadPoolExecutor(threads) as pool,
            progress(None, "describing posteriors", total=len(opened.id_str)) as meter,
        ):
            for blocks in _batches(opened.blocks(), threads):
                for table in pool.map(table_of, blocks):
                    writer.write_table(table.cast(schema))
                    meter.update(len(table))
    log.info("%s: posteriors of %d galaxies", output, len(opened.id_str))


def _batches(blocks, size):
    """Lists of as many blocks as there are threads, so that only those are in memory."""
    batch = []
    for block in blocks:
        batch.append(block)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def read_described(parts, columns=None):
    """Read a flat catalogue that `describe_posteriors` wrote.

    Args:
        parts: its Parquet files, one a chunk.
        columns: which to read beside id_str, e.g. ["bar_asked"]; all of them if None.

    Returns:
        (pandas.DataFrame, {"tree": a `DecisionTree`, or None where it describes labels,
        "credible_level": mass of the intervals}).

    Raises:
        UserError: a file is no such catalogue.
    """
    tables = []
    for part in parts:
        try:
            tables.append(pq.read_table(part, columns=None if columns is None else ["id_str", *columns]))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{part}: cannot be read as a flat catalogue ({error}); predict again.") from None
    about = tables[0].schema.metadata
    if not about or b"credible_level" not in about:
        raise UserError(f"{parts[0]}: was not written by this project's describe_posteriors; predict again.")
    tree = DecisionTree.from_dict(json.loads(about[b"tree"]), parts[0]) if b"tree" in about else None
    table = pa.concat_tables(tables).to_pandas()
    return table, {"tree": tree, "credible_level": float(about[b"credible_level"])}


def write_predictions(path, ids, values, about, members, samples, views, seed):
    """Write predictions as HDF5 in Zoobot's layout.

    Args:
        path: the file.
        ids: (galaxies,) id_str.
        values: (galaxies, answers, samples) float32.
        about: the model's `model.json`.
        members: number of members.
        samples: dropout draws a view.
        views: augmented views.
        seed: of the run.
    """
    with h5py.File(path, "w") as file:
        compression = {"compression": "gzip", "compression_opts": 4} if len(ids) else {}
        file.create_dataset("predictions", data=values, **compression)
        file.create_dataset("id_str", data=list(ids), dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=list(about["columns"]), dtype=h5py.string_dtype())
        file.attrs.update(_attributes(about, members, samples, views, seed))


def _attributes(about, members, samples, views, seed):
    meaning = {
        "concentrations": "Dirichlet concentrations of each answer, one a sample",
        "probabilities": "probabilities of each label, one a sample",
    }
    return {
        "kind": about["kind"],
        "values": meaning[about["kind"]],
        "tree": json.dumps(about["tree"]),
        "members": members,
        "views": views,
        "samples_per_view": samples,
        "seed": seed,
    }


def collect_predictions(parts, rejected_parts, output):
    """One virtual HDF5 over all chunks: its numbers are those in the chunks' files, not copies.

    Args:
        parts: the chunks' HDF5 files, in order.
        rejected_parts: the chunks' tables of images that could not be read.
        output: attributes predictions (HDF5, in a folder above the parts') and rejected (CSV).
    """
    ids, sizes = [], []
    for part in parts:
        with h5py.File(part) as file:
            ids.extend(file["id_str"].asstr()[:])
            sizes.append(len(file["id_str"]))
            label_cols, attributes = list(file["label_cols"].asstr()), dict(file.attrs)
            shape = file["predictions"].shape[1:]
    layout = h5py.VirtualLayout((len(ids), *shape), dtype="float32")
    begin = 0
    for part, size in zip(parts, sizes, strict=True):
        # Relative, so that the folder can be moved or copied to another machine.
        where = Path(part).relative_to(Path(output.predictions).parent)
        if size:
            layout[begin : begin + size] = h5py.VirtualSource(where, "predictions", shape=(size, *shape))
        begin += size
    with whole(output.predictions) as partial, h5py.File(partial, "w") as file:
        file.create_virtual_dataset("predictions", layout)
        file.create_dataset("id_str", data=ids, dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=label_cols, dtype=h5py.string_dtype())
        file.attrs.update(attributes)
    rejected = pd.concat([pd.read_csv(part, dtype=str) for part in rejected_parts], ignore_index=True)
    with whole(output.rejected) as partial:
        rejected.to_csv(partial, index=False)
    log.info("%s galaxies in %d parts, %d images rejected", f"{len(ids):,}", len(parts), len(rejected))
