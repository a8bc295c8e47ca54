"""Sorting more rows than fit into memory."""

import contextlib
import sqlite3

# Memory for pages of the database: a negative number is in KiB.
CACHE = "-65536"


def in_order(rows, columns, order):
    """Sort rows on disk: SQLite writes them to a temporary file of its own, and merges sorted runs.

    The file is in the folder that TMPDIR names, and is removed after the last row.

    Args:
        rows: an iterable of tuples of text and numbers; NaN is less than any number.
        columns: their names.
        order: what to sort by, in SQL, e.g. "information desc, id_str"; text is sorted by code points, as
            Python sorts it.

    Yields:
        The tuples, in order; NaN has become None.
    """
    with contextlib.closing(sqlite3.connect("")) as database:
        database.execute(f"pragma cache_size = {CACHE}")
        database.execute(f"create table galaxies ({', '.join(columns)})")
        blanks = ", ".join("?" * len(columns))
        database.executemany(f"insert into galaxies values ({blanks})", rows)
        yield from database.execute(f"select * from galaxies order by {order}")
