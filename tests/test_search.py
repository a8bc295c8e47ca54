"""The stage search: rankings as tables, and what a user can get wrong."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from zoolib import api
from zoolib.job.logs import UserError
from zoolib.likeness.representations import representations_file
from zoolib.search import read_answers, read_examples, search_galaxies

NAMES = [f"J{number:03d}" for number in range(300)]


@pytest.fixture
def known(tmp_path):
    """Representations of 300 galaxies, the first 20 of one kind."""
    values = np.random.default_rng(1).normal(size=(300, 6))
    values[:20] = 0.4 * values[:20] + 3 * np.eye(6)[0]
    with representations_file(tmp_path / "representations.hdf5", 300, {}) as append:
        append(NAMES, values)
    return tmp_path / "representations.hdf5"


def search(known, how, examples=(), answers=None, count=8):
    output = SimpleNamespace(ranked=known.with_name("ranked.csv"), next=known.with_name("next.csv"))
    search_galaxies(known, how, examples, answers, count, 1, output)
    return pd.read_csv(output.ranked), pd.read_csv(output.next)


def answered(folder, answers):
    table = pd.DataFrame(answers.items(), columns=["id_str", "answer"])
    table.to_csv(folder / "answers.csv", index=False)
    return folder / "answers.csv"


def test_similar_lists_the_neighbours_of_each_example(known):
    ranked, following = search(known, "similar", ["J000", "J299"])
    assert ranked.groupby("of")["rank"].apply(list).tolist() == [[*range(1, 9)]] * 2
    assert (ranked["of"] != ranked["id_str"]).all()
    assert ranked[ranked["of"] == "J000"]["id_str"].isin(NAMES[:20]).sum() >= 6
    # The nearest of either example come first.
    assert set(following["id_str"][:2]) == set(ranked[ranked["rank"] == 1]["id_str"])
    assert api.similar("J000", known, 8)["id_str"].tolist() == ranked["id_str"][:8].tolist()


def test_rounds_of_answers_find_more(known, tmp_path):
    ranked, following = search(known, "more", NAMES[:5])
    assert len(ranked) == 300 and ranked["rank"].tolist() == [*range(1, 301)]
    assert following["answer"].isna().all() and not set(following["id_str"]) & set(NAMES[:5])
    assert following["id_str"].isin(NAMES[:20]).sum() >= 6
    # The user fills in what was written.
    path = answered(tmp_path, {name: "yes" if name < "J020" else "No " for name in following["id_str"]})
    again, after = search(known, "more", NAMES[:5], path)
    assert not set(after["id_str"]) & set(following["id_str"])
    yes, no = read_answers(path)
    expected = api.find_more([*NAMES[:5], *yes], known, no, seed=1)
    assert again["id_str"].tolist() == expected["id_str"].tolist()


def test_odd_galaxies_come_first_and_answers_count(known, tmp_path):
    ranked, following = search(known, "odd")
    assert following["id_str"].tolist() == ranked["id_str"].tolist()[:8]
    path = answered(tmp_path, {following["id_str"][0]: "no", following["id_str"][1]: ""})
    again, after = search(known, "odd", (), path)
    assert following["id_str"][0] not in set(after["id_str"])
    assert following["id_str"][1] in set(again["id_str"])
    assert len(api.find_odd(known)) == 300


def test_whoever_changes_their_mind_about_an_example_is_heard(known, tmp_path):
    path = answered(tmp_path, {"J000": "no"})
    ranked, _ = search(known, "more", NAMES[:5], path)
    expected = api.find_more(NAMES[1:5], known, ["J000"], seed=1)
    assert ranked["id_str"].tolist() == expected["id_str"].tolist()


def test_examples_can_be_a_table(tmp_path):
    pd.DataFrame({"id_str": ["a", "b", "a"], "note": 1}).to_csv(tmp_path / "mine.csv", index=False)
    assert read_examples(str(tmp_path / "mine.csv")) == ["a", "b"]
    pd.DataFrame({"name": ["a"]}).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(UserError, match="mine.csv: has the columns name, expected id_str"):
        read_examples(str(tmp_path / "mine.csv"))


def test_wrong_answers_are_messages(known, tmp_path):
    for table, message in (
        ("id_str,answer\na,perhaps\n", "answers.csv, line 2: the answer is 'perhaps', expected yes, no"),
        ("id_str,answer\na,yes\na,no\n", "the galaxy 'a' has both yes and no"),
        ("id_str,said\na,yes\n", "the column answer is missing, found id_str, said"),
    ):
        (tmp_path / "answers.csv").write_text(table)
        with pytest.raises(UserError, match=message):
            read_answers(tmp_path / "answers.csv")
    path = answered(tmp_path, {"J000": "yes", "X1": "no"})
    with pytest.raises(UserError, match="answers.csv: 1 of 2 galaxies are not in .*the first is 'X1'"):
        search(known, "odd", (), path)
    with pytest.raises(UserError, match=r"search\[\].examples: 1 of 1 galaxies are not in"):
        search(known, "similar", ["X1"])
    with pytest.raises(UserError, match="No wanted galaxy is given"):
        api.find_more([], known)
    with pytest.raises(UserError, match="'J000' has both yes and no"):
        api.find_odd(known, yes=["J000"], no="J000")
