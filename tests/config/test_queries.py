"""Queries: what they may say, that they mean what pandas means by them, and that they run no code."""

import re
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from zoolib.config.queries import LONGEST, Query
from zoolib.data.tables import select
from zoolib.job.logs import UserError


@pytest.fixture(scope="module")
def table():
    """Columns of every kind, with blanks."""
    random = np.random.default_rng(1)
    blank = np.where(np.arange(40) % 7 == 0, np.nan, random.uniform(0, 0.2, 40))
    return pd.DataFrame(
        {
            "id_str": [f"J{number:03d}{'N' if number % 3 else 's'}" for number in range(40)],
            "redshift": blank,
            "small": random.uniform(0, 1, 40).astype("float32"),
            "votes": random.integers(0, 40, 40),
            "smooth-or-featured_total-votes": random.integers(0, 40, 40),
            "a `quoted` name & more": random.integers(0, 3, 40),
            "class": random.integers(0, 3, 40),
            "in_gzd": random.integers(0, 2, 40).astype(bool),
            "maybe": [True, False, None, True] * 10,
            "group": pd.Categorical(["pre", "active", None, "pre"] * 10),
            "taken": pd.date_range("2020-01-01", periods=40, freq="D"),
            "it's": random.integers(0, 3, 40),
        }
    )


SAME = (
    "redshift < 0.1",
    "not redshift < 0.1",
    "0.02 < redshift <= 0.1",
    "redshift < 0.1 and votes > 10 or in_gzd",
    "redshift < 0.1 & votes > 10 | in_gzd",
    "~(redshift < 0.1) & ~in_gzd",
    "`smooth-or-featured_total-votes` >= 30",
    "`a ``quoted`` name & more` == 1",
    "`it's` == 1 and id_str != 'it`s'",
    "`class` in [1, 2]",
    "`class` not in (1, 2)",
    "`class` == [0, 2]",
    "`class` != [0, 2]",
    "[0, 2] in `class`",
    "votes in [-1, 3, +4]",
    "votes in `class`",
    "id_str == 'J001N'",
    "id_str in ['J001N', 'J003s', 'no & no']",
    "'J001N' in id_str",
    'id_str != "J001N"',
    "id_str > 'J02'",
    "group == 'pre'",
    "group != 'pre'",
    "maybe == True",
    "in_gzd == False",
    "in_gzd",
    "small == 0.5 or small < 0.25",
    "votes + `class` * 2 - 1 > 3 ** 2 % 5",
    "-votes // 3 < -votes / 4",
    "votes - 2 ** 3 > 2.5e0",
    "id_str.str.contains('1')",
    "id_str.str.contains('S$', case=False)",
    "id_str.str.startswith('J00') or id_str.str.endswith('s')",
    "id_str.str.lower() == 'j001n'",
    "id_str.str.upper().str.endswith('S')",
    "id_str.str.len() == 5",
    "id_str.str.strip('J').str.match('0[12]')",
    "not id_str.str.fullmatch('J.*N')",
    "redshift.isna()",
    "redshift.notna() and votes.between(3, 20)",
    "votes.between(`class`, 20, inclusive='left')",
    "group.isin(['pre'])",
    "(votes - 3).isin([1, 2])",
    "taken > '2020-01-20'",
    " votes > 3 # enough",
)


@pytest.mark.parametrize("query", SAME)
def test_a_query_means_what_pandas_means(table, query):
    expected = table.eval(query.strip(), engine="python").fillna(False).to_numpy(bool)
    assert expected.sum() or "'J" in query or "votes in" in query
    np.testing.assert_array_equal(select(table, query, "t.csv"), expected)


def test_every_query_of_the_project_is_allowed(repo):
    """Those of the configurations, the examples, the published checks and the documents."""
    found = []

    def walk(value):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key in ("query", "where") and isinstance(inner, str):
                found.append(inner)
            elif isinstance(inner, dict | list):
                walk(inner)

    for folder in ("config", "examples"):
        for path in (repo / folder).rglob("*.yaml"):
            walk(yaml.safe_load(path.read_text()))
    for path in [*(repo / "docs").glob("*.md"), repo / "config/README.md"]:
        found += re.findall(r"^ *query: (.+)$", path.read_text(), re.M)
    assert len(found) > 10
    for query in found:
        Query(query, "query")


