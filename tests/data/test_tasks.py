"""The catalogues of tasks: labels, splits, folds and counts, balance, and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from labelled import TASK, Task, picture
from PIL import Image
from zoolib.config.labels import Label
from zoolib.config.tasks import fit_names
from zoolib.data import tasks
from zoolib.data.catalogs import SPLITS, Catalog, read_catalog, write_catalog
from zoolib.data.fits import read_fit, repeated, warn_of_grey
from zoolib.data.images import load_row
from zoolib.data.listing import count_images
from zoolib.job.logs import UserError, log

TREE = {"name": "rings", "questions": {"ring": {"answers": ["yes", "no"]}}}


@pytest.fixture
def task(tmp_path):
    return Task(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_binary_labels_of_a_table(task, suffix):
    ring = np.arange(60) % 3 == 0
    table = task.galaxies.assign(ring=["yes" if value else "no" for value in ring])
    task.build([Label("ring")], table, suffix)
    found = task.all.set_index("id_str").loc[table["id_str"]]
    assert found["ring"].dtype == np.float32 and (found["ring"] == ring).all()
    assert [len(task[split]) for split in SPLITS] == [42, 6, 12]
    assert [task[split]["ring"].sum() for split in SPLITS] == [14, 2, 4]
    assert list(task["train"].columns) == ["id_str", "archive", "member", "file_loc", "ring", "pixels"]
    catalog = task.read("train")
    assert catalog.tree is None and catalog.columns == ["ring"]
    assert catalog.about == {"labels": [Label("ring").to_dict()]}
    assert task.steps["rows of mine.csv" if suffix == "csv" else "rows of mine.parquet"] == 60
    assert task.steps["split test"] == 12 and len(task.rejected) == 0


def test_classes_that_were_found_are_in_the_catalogue(task):
    table = task.galaxies.assign(type=["S", "E", "Irr"] * 20)
    task.build([Label("type", "multiclass")], table)
    assert Label.from_dict(task.read("val").about["labels"][0]).classes == ("E", "Irr", "S")
    assert (task.all.set_index("id_str")["type"][["J000", "J001", "J002"]] == [2, 0, 1]).all()
    assert task["test"]["type"].value_counts().to_dict() == {0: 4, 1: 4, 2: 4}


def test_several_labels_of_several_kinds(task):
    table = task.galaxies.assign(ring=[0, 1] * 30, type=["S", "E", "E"] * 20, mass=np.linspace(8, 11, 60))
    table.loc[4, "mass"] = None
    table.loc[5, "ring"] = None
    labels = [Label("ring"), Label("type", "multiclass"), Label("mass", "regression", bounds=(7, 12))]
    task.build(labels, table)
    assert task.read("train").columns == ["ring", "type", "mass"]
    assert len(task.all) == 58 and task.steps["with a label"] == 58
    found = task.all.set_index("id_str").loc["J009"]
    assert (found["ring"], found["type"]) == (1, 1) and found["mass"] == pytest.approx(table["mass"][9])


def test_votes_on_a_tree(task):
    table = task.galaxies.assign(ring_yes=[5, 1] * 30, ring_no=2)
    label = Label.from_dict({"name": "rings", "kind": "votes", "tree": TREE})
    task.build([label], table)
    catalog = task.read("train")
    assert catalog.tree == label.tree and catalog.columns == ["ring_yes", "ring_no"]
    assert (catalog.table[catalog.columns].dtypes == np.int32).all()
    assert catalog.table["ring_yes"].value_counts().to_dict() == {5: 21, 1: 21}
    task.build([label], table.assign(ring_no=[2, 2, -1] + [2] * 57))
    assert task.rejected["id_str"].tolist() == ["J002"]
    assert "mine.csv, line 4: the votes 'ring_no': found -1, expected a whole" in task.rejected["reason"][0]


def test_votes_and_other_labels(task):
    table = task.galaxies.assign(ring_yes=[5, 1] * 30, ring_no=2, type=["S", "E"] * 30)
    table.loc[4, "type"], table.loc[5, "ring_no"] = None, -1
    votes = Label.from_dict({"name": "rings", "kind": "votes", "tree": TREE})
    task.build([votes, Label("type", "multiclass")], table)
    catalog = task.read("train")
    assert (catalog.tree, catalog.columns) == (None, ["ring_yes", "ring_no", "type"])
    assert [label["classes"] for label in catalog.about["labels"]] == [[], ["E", "S"]]
    # A galaxy without one of the labels is left out; one with a wrong vote is rejected.
    assert len(task.all) == 58 and task.steps["with a label"] == 58
    assert task.rejected["id_str"].tolist() == ["J005"]
    found = task.all.set_index("id_str").loc["J010"]
    assert (found["ring_yes"], found["ring_no"], found["type"]) == (5, 2, 1)


def test_fractions_become_classes_and_what_is_between_is_counted(task):
    table = task.galaxies.assign(ring=np.linspace(0, 0.59, 60))
    task.build([Label("ring", yes_above=0.25, no_below=0.05)], table)
    steps = task.steps.filter(like="ring above 0.25 or below 0.05")
    assert steps.item() == 39 and task.all["ring"].sum() == 34 and len(task.rejected) == 0


def test_blank_labels_are_left_out_and_counted_or_refused(task):
    table = task.galaxies.assign(ring=[0, 1, None] * 20)
    task.build([Label("ring")], table)
    assert task.steps["with a label"] == 40 and len(task.all) == 40
    with pytest.raises(UserError, match=r"mine.csv, line 4: the label 'ring' is blank, as in 20 of 60 rows"):
        task.build([Label("ring")], table, missing="refuse")


def test_a_query_keeps_the_numbers_of_the_rows(task):
    table = task.galaxies.assign(ring=[0, 1] * 29 + ["maybe", 1], z=np.arange(60))
    task.build([Label("ring")], table, query="z < 50")
    assert len(task.all) == 50 and task.steps["query (z < 50)"] == 50
    with pytest.raises(UserError, match="mine.csv, line 60: the label 'ring' is 'maybe'"):
        task.build([Label("ring")], table, query="z > 20")


def test_the_same_galaxy_with_two_labels_is_not_used(task):
    table = task.galaxies.assign(ring=[0, 1] * 30)
    again = table.iloc[[3, 4]].assign(ring=[0, 0])
    task.build([Label("ring")], pd.concat([table, again]))
    assert sorted(task.rejected["id_str"]) == ["J003", "J003", "J004"]
    told = task.rejected["reason"]
    assert "mine.csv, line 5: the galaxy 'J003' is listed more than once and with different labels" in told[0]
    assert len(task.all) == 59 and "J003" not in set(task.all["id_str"])


def test_images_that_are_missing_or_broken_are_lines_of_rejected(task):
    table = task.galaxies.assign(ring=[0, 1] * 30)
    (task.folder / "images" / "J007.png").unlink()
    (task.folder / "images" / "J008.png").write_bytes(b"<html>")
    task.build([Label("ring")], table, max_rejected=0.1)
    assert task.rejected["id_str"].tolist() == ["J007", "J008"] and len(task.all) == 58
    with pytest.raises(UserError, match="shards.max_rejected: 1 of 59 images"):
        task.build([Label("ring")], table)
    with pytest.raises(
        UserError, match="finetune.tasks.mine: none of 60 galaxies passes the step 'with an im"
    ):
        task.build([Label("ring")], table.assign(id_str="x" + table["id_str"]))


def test_a_table_of_its_own_for_the_test(task):
    ring = (np.arange(60) % 2).astype(int)
    table = task.galaxies.assign(ring=ring)
    # The test's images lie beside its table, in another folder, and one galaxy is in both tables.
    other = task.folder / "other"
    other.mkdir()
    for name in table["id_str"][40:]:
        (task.folder / "images" / f"{name}.png").rename(other / f"{name}.png")
    tested = table[40:].assign(file_loc=table["id_str"][40:] + ".png")
    tested.loc[100] = ["J000", 0, ""]
    tested.to_csv(other / "test.csv", index=False)
    task.build([Label("ring")], table[:40], test=str(other / "test.csv"))
    assert set(task["test"]["id_str"]) == set(table["id_str"][40:])
    # The shares of train and val are those of a task without a test of its own: 70 and 10.
    assert [len(task[split]) for split in SPLITS] == [34, 5, 20]
    assert list(task.rejected["id_str"]) == ["J000", "J000"]
    assert task.steps["rows of test.csv"] == 21
    with pytest.raises(UserError, match="test.csv, line 2: the label 'ring' is '7', expected 0 or 1"):
        tested.assign(ring=7).to_csv(other / "test.csv", index=False)
        task.build([Label("ring")], table[:40], test=str(other / "test.csv"))


def test_a_split_of_the_table(task):
    table = task.galaxies.assign(ring=[0, 1] * 30, part=["Train"] * 40 + ["valid"] * 10 + ["TEST"] * 10)
    task.build([Label("ring")], table, split="part")
    assert [sorted(task[split]["id_str"]) for split in SPLITS] == [
        table["id_str"][a:b].tolist() for a, b in ((0, 40), (40, 50), (50, 60))
    ]
    with pytest.raises(UserError, match="mine.csv, line 61: the split is 'dev', expected train, val or test"):
        task.build([Label("ring")], table.assign(part=["train"] * 59 + ["dev"]), split="part")
    with pytest.raises(UserError, match="has no column 'fold', which finetune.tasks.mine.split names"):
        task.build([Label("ring")], table, split="fold")
    one_sided = table.assign(ring=[1] * 40 + [0] * 20)
    with pytest.raises(UserError, match="finetune.tasks.mine, train: all 40 galaxies have ring = 1"):
        task.build([Label("ring")], one_sided, split="part")


def test_folds_test_every_galaxy_once(task):
    table = task.galaxies.assign(ring=[0, 1, 1] * 20)
    task.build([Label("ring")], table, folds=5)
    tested = [task.read("test", f"fold{number}").table for number in range(5)]
    assert sorted(pd.concat(tested)["id_str"]) == table["id_str"].tolist()
    assert [part["ring"].sum() for part in tested] == [8] * 5
    for number in range(5):
        parts = {split: set(task.read(split, f"fold{number}").table["id_str"]) for split in SPLITS}
        assert parts["val"] == set(tested[(number + 1) % 5]["id_str"])
        assert [len(part) for part in parts.values()] == [36, 12, 12] and len(
            set.union(*parts.values())
        ) == 60
    assert [path.name for path in task.out.glob("*.parquet")] == ["galaxies.parquet"]
    assert task.steps["fold4 train"] == 36
    galaxies = pd.read_parquet(task.out / "galaxies.parquet")
    assert galaxies["part"].value_counts().to_dict() == dict.fromkeys(range(5), 12)


def test_counts_of_labels_are_all_labels_that_a_training_sees(task):
    table = task.galaxies.assign(ring=[0, 1, 1] * 20)
    task.build([Label("ring")], table, label_counts=[6, 30, 48])
    seen = {
        (count, seed): {split: task.read(split, f"labels{count}-{seed}-scratch").table for split in SPLITS}
        for count in (6, 30, 48)
        for seed in range(2)
    }
    for (count, seed), parts in seen.items():
        assert len(parts["train"]) + len(parts["val"]) == count
        assert all(set(parts[split]["ring"]) == {0, 1} for split in ("train", "val"))
        pd.testing.assert_frame_equal(parts["test"], task["test"])
        again = task.read("train", f"labels{count}-{seed}-finetuned").table
        pd.testing.assert_frame_equal(parts["train"], again)
    sizes = {count: [len(seen[count, 0][split]) for split in ("train", "val")] for count in (6, 30, 48)}
    assert sizes == {6: [4, 2], 30: [26, 4], 48: [42, 6]}
    for split in ("train", "val"):
        few, many = (set(seen[count, 1][split]["id_str"]) for count in (6, 30))
        assert few < many < set(task[split]["id_str"])
    assert set(seen[6, 0]["train"]["id_str"]) != set(seen[6, 1]["train"]["id_str"])


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (50, "label_counts asks for 50 labels, and 48 galaxies are in train and val; leave"),
        (3, "label_counts asks for 3 labels, and train and val need 2 each; ask for 4 or more"),
    ],
)
def test_counts_of_labels_that_cannot_be_are_one_sentence(task, count, message):
    with pytest.raises(UserError, match=message):
        task.build([Label("ring")], task.galaxies.assign(ring=[0, 1, 1] * 20), label_counts=[count])


def test_another_count_of_labels_changes_nothing_for_the_others(task):
    """No byte of the task's galaxies, so that no other finetuning runs again."""
    table = task.galaxies.assign(ring=[0, 1, 1] * 20)
    found = [
        task.build([Label("ring")], table, label_counts=counts).out.joinpath("galaxies.parquet").read_bytes()
        for counts in ([], [6], [6, 30])
    ]
    assert found[0] == found[1] == found[2]


