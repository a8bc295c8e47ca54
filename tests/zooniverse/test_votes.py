"""Votes counted in exports: one written by hand, and one that panoptes_aggregation has reduced, too.

The files in tests/support/zooniverse have the columns of https://help.zooniverse.org/next-steps/data-exports.
`reductions_5.3.1.csv` is what panoptes_aggregation 5.3.1 makes of `clean.csv` with its question extractor and
its question reducer.
"""

import csv
import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError, log
from zoolib.zooniverse import exports
from zoolib.zooniverse.votes import count_votes


@pytest.fixture(scope="module")
def data(repo):
    return repo / "tests/support/zooniverse"


@pytest.fixture
def count(tmp_path, tree, data):
    """Count votes; returns the votes, what was rejected, and {step: count}."""
    output = SimpleNamespace(**{name: tmp_path / f"{name}.csv" for name in ("votes", "rejected", "summary")})

    def run(table, of=tree, **settings):
        source = {"workflow": 6122, "versions": None, "subjects": None, "id": None, "location": None}
        source |= {"table": str(data / table), **settings}
        count_votes(source, {**of.without_title(), "zooniverse": of.zooniverse}, output)
        votes, rejected = (
            pd.read_csv(path, dtype=str, na_values=[""], keep_default_na=False).fillna("")
            for path in (output.votes, output.rejected)
        )
        return votes.set_index(votes.columns[0]), rejected, dict(csv.reader(output.summary.open()))

    return run


