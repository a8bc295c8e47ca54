"""Posteriors that are updated by votes, against Bayes' rule on a grid and by weighted draws."""

import logging

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import SHARES, SMALL, some_concentrations, some_probabilities, some_shares, written
from scipy import stats
from zoolib.config.trees import DecisionTree
from zoolib.data.learned import learned_from
from zoolib.job.logs import UserError
from zoolib.posteriors.files import describe_posteriors, open_predictions, read_described
from zoolib.posteriors.summary import mean_fractions
from zoolib.posteriors.unseen import marking_learned
from zoolib.posteriors.with_votes import describe_with_votes, update, votes_to_use

LEVEL = 0.8
GALAXIES = 12
TWO = DecisionTree.from_dict({"name": "two", "questions": {"q": {"answers": ["a", "b"]}}})
THREE = DecisionTree.from_dict({"name": "three", "questions": {"q": {"answers": ["a", "b", "c"]}}})


def alpha_of(answers):
    """Three Dirichlets that are far from each other, one of them with concentrations below 1."""
    return np.array([[0.4, 1.2, 0.7][:answers], [30.0, 4.0, 9.0][:answers], [2.0, 60.0, 11.0][:answers]]).T


@pytest.mark.parametrize("shares", [None, *SHARES])
@pytest.mark.parametrize("votes", [(0, 1), (3, 0), (9, 31), (400, 100)])
def test_two_answers_against_integrals_on_a_grid(shares, votes):
    values = alpha_of(2)
    # Halves of an exponential distance from each end: concentrations below 1 have their mass there.
    grid = 1 / (1 + np.exp(-np.linspace(-40, 40, 400_001)))
    density = sum(
        share * stats.beta.pdf(grid, *component)
        for share, component in zip([1 / 3] * 3 if shares is None else shares, values.T, strict=True)
    )
    # The step of the grid is proportional to x (1 - x).
    mass = density * stats.binom.pmf(votes[0], sum(votes), grid) * grid * (1 - grid)
    mass /= mass.sum()
    expected = [(mass * grid).sum(), *np.interp([(1 - LEVEL) / 2, (1 + LEVEL) / 2], mass.cumsum(), grid)]
    weights = None if shares is None else shares[None, None]
    found = describe_with_votes(np.array([votes]), values[None], TWO, LEVEL, weights)
    assert list(found) == [
        f"q_{answer}_fraction_with_votes{ending}" for answer in "ab" for ending in ("", "_low", "_high")
    ]
    found = np.array([block[0] for block in found.values()])
    np.testing.assert_allclose(found[:3], expected, atol=2e-4)
    np.testing.assert_allclose(found[3:], 1 - np.array(expected)[[0, 2, 1]], atol=2e-4)


@pytest.mark.parametrize("shares", [None, *SHARES])
def test_three_answers_against_weighted_draws(shares):
    random, values, votes = np.random.default_rng(5), alpha_of(3), np.array([4, 2, 1])
    chosen = random.choice(3, 400_000, p=shares)
    draws = np.concatenate([random.dirichlet(values[:, k], (chosen == k).sum()) for k in range(3)])
    chance = stats.multinomial.pmf(votes, votes.sum(), draws / draws.sum(axis=1, keepdims=True))
    chance /= chance.sum()
    weights = None if shares is None else shares[None, None]
    found = describe_with_votes(votes[None], values[None], THREE, LEVEL, weights)
    for number, answer in enumerate("abc"):
        order = draws[:, number].argsort()
        mass = chance[order].cumsum()
        quantiles = draws[order, number][mass.searchsorted([(1 - LEVEL) / 2, (1 + LEVEL) / 2])]
        name = f"q_{answer}_fraction_with_votes"
        assert found[name][0] == pytest.approx(chance @ draws[:, number], abs=2e-3)
        ends = [found[f"{name}_{end}"][0] for end in ("low", "high")]
        np.testing.assert_allclose(ends, quantiles, atol=4e-3)


def some_votes(galaxies, tree, seed=2):
    votes = np.random.default_rng(seed).integers(0, 6, (galaxies, len(tree.columns)))
    # Nobody was asked the last question about the first galaxy.
    votes[0, tree.questions[-1].slice] = 0
    return votes


