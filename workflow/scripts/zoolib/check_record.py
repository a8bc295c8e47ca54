"""Check that the tables of a record hold the numbers of galaxies that are known of it."""

from pathlib import Path

import pandas as pd

from zoolib.config.published import read_checks
from zoolib.config.queries import Query
from zoolib.data.tables import read_table
from zoolib.job.logs import UserError, log, whole


def check_record(files, expected, output):
    """Count rows in the tables of a record, and stop if a number is not the expected one.

    Args:
        files: the record's tables (Parquet or CSV) that are there, with the names in `checks.tables`.
        expected: YAML with the checks, see `published.read_checks`.
        output: CSV to write, also if a number is wrong: what, table, expected, found, verdict (`right` or
            `wrong`).

    Raises:
        UserError: a file or a column is missing, or a number is wrong.
    """
    tables, counts = read_checks(expected)
    paths = {Path(path).name: path for path in files}
    missing = next((file for file in tables.values() if file not in paths), None)
    if missing:
        raise UserError(
            f"{expected}: checks.tables names '{missing}', which the folder of zenodo.local does not have;"
            " put the file there, or set zenodo.local to null to download it."
        )
    rows = {}
    # One table at a time, and only the columns that are needed: the largest table has 1.6 GB.
    for name, file in tables.items():
        of_table = {number: check for number, check in enumerate(counts) if check["table"] == name}
        table = _read(paths[file], [check["where"] for check in of_table.values() if "where" in check])
        log.info("%s: %s rows", paths[file], f"{len(table):,}")
        for number, check in of_table.items():
            found = _count(table, check.get("where"), paths[file])
            verdict = "right" if found == check["expected"] else "wrong"
            about = {"what": check["what"], "table": name, "expected": check["expected"]}
            rows[number] = {**about, "found": found, "verdict": verdict}
    rows = [rows[number] for number in sorted(rows)]
    with whole(output) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)
    for row in rows:
        log.info(
            "%s: expected %s, found %s: %s",
            row["what"],
            f"{row['expected']:,}",
            f"{row['found']:,}",
            row["verdict"],
        )
    wrong = [row for row in rows if row["verdict"] == "wrong"]
    if wrong:
        raise UserError(
            f"{output}: {len(wrong)} of {len(rows)} counts are wrong, the first is '{wrong[0]['what']}'"
            f" (expected {wrong[0]['expected']:,}, found {wrong[0]['found']:,}); get the record's tables"
            f" again, or fix {expected} if it describes another version."
        )
    log.info("all %d counts are right", len(rows))


def _read(path, conditions):
    words = {name for condition in conditions for name in Query(condition, f"{path}: where").columns}
    # If no condition names a column, the first one gives the number of rows.
    return read_table(path, lambda columns: [c for c in columns if c in words] or columns[:1])


def _count(table, condition, path):
    if not condition:
        return len(table)
    # An expression can raise any exception.
    try:
        return int(Query(condition, "where").rows(table).fillna(False).astype(bool).sum())
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"{path}: cannot count the rows with '{condition}' ({reason}); get the file again, or fix the"
            " check."
        ) from None
