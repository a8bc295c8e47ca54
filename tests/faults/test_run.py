"""The runner of the faults: what it draws, what it repeats, and when its table fails."""

from types import SimpleNamespace

import pytest
import run


@pytest.fixture
def kills():
    """Cells of twenty jobs, two of them trainings of a chain."""
    jobs = [f"job{number}" for number in range(18)] + ["finetune_task/ring", "finetune_task/chained"]
    cells = [f"{job}, {moment}, job" for job in jobs for moment in ("boundary", "inside")]
    return SimpleNamespace(name="kill -9", cells=cells, chain="finetune_task/chained", chained=cells[-2:])


def row(name, attempt):
    return SimpleNamespace(name=name, cells=("one", "two"), attempt=lambda cell, seed, place: attempt(cell))


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Let the runner have two rows of one lane, and notes in a temporary folder."""
    tried = []
    made = {"good": row("good", lambda cell: tried.append(cell)), "bad": row("bad", lambda cell: "a galaxy")}
    monkeypatch.setattr(run, "LANES", {"lane": ()})
    monkeypatch.setattr(run, "rows_of", lambda lane: {name: ("changes", one) for name, one in made.items()})
    monkeypatch.setattr(run, "REPO", tmp_path)
    return made, tried


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_kills_six_jobs_one_of_them_in_the_chain(kills, seed):
    cells = [cell for cell, _ in run.plan("kills", kills, 0, seed)]
    assert len({cell.split(",")[0] for cell in cells}) == len(cells) == 6
    assert sum(cell in kills.chained for cell in cells) == 1


def test_each_cell_is_visited_before_any_a_second_time(kills):
    tries = run.plan("kills", kills, 50, 3)
    assert len(tries) == 50 and {cell for cell, number in tries if number == 0} == set(kills.cells)
    assert tries != run.plan("kills", kills, 50, 4)


def test_readers_get_five_mutations_for_each_kill(kills):
    assert len(run.plan("mutations", kills, 0, 1)) == 50
    assert len(run.plan("mutations", kills, 200, 1)) == 1000


def test_a_row_that_lost_something_fails_the_table(rows):
    run.work("lane", 2, 1)
    shown, good = run.table(2, 1)
    assert "| good | 2 | 2 | 2 | 2 | nothing |" in shown and "| bad | 2 | 2 | 2 | 0 | a galaxy |" in shown
    assert not good
    del rows[0]["bad"]
    assert run.table(2, 1)[1]


def test_a_row_that_was_never_tried_fails_the_table(rows):
    shown, good = run.table(2, 1)
    assert "| good | 0 | 2 | 0 | 0 | nothing |" in shown and not good


def test_a_call_goes_on_where_it_was_stopped_and_repeats_what_was_lost(rows):
    made, tried = rows
    run.work("lane", 2, 1)
    made["bad"].attempt = lambda cell, seed, place: None
    run.work("lane", 2, 1)
    assert sorted(tried) == ["one", "two"]
    assert run.table(2, 1)[1]


def test_an_error_of_a_try_is_a_loss(rows):
    rows[0]["bad"].attempt = lambda cell, seed, place: 1 / 0
    run.work("lane", 2, 1)
    assert "ZeroDivisionError: division by zero" in run.table(2, 1)[0]
