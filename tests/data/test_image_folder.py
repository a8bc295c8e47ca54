"""The list of a folder: what happens to its chunks when images come, change and go."""

import os
from pathlib import Path

import pandas as pd
import pytest
from zoolib.config.folders import walk
from zoolib.data import image_folder, layout
from zoolib.data.image_folder import list_folder, listed_revisions, revisions
from zoolib.data.layout import read_layout
from zoolib.data.listing import read_images
from zoolib.job.logs import UserError

CHUNKS = 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with ten images in two folders; a block has three of them."""
    monkeypatch.setattr(layout, "BLOCK", 3)
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        add(Path("sky") / "ab"[number % 2] / f"{number}.png")
    return Path("sky")


def add(path, content="pixels"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def planned(names="name", chunks=CHUNKS):
    """What is planned, which must be what is then listed, and what is planned afterwards."""
    arguments = "list.parquet", "sky", names, chunks
    before = revisions(*arguments)
    list_folder("sky", names, chunks, "list.parquet")
    layout = read_layout("list.parquet")
    assert [chunk.revision for chunk in layout.chunks] == before
    assert revisions(*arguments) == listed_revisions(*arguments) == before
    table = pd.read_parquet("list.parquet")
    assert table["chunk"].value_counts().to_dict() == {
        number: chunk.count for number, chunk in enumerate(layout.chunks) if chunk.count
    }
    return layout.chunks, table


def test_a_first_list_has_the_chunks_of_the_configuration(folder):
    chunks, table = planned()
    assert chunks == [(0, 6, 0), (6, 4, 0)]
    assert table["id_str"].tolist() == [str(number) for number in range(10)]


def test_new_images_get_chunks_of_their_own(folder):
    planned()
    for name in ("00", "5x", "new"):
        add(folder / "later" / f"{name}.png")
    chunks, table = planned()
    # Behind the others, from the beginning of a block, whatever their names are.
    assert chunks == [(0, 6, 0), (6, 4, 0), (12, 3, 0)]
    assert table["id_str"].tolist() == [*map(str, range(10)), "00", "5x", "new"]
    for number in range(7):
        add(folder / f"more{number}.png")
    chunks, _ = planned()
    # Not larger than the first ones.
    assert chunks[3:] == [(15, 3, 0), (18, 4, 0)]


def test_many_new_images_get_as_many_chunks_as_a_first_list(folder):
    # Who tries ten images and then adds three hundred does not want fifty jobs.
    planned()
    for number in range(300):
        add(folder / "later" / f"n{number}.png")
    chunks, _ = planned()
    assert [chunk.count for chunk in chunks] == [6, 4, 150, 150]


def test_only_chunks_with_gone_or_changed_images_are_predicted_again(folder):
    planned()
    (folder / "a" / "2.png").unlink()
    chunks, _ = planned()
    assert chunks == [(0, 5, 1), (6, 4, 0)]
    add(folder / "b" / "7.png", "others, and more of them")
    # The same size, another time.
    os.utime(folder / "a" / "8.png", ns=(1, 1))
    chunks, _ = planned()
    assert chunks == [(0, 5, 1), (6, 4, 1)]
    # It comes back, but as a new image.
    add(folder / "a" / "2.png")
    assert planned()[0] == [(0, 5, 1), (6, 4, 1), (12, 1, 1)]


def test_a_chunk_may_lose_all_its_images(folder):
    planned()
    for number in range(6, 10):
        (folder / "ab"[number % 2] / f"{number}.png").unlink()
    assert planned()[0] == [(0, 6, 0), (6, 0, 1)]


def test_another_number_of_chunks_or_other_names_begin_anew(folder):
    planned()
    add(folder / "new.png")
    planned()
    assert planned(chunks=1)[0] == [(0, 11, 1)]
    chunks, table = planned(names="path", chunks=1)
    assert chunks == [(0, 11, 2)]
    assert table["id_str"].tolist()[:2] == ["a/0", "a/2"] and table["id_str"].tolist()[-1] == "new"


def test_of_many_images_only_the_times_of_their_folders_are_compared(folder, monkeypatch):
    for path in (folder, folder / "a", folder / "b"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(image_folder, "EACH_IMAGE", 5)
    planned()
    looked_at = []
    monkeypatch.setattr(image_folder, "walk", lambda *folders: looked_at.append(folders))
    (folder / "a" / "2.png").write_text("other pixels")
    assert revisions("list.parquet", "sky", "name", CHUNKS) == [0, 0] and not looked_at
    monkeypatch.setattr(image_folder, "EACH_IMAGE", 10)
    monkeypatch.setattr(image_folder, "walk", walk)
    assert revisions("list.parquet", "sky", "name", CHUNKS) == [1, 0]
    monkeypatch.setattr(image_folder, "EACH_IMAGE", 5)
    for above in (folder, folder / "b"):
        add(above / "new.png")
        assert revisions("list.parquet", "sky", "name", CHUNKS) == [1, 0, 0]
        (above / "new.png").unlink()
        os.utime(above, (1, 1))
    assert revisions("list.parquet", "sky", "name", CHUNKS) == [0, 0]


def test_equal_names_are_counted_and_shown_with_a_way_out(folder):
    for number in range(5):
        add(folder / "c" / f"{number}.png")
    with pytest.raises(UserError) as caught:
        list_folder("sky", "name", CHUNKS, "list.parquet")
    first = [
        f"'{number}' (sky/{'ab'[number % 2]}/{number}.png and sky/c/{number}.png)" for number in range(3)
    ]
    assert str(caught.value) == (
        "sky: 5 names are those of several images, and the name is the galaxy's id_str:"
        f" {'; '.join(first)}; …; rename one of each, or set id: path for this target: then the"
        " path below sky is the name."
    )
    assert not Path("list.parquet").exists()
    _, table = planned(names="path")
    assert len(table) == 15 and {"a/0", "c/0"} <= set(table["id_str"])
    add(folder / "c" / "4.jpg")
    message = r"sky: 1 name is that of several images.*'c/4'.*; rename one of each\.$"
    with pytest.raises(UserError, match=message):
        list_folder("sky", "path", CHUNKS, "list.parquet")


def test_a_folder_that_cannot_be_listed_has_a_job_that_says_why(folder):
    chunks, _ = planned()
    add(folder / "c" / "1.png")
    assert len(revisions("list.parquet", "sky", "name", CHUNKS)) == len(chunks) + 1
    with pytest.raises(UserError, match="1 name is that"):
        list_folder("sky", "name", CHUNKS, "list.parquet")
    # The list is as it was.
    assert read_layout("list.parquet").chunks == chunks


def test_a_damaged_list_is_a_sentence(folder):
    planned()
    Path("list.parquet").write_bytes(b"no list")
    assert revisions("list.parquet", "sky", "name", CHUNKS) == [0, 0]
    with pytest.raises(UserError, match="list.parquet: is not a list of galaxies .*; remove it and predict"):
        list_folder("sky", "name", CHUNKS, "list.parquet")


def test_each_byte_of_a_list_is_checked(folder):
    planned()
    good, path = Path("list.parquet").read_bytes(), Path("damaged.parquet")
    right = read_layout("list.parquet"), read_images(["list.parquet"], 0, 10)
    refused = 0
    for place in range(4, len(good) - 8):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        try:
            assert read_layout(path) == right[0]
            pd.testing.assert_frame_equal(read_images([path], 0, 10), right[1])
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > len(good) / 4
