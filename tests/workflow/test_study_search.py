"""The study of searches: its measures, on galaxies of which the answer is known."""

import numpy as np
import pandas as pd
import study_search


def test_a_kind_is_thinned_and_unclear_galaxies_are_left_out():
    wanted, unclear = np.arange(1000) < 300, np.arange(1000) < 400
    kept = study_search.thinned(wanted, unclear, 0.05, np.random.default_rng(1))
    assert (kept >= 400).sum() == 600 and wanted[kept].sum() == 32
    assert not ((kept >= 300) & (kept < 400)).any()


def test_precision_is_relative_to_chance():
    rng, wanted = np.random.default_rng(1), np.arange(2000) < 100
    values = rng.normal(size=(2000, 8)).astype(np.float32)
    assert 0.5 < study_search.precision(values, wanted) < 1.6
    values[:100] = values[0] + 0.01 * values[:100]
    assert study_search.precision(values, wanted) > 19


def test_clicks_count_what_was_found_without_the_examples():
    wanted = np.arange(100) < 30
    assert study_search.clicked(wanted, lambda yes, no: wanted, 50, [0, 1]) == 28
    assert study_search.clicked(wanted, lambda yes, no: -1.0 * wanted, 50) == 0
    rounds = []

    def score(yes, no):
        rounds.append((len(yes), len(no)))
        return np.arange(100) % 2

    study_search.clicked(wanted, score, 20)
    assert rounds[0] == (0, 0) and sum(rounds[1]) == 10


def test_the_section_has_a_row_for_each_kind_and_way_to_learn():
    ways = ("votes", "votes and views")
    rows = [
        {"kind": kind, "learned": learned, "model": model, "draw": 0, "precision": near, "found": 40}
        | {"random": 2.5}
        | ({"posterior": 45} if kind == "bars" else {})
        for kind in ("rings", "bars")
        for near, learned in zip((5.0, 6.0), ways, strict=True)
        for model in range(3)
    ]
    odd = [
        {"kind": "stars", "learned": learned, "way": way, "model": model, "draw": 0, "share": 0.5}
        for learned in ways
        for way in ("oddness", "oddness and answers")
        for model in range(3)
    ]
    text = "\n".join(study_search.lines(pd.DataFrame(rows), pd.DataFrame(odd)))
    assert "| rings | votes | 5.0 ± 0.0 | 40.0 ± 0.0 | 2.5 | not asked |" in text
    assert "| bars | votes and views | 6.0 ± 0.0 | 40.0 ± 0.0 | 2.5 | 45.0 |" in text
    assert all(f"| stars | {learned} | 50 ± 0 | 50 ± 0 |" in text for learned in ways)
