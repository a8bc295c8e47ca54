import json
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import optimize, stats
from zoolib import posteriors
from zoolib.logs import UserError
from zoolib.predictions import describe_posteriors, open_predictions, read_described
from zoolib.trees import DecisionTree

SMALL = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk", "star"]},
            "edge": {"answers": ["yes", "no"], "after": "shape_disk"},
            # Two ways lead to it.
            "bulge": {"answers": ["big", "small"], "after": ["edge_no", "shape_smooth"]},
        },
    }
)


@pytest.fixture(scope="module")
def tree(repo):
    return DecisionTree.load(repo / "config" / "trees" / "gz_decals_5.yaml")


def some_concentrations(galaxies, tree, samples, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 1.5, (galaxies, len(tree.columns), 1))
    logits = logits + random.normal(0, 0.5, (galaxies, len(tree.columns), samples))
    return 1 + 100 / (1 + np.exp(-logits))


def write_predictions(path, values, columns, **attributes):
    with h5py.File(path, "w") as file:
        file["predictions"] = values.astype("float32")
        names = [f"galaxy {index}" for index in range(len(values))]
        file.create_dataset("id_str", data=names, dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=columns, dtype=h5py.string_dtype())
        file.attrs.update(attributes)
    return path


def test_the_published_posteriors_come_out(real_data, tree):
    table = pd.read_csv(real_data / "gz_decals_record" / "gz_decals_auto_posteriors.csv")
    assert len(table) == 6
    concentrations = np.stack(
        [np.array([json.loads(row) for row in table[f"{column}_concentration"]]) for column in tree.columns],
        axis=1,
    )
    assert concentrations.shape == (6, 34, 25)
    fractions = posteriors.mean_fractions(concentrations, tree)
    published = table[[f"{column}_fraction" for column in tree.columns]].to_numpy()
    np.testing.assert_allclose(fractions, published, rtol=0, atol=1e-6)
    asked = posteriors.probability_asked(fractions, tree)
    names = [f"{question.name}_proportion_volunteers_asked" for question in tree.questions]
    np.testing.assert_allclose(asked, table[names].to_numpy(), rtol=0, atol=1e-6)


def test_a_question_with_two_parents_is_reached_by_either():
    fractions = np.array([[0.5, 0.3, 0.2, 0.25, 0.75, 0.9, 0.1]])
    asked = posteriors.probability_asked(fractions, SMALL)
    np.testing.assert_allclose(asked, [[1.0, 0.3, 0.3 * 0.75 + 0.5]])


def test_entropy_in_nats():
    fractions = np.array([[1 / 3, 1 / 3, 1 / 3, 1.0, 0.0, 0.5, 0.5]])
    np.testing.assert_allclose(posteriors.entropies(fractions, SMALL), [[np.log(3), 0, np.log(2)]])


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_against_root_finding_on_scipy(tree, level):
    concentrations = some_concentrations(4, tree, 25)
    low, high = posteriors.credible_intervals(concentrations, tree, level)
    for question in tree.questions:
        totals = concentrations[:, question.slice].sum(axis=1)
        for galaxy in range(4):
            answer = question.slice.start + galaxy % len(question.answers)
            a = concentrations[galaxy, answer]
            mixture = stats.beta(a, totals[galaxy] - a)
            for end, mass in ((low, (1 - level) / 2), (high, (1 + level) / 2)):
                exact = optimize.brentq(lambda x, m=mixture, p=mass: m.cdf(x).mean() - p, 0, 1, xtol=1e-10)
                assert end[galaxy, answer] == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-2, 0.3, 1, 1e3, 1e5])
def test_quantiles_of_wild_mixtures(scale):
    # Components far apart, and so small that the density is infinite at the ends.
    random = np.random.default_rng(1)
    a, b = scale * random.uniform(0.01, 3, (2, 60, 5))
    for probability in (0.005, 0.05, 0.5, 0.95, 0.995):
        found = posteriors.beta_mixture_quantile(a, b, probability)
        above = stats.beta.cdf(np.minimum(found + posteriors.TOLERANCE, 1)[:, None], a, b).mean(axis=1)
        below = stats.beta.cdf(np.maximum(found - posteriors.TOLERANCE, 0)[:, None], a, b).mean(axis=1)
        assert (above >= probability).all()
        assert (below <= probability).all()


