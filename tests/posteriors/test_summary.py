"""Fractions, probabilities and tables of posteriors, against the published ones and SciPy."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from drawn import SHARES, SMALL, duplicated, some_concentrations, some_probabilities
from scipy import stats
from zoolib.config.labels import Label
from zoolib.posteriors import summary
from zoolib.posteriors.intervals import credible_intervals, highest_density_intervals


def test_the_published_posteriors_come_out(real_data, tree):
    table = pd.read_csv(real_data / "gz_decals_record" / "gz_decals_auto_posteriors.csv")
    assert len(table) == 6
    concentrations = np.stack(
        [np.array([json.loads(row) for row in table[f"{column}_concentration"]]) for column in tree.columns],
        axis=1,
    )
    assert concentrations.shape == (6, 34, 25)
    fractions = summary.mean_fractions(concentrations, tree)
    published = table[[f"{column}_fraction" for column in tree.columns]].to_numpy()
    np.testing.assert_allclose(fractions, published, rtol=0, atol=1e-6)
    asked = summary.probability_asked(fractions, tree)
    names = [f"{question.name}_proportion_volunteers_asked" for question in tree.questions]
    np.testing.assert_allclose(asked, table[names].to_numpy(), rtol=0, atol=1e-6)


def test_a_question_with_two_parents_is_reached_by_either():
    fractions = np.array([[0.5, 0.3, 0.2, 0.25, 0.75, 0.9, 0.1]])
    asked = summary.probability_asked(fractions, SMALL)
    np.testing.assert_allclose(asked, [[1.0, 0.3, 0.3 * 0.75 + 0.5]])


def test_labels_of_different_kinds_are_described_as_each_alone():
    labels = [Label("ring"), Label("small", "votes", tree=SMALL), Label("mass", "regression")]
    random = np.random.default_rng(0)
    parts = [random.uniform(size=(4, 1, 6)), some_concentrations(4, SMALL, 6), random.normal(size=(4, 1, 6))]
    columns = [output for label in labels for output in label.outputs]
    plain = [label.to_dict() for label in labels]
    about = SimpleNamespace(kind="mixed", tree=None, columns=columns, labels=plain)
    found = summary.describe(list("abcd"), np.concatenate(parts, axis=1), about, 0.8, SMALL.cuts)
    kinds, tables = ["probabilities", "concentrations", "values"], []
    for label, kind, values in zip(labels, kinds, parts, strict=True):
        own = SimpleNamespace(kind=kind, tree=label.tree, columns=label.outputs)
        tables.append(summary.describe(list("abcd"), values, own, 0.8, SMALL.cuts).set_index("id_str"))
    pd.testing.assert_frame_equal(found.set_index("id_str"), pd.concat(tables, axis=1))


def test_entropy_in_nats():
    fractions = np.array([[1 / 3, 1 / 3, 1 / 3, 1.0, 0.0, 0.5, 0.5]])
    np.testing.assert_allclose(summary.entropies(fractions, SMALL), [[np.log(3), 0, np.log(2)]])


def test_log_predictive_is_scipys_mixture():
    random = np.random.default_rng(2)
    concentrations = random.uniform(0.05, 90, (20, 4, 7))
    votes = random.integers(0, 30, (20, 4))
    votes[3] = 0
    found = summary.log_predictive(votes, concentrations)
    for galaxy in range(20):
        total = int(votes[galaxy].sum())
        each = [
            stats.dirichlet_multinomial.pmf(votes[galaxy], concentrations[galaxy, :, sample], total)
            for sample in range(7)
        ]
        assert found[galaxy] == pytest.approx(np.log(np.mean(each)), abs=1e-8)
    assert found[3] == 0


def test_log_predictive_of_probabilities_is_scipys_mixture():
    values = some_probabilities(20, SMALL, 7)[:, :3]
    votes = np.random.default_rng(2).integers(0, 30, (20, 3))
    votes[3] = 0
    # One sample rules out an answer that has votes.
    values[5, :, 0] = [0, 0.25, 0.75]
    found = summary.log_predictive(votes, values, "probabilities")
    for galaxy in range(20):
        total = int(votes[galaxy].sum())
        each = [stats.multinomial.pmf(votes[galaxy], total, values[galaxy, :, s]) for s in range(7)]
        assert found[galaxy] == pytest.approx(np.log(np.mean(each)), rel=1e-8, abs=1e-8)
    assert found[3] == 0


@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_log_predictive_of_a_weighted_mixture_is_the_enumeration_of_all_votes(kind):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    values, total = draw(3, SMALL, 3)[:, :3], 12
    votes = np.array([v for v in np.ndindex(*[total + 1] * 3) if sum(v) == total])
    for galaxy, weights in enumerate(SHARES):
        many = [np.repeat(some[None], len(votes), axis=0) for some in (values[galaxy], weights)]
        found = np.exp(summary.log_predictive(votes, many[0], kind, weights=many[1]))
        expected = 0
        for share, component in zip(weights, values[galaxy].T, strict=True):
            if kind == "concentrations":
                expected += share * np.array(
                    [stats.dirichlet_multinomial.pmf(v, component, total) for v in votes]
                )
            else:
                expected += share * stats.multinomial.pmf(votes, total, component / component.sum())
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert found.sum() == pytest.approx(1, abs=1e-12)
        # The mean of all votes that can be given is the expected vote fraction.
        fractions = summary.expected_fractions(values[[galaxy]], weights[None])[0]
        np.testing.assert_allclose(found @ votes / total, fractions, rtol=1e-9)


def test_log_predictive_without_votes_is_0_for_any_weights():
    assert (summary.log_predictive(np.zeros((3, 3)), np.ones((3, 3, 3)), weights=SHARES) == 0).all()


def test_weights_are_as_if_components_were_duplicated():
    values = some_concentrations(30, SMALL, 3)
    weights = SHARES[np.random.default_rng(5).integers(3, size=(30, 3))]
    about = SimpleNamespace(kind="concentrations", tree=SMALL, columns=SMALL.columns)
    names = [f"galaxy {index}" for index in range(30)]
    found = summary.describe(names, values, about, 0.8, SMALL.cuts, weights)
    expected = summary.describe(names, duplicated(values, SMALL, weights), about, 0.8, SMALL.cuts)
    # Many windows are almost as short as the shortest, so their widths are compared.
    for column in SMALL.columns:
        widths = [table[f"{column}_hd_high"] - table[f"{column}_hd_low"] for table in (found, expected)]
        np.testing.assert_allclose(*widths, atol=1e-3)
    known = [column for column in found if "_hd_" not in column and "information" not in column]
    pd.testing.assert_frame_equal(found[known], expected[known], rtol=1e-5, atol=3e-4)
    equal = summary.describe(names, values, about, 0.8, SMALL.cuts, np.full((30, 3, 3), 1 / 3))
    pd.testing.assert_frame_equal(summary.describe(names, values, about, 0.8, SMALL.cuts), equal, atol=1e-6)


def test_a_described_mixture_is_what_draws_from_it_show():
    values, random = some_concentrations(3, SMALL, 3), np.random.default_rng(7)
    weights = np.stack([SHARES, SHARES[::-1], SHARES[[1, 2, 0]]], axis=1)
    about = SimpleNamespace(kind="concentrations", tree=SMALL, columns=SMALL.columns)
    table = summary.describe(list("abc"), values, about, 0.8, weights=weights)
    for galaxy in range(3):
        for number, question in enumerate(SMALL.questions):
            counts = random.multinomial(400_000, weights[galaxy, number])
            draws = np.concatenate(
                [
                    random.dirichlet(component, count)
                    for component, count in zip(values[galaxy, question.slice].T, counts, strict=True)
                ]
            )
            for position, column in enumerate(question.columns):
                row = table.loc[galaxy]
                assert row[f"{column}_fraction"] == pytest.approx(draws[:, position].mean(), abs=2e-3)
                low, high = np.quantile(draws[:, position], [0.1, 0.9])
                assert (row[f"{column}_low"], row[f"{column}_high"]) == pytest.approx((low, high), abs=3e-3)


def test_votes_for_an_answer_that_underflows_are_unlikely_and_not_impossible():
    values = np.array([[[1.0], [0.0]]])
    found = summary.log_predictive(np.array([[3, 1]]), values, "probabilities")
    assert np.isfinite(found).all() and found[0] < -50


def test_mean_fractions_of_probabilities_are_the_means_of_the_samples():
    values = some_probabilities(5, SMALL, 9)
    np.testing.assert_allclose(summary.mean_fractions(values, SMALL), values.mean(axis=2), rtol=1e-12)


def test_cuts_need_the_share_and_the_question():
    fractions = np.array(
        [
            [0.30, 0.60, 0.10, 0.2, 0.8, 0.5, 0.5],  # a disc, seen face-on
            [0.30, 0.60, 0.10, 0.3, 0.7, 0.5, 0.5],  # a disc, edge-on or not
            [0.59, 0.40, 0.01, 0.2, 0.8, 0.5, 0.5],  # face-on if it were a disc; too few are asked
        ]
    )
    found = summary.suggested_cuts(fractions, SMALL, SMALL.cuts)
    assert {name: list(passed) for name, passed in found.items()} == {
        "disk": [True, True, True],
        "face-on": [True, False, False],
        "no-star": [False, False, True],
    }


def test_the_cuts_of_table_2(tree):
    """Walmsley et al. 2022, table 2, for the answers of GZD-5: share and fewest votes."""
    found = {(cut.answers, cut.above, cut.below, cut.votes) for cut in tree.cuts}
    single = [
        ("smooth-or-featured_featured-or-disk", 0.7, None, 5),
        ("smooth-or-featured_featured-or-disk", 0.3, None, 5),
        ("smooth-or-featured_smooth", 0.7, None, 5),
        ("disk-edge-on_yes", 0.8, None, 5),
        ("disk-edge-on_yes", None, 0.3, 5),
        ("bar_strong", 0.8, None, 20),
        ("bar_weak", 0.8, None, 20),
        ("has-spiral-arms_yes", 0.6, None, 20),
        ("has-spiral-arms_yes", None, 0.3, 20),
        ("edge-on-bulge_rounded", 0.6, None, 10),
        ("edge-on-bulge_boxy", 0.3, None, 10),
        ("edge-on-bulge_none", 0.5, None, 10),
        ("merging_merger", 0.7, None, 10),
        ("merging_merger", 0.3, None, 10),
        ("merging_major-disturbance", 0.6, None, 10),
        ("merging_minor-disturbance", 0.4, None, 10),
    ]
    expected = {((answer,), above, below, votes) for answer, above, below, votes in single}
    expected |= {(("bar_strong", "bar_weak"), 0.6, None, 20)}
    counts = [column for column in tree.columns if column.startswith("spiral-arm-count_")]
    expected |= {((column,), 0.75, None, 30) for column in counts if not column.endswith("cant-tell")}
    assert found == expected


@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_a_described_galaxy_has_the_results_of_the_functions(kind):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    values = draw(30, SMALL, 8)
    about = SimpleNamespace(kind=kind, tree=SMALL, columns=SMALL.columns)
    table = summary.describe([f"galaxy {index}" for index in range(30)], values, about, 0.8, SMALL.cuts)
    assert len(table.columns) == 1 + 5 * 7 + 2 * 3 + 3
    fractions = summary.mean_fractions(values, SMALL)
    low, high = credible_intervals(values, SMALL, 0.8, kind)
    hd_low, hd_high = highest_density_intervals(values, SMALL, 0.8, kind)
    of_answers = {"fraction": fractions, "low": low, "high": high, "hd_low": hd_low, "hd_high": hd_high}
    for name, expected in of_answers.items():
        found = table[[f"{column}_{name}" for column in SMALL.columns]]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    of_questions = {
        "asked": summary.probability_asked(fractions, SMALL),
        "entropy": summary.entropies(fractions, SMALL),
    }
    for name, expected in of_questions.items():
        found = table[[f"{question.name}_{name}" for question in SMALL.questions]]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    for name, expected in summary.suggested_cuts(fractions, SMALL, SMALL.cuts).items():
        assert table[f"cut_{name}"].dtype == bool
        np.testing.assert_array_equal(table[f"cut_{name}"], expected)
    assert 0 < table["cut_disk"].sum() < 30


def test_describe_takes_a_tree_as_plain_values():
    values = some_concentrations(2, SMALL, 3)
    about = SimpleNamespace(kind="concentrations", tree=SMALL.to_dict(), columns=SMALL.columns)
    table = summary.describe(["a", "b"], values, about, 0.9)
    assert list(table["id_str"]) == ["a", "b"]
    assert ((table["edge_yes_low"] < table["edge_yes_fraction"]) & (table["edge_yes_high"] <= 1)).all()
