"""The study of acquisitions: its numbers for known answers, and that it goes on where it was."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import study_acquisition as study
from drawn import some_concentrations
from scipy import special, stats
from zoolib.config.trees import DecisionTree

TINY = study.Settings(seeds=2, first=20, step=10, rounds=2, test=100)


@pytest.fixture
def survey(repo):
    tree = DecisionTree.load(repo / "config/trees/gz_decals_5.yaml")
    values = some_concentrations(200, tree, 1)[:, :, 0]
    shares = [values[:, q.slice] / values[:, q.slice].sum(axis=1, keepdims=True) for q in tree.questions]
    names = np.array([f"J{number:03d}" for number in range(200)])
    return study.Survey(names, np.zeros((200, 4), "float32"), np.concatenate(shares, axis=1), tree, 0.2)


class Learner:
    """It knows the truth, remembers what it was taught, and is unsure about each third galaxy."""

    def __init__(self, survey, settings=TINY):
        self.survey, self.settings, self.taught = survey, settings, []

    def learn(self, rows, votes, seed):
        assert len(rows) == len(set(rows)) == len(votes)
        self.taught.append(rows)

    def predict(self, members, rows, seed):
        found = np.repeat(100 * self.survey.true[rows][:, :, None] + 1, 2, axis=2)
        unsure = rows % 3 == 0
        found[unsure, 0, 0] += 300
        found[unsure, 1, 1] += 300
        return found


def test_the_old_sum_counts_each_answer_on_its_own(survey):
    values = some_concentrations(3, survey.tree, 4)
    found = study.marginal_information(values, survey.tree)
    question = survey.tree.questions[0]
    for galaxy, answer in np.ndindex(3, 3):
        chosen = values[galaxy, question.slice]
        each = stats.betabinom(10, chosen[answer], chosen.sum(axis=0) - chosen[answer]).pmf(
            np.arange(11)[:, None]
        )
        expected = special.entr(each.mean(axis=1)).sum() - special.entr(each).sum(axis=0).mean()
        assert found[galaxy, answer] == pytest.approx(expected, rel=1e-6)
    # Both answers of a question with two have the same information.
    np.testing.assert_allclose(found[:, 3], found[:, 4])


@pytest.mark.parametrize("method", study.METHODS)
def test_a_curve_adds_the_most_informative_galaxies(survey, method):
    learner = Learner(survey)
    curve = study.learn_actively(learner, method, 5)
    assert list(curve["volunteers"]) == [200, 300, 400]
    first = learner.taught[0]
    for before, after in zip(learner.taught, learner.taught[1:], strict=False):
        np.testing.assert_array_equal(after[: len(before)], before)
    chosen = learner.taught[-1][20:]
    assert (chosen % 3 == 0).all() == (method != "random")
    again = Learner(survey)
    study.learn_actively(again, "random", 5)
    np.testing.assert_array_equal(again.taught[0], first)


def test_too_few_galaxies_are_no_study(survey):
    with pytest.raises(ValueError, match="100 galaxies to choose from, fewer than"):
        study.learn_actively(Learner(survey, replace(TINY, first=90)), "random", 0)


def test_a_finished_curve_is_kept(survey, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "read_survey", lambda run: (survey, {"model.keras": "a"}))
    monkeypatch.setattr(study, "Learner", lambda *of: SimpleNamespace())
    asked = []

    def learn(learner, method, seed):
        asked.append((method, seed))
        if len(asked) == 6:
            raise KeyboardInterrupt
        return pd.DataFrame(
            {"method": [method], "seed": [seed], "volunteers": [10], "loss": [1.0], "featured": [0.5]}
        )

    monkeypatch.setattr(study, "learn_actively", learn)
    with pytest.raises(KeyboardInterrupt):
        study.curves(tmp_path, TINY)
    found = study.curves(tmp_path, TINY)
    every = [(method, seed) for seed in range(2) for method in study.METHODS]
    assert asked == [*every[:6], *every[5:]]
    assert list(zip(found["method"], found["seed"], strict=True)) == every
    # Other settings, or another model, are another study.
    study.curves(tmp_path, replace(TINY, patience=1))
    assert len(asked) == 9 + 8


def test_the_table_compares_seed_by_seed():
    rows = [
        (method, seed, volunteers, 10 + seed - volunteers / 100 - gain, 0.4)
        for method, gain in (("random", 0), ("sum", -0.5), ("paper", 0.25), ("joint", 1 / 2))
        for seed in range(3)
        for volunteers in (100, 200, 300)
    ]
    found = pd.DataFrame(rows, columns=["method", "seed", "volunteers", "loss", "featured"])
    assert study.table_lines(found)[2:] == [
        "| at random | 9.000 ± 1.000 |  | 8.000 ± 1.000 |  | 300 | 40% |",
        "| the old sum | 9.500 ± 1.000 | +0.500 ± 0.000 | 8.500 ± 1.000 | +0.500 ± 0.000 | more | 40% |",
        "| `paper` | 8.750 ± 1.000 | -0.250 ± 0.000 | 7.750 ± 1.000 | -0.250 ± 0.000 | 275 | 40% |",
        "| `joint` | 8.500 ± 1.000 | -0.500 ± 0.000 | 7.500 ± 1.000 | -0.500 ± 0.000 | 250 | 40% |",
    ]


def test_the_figure_is_drawn(tmp_path):
    rows = [
        (method, seed, 100 * n, 10.0 - n + seed, 0.4)
        for method in study.METHODS
        for seed in (0, 1)
        for n in (1, 2)
    ]
    found = pd.DataFrame(rows, columns=["method", "seed", "volunteers", "loss", "featured"])
    study.draw(found, tmp_path / "acquisition.png")
    assert (tmp_path / "acquisition.png").stat().st_size > 10_000