def test_votes_one_after_the_other_give_what_all_votes_give():
    values, weights = some_concentrations(GALAXIES, SMALL, 3), some_shares(GALAXIES, SMALL)
    votes, later = some_votes(GALAXIES, SMALL), some_votes(GALAXIES, SMALL, 3)
    expected = update(votes + later, values, SMALL, weights)
    between, of_between = update(votes, values, SMALL, weights)
    for one, other in zip(expected, update(later, between, SMALL, of_between), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_a_question_without_votes_keeps_its_posterior():
    values, weights = some_concentrations(GALAXIES, SMALL, 3), some_shares(GALAXIES, SMALL)
    _, found = update(some_votes(GALAXIES, SMALL), values, SMALL, weights)
    np.testing.assert_allclose(found[0, -1], weights[0, -1], rtol=1e-12)
    nothing = np.zeros((GALAXIES, len(SMALL.columns)))
    same, equal = update(nothing, values, SMALL)
    np.testing.assert_array_equal(same, values)
    np.testing.assert_allclose(equal, 1 / 3)


def test_many_votes_decide_whatever_the_model_says():
    votes = np.array([[3000, 1000, 1000]])
    # The votes are impossible for double precision by each component, but not equally.
    values = np.array([[[1e-2, 1e4], [1e2, 1e4], [1e5, 1e4]]])
    found, weights = update(votes, values, THREE)
    assert np.isfinite(found).all() and weights[0, 0].sum() == pytest.approx(1)
    assert weights[0, 0, 1] == pytest.approx(1)
    certain = update(votes * 1000, values, THREE)
    np.testing.assert_allclose(mean_fractions(certain[0], THREE, certain[1]), [[0.6, 0.2, 0.2]], atol=0.02)


@pytest.fixture
def predicted(tmp_path):
    """Predictions, and a table of votes in another order, with a galaxy more and one that has no votes."""
    values = some_concentrations(GALAXIES, SMALL, 4)
    path = written(tmp_path / "p.hdf5", values, SMALL)
    table = pd.DataFrame(some_votes(GALAXIES + 1, SMALL), columns=SMALL.columns)
    table.insert(0, "id_str", [f"galaxy {number}" for number in range(GALAXIES + 1)])
    table.loc[3, SMALL.columns] = 0
    table.sample(frac=1, random_state=1).to_parquet(tmp_path / "votes.parquet")
    return path, tmp_path / "votes.parquet", table.set_index("id_str")


def mark(path, *abouts):
    """Say which galaxies some models have learned from."""
    with h5py.File(path) as file:
        ids = file["id_str"].asstr()[:]
    with marking_learned(path, [(f"models/{n}", about) for n, about in enumerate(abouts)]) as marked:
        marked(ids)


def used(path, *tables):
    """The votes that would be used."""
    with open_predictions(path) as opened:
        return votes_to_use(opened, tables)


def of_model(ids, start=None):
    return {"learned_from": learned_from(ids, start)}


def test_votes_that_a_model_has_learned_from_are_not_used(predicted):
    path, votes, table = predicted
    # Two members, and a backbone that learned from another galaxy.
    mark(path, of_model(["galaxy 0", "x"]), of_model(["galaxy 1"], of_model(["galaxy 2"])))
    found = used(path, votes)
    # No votes: galaxy 3.
    unused = [0, 1, 2, 3]
    assert np.isnan(found[unused]).all()
    np.testing.assert_array_equal(found[4:], table.iloc[4:GALAXIES])
    values = some_concentrations(GALAXIES, SMALL, 4)
    columns = describe_with_votes(found, values, SMALL, 0.9)
    assert len(columns) == 3 * len(SMALL.columns)
    filled = np.array([np.isfinite(block) for block in columns.values()])
    assert not filled[:, unused].any() and filled[:, 4:].all()


def test_a_model_that_does_not_say_what_it_has_learned_from_leaves_all_empty(predicted, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    path, votes, _ = predicted
    assert np.isnan(used(path, votes)).all()
    assert "does not say which galaxies it has learned from" in caplog.text
    caplog.clear()
    mark(path, of_model(["x"]), {})
    assert np.isnan(used(path, votes)).all()
    assert "models/1 does not say" in caplog.text


def test_tables_without_votes_and_other_predictions_are_left_alone(predicted, tmp_path):
    path, votes, table = predicted
    mark(path, of_model(["x"]))
    assert used(path) is None
    table[SMALL.columns[:-1]].reset_index().to_csv(tmp_path / "other.csv", index=False)
    assert used(path, tmp_path / "other.csv") is None
    # One table of several has votes.
    assert np.isfinite(used(path, tmp_path / "other.csv", votes)).any()
    shares = written(tmp_path / "q.hdf5", some_probabilities(3, SMALL, 2), SMALL, kind="probabilities")
    assert used(shares, votes) is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("", "line 7: the votes 'shape_smooth': found a blank, expected a whole number of 0 or more"),
        ("1.5", "found 1.5"),
        ("-1", "found -1"),
        ("many", "found 'many'"),
    ],
)
def test_a_users_table_may_leave_galaxies_blank_but_not_single_votes(predicted, tmp_path, cell, message):
    path, _, table = predicted
    mark(path, of_model(["x"]))
    text = table.astype(object).reset_index()
    text.loc[2, SMALL.columns] = ""
    text.to_csv(tmp_path / "mine.csv", index=False)
    found = used(path, tmp_path / "mine.csv")
    assert np.isnan(found[2]).all() and np.isfinite(found[4:]).all()
    text.loc[5, "shape_smooth"] = cell
    text.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(UserError, match=f"mine.csv.*{message}"):
        used(path, tmp_path / "mine.csv")


def test_the_flat_catalogue_has_the_updated_posteriors(predicted, tmp_path):
    path, votes, _ = predicted
    mark(path, of_model(["galaxy 0"]))
    describe_posteriors(path, tmp_path / "plain.parquet", 0.9)
    describe_posteriors(path, tmp_path / "more.parquet", 0.9, votes=[votes], threads=2)
    plain, more = (read_described([tmp_path / f"{name}.parquet"])[0] for name in ("plain", "more"))
    pd.testing.assert_frame_equal(more[list(plain)], plain)
    added = more.drop(columns=list(plain))
    assert list(added) == [
        f"{a}_fraction_with_votes{end}" for a in SMALL.columns for end in ("", "_low", "_high")
    ]
    assert added.isna().all(axis=1).tolist() == [row in (0, 3) for row in range(GALAXIES)]
    fractions = more[[f"{answer}_fraction_with_votes" for answer in SMALL.columns]].to_numpy()
    for question in SMALL.questions:
        np.testing.assert_allclose(fractions[4:, question.slice].sum(axis=1), 1, atol=1e-6)