@pytest.fixture
def edited(data, tmp_path):
    """A copy of the clean export with other cells: {column: function of a row}."""

    def edit(**changes):
        rows = list(csv.DictReader((data / "clean.csv").open()))
        for row in rows:
            row |= {column: change(row) for column, change in changes.items()}
        with open(tmp_path / "edited.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / "edited.csv"

    return edit


def given(votes):
    """{galaxy: {answer: votes}}, without zeros."""
    counts = votes.drop(columns="file_loc", errors="ignore").astype(int)
    return {
        name: {answer: count for answer, count in row.items() if count} for name, row in counts.iterrows()
    }


def test_the_votes_of_an_export_written_by_hand(count, tree):
    votes, _, summary = count("classifications.csv", versions=[21, 21])
    assert votes.columns.tolist() == ["file_loc", *tree.columns]
    assert given(votes) == {
        # alice, bob, and one who is not logged in; their later classifications do not count.
        "J1": {
            "smooth-or-featured_featured-or-disk": 1,
            "disk-edge-on_no": 1,
            "bar_strong": 1,
            "has-spiral-arms_yes": 1,
            "spiral-winding_tight": 1,
            "spiral-arm-count_cant-tell": 1,
            "bulge-size_small": 1,
            "merging_none": 1,
            "smooth-or-featured_smooth": 1,
            "how-rounded_in-between": 1,
            "merging_merger": 1,
            "smooth-or-featured_artifact": 1,
        },
        # carol's combo task; of bob and ivan only the answers that are known.
        "J2": {
            "smooth-or-featured_smooth": 1,
            "how-rounded_round": 1,
            "merging_none": 2,
            "merging_major-disturbance": 1,
        },
        # erin, heidi, and the volunteers whose names are None and null.
        "J3": {
            "smooth-or-featured_featured-or-disk": 1,
            "disk-edge-on_yes": 1,
            "edge-on-bulge_none": 1,
            "merging_minor-disturbance": 1,
            "merging_none": 2,
            "smooth-or-featured_smooth": 2,
            "how-rounded_round": 1,
            "how-rounded_cigar-shaped": 1,
        },
    }
    assert votes["file_loc"].tolist() == ["J1.png", "J2.png", ""]
    assert summary == {
        "step": "count",
        "rows of classifications.csv": "19",
        "of the workflow 6122": "18",
        "of the versions 21 to 21": "17",
        "with a galaxy and an answer": "12",
        "the first of a volunteer for a galaxy": "10",
        "galaxies": "3",
    }


def test_what_is_not_counted_is_a_row_with_a_reason(count):
    _, rejected, _ = count("classifications.csv", versions=[21, 21])
    told = {row.classification_id: (row.subject_id, row.id_str, row.reason) for row in rejected.itertuples()}
    assert len(told) == len(rejected)
    again = "the same volunteer has classified this galaxy already (classification {}), which is counted."
    assert told == {
        "4": ("101", "J1", again.format(1)),
        "5": ("105", "J1", again.format(3)),
        "7": (
            "102",
            "J2",
            "the answer 'unknown answer label' to task T0 (smooth-or-featured) is not in the tree, so it is"
            " not counted.",
        ),
        "8": ("102", "J2", "it was made as a gold standard, which is no volunteer's vote."),
        "9": ("102", "J2", "it answers no question of the tree."),
        "11": (
            "104",
            "",
            "the subject's metadata have no galaxy's name in id_str or iauname, they have Filename.",
        ),
        "12": ("102;103", "", "it is of 2 subjects, expected one."),
        "15": ("103", "J3", "task T0 has 2 answers, expected one."),
        "16": ("102", "J2", """its annotations cannot be read (found '[{"task":"T0","value')."""),
        "17": ("102", "J2", "task T0 is answered twice and differently."),
    }


def test_old_versions_count_if_no_version_is_chosen(count):
    votes, rejected, summary = count("classifications.csv")
    assert given(votes)["J3"]["smooth-or-featured_smooth"] == 3
    # A text of the old version that the tree has not.
    (reason,) = rejected[rejected["classification_id"] == "14"]["reason"]
    assert "'tidal debris' to task T11 (merging) is not in the tree" in reason
    assert "of the versions" not in " ".join(summary)


def test_raw_and_reduced_votes_agree_with_panoptes_aggregation(count, data, tree):
    raw, _, _ = count("clean.csv")
    reduced, rejected, summary = count("reductions_5.3.1.csv", subjects=str(data / "subjects.csv"))
    pd.testing.assert_frame_equal(raw, reduced)
    assert rejected.empty and summary["galaxies"] == "5"
    # The same without our reader: all votes on the first question, and on one answer without an image.
    table = pd.read_csv(data / "reductions_5.3.1.csv").set_index(["subject_id", "task"])
    first = (
        table.xs("T0", level="task").filter(regex="smooth$|features-or-disk$|star-or-artifact$").sum(axis=1)
    )
    ours = raw[[f"smooth-or-featured_{answer}" for answer in tree.questions[0].answers]].astype(int)
    assert ours.sum(axis=1).tolist() == first.tolist() == [7] * 5
    loose = table.xs("T6", level="task")["data.loose"].reindex(first.index).fillna(0)
    assert raw["spiral-winding_loose"].astype(int).tolist() == loose.tolist() and loose.sum() > 0


def test_the_order_and_the_pieces_of_an_export_change_nothing(count, data, tmp_path, monkeypatch):
    expected, _, _ = count("classifications.csv", versions=[21, 21])
    head, *rows = (data / "classifications.csv").read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    monkeypatch.setattr(exports, "ROWS", 4)
    pd.testing.assert_frame_equal(count(tmp_path / "turned.csv", versions=[21, 21])[0], expected)


def test_fields_of_other_names(count, edited):
    def renamed(row):
        return row["subject_data"].replace('"id_str"', '"//objid"').replace("#file_loc", "!picture")

    votes, _, _ = count(edited(subject_data=renamed), id="objid", location="picture")
    assert votes.index.name == "objid" and votes["picture"].tolist() == [f"G{n}.png" for n in range(5)]


def test_answers_that_the_tree_does_not_know_are_said(count, edited, monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    table = edited(annotations=lambda row: row["annotations"].replace('"Tight"', '"Very tight"'))
    votes, rejected, _ = count(table)
    assert not votes["spiral-winding_tight"].astype(int).any() and len(rejected) == 2
    assert "2 answers are not in the tree and not counted: T6 'very tight' (2); if" in caplog.text


def of_json(column, change):
    def edit(row):
        content = json.loads(row[column])
        change(content)
        return json.dumps(content)

    return {column: edit}


WRONG = {
    "no workflow": (
        {"workflow_id": lambda row: 7},
        "has no row of the workflow 6122, it has those of 7; fix catalogs[].zooniverse.workflow",
    ),
    "no name": (
        of_json("subject_data", lambda data: [one.pop("id_str") for one in data.values()]),
        "nothing in it can be counted, the first: the subject's metadata have no galaxy's name in id_str or",
    ),
    "other texts": (
        of_json(
            "annotations", lambda tasks: [one.update(value="Oui") for one in tasks if one["task"] == "T5"]
        ),
        "no answer to task T5 ('has-spiral-arms') is in the tree 'gz_decals_5', which has yes, no; found T5"
        " 'oui' (12); add these texts to zooniverse.answers",
    ),
    "other tasks": (
        of_json(
            "annotations", lambda tasks: [one.update(task="init") for one in tasks if one["task"] == "T0"]
        ),
        "nobody has answered task T0, which asks 'smooth-or-featured' by the key zooniverse of the tree"
        " 'gz_decals_5'; the tasks of the export are T1 'how rounded is it?' ('",
    ),
    "other versions": (
        {"workflow_version": lambda row: "3.1"},
        "nothing in it can be counted, the first: no vote of the workflow 6122 and its versions.",
    ),
    "half a letter": (
        of_json("subject_data", lambda data: [one.update(id_str="\ud800") for one in data.values()])
        | {"classification_id": lambda row: "9" * 30},
        "nothing in it can be counted, the first: its classification_id is not a number.",
    ),
    "numbers": (
        of_json("annotations", lambda tasks: [one.update(value=1) for one in tasks]),
        "nothing in it can be counted, the first: the answer to task T0 is 1, expected its text.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_export_that_does_not_fit_is_named(count, edited, tmp_path, case):
    changes, message = WRONG[case]
    with pytest.raises(UserError, match=re.escape(message)):
        count(edited(**changes), versions=[21, 21])
    # Neither half a table nor its temporary file.
    assert [path.name for path in tmp_path.iterdir()] == ["edited.csv"]


def test_a_tree_without_tasks_is_told_those_of_the_export(count, edited, data):
    tree = DecisionTree.from_dict({"name": "mine", "questions": {"shape": {"answers": ["smooth", "disk"]}}})
    # Smooth, with an image and without.
    plain = edited(annotations=lambda row: re.sub(r'"!\[smooth[^"]*"', '"Smooth"', row["annotations"]))
    plain.write_text(plain.read_text() + "\n".join((data / "clean.csv").read_text().splitlines()[1:]))
    with pytest.raises(UserError) as error:
        count(plain, of=tree)
    message = str(error.value)
    assert (
        "the tree 'mine' has no key zooniverse" in message and "zooniverse: {tasks: {shape: T0}}" in message
    )
    assert "; T1 'how rounded is it?' ('completely round', 'in between', 'cigar-shaped'); T11 'is" in message
    assert message.count("'smooth'") == 1


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            lambda t: t,
            {"subjects": None},
            "is a table of reductions, which do not name galaxies; give the subject",
        ),
        (
            lambda t: t,
            {"versions": [1, 2]},
            "is a table of reductions, which do not have the workflow's version",
        ),
        (lambda t: pd.concat([t, t.head(1)]), {}, "subject 200 has two rows of one task (rows 1 and 51)"),
        (lambda t: t.drop(columns="subject_id"), {}, "expected an export of classifications (annotations,"),
        (
            lambda t: t.assign(annotations="[]"),
            {},
            "is an export of classifications without the column 'classif",
        ),
    ],
)
def test_a_reduced_table_that_does_not_fit_is_named(count, data, tmp_path, change, settings, message):
    change(pd.read_csv(data / "reductions_5.3.1.csv")).to_csv(tmp_path / "edited.csv", index=False)
    with pytest.raises(UserError, match=re.escape(message)):
        count(tmp_path / "edited.csv", **{"subjects": str(data / "subjects.csv"), **settings})


def test_rows_of_a_reduced_table_that_cannot_be_used(count, data, tmp_path):
    table = pd.read_csv(data / "reductions_5.3.1.csv")
    table["data.loose"] = table["data.loose"].replace(1.0, 0.5)
    table.loc[table["subject_id"] == 204, "subject_id"] = 999
    table.to_csv(tmp_path / "edited.csv", index=False)
    votes, rejected, _ = count(tmp_path / "edited.csv", subjects=str(data / "subjects.csv"))
    assert votes.index.tolist() == ["G0", "G1", "G2", "G3"]
    reasons = set(rejected["reason"])
    assert reasons == {
        "subject 999: it is not in the subject export.",
        "task T6 has 0.5 votes for 'loose', expected a whole number.",
    }
