"""The tables of a run compared with the reference of all columns."""

import pyarrow.parquet as pq
import reference_files
from pipeline import REPO


def not_in_the_reference(results):
    """What the reference of columns does not have: (file, its columns) of each table, or a file alone.

    Args:
        results: the folder of a run.
    """
    tables = reference_files.tables(REPO)
    found = []
    for path in sorted([*results.rglob("*.csv"), *results.rglob("*.parquet")]):
        name = str(path.relative_to(results))
        # The tables of the record have the columns of the record.
        if name.startswith("download/gz_decals"):
            continue
        told = [
            columns for known, columns in tables.items() if reference_files.in_regex(known).fullmatch(name)
        ]
        has = (
            path.read_text().partition("\n")[0].split(",")
            if path.suffix == ".csv"
            else pq.read_schema(path).names
        )
        known = [reference_files.in_regex(column) for columns in told for column in columns]
        unknown = [column for column in has if not any(known_one.fullmatch(column) for known_one in known)]
        if unknown or not told:
            found.append((name, unknown))
    return found
