"""Walking through folders: each one once, whatever leads to it."""

import os

import pytest
from zoolib.config.folders import check_text, shown, walk
from zoolib.job.logs import UserError


def below(folder):
    return sorted((os.path.relpath(path, folder), kind) for path, kind in walk(folder))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img" / "sub").mkdir(parents=True)
    (tmp_path / "img" / "sub" / "a.png").touch()
    return tmp_path / "img"


def test_a_folder_has_its_path_without_a_link(folder):
    # The link comes first in the alphabet, and first in the file system.
    (folder / "latest").symlink_to("sub")
    (folder / "all").symlink_to("sub/a.png")
    assert below(folder) == [
        ("all", "file"),
        ("latest", "again"),
        ("sub", "folder"),
        ("sub/a.png", "file"),
    ]


def test_circles_of_links_come_to_an_end(folder):
    (folder / "sub" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "sub" / "here").symlink_to(".")
    found = [entry for entry in below(folder) if entry[1] != "again"]
    assert found == [("sub", "folder"), ("sub/a.png", "file")]


def test_of_several_links_the_first_in_the_alphabet_counts(folder, tmp_path):
    (tmp_path / "far" / "x").mkdir(parents=True)
    (tmp_path / "far" / "x" / "b.png").touch()
    for name in ("two", "one"):
        (folder / name).symlink_to(tmp_path / "far")
    found = [entry for entry in below(folder) if "sub" not in entry[0]]
    assert found == [("one", "folder"), ("one/x", "folder"), ("one/x/b.png", "file"), ("two", "again")]
    # The folder that is walked through may be a link.
    (tmp_path / "link").symlink_to(folder)
    assert below(tmp_path / "link") == below(folder)


def test_what_is_no_image_file_is_told_from_one(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "c.png").touch()
    (folder / "gone.png").symlink_to("nowhere.png")
    assert below(folder) == [("gone.png", "broken"), ("sub", "folder"), ("sub/a.png", "file")]


def test_a_folder_that_cannot_be_listed_is_one_message(folder, monkeypatch):
    with pytest.raises(UserError, match="nothing: the folder cannot be listed .No such file"):
        list(walk(folder / "nothing"))

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    # The administrator, who may read everything, runs tests too.
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="img: the folder cannot be listed .Permission denied"):
        list(walk(folder))


def test_a_name_that_is_not_utf_8_can_be_shown(folder):
    path = os.path.join(os.fsencode(folder), b"caf\xe9.png")
    open(path, "w").close()
    found = next(entry for entry in walk(folder) if entry.path.endswith(".png") and "caf" in entry.path)
    assert shown(found.path) == f"{folder}/caf\\xe9.png"
    with pytest.raises(UserError, match=r"img/caf\\xe9.png: the name is not UTF-8; rename"):
        check_text(found.path)
    check_text("J1-é.png")
