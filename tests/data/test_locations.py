import errno
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from zoolib.data.catalogs import Catalog, write_catalog
from zoolib.data.listing import list_galaxies
from zoolib.data.locations import PLACES, in_folder, read_places, stem
from zoolib.job.logs import MachineError, UserError


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_places_in_zoobots_convention(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    for file in ("here/a.png", "mine/b.png"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_bytes(b"an image")
    files = ["here/a.png", "b.png", "nowhere.png"]
    table = pd.DataFrame({"id_str": ["001", "002", "003"], "file_loc": files, "bar_yes": 1})
    path = tmp_path / "mine" / f"galaxies.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    # Read in two pieces.
    found = pd.concat(read_places(f"mine/galaxies.{suffix}", rows=2))
    assert found["id_str"].tolist() == ["001", "002", "003"]
    assert found["file_loc"].tolist() == ["here/a.png", "mine/b.png", "nowhere.png"]
    assert (found[["archive", "member"]] == "").all(axis=None)


def test_places_of_our_own_catalogues(tmp_path):
    rows = {
        "id_str": ["J2", "J1"],
        "archive": ["a.zip"] * 2,
        "member": ["t/J2.png", "t/J1.png"],
        "file_loc": "",
    }
    table = pd.DataFrame({**rows, "bar_yes": [1, 2]})
    write_catalog(Catalog(table, ["bar_yes"], None), tmp_path / "train.parquet")
    found = pd.concat(read_places(tmp_path / "train.parquet", rows=10))
    pd.testing.assert_frame_equal(found, table[["id_str", *PLACES]])


def test_columns_of_a_table_may_have_any_name(tmp_path):
    (tmp_path / "table.csv").write_text("who,where,id_str\n007,a.png,x\n")
    (tmp_path / "a.png").touch()
    (found,) = read_places(tmp_path / "table.csv", 10, "who", "where")
    assert found[["id_str", "file_loc"]].to_numpy().tolist() == [["007", str(tmp_path / "a.png")]]
    with pytest.raises(UserError, match="has no column 'objid', which id of its target names; it has who"):
        next(read_places(tmp_path / "table.csv", 10, "objid"))


@pytest.mark.parametrize(
    "content, words",
    [
        ("id_str,redshift\nJ1,0.1\n", "is not a catalogue to predict for.*expected id_str"),
        ("id_str,file_loc\nJ1,a.png\nJ1,b.png\n", "'J1' is listed more than once"),
        ("id_str,file_loc\n,a.png\n", "line 2: 'id_str' is blank"),
        ("id_str,file_loc\n", "has no galaxy to predict for"),
    ],
)
def test_a_table_without_places_is_one_message(tmp_path, content, words):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(UserError, match=words):
        list_galaxies("catalog", [tmp_path / "table.csv"], tmp_path / "list.parquet")
    assert not (tmp_path / "list.parquet").exists()


def test_the_name_of_a_galaxy_is_that_of_its_file():
    assert stem("J1.2+3.fits.gz") == "J1.2+3" and stem("J1.PNG") == "J1"
    with pytest.raises(UserError, match="J1.gif: is not the name of an image"):
        stem("J1.gif")


def found_in(folder, *names):
    """Where galaxies are found in a folder, or why not, if the table names no file."""
    names = pd.Series(names)
    places, messages = in_folder(names, pd.Series("", names.index), folder, folder.parent)
    return [place or message for place, message in zip(places["file_loc"], messages, strict=True)]


def test_links_make_no_image_ambiguous(tmp_path):
    folder = tmp_path / "img"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").touch()
    (folder / "latest").symlink_to("sub")
    (folder / "sub" / "up").symlink_to("..")
    assert found_in(folder, "a") == [f"{folder}/sub/a.png"]
    # Two files of one name are still two images.
    (folder / "other").mkdir()
    (folder / "other" / "a.png").touch()
    assert "several files are called 'a.png'" in found_in(folder, "a")[0]


def test_a_link_that_leads_nowhere_is_a_galaxy_without_an_image(tmp_path):
    folder = tmp_path / "img"
    folder.mkdir()
    (folder / "a.png").symlink_to("gone.png")
    (folder / "b.fit").touch()
    first, second = found_in(folder, "a", "b")
    assert first.startswith("no image 'a.png' in") and second == f"{folder}/b.fit"


def test_names_that_are_not_utf_8_are_one_message(tmp_path):
    folder = tmp_path / "img" / os.fsdecode(b"caf\xe9")
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    with pytest.raises(UserError, match=r"img/caf\\xe9.*: the name is not UTF-8; rename"):
        found_in(tmp_path / "img", "a")


def test_a_dictionary_column_of_places_may_have_blanks(tmp_path):
    table = pd.DataFrame({"id_str": ["a", "b"], "file_loc": pd.Categorical(["/x/a.png", None])})
    table["id_str"] = table["id_str"].astype("category")
    table.to_parquet(tmp_path / "table.parquet")
    found = pd.concat(read_places(tmp_path / "table.parquet", rows=1))
    assert found["file_loc"].tolist() == ["/x/a.png", ""] and found["id_str"].tolist() == ["a", "b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_folder_or_table_that_the_system_cannot_read_rejects_nobody(tmp_path, monkeypatch, number):
    (tmp_path / "a.png").touch()
    pd.DataFrame({"id_str": ["a"], "file_loc": ["a.png"]}).to_csv(tmp_path / "own.csv", index=False)
    names, files = pd.Series(["a"]), pd.Series(["a.png"])

    def fails(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fails)
        with pytest.raises(MachineError, match=os.strerror(number)):
            in_folder(names, files, tmp_path, None)
    with monkeypatch.context() as patch:
        patch.setattr(pd, "read_csv", fails)
        with pytest.raises(MachineError, match=f"own.csv: .*{os.strerror(number)}"):
            next(read_places(tmp_path / "own.csv", rows=2))
    # A link to itself hides no other file.
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert in_folder(names, files, tmp_path, None)[1].tolist() == [""]


def test_a_zero_byte_in_a_path_is_a_galaxy_without_an_image(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"id_str,file_loc\na,im\0g/a.png\n")
    found = pd.concat(read_places(tmp_path / "table.csv", rows=1))
    assert len(found) == 1


def test_text_that_is_not_utf_8_is_one_message(tmp_path):
    names = pa.array([b"a", b"J\xe9"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id_str": names, "file_loc": names}), tmp_path / "table.parquet")
    with pytest.raises(UserError, match="is not a readable Parquet table .*UTF8") as caught:
        list(read_places(tmp_path / "table.parquet", rows=1))
    assert "\n" not in str(caught.value)
