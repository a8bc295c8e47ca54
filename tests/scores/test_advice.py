"""What is said of a model that is no better than a linear probe or one answer for all galaxies."""

import pytest
from zoolib.scores.advice import advise

ROW = {"label": "ring", "split": "test", "galaxies": 40}


def rows(score, value, constant, probe=None, apart=(-0.3, -0.1), label="ring"):
    row = {**ROW, "label": label, "score": score, "value": value, "constant": constant}
    if probe is not None:
        row |= {"probe": probe, "minus_probe_low_95": apart[0], "minus_probe_high_95": apart[1]}
    others = [{**row, "score": "auc"}] if score == "accuracy" else []
    return [row, *others, {**row, "split": "train", "value": 0.0 if score == "accuracy" else 9.0}]


@pytest.mark.parametrize(
    ("score", "value", "constant", "probe", "expected"),
    [
        ("accuracy", 0.9, 0.5, 0.8, None),
        ("accuracy", 0.8, 0.5, 0.8, "linear probe of the frozen features (accuracy 0.800, probe 0.800)"),
        ("accuracy", 0.6, 0.5, 0.8, "linear probe of the frozen features (accuracy 0.600, probe 0.800)"),
        ("accuracy", 0.5, 0.5, 0.8, "one answer for all galaxies (accuracy 0.500, constant 0.500)"),
        ("accuracy", 0.6, 0.5, None, None),
        ("rmse", 0.4, 1.0, 0.5, None),
        ("rmse", 0.6, 1.0, 0.5, "linear probe of the frozen features (rmse 0.600, probe 0.500)"),
        ("rmse", 1.1, 1.0, 0.5, "one answer for all galaxies (rmse 1.100, constant 1.000)"),
        ("log_loss", 3.0, 4.0, 2.0, "linear probe of the frozen features (log loss 3.000, probe 2.000)"),
        ("accuracy", float("nan"), float("nan"), float("nan"), None),
    ],
)
def test_one_sentence_says_what_is_no_worse(score, value, constant, probe, expected):
    found = list(advise(rows(score, value, constant, probe)))
    if expected is None:
        assert found == []
        return
    (only,) = found
    assert only["label"] == "ring"
    assert only["advice"].startswith(
        f"ring: on test the model is not better than a {expected}; ".replace("a one", "one")
    )
    assert only["advice"].endswith(".")


def test_a_difference_that_may_be_chance_says_so():
    (only,) = advise(rows("accuracy", 0.75, 0.5, 0.8, apart=(-0.2, 0.1)))
    assert "probe 0.800, which may be chance with 40 galaxies)" in only["advice"]


def test_the_questions_of_a_tree_are_compared_together():
    question = [row for row in rows("accuracy", 0.3, 0.5, label="bar") if row["score"] != "auc"]
    together = rows("log_loss", 9.0, 8.0, label="all questions")
    assert [one["label"] for one in advise([*question, *together])] == ["all questions"]