def test_log_predictive_is_scipys_mixture():
    random = np.random.default_rng(2)
    concentrations = random.uniform(0.05, 90, (20, 4, 7))
    votes = random.integers(0, 30, (20, 4))
    votes[3] = 0
    found = posteriors.log_predictive(votes, concentrations)
    for galaxy in range(20):
        total = int(votes[galaxy].sum())
        each = [
            stats.dirichlet_multinomial.pmf(votes[galaxy], concentrations[galaxy, :, sample], total)
            for sample in range(7)
        ]
        assert found[galaxy] == pytest.approx(np.log(np.mean(each)), abs=1e-8)
    assert found[3] == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_the_flat_catalogue_holds_what_the_functions_say(tmp_path, tree, threads):
    values = some_concentrations(1100, tree, 2)
    attributes = {"kind": "concentrations", "tree": json.dumps(tree.to_dict())}
    path = write_predictions(tmp_path / "part.hdf5", values, tree.columns, **attributes)
    describe_posteriors(path, tmp_path / "part.parquet", 0.8, threads)
    table, about = read_described([tmp_path / "part.parquet"])
    assert list(table["id_str"]) == [f"galaxy {index}" for index in range(1100)]
    assert len(table.columns) == 1 + 3 * 34 + 2 * 10
    assert about == {"tree": tree, "credible_level": 0.8}
    fractions = posteriors.mean_fractions(values, tree)
    low, high = posteriors.credible_intervals(values, tree, 0.8)
    for name, expected in (("fraction", fractions), ("low", low), ("high", high)):
        found = table[[f"{column}_{name}" for column in tree.columns]].to_numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
    found = table[[f"{question.name}_asked" for question in tree.questions]]
    np.testing.assert_allclose(found, posteriors.probability_asked(fractions, tree), atol=1e-5)
    found = table[[f"{question.name}_entropy" for question in tree.questions]]
    np.testing.assert_allclose(found, posteriors.entropies(fractions, tree), atol=1e-5)
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["part.parquet"]


def test_a_chunk_without_galaxies_gives_an_empty_catalogue(tmp_path, tree):
    attributes = {"kind": "concentrations", "tree": json.dumps(tree.to_dict())}
    path = write_predictions(tmp_path / "part.hdf5", np.ones((0, 34, 2)), tree.columns, **attributes)
    describe_posteriors(path, tmp_path / "part.parquet", 0.9)
    assert pq.read_table(tmp_path / "part.parquet").num_rows == 0
    assert "bar_asked" in pq.read_schema(tmp_path / "part.parquet").names


def test_probabilities_give_their_mean_and_quantiles(tmp_path):
    values = np.random.default_rng(3).uniform(0, 1, (5, 1, 40))
    path = write_predictions(tmp_path / "part.hdf5", values, ["ring"], kind="probabilities", tree="null")
    describe_posteriors(path, tmp_path / "part.parquet", 0.9)
    table, about = read_described([tmp_path / "part.parquet"])
    assert list(table.columns) == ["id_str", "ring", "ring_low", "ring_high"]
    assert about["tree"] is None
    np.testing.assert_allclose(table["ring"], values.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(table["ring_low"], np.quantile(values[:, 0], 0.05, axis=1), atol=1e-6)
    np.testing.assert_allclose(table["ring_high"], np.quantile(values[:, 0], 0.95, axis=1), atol=1e-6)


def test_describe_takes_a_tree_as_plain_values():
    values = some_concentrations(2, SMALL, 3)
    about = SimpleNamespace(kind="concentrations", tree=SMALL.to_dict(), columns=SMALL.columns)
    table = posteriors.describe(["a", "b"], values, about, 0.9)
    assert list(table["id_str"]) == ["a", "b"]
    assert ((table["edge_yes_low"] < table["edge_yes_fraction"]) & (table["edge_yes_high"] <= 1)).all()


@pytest.mark.parametrize("bad", [0.0, np.nan, -1.0])
def test_a_missing_part_is_told_by_galaxy_and_answer(tmp_path, bad):
    values = some_concentrations(3, SMALL, 2)
    values[1, 6, 1] = bad
    attributes = {"kind": "concentrations", "tree": json.dumps(SMALL.to_dict())}
    path = write_predictions(tmp_path / "part.hdf5", values, SMALL.columns, **attributes)
    with pytest.raises(UserError, match="part.hdf5: sample 1 of 'bulge_small' for galaxy 'galaxy 1'"):
        describe_posteriors(path, tmp_path / "part.parquet", 0.9)
    assert not list(tmp_path.glob("*.parquet"))
    assert not list(tmp_path.glob(".*"))


def test_files_that_are_no_predictions(tmp_path):
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(UserError, match="text.hdf5"), open_predictions(tmp_path / "text.hdf5"):
        pass
    with h5py.File(tmp_path / "empty.hdf5", "w"):
        pass
    with pytest.raises(UserError, match="'id_str' is missing"), open_predictions(tmp_path / "empty.hdf5"):
        pass
    path = write_predictions(
        tmp_path / "other.hdf5",
        np.ones((1, 2, 1)),
        ["bar_yes", "bar_no"],
        kind="concentrations",
        tree=json.dumps(SMALL.to_dict()),
    )
    with pytest.raises(UserError, match="are not the answers of its tree"), open_predictions(path):
        pass
