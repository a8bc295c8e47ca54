"""Catalogue files: for each galaxy one row with its name, where its image is, and its votes or labels."""

import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.config.trees import DecisionTree
from zoolib.data import locations
from zoolib.data.tables import read_table
from zoolib.job.logs import UserError, whole

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Catalog:
    """The content of a catalogue file.

    Attributes:
        table: one row a galaxy: id_str, archive, member, file_loc, then `columns`.
        columns: names of the columns of votes or labels.
        tree: the `DecisionTree` of the votes; None for labels.
        about: the other metadata of the file, plain values.
    """

    table: pd.DataFrame
    columns: list
    tree: DecisionTree | None
    about: dict = field(default_factory=dict)


def write_catalog(catalog, path):
    """Write a catalogue as Parquet; the file's metadata say which tree or labels it has.

    Two more columns are written if the table has them, for the galaxies of a task: `pixels`, the digest of
    each image, by which a training knows whether it was changed, and `part`, which part a galaxy is in.

    Args:
        catalog: a `Catalog`.
        path: the file.
    """
    kinds = dict.fromkeys(catalog.columns, np.int32 if catalog.tree else np.float32)
    own = ["pixels"] if "pixels" in catalog.table else []
    table = catalog.table[["id_str", *locations.PLACES, *catalog.columns, *own]].astype(kinds)
    if "part" in catalog.table:
        table["part"] = catalog.table["part"].astype(np.int32)
    tree = catalog.tree.to_dict() if catalog.tree else None
    about = {"tree": tree, "columns": catalog.columns, **catalog.about}
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, b"zoolib": json.dumps(about).encode()})
    with whole(path) as partial:
        pq.write_table(arrow, partial, write_page_checksum=True)


def read_catalog(path):
    """Read a catalogue that `write_catalog` wrote.

    Args:
        path: the file.

    Returns:
        A `Catalog`.

    Raises:
        UserError: the file is missing, not Parquet, or not such a catalogue.
    """
    table = read_table(path)
    about = (pq.read_schema(path).metadata or {}).get(b"zoolib")
    if about is None:
        raise UserError(f"{path}: is not a catalogue of this project; make it with the target 'catalog'.")
    try:
        about = json.loads(about)
        tree, columns = about.pop("tree"), about.pop("columns")
        missing = [name for name in ("id_str", *locations.PLACES, *columns) if name not in table]
    except (ValueError, KeyError, TypeError, AttributeError):
        missing = ["zoolib"]
    if missing:
        raise UserError(f"{path}: is damaged, it has no '{missing[0]}'; delete it and make it again.")
    return Catalog(table, columns, DecisionTree.from_dict(tree, path) if tree else None, about)
