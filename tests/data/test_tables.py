"""Tables of users: what is said of those that cannot be what was meant."""

import pandas as pd
import pytest
from zoolib.config.trees import DecisionTree
from zoolib.data.selection import warn_of_votes
from zoolib.data.tables import place_of, read_table
from zoolib.job.logs import UserError, log

TREE = DecisionTree.from_dict(
    {
        "name": "rings",
        "questions": {
            "ring": {"answers": ["yes", "no"]},
            "type": {"answers": ["inner", "outer"], "after": "ring_yes"},
        },
    }
)


def test_a_row_is_named_as_an_editor_counts():
    assert place_of("mine/rings.csv", 4) == "mine/rings.csv, line 5"
    assert place_of("rings.csv.gz", 1) == "rings.csv.gz, line 2"
    assert place_of("rings.parquet", 4) == "rings.parquet, row 4"


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_other_separators_are_named(tmp_path, mark, name):
    path = tmp_path / "rings.csv"
    path.write_text(f"id_str{mark}ring\nJ1{mark}1\n")
    with pytest.raises(
        UserError, match=f"has one column, .*because {name} separate its columns, expected commas"
    ):
        read_table(path)
    path.write_text("id_str\nJ1;2\n")
    assert read_table(path)["id_str"].tolist() == ["J1;2"]


@pytest.fixture
def warned(monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    return caplog


def test_more_votes_than_their_question_was_asked_are_said(warned):
    votes = pd.DataFrame([[20, 3, 10, 10], [20, 0, 300, 200], [5, 5, 0, 6]], columns=TREE.columns)
    warn_of_votes(votes, TREE, ["a.csv, line 2", "a.csv, line 3", "a.csv, line 4"])
    assert warned.messages == [
        "a.csv, line 3: 'type' has 500 votes, and 'ring_yes' only 20. 2 of 3 galaxies have more votes for a"
        " question than for the answers that lead to it: check that the columns are those of the tree 'rings'"
    ]


def test_votes_of_the_tree_are_not_warned_of(warned):
    votes = pd.DataFrame([[20, 3, 10, 10], [0, 9, 0, 0]], columns=TREE.columns)
    warn_of_votes(votes, TREE, ["1", "2"])
    # A table of another campaign has no such columns.
    warn_of_votes(votes[["ring_yes"]], TREE, ["1", "2"])
    assert not warned.messages
