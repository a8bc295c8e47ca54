"""How the galaxies of a task are divided."""

import numpy as np
import pandas as pd
import pytest
from zoolib.config.labels import Label
from zoolib.config.trees import DecisionTree
from zoolib.data.partition import class_weights, divide, first_few, own_splits, read_split, repeats
from zoolib.job.logs import UserError

SHARES = [0.7, 0.1, 0.2]
TYPE = Label("type", "multiclass", ("E", "S", "Irr"))


def galaxies(**columns):
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"id_str": [f"J{n:04d}" for n in range(count)], **columns})


def counts(table, label, parts):
    return pd.crosstab(table[label], parts).to_numpy().tolist()


def test_each_part_has_its_share_of_each_class():
    table = galaxies(type=[0.0] * 100 + [1.0] * 40 + [2.0] * 10)
    parts = divide(table, [TYPE], SHARES, 1)
    found = np.array(counts(table, "type", parts))
    np.testing.assert_allclose(found, np.outer([100, 40, 10], SHARES), atol=1)
    assert np.bincount(parts).tolist() == [105, 15, 30]


def test_the_parts_do_not_depend_on_the_order_of_rows_but_on_the_seed():
    table = galaxies(type=np.arange(90) % 3.0)
    parts = pd.Series(divide(table, [TYPE], SHARES, 1), table["id_str"])
    mixed = table.sample(frac=1, random_state=3)
    again = pd.Series(divide(mixed, [TYPE], SHARES, 1), mixed["id_str"])
    pd.testing.assert_series_equal(parts, again[parts.index])
    assert (divide(table, [TYPE], SHARES, 2) != parts.to_numpy()).any()
    # The parts do not follow the order of the rows.
    assert set(parts[:20]) == set(parts[-20:]) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_as_many_galaxies_as_parts_is_in_every_part(seed):
    table = galaxies(type=[0.0] * 60 + [1.0] * 3 + [2.0] * 4)
    assert np.min(counts(table, "type", divide(table, [TYPE], SHARES, seed))) >= 1
    table = galaxies(type=[0.0] * 60 + [1.0] * 7 + [2.0] * 5)
    folds = np.array(counts(table, "type", divide(table, [TYPE], [0.2] * 5, seed)))
    assert folds.min() >= 1 and (folds.max(axis=1) - folds.min(axis=1) <= 1).all()


def test_several_labels_keep_their_shares_however_many_combinations_there_are():
    random = np.random.default_rng(1)
    labels = [Label(name) for name in "abcde"]
    table = galaxies(**{name: (random.random(200) < 0.3).astype(float) for name in "abcde"})
    parts = divide(table, labels, SHARES, 1)
    np.testing.assert_allclose(np.bincount(parts), [140, 20, 40], atol=2)
    for name in "abcde":
        assert min(np.ravel(counts(table, name, parts))) >= 3


def test_values_are_spread_evenly():
    mass = np.random.default_rng(1).normal(10, 1, 300)
    parts = divide(galaxies(mass=mass), [Label("mass", "regression")], SHARES, 1)
    assert np.bincount(parts).tolist() == [210, 30, 60]
    lowest = mass < np.quantile(mass, 0.2)
    assert np.bincount(parts[lowest]).tolist() == [42, 6, 12]


def test_votes_are_divided_by_the_first_question():
    tree = DecisionTree.from_dict({"name": "rings", "questions": {"ring": {"answers": ["yes", "no"]}}})
    table = galaxies(ring_yes=[9] * 20 + [1] * 80, ring_no=5)
    parts = divide(table, [Label("rings", "votes", tree=tree)], SHARES, 1)
    assert counts(table, "ring_yes", parts) == [[56, 8, 16], [14, 2, 4]]


def test_own_splits_are_read_in_any_usual_spelling():
    words = pd.Series(["train", " Val", "TEST", "valid", "validation", "training"])
    assert read_split(words, []).tolist() == ["train", "val", "test", "val", "val", "train"]


@pytest.mark.parametrize(
    ("word", "found"), [("dev", "'dev'"), (None, "blank"), ("", "''")], ids=["unknown", "none", "empty"]
)
def test_another_split_is_a_message(word, found):
    with pytest.raises(UserError, match=f"row 2: the split is {found}, expected train, val or test; fix"):
        read_split(pd.Series(["train", word]), ["row 1", "row 2"])


