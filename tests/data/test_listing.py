"""The list of a target's galaxies: images in folders with links, and names that cannot be written."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.data.listing import list_galaxies, read_images
from zoolib.data.tfrecords import write_sidecar
from zoolib.job.logs import UserError


def listed(folder):
    list_galaxies("images", [str(folder)], folder.parent / "list.parquet")
    return pd.read_parquet(folder.parent / "list.parquet").set_index("id_str")["file_loc"].to_dict()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img" / "sub").mkdir(parents=True)
    (tmp_path / "img" / "sub" / "a.png").touch()
    (tmp_path / "img" / "b.fit").touch()
    return tmp_path / "img"


def test_links_list_no_image_twice(folder, tmp_path):
    (folder / "latest").symlink_to("sub")
    (folder / "sub" / "up").symlink_to("..")
    expected = {"a": f"{folder}/sub/a.png", "b": f"{folder}/b.fit"}
    assert listed(folder) == expected
    assert not (tmp_path / "list.parquet.partial").exists()


def test_a_link_that_leads_nowhere_is_one_message(folder):
    (folder / "c.png").symlink_to("gone.png")
    with pytest.raises(UserError, match="c.png: is a link to something that is not there; restore") as caught:
        listed(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/x.png"])
def test_a_name_that_is_not_utf_8_is_one_message(folder, name):
    path = os.path.join(os.fsencode(folder), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").close()
    with pytest.raises(UserError, match=r"img/caf\\xe9.*: the name is not UTF-8; rename") as caught:
        listed(folder)
    str(caught.value).encode()


def test_hidden_files_are_no_galaxies(folder):
    # macOS writes such a file beside each image, and notebooks a folder of copies.
    (folder / "._b.fit").touch()
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "c.png").touch()
    assert set(listed(folder)) == {"a", "b"}


@pytest.fixture
def packed(stored, tmp_path):
    """The two shards of 40 galaxies, in a folder of their own."""
    return Path(shutil.copytree(stored / "train", tmp_path / "packed"))


def refused(folder):
    """The message with which shards are not listed."""
    with pytest.raises(UserError) as caught:
        list_galaxies("shards", sorted(folder.glob("*.json")), folder.parent / "list.parquet")
    assert "\n" not in str(caught.value) and not (folder.parent / "list.parquet").exists()
    return str(caught.value)


def change(sidecar, **changes):
    write_sidecar(sidecar, json.loads(sidecar.read_text()) | changes)


def test_shards_that_an_earlier_count_has_left_are_refused(stored, packed):
    # Four shards became two: 2 and 3 are of the earlier time, and hold galaxies that 0 and 1 hold too.
    for name in ("json", "tfrecord"):
        shutil.copyfile(packed / f"1.{name}", packed / f"3.{name}")
    change(packed / "3.json", file="3.tfrecord", shard=3, of=4)
    message = refused(packed)
    assert message.startswith(f"{packed}/3.json: is one of 4 shards, and {packed}/0.json is one of 2;")


def test_a_galaxy_in_two_shards_is_refused(packed):
    for name in ("json", "tfrecord"):
        shutil.copyfile(packed / f"0.{name}", packed / f"1.{name}")
    change(packed / "1.json", file="1.tfrecord", shard=1)
    assert f"in two of the target's shards, {packed}/0.json and {packed}/1.json;" in refused(packed)


def test_a_target_needs_all_shards(packed):
    for name in ("json", "tfrecord"):
        (packed / f"0.{name}").unlink()
    assert f"{packed}: train has 2 shards and 1 of them are not here (the first is 0);" in refused(packed)


@pytest.mark.parametrize(
    "key, changes",
    [("image.size", {"size": 32}), ("columns", {"columns": ["a_x"]}), ("channels", {"channels": 3})],
)
def test_shards_of_a_target_are_alike(packed, key, changes):
    change(packed / "1.json", **changes)
    assert refused(packed).startswith(f"{packed}/1.json: the shard has other {key} than {packed}/0.json,")


def test_a_damaged_shard_is_refused_when_it_is_listed(packed):
    data = (packed / "1.tfrecord").read_bytes()
    (packed / "1.tfrecord").write_bytes(data[:-1])
    assert refused(packed).startswith(f"{packed}/1.tfrecord: the shard is damaged")
    (packed / "1.tfrecord").unlink()
    assert refused(packed).startswith(f"{packed}/1.tfrecord: there is no such shard")


def test_shards_of_other_programs_need_not_say_how_many_there_are(packed):
    for shard in range(2):
        path = packed / f"{shard}.json"
        about = json.loads(path.read_text())
        needed = ("count", "size", "channels", "columns", "encoding")
        path.write_text(json.dumps({key: about[key] for key in needed}))
    list_galaxies("shards", sorted(packed.glob("*.json")), packed / "list.parquet")
    assert pd.read_parquet(packed / "list.parquet")["count"].tolist() == [20, 20]


def test_damaged_lists_and_catalogues_are_one_message(folder, tmp_path):
    list_galaxies("images", [folder], tmp_path / "list.parquet")
    table = pd.DataFrame({"id_str": ["a", "b"], "archive": "", "member": "", "file_loc": "x", "ring": [0, 1]})
    write_catalog(Catalog(table, ["ring"], None), tmp_path / "catalog.parquet")

    def read_list(path):
        return read_images([path], 0, 2)

    for name, read in (("list", read_list), ("catalog", lambda path: read_catalog(path).table)):
        good, right = (tmp_path / f"{name}.parquet").read_bytes(), read(tmp_path / f"{name}.parquet")
        refused = 0
        for place in range(4, len(good) - 8, 7):
            path = tmp_path / "damaged.parquet"
            path.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
            try:
                pd.testing.assert_frame_equal(read(path), right)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and str(error).startswith(str(path))
        assert refused > 10
