"""The flat catalogue as one table: what astronomers' readers find in it."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.io.votable.ucd import parse_ucd
from astropy.table import Table
from drawn import SMALL, some_concentrations
from zoolib.job.logs import UserError
from zoolib.posteriors import formats
from zoolib.posteriors.columns import meanings
from zoolib.posteriors.files import describe_posteriors
from zoolib.posteriors.writer import predictions_file

FORMS = ("fits", "vot", "csv", "parquet")


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """Two parts of a flat catalogue, places of images, and a table of the user without the last galaxy."""
    folder = tmp_path_factory.mktemp("described")
    parts, names = [], [f"J{number}" for number in range(7)]
    about = {"kind": "concentrations", "columns": SMALL.columns, "tree": SMALL.to_dict(), "labels": []}
    for number, rows in enumerate((slice(0, 4), slice(4, 7))):
        of = {"models": "m", "first": rows.start, "last": rows.stop, "of": 7}
        values = some_concentrations(7, SMALL, 3)[rows].astype("float32")
        with predictions_file(folder / f"{number}.hdf5", len(values), about, 1, 3, 0, 0, of) as append:
            append(names[rows], values)
        parts.append(folder / f"{number}.parquet")
        describe_posteriors(folder / f"{number}.hdf5", parts[-1], 0.9, SMALL.cuts)
    places = pd.DataFrame(
        {"id_str": names, "archive": "", "member": "", "file_loc": [f"sky/{n}.png" for n in names]}
    )
    places.to_parquet(folder / "list.parquet")
    own = pd.DataFrame(
        {"objid": names, "ra": np.linspace(0, 350, 7), "dec": -1.5, "type": "Åb", "count": range(7)}
    )
    own.assign(bright=[True, False] * 3 + [True]).iloc[:-1].to_csv(folder / "own.csv", index=False)
    return folder, parts, names


@pytest.fixture(scope="module")
def written(described):
    """{suffix: the file}."""
    folder, parts, _ = described
    files = {form: folder / f"catalog.{form}" for form in FORMS}
    for file in files.values():
        keep = ["type", "count", "bright"]
        formats.write_table(parts, [folder / "list.parquet"], [folder / "own.csv"], keep, file, "objid")
    return files


def test_all_formats_have_the_same_numbers(described, written):
    _, parts, names = described
    expected = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    tables = {
        "fits": Table.read(written["fits"]).to_pandas(),
        "vot": votable.parse_single_table(written["vot"]).to_table().to_pandas(),
        "csv": pd.read_csv(written["csv"]),
        "parquet": pd.read_parquet(written["parquet"]),
    }
    for form, table in tables.items():
        assert table["id_str"].astype(str).tolist() == list(names)
        for column in expected.columns.drop("id_str"):
            np.testing.assert_allclose(table[column].astype(float), expected[column].astype(float), rtol=1e-6)
        assert table["file_loc"].astype(str).tolist() == [f"sky/{name}.png" for name in names]
        np.testing.assert_allclose(table["ra"][:6].astype(float), np.linspace(0, 350, 7)[:6])
        # The table of the user does not have the last galaxy.
        assert pd.isna(table["ra"][6]) and pd.isna(table["count"][6]) and table["count"][5] == 5
        word = table["type"][0]
        assert (word.decode() if isinstance(word, bytes) else word) == ("\\xc5b" if form == "fits" else "Åb")


def test_columns_say_what_they_are(described, written):
    table = Table.read(written["fits"])
    assert table["ra"].unit == "deg"
    header = dict(table.meta)
    schema = pq.read_schema(written["parquet"])
    fields = {
        field.name: field
        for field in votable.parse(written["vot"], verify="exception").get_first_table().fields
    }
    with_ucd = 0
    for number, name in enumerate(table.colnames, 1):
        about = {key.decode(): value.decode() for key, value in (schema.field(name).metadata or {}).items()}
        told = " ".join(fields[name].description.split())
        assert about["description"] == told == header.get(f"TCOMM{number}", told)
        if about.get("ucd"):
            assert fields[name].ucd == about["ucd"]
            parse_ucd(about["ucd"], check_controlled_vocabulary=True, has_colon=False)
            with_ucd += 1
    assert with_ucd >= len(table.colnames) - 3


def test_every_column_of_a_flat_catalogue_has_a_meaning(described):
    _, parts, _ = described
    names = pq.read_schema(parts[0]).names
    found = meanings(names, 0.9)
    assert all("as in the table" not in column.description for column in found.values())
    answer = SMALL.columns[0]
    assert (
        found[f"{answer}_hd_low"].description == f"{answer}: lower end of the 90 % highest-density interval"
    )
    label = meanings(
        ["id_str", "ring", "ring_low", "ring_high", "ring_hd_low", "ring_hd_high", "own_low"], 0.5
    )
    assert label["ring"].description.startswith("ring: probability or value")
    assert label["own_low"].description == "own_low, as in the table of the galaxies"


def test_stilts_reads_them(written):
    if not (stilts := shutil.which("stilts")):
        pytest.skip("stilts (TOPCAT's command line) is not installed")
    for form in ("fits", "vot"):
        command = [stilts, "tpipe", f"in={written[form]}", "cmd=meta Name UCD Units Description", "ofmt=csv"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert "pos.eq.ra;meta.main,deg,right ascension" in shown.lower().replace('"', "")
    checked = subprocess.run([stilts, "votlint", f"votable={written['vot']}"], capture_output=True, text=True)
    assert "ERROR" not in checked.stdout + checked.stderr


def test_what_cannot_be_written_is_one_sentence(described, tmp_path, monkeypatch):
    folder, parts, _ = described
    with pytest.raises(
        UserError, match="keep: no table of the galaxies has the column 'size'; found bright, count"
    ):
        formats.write_table(parts, [], [folder / "own.csv"], ["size"], tmp_path / "catalog.fits", "objid")
    monkeypatch.setattr(formats, "MOST_OF_VOTABLE", 5)
    with pytest.raises(
        UserError, match="a VOTable of 7 galaxies does not fit into memory, expected 5 or fewer; take"
    ):
        formats.write_table(parts, [], [], [], tmp_path / "catalog.vot")
    assert not list(tmp_path.iterdir())


def test_images_alone_are_enough(described, tmp_path):
    _, parts, names = described
    formats.write_table(parts, [], [], [], tmp_path / "catalog.fits")
    table = Table.read(tmp_path / "catalog.fits")
    assert list(table["id_str"]) == list(names) and "file_loc" not in table.colnames