def test_a_table_that_is_no_task_is_one_sentence(task, tmp_path):
    task.build([Label("ring")], task.galaxies.assign(ring=[0, 1, 1] * 20))
    catalog = read_catalog(task.out / "galaxies.parquet")
    write_catalog(Catalog(catalog.table.drop(columns="part"), ["ring"], None), tmp_path / "other.parquet")
    with pytest.raises(
        UserError, match="other.parquet: has no column 'part', expected the galaxies of a task"
    ):
        read_fit(tmp_path / "other.parquet")


def test_repeated_galaxies_have_views_of_their_own(task):
    table = task.galaxies.assign(ring=[1] + [0, 0, 0, 0, 1] * 11 + [0] * 4)
    task.build([Label("ring")], table, balance="repeat")
    train = task["train"]
    assert train["id_str"].is_unique and train["repeats"].dtype == np.int32
    shown = repeated(train)
    assert shown["ring"].mean() == 0.5 and shown["id_str"].is_unique and "repeats" not in shown
    assert set(train["id_str"]) < set(shown["id_str"])
    pd.testing.assert_series_equal(
        shown["file_loc"].drop_duplicates().reset_index(drop=True), train["file_loc"], check_index=False
    )
    assert "repeats" not in task["val"] and "repeats" not in task["test"]
    assert task.steps["split train, shown an epoch"] == len(shown)
    # Predicting for them, each counts once.
    assert count_images([task.out / "galaxies.parquet"]) == len(table)
    assert repeated(task["val"]) is not None and len(repeated(task["val"])) == len(task["val"])