REFUSED = {
    "@pd.io.common.os.system('touch ran') == 0": "'@pd.io.common.os.system' is not",
    "@pd": "'@pd' is not",
    "`x`.@pd": "'@pd' is not",
    "__import__('os').system('touch ran')": "'__import__('os').system('touch ran')' is not",
    "votes.__class__": "'votes.__class__' is not",
    "votes.values": "'votes.values' is not",
    "votes.map(print)": "'votes.map(print)' is not",
    "votes.to_csv('ran')": "'votes.to_csv('ran')' is not",
    "votes.str.__class__()": "'votes.str.__class__()' is not",
    "votes.pipe.isin([1])": "'votes.pipe' is not",
    "`class`.pipe(1)": "'`class`.pipe(1)' is not",
    "id_str.str.repeat(1000000000) == ''": "'id_str.str.repeat(1000000000)' is not",
    "id_str.str.contains(*[1])": "'*[1]' is not",
    "id_str.str.contains(**{})": "'id_str.str.contains(**{})' is not",
    "eval('1') == votes": "'eval('1')' is not",
    "print(votes)": "'print(votes)' is not",
    "sin(votes) > 0": "'sin(votes)' is not",
    "votes[0] > 1": "'votes[0]' is not",
    "(lambda: 1)() == votes": "is not",
    "votes in [x for x in [1]]": "'[x for x in [1]]' is not",
    "votes in {1: 2}": "'{1: 2}' is not",
    "votes in {1, 2}": "'{1, 2}' is not",
    "(x := votes) > 1": "'(x := votes)' is not",
    "votes if in_gzd else votes": "is not",
    "f'{votes}' == id_str": "is not",
    "b'a' == id_str": "'b'a'' is not",
    "votes == None": "'None' is not",
    "votes is True": "'votes is True' is not",
    "votes == ...": "'...' is not",
    "votes == 1j": "'1j' is not",
    "votes << 3 > 1": "'votes << 3' is not",
    "votes ^ 3 > 1": "'votes ^ 3' is not",
    "votes in [1, [2]]": "'[1, [2]]' is not",
    "id_str == '''a'''": "is not",
    "votes = 1": "cannot apply",
    "votes > 1; votes": "cannot apply",
    "votes > 1\nvotes > 2": "cannot apply",
    "import os": "cannot apply",
    "votes >": "cannot apply",
    "`votes > 1": "cannot apply",
    "class == 1": "such as class, need backticks",
    "": "cannot apply",
}


@pytest.mark.parametrize("query", REFUSED)
def test_what_could_run_code_is_refused(table, tmp_path, monkeypatch, query):
    monkeypatch.chdir(tmp_path)
    for check in (
        lambda: Query(query, "finetune.query"),
        lambda: select(table, query, "t.csv", "finetune.query"),
    ):
        with pytest.raises(UserError) as caught:
            check()
        message = str(caught.value)
        assert message.startswith("finetune.query: ") and REFUSED[query] in message, message
        assert "\n" not in message and message.endswith(".")
        if "is not" in REFUSED[query]:
            assert "expected comparisons, arithmetic, and, or, not, in, " in message
    assert not list(tmp_path.iterdir())


WRONG_FOR_THE_TABLE = {
    "redshft < 1": "it has no column 'redshft'",
    "total-votes > 1": "it has no column 'total'",
    "votes + 1": "is not true or false for each row",
    "1 < 2": "is not true or false for each row",
    "votes and redshift < 1": "'votes' is not true or false, expected a comparison",
    "redshift < 1 or not votes": "'votes' is not true or false",
    "~votes": "'votes' is not true or false",
    "votes > 1 and 1": "'1' is not true or false",
    "votes.str.len() > 1": "cannot apply",
    "votes.between(1) == 1": "cannot apply",
    "id_str.str.contains('(') ": "cannot apply",
    "votes.isin(3)": "cannot apply",
    "group < 'pre'": "cannot apply",
    "id_str * 2 == ''": "'id_str * 2' is arithmetic with text",
    "'%100000000000d' % votes == ''": "is arithmetic with text",
    "id_str % 3 == ''": "is arithmetic with text",
    "id_str + 'x' == 'J001Nx'": "'id_str + 'x'' is arithmetic with text, expected numbers",
    "votes in [redshift, 1]": "'[redshift, 1]' is not allowed",
}


@pytest.mark.parametrize("query", WRONG_FOR_THE_TABLE)
def test_a_query_that_does_not_fit_the_table(table, query):
    with pytest.raises(UserError) as caught:
        select(table, query, "t.csv", "finetune.query")
    message = str(caught.value)
    assert message.startswith("finetune.query: ") and WRONG_FOR_THE_TABLE[query] in message, message
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize(
    "query",
    [
        "9 ** 9 ** 9 > votes",
        "(-9) ** 9 ** 9 > votes",
        "votes > 10 ** 400 * 10 ** 400",
        "votes > " + "9" * 5000,
        "'a' * 10 ** 9 == id_str",
        "id_str == 'a' * 1000000000",
        "id_str * 1000000000 == ''",
        "(" * 5000 + "votes" + ")" * 5000 + " > 1",
        "not " * 5000 + "in_gzd",
        "-" * 9000 + "votes > 1",
        "votes" + " + 1" * 2400 + " > 1",
        "in_gzd" + ".isna()" * 1400,
        "id_str" + " + id_str" * 1000 + " == ''",
        "votes in [" + "1," * LONGEST + "]",
    ],
)
def test_no_query_takes_the_memory_or_the_night(table, query):
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        select(table, query, "t.csv")
    message = str(caught.value)
    assert time.monotonic() - began < 2 and len(message) < 500 and "\n" not in message


def test_a_long_list_of_names_is_allowed(table):
    names = [f"J{number:03d}N" for number in range(5000)]
    assert select(table, f"id_str in {names}", "t.csv").sum() == 26


def test_many_comparisons_are_allowed(table):
    query = " or ".join(f"votes == {number}" for number in range(240))
    assert select(table, query, "t.csv").all()


def test_two_columns_of_one_name_are_refused(table):
    twice = pd.concat([table, table[["votes"]]], axis=1)
    with pytest.raises(UserError, match="two columns are called 'votes'"):
        select(twice, "votes > 1", "t.csv")


def test_a_query_names_its_columns():
    assert Query("`a-b` > 1 and c.isna() or 'd' in e", "query").columns == {"a-b", "c", "e"}
