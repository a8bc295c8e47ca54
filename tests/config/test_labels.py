"""Labels: what a column's cells mean, as numbers, and which cells lead to which message."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from zoolib.config.labels import ENDINGS, RESERVED, Label, check_learnable, check_names
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError
from zoolib.posteriors.summary import describe

TREE = DecisionTree.from_dict({"name": "rings", "questions": {"ring": {"answers": ["yes", "no"]}}})


def encode(label, cells):
    table = pd.DataFrame({"id_str": [f"J{n}" for n in range(len(cells))], label.name: cells})
    return label.encode(table, "mine.csv", [f"mine.csv, row {n}" for n in range(1, len(cells) + 1)])


@pytest.mark.parametrize(
    "cells", [[1, 0, 1], [1.0, 0.0, 1.0], [True, False, True], ["yes", "No", " YES "], ["1", "0", "1.0"]]
)
def test_binary_in_all_spellings(cells):
    label, numbers, blank = encode(Label("ring"), cells)
    assert numbers.tolist() == [1, 0, 1] and not blank.any()
    assert label.outputs == label.targets == ["ring"]


def test_binary_with_words_of_its_own():
    label = Label("type", classes=("E", "S"))
    assert encode(label, ["S", "E", "S"])[1].tolist() == [1, 0, 1]
    with pytest.raises(UserError, match="'type' is 'Irr', expected one of E, S; fix"):
        encode(label, ["S", "E", "Irr"])


@pytest.mark.parametrize("blank", [None, np.nan, "", "  "])
def test_blank_cells_are_no_label(blank):
    for kind, cells in (
        ("binary", [1, blank, 0]),
        ("multiclass", ["a", blank, "b"]),
        ("regression", [1, blank]),
    ):
        _, numbers, found = encode(Label("x", kind), cells)
        assert found.tolist() == numbers.isna().tolist() == [cell is blank for cell in cells]


def test_classes_are_found_in_order():
    label, numbers, _ = encode(Label("type", "multiclass"), ["spiral", "edge-on", "spiral", None, "merger"])
    assert label.classes == ("edge-on", "merger", "spiral")
    assert label.outputs == ["type_edge-on", "type_merger", "type_spiral"] and label.targets == ["type"]
    np.testing.assert_array_equal(numbers, [2, 0, 2, np.nan, 1])


def test_classes_that_are_numbers_are_in_the_order_of_numbers():
    # The blank makes floating-point numbers of them.
    label, numbers, _ = encode(Label("t_type", "multiclass"), [10, 2, np.nan, -1])
    assert label.classes == ("-1", "2", "10")
    np.testing.assert_array_equal(numbers, [2, 1, np.nan, 0])


def test_given_classes_keep_their_order():
    label, numbers, _ = encode(Label("type", "multiclass", classes=("S", "E", "Irr")), ["E", "S"])
    assert label.classes == ("S", "E", "Irr") and numbers.tolist() == [1, 0]


def test_a_fraction_becomes_yes_no_or_nothing():
    label = Label("ring", yes_above=0.25, no_below=0.05)
    _, numbers, blank = encode(label, [0.26, 0.25, 0.05, 0.04, None, 1.0])
    np.testing.assert_array_equal(numbers, [1, np.nan, np.nan, 0, np.nan, 1])
    assert blank.tolist() == [False] * 4 + [True, False]


@pytest.mark.parametrize(
    ("label", "cells", "message"),
    [
        (Label("x"), [1, 2], "mine.csv, row 2: the label 'x' is '2', expected 0 or 1; fix the cell"),
        (Label("x"), [3, 0, 2], r"row 1: .*expected 0 or 1 \(one of 2 such rows\); fix"),
        (Label("x", "multiclass", ("a", "b")), ["a", "c"], "'x' is 'c', expected one of a, b"),
        (Label("x", "multiclass"), ["a", "a", None], "has only the class a, expected two or more"),
        (Label("x", "multiclass"), [None, None], "has no class, expected two or more"),
        (Label("x", "regression"), [1, "many"], "'x' is 'many', expected a number"),
        (Label("x", "regression"), [1, np.inf], "'x' is 'inf', expected a number"),
        (Label("x", "regression", bounds=(0, 1)), [0, 1.5], "'x' is '1.5', expected a number from 0 to 1"),
        (
            Label("x", yes_above=0.5, no_below=0.5),
            [0.2, 12],
            "'x' is '12.0', expected a fraction from 0 to 1",
        ),
        (Label("y"), None, "mine.csv: has no column 'y' for the label; it has id_str, x; fix"),
    ],
)
def test_wrong_cells_are_a_message(label, cells, message):
    with pytest.raises(UserError, match=message) as caught:
        if cells is None:
            label.encode(pd.DataFrame({"id_str": ["J1"], "x": 1}), "mine.csv", ["row 1"])
        encode(label, cells)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "label",
    [
        Label("ring"),
        Label("mass", "regression", bounds=(7, 12)),
        Label("type", "multiclass", ("S", "E")),
        Label("ring", yes_above=0.25, no_below=0.05),
        Label("rings", "votes", tree=TREE),
    ],
)
def test_labels_survive_json(label):
    assert Label.from_dict(json.loads(json.dumps(label.to_dict()))) == label


@pytest.mark.parametrize(
    ("label", "values", "message"),
    [
        (Label("x"), [1.0, 1.0], "task: all 2 galaxies have x = 1, expected both 0 and 1; label"),
        (Label("x", "multiclass", ("S", "E")), [1.0, 1.0], "have x = E, expected two or more classes; label"),
        (Label("x", "regression"), [3.5, 3.5], "have x = 3.5, expected different values; label"),
    ],
)
def test_one_value_alone_cannot_be_learned(label, values, message):
    check_learnable([label], pd.DataFrame({"x": [0.0, 1.0]}), "task")
    with pytest.raises(UserError, match=message):
        check_learnable([label], pd.DataFrame({"x": values}), "task")


def test_votes_that_nobody_gave_cannot_be_learned():
    votes = pd.DataFrame({"ring_yes": [0, 0], "ring_no": [0, 0]})
    with pytest.raises(UserError, match="none of the 2 galaxies has a vote"):
        check_learnable([Label("rings", "votes", tree=TREE)], votes, "task")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([Label("information")], "'information'.* tables of the pipeline have one of this name too; rename"),
        ([Label("x"), Label("x_low")], "'x_low' here: it has a column 'x_low', and the label 'x' has one"),
        (
            [Label("x_hd_high"), Label("x")],
            "'x' here: it has a column 'x_hd_high', and the label 'x_hd_high'",
        ),
        ([Label("x", "regression"), Label("x_rank_low")], "'x_rank_low' here: .*, and the label 'x' has one"),
        ([Label("id", "multiclass", ("a", "str"))], "'id' here: it has a column 'id_str', and tables of the"),
        (
            [Label("t", "multiclass", ("a", "a_low"))],
            "'t' here: it has a column 't_a_low', and the label 't'",
        ),
        ([Label("t", "multiclass", ("S", "E")), Label("t_S")], "'t_S' here: .*, and the label 't' has one"),
    ],
)
def test_no_column_is_there_twice(labels, message):
    with pytest.raises(UserError, match=f"^task: no label can be called {message}") as caught:
        check_names(labels, "task")
    assert "\n" not in str(caught.value)


def test_labels_that_share_no_column_are_kept():
    check_names([Label("x"), Label("lower"), Label("t", "multiclass", ("S", "E")), Label("t_x")], "task")
    check_names([Label("rings", "votes", tree=TREE)], "task")


def test_the_endings_are_those_of_the_tables():
    """The posteriors' table is asked itself, so that no new column is forgotten."""
    about = SimpleNamespace(kind="values", tree=None, columns=["x"])
    found = describe(["J1"], np.random.default_rng(0).uniform(size=(1, 1, 9)), about, 0.9).columns
    own = {"x", *(f"x{ending}" for ending in ENDINGS)}
    assert set(found) <= own | set(RESERVED)
