"""Tables of galaxies, Parquet or CSV: reading them, and finding which rows are wrong and why."""

import contextlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from zoolib.config.queries import BACKTICKS, Query
from zoolib.job.logs import UserError, check_machine

# Zoobot's convention first, then the record's names.
IDS = ("id_str", "iauname")
LOCATIONS = ("file_loc", "png_loc")
LARGEST = np.iinfo(np.int32).max


# What other programs put between columns.
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# Cells that pandas reads as blank, https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html
BLANKS = ["", "#N/A", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "<NA>", "-nan", "-NaN", "#NA"]


def read_table(path, choose=None, words=(*IDS, *LOCATIONS), literal=()):
    """Read a table of galaxies.

    Args:
        path: a Parquet or CSV file (.parquet, .csv, .csv.gz).
        choose: function from the list of all columns to the list of those to read; all, if None.
        words: columns that are text, even if they look like numbers in a CSV file.
        literal: columns of a CSV file in which None or NA is a word, and only an empty cell is blank.

    Returns:
        A data frame with the index 0, 1, …; an index that pandas stored is a column like the others.

    Raises:
        UserError: the file is missing, neither Parquet nor CSV, or not readable.
    """
    with _readable(path) as kind:
        if kind == "Parquet":
            columns = choose(pq.read_schema(path).names) if choose else None
            return _to_pandas(pq.read_table(path, columns=columns, page_checksum_verification=True))
        return pd.read_csv(path, **_of_csv(path, choose, words, literal), low_memory=False)


def read_batches(path, choose, words, rows, literal=()):
    """Read a table of galaxies piece by piece, because it may not fit into memory.

    Args:
        path: as for `read_table`.
        choose: as for `read_table`.
        words: as for `read_table`.
        rows: number of rows in each piece; the last piece may have fewer.
        literal: as for `read_table`.

    Yields:
        Data frames; the index of each one continues that of the one before. A table without rows gives one
        data frame without rows.

    Raises:
        UserError: as for `read_table`.
    """
    with _readable(path) as kind:
        if kind == "CSV":
            yield from pd.read_csv(path, **_of_csv(path, choose, words, literal), chunksize=rows)
            return
        file, start = pq.ParquetFile(path, page_checksum_verification=True), 0
        columns = choose(file.schema_arrow.names)
        if not file.metadata.num_rows:
            yield _to_pandas(file.read(columns))
        for batch in file.iter_batches(rows, columns=columns):
            table = _to_pandas(pa.Table.from_batches([batch]))
            yield table.set_axis(range(start, start + len(table)))
            start += len(table)


def _to_pandas(table):
    """Dictionary columns become plain ones: no other text can be put into the blanks of a categorical one."""
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    table = table.cast(pa.schema(plain))
    # Text that is not UTF-8 would only be found where it is used.
    table.validate(full=True)
    return table.to_pandas(ignore_metadata=True)


@contextlib.contextmanager
def _readable(path):
    """Yield the format of a table; turn the errors of its reader into a message for the user."""
    name = str(path).lower()
    if not name.endswith((".parquet", ".csv", ".csv.gz")):
        raise UserError(f"{path}: expected a table that ends in .parquet, .csv or .csv.gz.")
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such table; fix catalogs[].table or get the file.")
    kind = "Parquet" if name.endswith(".parquet") else "CSV"
    try:
        yield kind
    # Readers raise many kinds: ArrowInvalid and ParserError are ValueErrors, a cut gzip is an EOFError.
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        check_machine(error, path)
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}: is not a readable {kind} table ({reason}); get the file again.") from None


def _of_csv(path, choose, words, literal):
    """The arguments of `pandas.read_csv` for a table."""
    available = list(pd.read_csv(path, nrows=0).columns)
    between = next((name for mark, name in SEPARATORS.items() if mark in str(available[0])), None)
    if len(available) == 1 and between:
        raise UserError(
            f"{path}: has one column, '{available[0]}', because {between} separate its columns, expected"
            " commas; save it with commas, or as Parquet."
        )
    blanks = {column: [""] if column in literal else BLANKS for column in available}
    return {
        "usecols": choose(available) if choose else None,
        "dtype": dict.fromkeys(words, str),
        "index_col": False,
        "na_values": blanks,
        "keep_default_na": False,
    }


