"""Labels from folders named by class."""

import zipfile

import pytest
from labelled import Task, picture
from PIL import Image
from zoolib.config.labels import Label
from zoolib.data.catalogs import SPLITS
from zoolib.job.logs import UserError


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


def class_folders(folder, classes, split=""):
    """Write folders of images, no two of them equal; `classes` is {class: names of its galaxies}."""
    number = 100 * bool(split and split != "train")
    for name, galaxies in classes.items():
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for galaxy in galaxies:
            number += 1
            # JPEG rounds colours.
            two = Image.new("L", (16, 8), 16 * (number % 16))
            two.paste(16 * (number // 16), (8, 0, 16, 8))
            two.save(folder / split / name / f"{galaxy}.jpg")
    return folder


def packed(folder, path):
    """Write a zip of a folder, without entries for the folders in it."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, file.relative_to(folder.parent))
            archive.writestr(f"__MACOSX/{file.relative_to(folder.parent.parent)}", b"hidden")
    return path


def names(letter, count):
    return [f"{letter}{number:02d}" for number in range(count)]


@pytest.mark.parametrize("source", ["folders", "zip", "zip with a top"])
def test_folders_named_by_class(task, source):
    folder = class_folders(
        task.folder / "top" / "by_class", {"spiral": names("s", 20), "edge-on": names("e", 10)}
    )
    if source != "folders":
        folder = packed(folder if source == "zip" else folder.parent, task.folder / "by_class.zip")
    task.build([Label("mine", "multiclass")], folders=str(folder))
    assert Label.from_dict(task.read("train").about["labels"][0]).classes == ("edge-on", "spiral")
    found = task.all.set_index("id_str")["mine"]
    assert len(found) == 30 and (found == [name[0] == "s" for name in found.index]).all()
    assert [task[split]["mine"].sum() for split in SPLITS] == [14, 2, 4]
    row = task.all.set_index("id_str").loc["s03"]
    place = row["member"] if source != "folders" else row["file_loc"]
    assert place.endswith("by_class/spiral/s03.jpg") and row["archive"] == (
        "" if source == "folders" else str(folder)
    )


def test_folders_with_a_split_of_their_own(task):
    folder = task.folder / "bees"
    for split, first in (("train", 0), ("val", 20)):
        classes = {letter: [f"{letter}{n}" for n in range(first, first + 20)] for letter in "ab"}
        class_folders(folder, classes, split)
    task.build([Label("mine", "multiclass")], folders=str(folder))
    assert {int(name[1:]) >= 20 for name in task["val"]["id_str"]} == {True}
    # Without a folder test, the test galaxies are taken from train.
    assert [len(task[split]) for split in SPLITS] == [31, 40, 9]
    with pytest.raises(UserError, match="has its own split into train, val, and the task has folds too"):
        task.build([Label("mine", "multiclass")], folders=str(folder), folds=3)
    with pytest.raises(UserError, match="and the task has split too"):
        task.build([Label("mine", "multiclass")], folders=str(folder), split={"train": 0.7})


FOLDERS = {
    "empty class": (["a/x.png", "b/"], "the folder 'b' has no image; put images of the class there"),
    "one class": (["a/x.png"], "has the classes a, expected two folders or more"),
    "outside": (["a/x.png", "b/y.png", "z.png"], "the image 'z.png' is not in the folder of a class"),
    "outside of a split": (
        ["train/a/x.png", "test/y.png"],
        "the image 'test/y.png' is not in the folder of a class",
    ),
    "nothing": (["a/x.txt"], "no image found; expected .png"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_not_classes_end_with_one_message(task, case):
    files, message = FOLDERS[case]
    for file in files:
        path = task.folder / "by_class" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if file.endswith("/") else path.write_bytes(picture())
    with pytest.raises(UserError, match=message) as caught:
        task.build([Label("mine", "multiclass")], folders=str(task.folder / "by_class"))
    assert "\n" not in str(caught.value)


def test_folders_with_the_same_base_names_lose_no_galaxy(task):
    source = class_folders(task.folder / "by_class", {"spiral": names("g", 20), "smooth": names("g", 20)})
    task.build([Label("shape", "multiclass")], folders=str(source))
    assert len(task.all) == 40 and task.rejected.empty
    assert {"spiral/g00", "smooth/g00"} <= set(task.all["id_str"])


def test_linked_class_folders_hold_images(task):
    far = class_folders(task.folder / "far", {"spiral": names("s", 20), "smooth": names("e", 20)})
    source = task.folder / "by_class"
    source.mkdir()
    for name in ("spiral", "smooth"):
        (source / name).symlink_to(far / name)
    # A circle adds nothing.
    (far / "spiral" / "up").symlink_to(source)
    task.build([Label("shape", "multiclass")], folders=str(source))
    assert len(task.all) == 40
    assert task.all.set_index("id_str")["file_loc"]["s03"] == f"{source}/spiral/s03.jpg"


def test_one_folder_under_two_classes_is_one_message(task):
    source = class_folders(task.folder / "by_class", {"spiral": names("s", 20), "smooth": names("e", 20)})
    (source / "disc").symlink_to("spiral")
    with pytest.raises(UserError, match="the link 'disc' leads to a folder that is found already .*spiral"):
        task.build([Label("shape", "multiclass")], folders=str(source))


def test_links_and_names_that_cannot_be_used_are_one_message(task):
    source = class_folders(task.folder / "by_class", {"spiral": names("s", 5), "smooth": names("e", 5)})
    (source / "spiral" / "x.jpg").symlink_to("gone.jpg")
    with pytest.raises(UserError, match="spiral/x.jpg: is a link to something that is not there"):
        task.build([Label("shape", "multiclass")], folders=str(source))