def test_what_is_missing_of_an_own_split_is_cut_off_train():
    shares = dict(zip(("train", "val", "test"), SHARES, strict=True))
    ring = [Label("ring")]
    table = galaxies(ring=np.arange(100) % 2.0, split=["train"] * 60 + ["val"] * 20 + ["test"] * 20)
    parts = own_splits(table, ring, shares, 1, "task")
    assert parts.tolist() == [0] * 60 + [1] * 20 + [2] * 20
    table["split"] = ["train"] * 90 + ["val"] * 10
    parts = own_splits(table, ring, shares, 1, "task")
    assert np.bincount(parts).tolist() == [70, 10, 20] and (parts[90:] == 1).all()
    assert counts(table[:90], "ring", parts[:90]) == [[35, 10], [35, 10]]
    with pytest.raises(UserError, match="task: the split has no galaxy in train"):
        own_splits(table.assign(split="test"), ring, shares, 1, "task")


def test_the_first_few_are_among_the_first_many_and_have_all_classes():
    table = galaxies(type=[0.0] * 70 + [1.0] * 20 + [2.0] * 10)
    few, many = (first_few(table, [TYPE], count, 0) for count in (10, 50))
    assert few["type"].value_counts().to_dict() == {0: 7, 1: 2, 2: 1}
    assert many["type"].value_counts().to_dict() == {0: 35, 1: 10, 2: 5}
    assert set(few["id_str"]) < set(many["id_str"]) and few["id_str"].is_monotonic_increasing
    assert set(first_few(table, [TYPE], 10, 1)["id_str"]) != set(few["id_str"])


def test_the_first_few_of_a_rare_class_are_not_left_out():
    table = galaxies(type=[0.0] * 90 + [1.0] * 8 + [2.0] * 2)
    found = [first_few(table, [TYPE], count, 0) for count in (3, 4, 20)]
    assert found[0]["type"].tolist() == [0, 1, 2]
    assert set(found[0]["id_str"]) < set(found[1]["id_str"]) < set(found[2]["id_str"])
    assert found[2]["type"].value_counts().to_dict() == {0: 17, 1: 2, 2: 1}


def test_repeats_make_classes_equal():
    classes = [0] * 10 + [1] * 4 + [2] * 3
    shown = pd.Series(repeats(classes)).groupby(classes)
    assert shown.sum().tolist() == [10, 10, 10]
    assert shown.max().tolist() == [1, 3, 4] and shown.min().tolist() == [1, 2, 3]


def test_weights_make_classes_equal():
    classes = np.array([0] * 30 + [1] * 10)
    weights = class_weights(classes, 2)
    assert weights == pytest.approx([2 / 3, 2])
    assert np.mean(np.array(weights)[classes]) == pytest.approx(1)


def test_a_group_counts_as_often_as_it_has_galaxies():
    ring = [Label("ring")]
    random = np.random.default_rng(2)
    sizes = random.integers(1, 9, 60)
    group = np.repeat([f"g{number}" for number in range(60)], sizes)
    ring_of_group = random.random(60) < 0.3
    table = galaxies(ring=np.repeat(ring_of_group, sizes).astype(float)).assign(group=group)
    for shares in (SHARES, [0.2] * 5):
        parts = pd.Series(divide(table, ring, shares, 1), group)
        assert (parts.groupby(level=0).nunique() == 1).all()
        np.testing.assert_allclose(np.bincount(parts) / len(table), shares, atol=0.03)
        found = pd.crosstab(table["ring"], parts.to_numpy(), normalize="index")
        np.testing.assert_allclose(found, [shares, shares], atol=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_as_many_groups_as_parts_is_in_every_part(seed):
    table = galaxies(type=[0.0] * 60 + [1.0] * 9 + [2.0] * 4)
    table["group"] = [f"a{n // 2}" for n in range(60)] + [f"b{n // 3}" for n in range(9)] + list("cdef")
    parts = divide(table, [TYPE], SHARES, seed)
    assert np.min(counts(table, "type", parts)) >= 1
    assert (pd.Series(parts).groupby(table["group"]).nunique() == 1).all()


def test_groups_of_one_galaxy_change_nothing():
    table = galaxies(type=np.arange(90) % 3.0)
    parts = divide(table, [TYPE], SHARES, 1)
    assert (divide(table.assign(group=table["id_str"]), [TYPE], SHARES, 1) == parts).all()


def test_what_is_missing_of_an_own_split_is_cut_by_groups():
    shares, ring = dict(zip(("train", "val", "test"), SHARES, strict=True)), [Label("ring")]
    table = galaxies(ring=np.arange(100) % 2.0, split=["train"] * 80 + ["test"] * 20)
    table["group"] = [f"group:{number // 4}" for number in range(100)]
    parts = own_splits(table, ring, shares, 1, "task")
    assert (pd.Series(parts).groupby(table["group"]).nunique() == 1).all()
    assert np.bincount(parts).tolist() == [68, 12, 20]
    table.loc[0, "split"] = "test"
    with pytest.raises(
        UserError, match=r"task.split: the galaxies 'J0000' and 'J0001' are in the same group '0'"
    ):
        own_splits(table, ring, shares, 1, "task")