def place_of(table, row):
    """What messages call a row of a table: its line in a CSV file, and its row, counted from 1, in Parquet.

    Args:
        table: the path or the name of the table.
        row: counted from 1.

    Returns:
        Such as `rings.csv, line 5`.
    """
    # The first line has the names of the columns.
    return f"{table}, row {row}" if str(table).endswith(".parquet") else f"{table}, line {row + 1}"


def find_column(columns, wanted, usual, origin, key):
    """Find the column that holds a galaxy's name or its file.

    Args:
        columns: the table's columns.
        wanted: the column that the configuration names, or None.
        usual: names to look for otherwise; the first one that is there is taken.
        origin: the table, for the error message.
        key: the configuration's key, for the error message.

    Returns:
        A column's name, or None if neither is there.

    Raises:
        UserError: the configured column is not there.
    """
    if wanted and wanted not in columns:
        raise UserError(f"{origin}: has no column '{wanted}', which {key} names; it has {_some(columns)}.")
    return wanted or next((name for name in usual if name in columns), None)


def select(table, query, origin, key="catalogs[].query"):
    """Find the rows that a query selects.

    Args:
        table: a data frame.
        query: an expression over its columns, see `config.queries.Query`.
        origin: the table, for the error message.
        key: the configuration's key, for the error message.

    Returns:
        (rows,) boolean.

    Raises:
        UserError: the expression is not allowed, does not fit the table, or its values are not true or false.
    """
    query = Query(query, key)
    # An expression can raise any exception.
    try:
        chosen = query.rows(table)
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"{key}: pandas cannot apply '{query}' to {origin} ({reason}); fix the expression; {BACKTICKS}."
        ) from None
    if not isinstance(chosen, pd.Series) or not pd.api.types.is_bool_dtype(chosen.dtype):
        raise UserError(
            f"{key}: '{query}' is not true or false for each row of {origin}; expected a comparison such as"
            " 'redshift < 0.1'."
        )
    return chosen.fillna(False).to_numpy(bool)


def read_names(table, column, rows, origin):
    """Read the names of galaxies, as text.

    Args:
        table: a data frame.
        column: the column of the names.
        rows: (rows,) each row's number in its file, counted from 1.
        origin: the table, for the messages.

    Returns:
        (names, a message for each row without a name and "" for the others).

    Raises:
        UserError: the names are floating-point numbers.
    """
    names = table[column]
    if pd.api.types.is_float_dtype(names.dtype):
        raise UserError(
            f"{origin}: the names in '{column}' are floating-point numbers, which lose digits or hold"
            " blanks; store them as text."
        )
    blank = names.isna() | (names.astype(str).str.strip() == "")
    messages = pd.Series("", index=table.index, dtype=object)
    messages[blank] = [
        f"{place_of(origin, row)}: '{column}' is blank; every galaxy needs a name." for row in rows[blank]
    ]
    return names.astype(str).where(~blank, ""), messages


def read_numbers(table, columns, places):
    """Read the votes of galaxies, and find out what is wrong with them.

    Args:
        table: a data frame.
        columns: {name of the result's column: the table's column}.
        places: what messages call each row.

    Returns:
        (data frame of float64, a message for each row that cannot be used and "" for the others). The message
        names the first column that is wrong and what was found there.
    """
    cells = [table[column] for column in columns.values()]
    numbers = np.empty((len(table), len(cells)))
    for position, cell in enumerate(cells):
        numbers[:, position] = pd.to_numeric(cell, errors="coerce").to_numpy(float, na_value=np.nan)
    # Comparisons with NaN are False, but `isfinite` has found these cells already.
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(numbers) | (numbers < 0) | (numbers > LARGEST) | (numbers != np.floor(numbers))
    messages = pd.Series("", index=table.index, dtype=object)
    for row in np.flatnonzero(wrong.any(axis=1)):
        position = wrong[row].argmax()
        name = cells[position].name
        found = _found(cells[position].iloc[row], numbers[row, position])
        messages.iloc[row] = (
            f"{places[row]}: the votes '{name}': found {found}, expected a whole number of 0 or"
            " more, and 0 where nobody was asked."
        )
    return pd.DataFrame(numbers, index=table.index, columns=list(columns)), messages


def _found(cell, number):
    if pd.isna(cell):
        return "a blank"
    return f"{number:g}" if np.isfinite(number) else f"'{cell}'"


def _some(columns):
    return ", ".join(list(columns)[:6]) + (", …" if len(columns) > 6 else "")