def test_weights_of_classes_are_in_the_metadata(task):
    table = task.galaxies.assign(type=["S"] * 40 + ["E"] * 20)
    task.build([Label("type", "multiclass")], table, balance="weights")
    assert task.read("train").about["class_weights"] == pytest.approx([1.5, 0.75])
    assert "repeats" not in task["train"]


RING = Label("ring")
REFUSED = {
    "one label only": (
        [RING],
        {"ring": 1},
        {},
        "mine: all 60 galaxies have ring = 1, expected both 0 and 1; label",
    ),
    "one class only": (
        [Label("ring", "multiclass")],
        {"ring": "a"},
        {},
        "has only the class a, expected two or",
    ),
    "constant target": (
        [Label("ring", "regression")],
        {"ring": 3.5},
        {},
        "ring = 3.5, expected different values",
    ),
    "class smaller than splits": (
        [RING],
        {"ring": [1, 1] + [0] * 58},
        {},
        "the class '1' of ring has 2 galaxies, fewer than the 3 splits; label more of them, leave the class",
    ),
    "class smaller than folds": (
        [Label("ring", "multiclass")],
        {"ring": ["a"] * 4 + ["b"] * 56},
        {"folds": 5},
        "the class 'a' of ring has 4 galaxies, fewer than the 5 folds; .* or lower folds",
    ),
    "class that nothing has": (
        [Label("ring", "multiclass", ("a", "b", "c"))],
        {"ring": ["a", "b"] * 30},
        {},
        "the class 'c' of ring has 0 galaxies",
    ),
    "unknown class": (
        [Label("ring", "multiclass", ("a", "b"))],
        {"ring": ["a", "b", "d"] * 20},
        {},
        r"mine.csv, line 4: the label 'ring' is 'd', expected one of a, b \(one of 20 such rows\); fix",
    ),
    "no column": (
        [RING],
        {"rings": 1},
        {},
        "has no column 'ring', which is to be a label; it has id_str, rings; ",
    ),
    "all blank": ([RING], {"ring": None}, {}, "none of 60 galaxies is left after the step 'with a label'"),
    "bad query": (
        [RING],
        {"ring": [0, 1] * 30},
        {"query": "z <"},
        "finetune.tasks.mine.query: pandas cannot",
    ),
    "no images": (
        [RING],
        {"ring": [0, 1] * 30},
        {"images": "none"},
        "no such folder of images; fix finetune.tasks.mine.images",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_ends_in_one_sentence(task, case):
    labels, columns, changes, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence) as caught:
        task.build(labels, task.galaxies.assign(**columns), **changes)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not list(task.out.rglob("*.parquet"))


def test_a_model_of_colours_is_told_that_images_are_grey(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    for mode in ("RGB", "L"):
        (tmp_path / f"{mode}.png").write_bytes(picture(100, mode=mode))
    rows = {mode: pd.DataFrame({"file_loc": [str(tmp_path / f"{mode}.png")]}) for mode in ("RGB", "L")}
    assert not warn_of_grey(rows["RGB"], {"color": True}, "task") and not caplog.records
    assert not warn_of_grey(rows["L"], {"color": False}, "task") and not caplog.records
    assert warn_of_grey(rows["L"], {"color": True}, "task")
    assert "three equal bands" in caplog.text


def test_real_rings(task, real_data):
    table = pd.read_csv(real_data / "rings.csv")
    task.build([RING], table, images=str(real_data))
    assert [task[split]["ring"].sum() for split in SPLITS] == [84, 12, 24] and len(task.all) == 240


def test_the_usual_shares_are_the_schema_s(repo):
    schema = yaml.safe_load((repo / "workflow/schemas/config.schema.yaml").read_text())
    split = schema["properties"]["finetune"]["properties"]["tasks"]["items"]["properties"]["split"]
    assert {name: about["default"] for name, about in split["properties"].items()} == tasks.SHARES


def test_a_class_may_be_called_none(task):
    bars = task.galaxies.assign(bar=[("None", "Weak", "Strong")[n % 3] for n in range(60)])
    bars.loc[0, "bar"] = None
    task.build([Label("bar", "multiclass")], bars)
    assert task.read("train").about["labels"][0]["classes"] == ["None", "Strong", "Weak"]
    assert len(task.all) == 59


def one_file(task, way):
    """A second place of the image of J003, or its pixels in another file; returns the place."""
    images = task.folder / "images"
    first, second = images / "J003.png", images / "K003.png"
    if way == "the same text":
        return "J003.png"
    if way == "dots":
        return "./../images/J003.png"
    if way == "a link":
        second.symlink_to(first)
    elif way == "a hard link":
        os.link(first, second)
    elif way == "a linked folder":
        (images / "again").symlink_to(images)
        return "again/J003.png"
    elif way == "a copy":
        shutil.copy(first, second)
    else:
        Image.open(first).convert("RGBA").save(second, compress_level=0)
    return second.name


WAYS = ["the same text", "dots", "a link", "a hard link", "a linked folder", "a copy", "other bytes"]


@pytest.mark.parametrize("way", WAYS)
def test_one_image_under_two_names_is_used_once(task, way):
    table = task.galaxies.assign(ring=[0, 1] * 30, file_loc=task.galaxies["id_str"] + ".png")
    again = pd.DataFrame({"id_str": ["K003"], "ring": [1], "file_loc": [one_file(task, way)]})
    task.build([Label("ring")], pd.concat([table, again]))
    assert len(task.all) == 60 and "K003" not in set(task.all["id_str"])
    told = "mine.csv, line 62: the galaxy 'K003' has the same pixels as 'J003' (mine.csv, line 5), "
    assert task.rejected.to_numpy().tolist() == [["K003", f"{told}which is used."]]
    assert task.steps["with an image of its own"] == 60
    task.build([Label("ring")], pd.concat([table, again.assign(ring=0)]))
    assert sorted(task.rejected["id_str"]) == ["J003", "K003"] and len(task.all) == 59
    assert f"{told}but different labels or splits; keep the right one." in task.rejected["reason"].tolist()


def test_one_image_in_two_splits_of_the_user_is_in_none(task):
    table = task.galaxies.assign(ring=[0, 1] * 30, part=["train"] * 40 + ["val"] * 10 + ["test"] * 10)
    shutil.copy(task.folder / "images" / "J003.png", task.folder / "images" / "J055.png")
    task.build([Label("ring")], table, split="part")
    assert sorted(task.rejected["id_str"]) == ["J003", "J055"]


def grouped(task, sizes=(5, 4, 3, 2)):
    """60 galaxies, some in groups; the others have a blank."""
    names = [name for name, size in zip("abcd", sizes, strict=True) for _ in range(size)]
    table = task.galaxies.assign(ring=[0, 1] * 30, plate=names + [None] * (60 - len(names)))
    return table.sample(frac=1, random_state=5)


@pytest.mark.parametrize("changes", [{}, {"folds": 4}, {"label_counts": [6, 20]}])
def test_a_group_is_on_one_side(task, changes):
    table = grouped(task)
    task.build([Label("ring")], table, group="plate", **changes)
    galaxies = pd.read_parquet(task.out / "galaxies.parquet").set_index("id_str")
    parts = galaxies["part"][table["id_str"]].groupby(table["plate"].to_numpy())
    assert (parts.nunique() == 1).all() and "group" not in galaxies
    sizes = galaxies["part"].value_counts().sort_index()
    wanted = [15] * 4 if changes.get("folds") else [42, 6, 12]
    np.testing.assert_allclose(sizes, wanted, atol=3)
    for fit in fit_names(TASK | changes):
        sides = [set(task.read(split, fit).table["id_str"]) for split in SPLITS]
        for name in "abcd":
            group = set(table["id_str"][table["plate"] == name])
            assert sum(bool(group & side) for side in sides) <= 1


def test_without_groups_nothing_moves(task):
    """A column in which every galaxy is alone gives the same bytes as no column."""
    table = task.galaxies.assign(ring=[0, 1, 1] * 20, plate=range(60))
    task.build([Label("ring")], table)
    before = (task.out / "galaxies.parquet").read_bytes()
    task.build([Label("ring")], table.assign(plate=None), group="plate")
    assert (task.out / "galaxies.parquet").read_bytes() == before


def test_what_shares_an_image_joins_groups(task):
    """K003 is not used, but it shows that the plates b and z are about the same galaxy."""
    table = task.galaxies.assign(ring=[0, 1] * 30, plate=["b"] * 8 + ["z"] * 8 + [None] * 44)
    shutil.copy(task.folder / "images" / "J003.png", task.folder / "images" / "J009.png")
    task.build([Label("ring")], table, group="plate", folds=3)
    galaxies = pd.read_parquet(task.out / "galaxies.parquet").set_index("id_str")["part"]
    assert "J009" not in galaxies and len(galaxies) == 59
    assert galaxies[galaxies.index.isin(table["id_str"][:16])].nunique() == 1


def test_groups_that_cannot_be_divided_are_one_sentence(task):
    table = grouped(task).assign(part="train")
    table.loc[[20, 21], "part"] = ["val", "test"]
    table.loc[table["id_str"] == "J001", "part"] = "test"
    with pytest.raises(UserError) as caught:
        task.build([Label("ring")], table, group="plate", split="part")
    assert "finetune.tasks.mine.split: " in str(caught.value)
    assert "are in the same group 'a', but in " in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="has no column 'field', which finetune.tasks.mine.group names"):
        task.build([Label("ring")], table, group="field")
    two = table.assign(plate=["a", "b"] * 30)
    with pytest.raises(
        UserError, match="the class '0' of ring has 2 groups of galaxies, fewer than the 3 spl"
    ):
        task.build([Label("ring")], two, group="plate")


def test_groups_are_read_alike_whatever_their_cells(task):
    """A blank makes a column of whole numbers one of fractions, 7 becomes 7.0."""
    table = task.galaxies.assign(ring=[0, 1] * 30, plate=[7] * 12 + [8] * 12 + list(range(100, 136)))
    task.build([Label("ring")], table, group="plate", query="plate > 3")
    before = pd.read_parquet(task.out / "galaxies.parquet")
    task.build([Label("ring")], table.astype({"plate": float}), "parquet", group="plate")
    pd.testing.assert_frame_equal(pd.read_parquet(task.out / "galaxies.parquet"), before)


def test_the_galaxies_of_a_task_hold_what_their_pixels_are(task):
    table = task.galaxies.assign(ring=[0, 1] * 30)
    task.build([Label("ring")], table)
    before = (task.out / "galaxies.parquet").read_bytes()
    # Other bytes, and other times, of the same pixels.
    for path in (task.folder / "images").iterdir():
        Image.open(path).save(path, compress_level=0)
    assert task.build([Label("ring")], table).out.joinpath("galaxies.parquet").read_bytes() == before
    image, about = task.folder / "images" / "J030.png", (task.folder / "images" / "J030.png").stat()
    image.write_bytes(picture(200))
    os.utime(image, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert task.build([Label("ring")], table).out.joinpath("galaxies.parquet").read_bytes() != before


@pytest.mark.parametrize("fit", ["", "labels6-0-scratch"])
def test_a_training_depends_on_the_pixels_of_what_it_sees(task, fit):
    table = task.galaxies.assign(ring=[0, 1, 1] * 20)

    def built():
        task.build([Label("ring")], table, label_counts=[6])
        tables = {
            split: catalog.table for split, catalog in read_fit(task.out / "galaxies.parquet", fit).items()
        }
        learned = [tables[split].to_dict("list") for split in ("train", "val")]
        return learned, {split: set(table["id_str"]) for split, table in tables.items()}

    before, names = built()
    assert built()[0] == before
    seen = names["train"] | names["val"]
    for name, depends in {
        min(names["train"]): True,
        min(names["val"]): True,
        min(names["test"]): False,
        min(set(table["id_str"]) - seen): False,
    }.items():
        image = task.folder / "images" / f"{name}.png"
        old = image.read_bytes()
        image.write_bytes(picture(100 + int(name[1:])))
        assert (built()[0] != before) is depends
        image.write_bytes(old)


def test_an_image_that_changes_after_it_was_listed_is_not_learned_from(task):
    task.build([Label("ring")], task.galaxies.assign(ring=[0, 1] * 30))
    row = task["train"].iloc[0].to_dict()
    assert load_row(row, 4, color=True).shape == (4, 4, 3)
    Path(row["file_loc"]).write_bytes(picture(100))
    with pytest.raises(
        UserError, match=f"{row['file_loc']}: has other pixels than when the galaxies were li"
    ):
        load_row(row, 4, color=True)


def test_a_class_that_would_make_a_column_twice_is_one_message(task):
    table = task.galaxies.assign(t=["a", "a_low", "b"] * 20)
    with pytest.raises(UserError, match="^finetune.tasks.mine: no label can be called 't' here: .*'t_a_low'"):
        task.build([Label("t", "multiclass")], table)


def test_dictionary_columns_with_blanks_are_as_plain_ones(task):
    """Parquet keeps the categories of pandas, and a category that is not there cannot be filled in."""
    table = task.galaxies.assign(type=["S", "E", None] * 20, ring=[1, 0, None] * 20, file_loc=None)
    table.loc[1, "id_str"] = None
    table.loc[:30, "file_loc"] = table["id_str"][:31] + ".png"
    plain = [column for column in table if column != "id_str"]
    labels = [Label("type", "multiclass"), Label("ring")]
    found = {}
    for kind in ("plain", "dictionary"):
        columns = table if kind == "plain" else table.astype(dict.fromkeys(["id_str", *plain], "category"))
        task.build(labels, columns, suffix="parquet")
        found[kind] = task.all, task.rejected
    for one, other in zip(found["plain"], found["dictionary"], strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert "row 2: 'id_str' is blank" in found["plain"][1]["reason"][0] and len(found["plain"][0]) == 39
