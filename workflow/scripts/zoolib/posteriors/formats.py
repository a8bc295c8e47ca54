"""The flat catalogue as one table that astronomers open: FITS, VOTable, CSV or Parquet."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.io.votable import from_table, writeto
from astropy.table import Table

from zoolib.data.tables import IDS, find_column, read_batches, read_names
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.posteriors.columns import meanings
from zoolib.posteriors.files import read_described

PLACES = ["archive", "member", "file_loc"]
# Columns of the input that are carried along if they are there.
ALWAYS = ("ra", "dec")
# Rows of a table that are read together.
ROWS = 100_000
# astropy writes a VOTable from memory.
MOST_OF_VOTABLE = 1_000_000


def write_table(parts, places, tables, keep, output, name=None):
    """Write the flat catalogue of a target as one table, with places of images and columns of the input.

    Args:
        parts: its Parquet files, one for each chunk.
        places: Parquet files with id_str, archive, member and file_loc of its galaxies; may be none.
        tables: the tables that the galaxies come from, which may have ra, dec and the columns to keep.
        keep: names of columns of these tables.
        output: the file; its suffix (.fits, .vot, .csv or .parquet) says the format.
        name: the column of the galaxies' names in the tables, where it is not one of `tables.IDS`.

    Raises:
        UserError: no table has a column to keep, or a VOTable would be too large.
    """
    beside = pd.concat([_places(places), _kept(tables, keep, name)], axis=1)
    (_, about), form = read_described(parts[:1], []), str(output).rpartition(".")[2]
    kinds, count = _kinds(parts, beside)

    def frames():
        for part in parts:
            frame, _ = read_described([part])
            more = beside.reindex(frame["id_str"]).reset_index(drop=True)
            frame = frame.join(more[[column for column in more if column not in frame]])
            yield pd.DataFrame({column: _as_kind(frame[column], kind) for column, kind in kinds.items()})

    columns = meanings(list(kinds), about["credible_level"])
    with whole(output) as partial, progress(None, f"writing {form}", total=count) as meter:
        WRITERS[form](partial, frames, columns, kinds, count, meter)
    log.info("%s: %s galaxies, %d columns", output, f"{count:,}", len(columns))


def _places(paths):
    """Where the images are, by name; a column without any place is left out."""
    frames = [pd.read_parquet(path, columns=["id_str", *PLACES]) for path in paths]
    found = pd.concat([pd.DataFrame(columns=["id_str", *PLACES]), *frames]).drop_duplicates("id_str")
    found = found.set_index("id_str").fillna("")
    return found[[column for column in found if (found[column] != "").any()]]


def _kept(tables, keep, name):
    """The columns to keep, by name; the first table that has a galaxy says them."""
    found, seen = [], set()
    for path in tables:
        chosen = {}

        def choose(available, path=path, chosen=chosen):
            # Each campaign may have a name column of its own.
            chosen["id"] = find_column(available, name if name in available else None, IDS, path, "")
            if chosen["id"] is None:
                raise UserError(f"{path}: has no column {' or '.join(IDS)} with the galaxies' names; set id.")
            chosen["kept"] = [column for column in (*ALWAYS, *keep) if column in available]
            seen.update(available)
            return list(dict.fromkeys([chosen["id"], *chosen["kept"]]))

        for table in read_batches(path, choose, IDS, ROWS):
            names, _ = read_names(table, chosen["id"], table.index + 1, path)
            found.append(table[list(dict.fromkeys(chosen["kept"]))].assign(id_str=names))
    missing = next((column for column in keep if column not in seen), None)
    if missing:
        raise UserError(
            f"predict.catalog.keep: no table of the galaxies has the column '{missing}'; found"
            f" {', '.join(sorted(seen)[:8]) or 'no table'}; fix the name or remove it."
        )
    together = pd.concat([pd.DataFrame({"id_str": pd.Series(dtype=str)}), *found])
    return together.drop_duplicates("id_str").set_index("id_str")


def _kinds(parts, beside):
    """{column: its type in numpy, text as bytes of the longest value}, and the number of galaxies."""
    width, count, complete = 1, 0, True
    for part in parts:
        ids = pq.read_table(part, columns=["id_str"])["id_str"].to_pandas()
        width, count = max(width, _width(ids)), count + len(ids)
        complete &= ids.isin(beside.index).all()
    kinds = {"id_str": f"S{width}"}
    for field in pq.read_schema(parts[0]):
        if field.name != "id_str":
            kinds[field.name] = "?" if pa.types.is_boolean(field.type) else "f4"
    for name in beside:
        if name not in kinds:
            kinds[name] = _kind(beside[name], complete)
    return kinds, count


def _kind(values, complete):
    found = values.convert_dtypes().dtype
    # Whole numbers and booleans cannot say that there is none.
    complete = complete and not values.hasnans
    if pd.api.types.is_bool_dtype(found) and complete:
        return "?"
    if pd.api.types.is_integer_dtype(found):
        return "i8" if complete else "f8"
    return "f8" if pd.api.types.is_float_dtype(found) else f"S{_width(values)}"


def _width(values):
    return max((len(_ascii(value)) for value in values if not pd.isna(value)), default=0) or 1


def _ascii(value):
    """Text as FITS has it: other letters than those of ASCII become such as `\\xc5`."""
    return str(value).encode("ascii", "backslashreplace")


def _as_kind(values, kind):
    if kind.startswith("S"):
        return values.astype(object).where(values.notna(), "").astype(str)
    return values.astype({"f8": np.float64, "f4": np.float32, "i8": np.int64, "?": bool}[kind])


def _write_parquet(path, frames, columns, kinds, count, meter):
    fields = []
    for name, kind in kinds.items():
        about = {key: value for key, value in columns[name]._asdict().items() if value}
        of_arrow = pa.string() if kind.startswith("S") else pa.from_numpy_dtype(np.dtype(kind))
        fields.append(pa.field(name, of_arrow, metadata=about))
    with pq.ParquetWriter(path, pa.schema(fields), write_page_checksum=True) as writer:
        for frame in frames():
            writer.write_table(pa.Table.from_pandas(frame, writer.schema, preserve_index=False))
            meter.update(len(frame))


def _write_csv(path, frames, columns, kinds, count, meter):
    for number, frame in enumerate(frames()):
        frame.to_csv(path, index=False, mode="a" if number else "w", header=not number)
        meter.update(len(frame))


def _write_votable(path, frames, columns, kinds, count, meter):
    if count > MOST_OF_VOTABLE:
        raise UserError(
            f"predict.catalog.format: a VOTable of {count:,} galaxies does not fit into memory, expected"
            f" {MOST_OF_VOTABLE:,} or fewer; take fits, which TOPCAT reads as well."
        )
    frame = pd.concat(list(frames()), ignore_index=True)
    table = Table(
        {name: frame[name].to_numpy(str if kind[0] == "S" else kind) for name, kind in kinds.items()}
    )
    document = from_table(table)
    for field in document.get_first_table().fields:
        column = columns[field.name]
        field.description, field.unit, field.ucd = column.description, column.unit or None, column.ucd or None
    writeto(document, str(path), tabledata_format="tabledata")
    meter.update(len(frame))


def _write_fits(path, frames, columns, kinds, count, meter):
    """Write a binary table a part at a time."""
    header = fits.BinTableHDU(np.zeros(0, list(kinds.items())), name="GALAXIES").header
    header["NAXIS2"] = count
    for number, name in enumerate(kinds, 1):
        # TOPCAT reads descriptions and UCDs from these keywords.
        described = {
            "TCOMM": columns[name].description,
            "TUNIT": columns[name].unit,
            "TUCD": columns[name].ucd,
        }
        header.update({f"{key}{number}": value for key, value in described.items() if value})
    # FITS has the letters T and F for boolean values, and the largest byte of a number first.
    layout = [
        (name, "S1" if kind == "?" else np.dtype(kind).newbyteorder(">")) for name, kind in kinds.items()
    ]
    stream = fits.StreamingHDU(path, header)
    for frame in frames():
        rows = np.zeros(len(frame), layout)
        for name, kind in kinds.items():
            values = frame[name].to_numpy()
            if kind == "?":
                values = np.where(values, b"T", b"F")
            rows[name] = [_ascii(value) for value in values] if kind.startswith("S") else values
        stream.write(rows.view(np.uint8))
        meter.update(len(frame))
    stream.close()


WRITERS = {"parquet": _write_parquet, "csv": _write_csv, "vot": _write_votable, "fits": _write_fits}
