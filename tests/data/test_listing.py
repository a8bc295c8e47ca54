"""The list of a target's galaxies: images in folders with links, and names that cannot be written."""

import os

import pandas as pd
import pytest
from zoolib.data.listing import list_galaxies
from zoolib.job.logs import UserError


def listed(folder, *sources):
    list_galaxies("images", list(sources or [folder]), folder.parent / "list.parquet")
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
    # A folder that is reached from two sources is listed once, too.
    assert listed(folder, folder, folder / "sub") == expected
    assert not (tmp_path / "list.parquet.partial").exists()


def test_a_link_that_leads_nowhere_is_one_message(folder):
    (folder / "c.png").symlink_to("gone.png")
    with pytest.raises(UserError, match="c.png: is a link to a file that is not there; restore") as caught:
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
