"""The paper's table 1 beside that of a run: arithmetic by hand, and the page that shows it."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from zoolib import paper
from zoolib.job.logs import UserError


def test_differences_are_in_standard_errors_of_both_samples():
    # Equal samples: √2 times the binomial error of the common share, 0.89.
    by_hand = 0.02 / (np.sqrt(2) * np.sqrt(0.89 * 0.11 / 1000))
    assert paper.in_standard_errors(0.9, 1000, 0.88, 1000) == pytest.approx(by_hand)
    # 45 of 50 and 960 of 1000: together 1005 of 1050.
    together = 1005 / 1050
    by_hand = (0.9 - 0.96) / np.sqrt(together * (1 - together) * (1 / 50 + 1 / 1000))
    assert paper.in_standard_errors(0.9, 50, 0.96, 1000) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [((1.0, 9), (1.0, 237), 0), ((np.nan, 0), (1.0, 237), np.nan), ((0.5, 0), (0.5, 9), np.nan)],
)
def test_nothing_is_divided_by_zero(ours, theirs, expected):
    with np.errstate(all="raise"):
        found = paper.in_standard_errors(*ours, *theirs)
    assert found == expected or (np.isnan(found) and np.isnan(expected))


@pytest.fixture
def scores(tmp_path, published):
    """Scores like the paper's, but for one question worse and for another without galaxies."""
    rows = []
    for subset, questions in published["table_1"].items():
        rows += [{"question": name, "subset": subset, **row} for name, row in questions.items()]
    table = pd.DataFrame(rows)
    table.loc[table["question"] == "bar", ["accuracy", "recall"]] -= 0.1
    empty = (table["question"] == "bulge-size") & (table["subset"] == "confident")
    table["count"] = table["count"].where(~empty, 0)
    table.loc[empty, list(paper.SCORES)] = np.nan
    # The other rule chooses more galaxies for one question, and fewer for merging.
    table["count_product"] = table["count_asked"] = table["count"]
    table.loc[table["question"] == "disk-edge-on", "count_asked"] += 80
    table.loc[table["question"] == "merging", "count_asked"] -= 446
    table.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


def outputs(folder):
    return SimpleNamespace(table=folder / "t.csv", page=folder / "t.html")


def test_table_1_stands_beside_the_published_one(tmp_path, scores, published, caplog):
    with caplog.at_level(logging.INFO, logger="zoolib"):
        paper.compare_with_published(scores, published, "Only redshift < 0.1.", outputs(tmp_path))
    table = pd.read_csv(tmp_path / "t.csv").set_index(["subset", "question"])
    row = table.loc[("all", "bar")]
    p = (0.7185 + 0.8185) / 2
    by_hand = -0.1 / np.sqrt(p * (1 - p) * 2 / 2859)
    assert row["accuracy_difference"] == pytest.approx(by_hand, rel=1e-4)
    assert row[["accuracy_published", "count_published"]].tolist() == [0.8185, 2859]
    assert (table.loc[("all", "how-rounded")].filter(like="difference") == 0).all()
    assert np.isnan(table.loc[("confident", "bulge-size"), "f1_difference"])
    # Equal scores of other galaxies are no agreement.
    assert table.loc[("all", "merging")].filter(like="_difference").isna().all()
    assert "older question" in table.loc[("confident", "merging"), "not_comparable"]
    assert table["not_comparable"].notna().sum() == 2
    page = (tmp_path / "t.html").read_text()
    assert "<p class='warning'>Only redshift &lt; 0.1.</p>" in page
    assert page.count("<td class='number far'>") == 4
    assert "<td class='number first'>–</td><td class='number theirs'>1.0000</td>" in page
    assert "<p>* Merging is not comparable: its published galaxies are all galaxies of the first row" in page
    assert "4 of 68 scores are more than 3 standard errors" in caplog.text


def test_both_counts_stand_beside_the_published_one_where_the_rules_differ(tmp_path, scores, published):
    paper.compare_with_published(scores, published, "", outputs(tmp_path))
    page = (tmp_path / "t.html").read_text()
    assert "Zoobot 0.0.3" in page
    part = page.split("Which galaxies a question counts for")[1]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in part.split("<tr>")[2:]]
    assert found == [
        ["Disk edge on", "3,803 (33.5%)", "3,883 (34.2%)", "3,803 (33.5%)"],
        ["Merging *", "11,346 (100.0%)", "10,900 (96.1%)", "11,346 (100.0%)"],
    ]
    table = pd.read_csv(scores)
    table["count_asked"] = table["count_product"]
    table.to_csv(scores, index=False)
    paper.compare_with_published(scores, published, "", outputs(tmp_path))
    page = (tmp_path / "t.html").read_text()
    assert "Both rules choose the same galaxies of this run." in page


def test_a_handful_of_galaxies_has_no_difference_in_standard_errors(tmp_path, scores, published):
    table = pd.read_csv(scores).set_index(["subset", "question"])
    table.loc[("all", "bar"), "count"], table.loc[("confident", "bar"), "count"] = 9, 10
    found = paper.compare_scores(table.reset_index(), published).set_index(["subset", "question"])
    assert found.loc[("all", "bar")].filter(like="_difference").isna().all()
    assert found.loc[("confident", "bar")].filter(like="_difference").notna().all()


def test_a_question_without_scores_is_an_error(tmp_path, scores, published):
    table = pd.read_csv(scores)
    table[table["question"] != "merging"].to_csv(scores, index=False)
    with pytest.raises(UserError, match="has no scores of 'merging', but Walmsley et al. 2022 has them"):
        paper.compare_with_published(scores, published, "", outputs(tmp_path))
    assert not (tmp_path / "t.csv").exists()
