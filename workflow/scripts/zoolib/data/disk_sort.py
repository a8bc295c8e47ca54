"""Sorting more rows than memory should hold."""

import contextlib
import sqlite3

# Pages of the database that are kept in memory.
CACHE = "-65536"


def in_order(rows, columns, order):
    """Sort rows on disk: SQLite holds them in a temporary file of its own, and merges sorted runs.

    The file lies in the folder that TMPDIR names, and is gone when the last row has been taken.

    Args:
        rows: an iterable of tuples of text and numbers; NaN is less than any number.
        columns: their names.
        order: what to sort by, as SQL says it, e.g. "information desc, id_str"; text is sorted by
            code points, as Python does.

    Yields:
        The tuples, in order; NaN has become None.
    """
    with contextlib.closing(sqlite3.connect("")) as database:
        database.execute(f"pragma cache_size = {CACHE}")
        database.execute(f"create table galaxies ({', '.join(columns)})")
        blanks = ", ".join("?" * len(columns))
        database.executemany(f"insert into galaxies values ({blanks})", rows)
        yield from database.execute(f"select * from galaxies order by {order}")
