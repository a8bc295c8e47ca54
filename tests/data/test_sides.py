"""Which galaxies stay on one side of every split."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from zoolib.data import sides as module
from zoolib.data.sides import images_led_to, read_groups, sides


def text(*words):
    return pd.Series(words, dtype=object)


def test_cells_of_a_group_are_text():
    assert read_groups(pd.Series([7, None, 8])).tolist() == ["group:7", "", "group:8"]
    assert read_groups(pd.Series([7.5, np.nan, 1e17])).tolist() == ["group:7.5", "", f"group:{10**17}"]
    assert read_groups(text(" 7", "", None, "a b ")).tolist() == ["group:7", "", "", "group:a b"]
    assert read_groups(pd.Series([7, 8], dtype="Int64")).tolist() == ["group:7", "group:8"]
    assert read_groups(pd.Series(["x", None], dtype="category")).tolist() == ["group:x", ""]


def test_links_go_on_through_other_galaxies():
    names = text("a", "b", "c", "d", "e", "b")
    groups = text("", "group:1", "", "group:1", "group:2", "")
    images = text("x", "y", "x", "", "", "x")
    # a and c share an image with a second row of b, which shares a group with d.
    assert sides(names, groups, images).tolist() == ["group:1"] * 4 + ["group:2", "group:1"]
    none = text(*[""] * 6)
    assert sides(names, none, none).tolist() == names.tolist()
    assert sides(names, none, images).tolist() == ["a", "a", "a", "d", "e", "a"]


def test_the_order_of_rows_decides_nothing():
    random = np.random.default_rng(3)
    table = pd.DataFrame({"name": [f"J{number}" for number in range(200)]})
    table["group"] = [f"group:{number}" if number < 60 else "" for number in random.integers(0, 120, 200)]
    table["image"] = [f"{number}.png" for number in random.integers(0, 400, 200)]
    found = sides(table["name"], table["group"], table["image"])
    mixed = table.sample(frac=1, random_state=1)
    again = sides(mixed["name"], mixed["group"], mixed["image"])
    pd.testing.assert_series_equal(again[found.index], found)


@pytest.fixture
def places(tmp_path):
    """Three files, two of them with a second name; a link to nothing; and no image."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b2.png").symlink_to("b.png")
    os.link(tmp_path / "c.png", tmp_path / "c2.png")
    (tmp_path / "lost.png").symlink_to("nothing.png")
    files = ["a.png", "./a.png", "b.png", "b2.png", "c.png", "c2.png", "lost.png", "gone/x.png"]
    files = [*(f"{tmp_path}/{name}" for name in files), ""]
    return pd.DataFrame({"archive": "", "member": "", "file_loc": files})


def of_each(found):
    return pd.factorize(found)[0].tolist()


def test_a_file_is_known_by_what_its_path_leads_to(places):
    assert of_each(images_led_to(places)) == [0, 0, 1, 1, 2, 2, 3, 4, 5]
    assert images_led_to(places).iloc[-1] == ""


def test_numbers_that_a_file_system_makes_up_put_nothing_together(places, monkeypatch):
    listing = module._listing

    def made_up(folder):
        top, entries = listing(folder)
        return top, {
            name: SimpleNamespace(is_symlink=entry.is_symlink, inode=lambda: 0xFFFFFFFF)
            for name, entry in entries.items()
        }

    monkeypatch.setattr(module, "_listing", made_up)
    assert of_each(images_led_to(places)) == [0, 0, 1, 1, 2, 2, 3, 4, 5]
