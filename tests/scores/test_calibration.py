"""Coverage of truth and votes: posteriors that are right, too sure and too modest; the paper's figure 19."""

import json
import re
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import remedies
import study
from drawn import SHARES, duplicated, some_shares
from matplotlib import pyplot as plt
from scipy import stats
from zoolib.config.trees import DecisionTree
from zoolib.figures.calibration import draw_calibration, figure_19
from zoolib.scores import calibration
from zoolib.scores.calibration import LEVELS

TREE = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk", "star"]},
            "ring": {"answers": ["yes", "no"]},
            "bar": {"answers": ["yes", "no"], "after": "ring_yes"},
        },
    }
)
GALAXIES = 5000


@pytest.fixture(scope="module")
def survey():
    """Posteriors of three samples, truths that are drawn from them, and votes from the truths."""
    random = np.random.default_rng(3)
    values = (random.gamma(1.2, 6, (GALAXIES, 7, 1)) + 0.2) * random.uniform(0.7, 1.4, (GALAXIES, 7, 3))
    chosen = values[np.arange(GALAXIES), :, random.integers(0, 3, GALAXIES)]
    totals = random.choice([1, 4, 12, 35], GALAXIES)
    true, votes = np.empty((GALAXIES, 7)), np.zeros((GALAXIES, 7), int)
    for question in TREE.questions:
        drawn = random.gamma(chosen[:, question.slice])
        true[:, question.slice] = drawn / drawn.sum(axis=1, keepdims=True)
        asked = votes[:, 3] if question.after else totals
        votes[:, question.slice] = random.multinomial(asked, true[:, question.slice])
    return values, votes, true


def coverage_of(values, votes, true, kind="concentrations", weights=None):
    """Two blocks, as in a file."""
    found = []
    for part in (slice(0, 2000), slice(2000, None)):
        known, shares = (None if numbers is None else numbers[part] for numbers in (true, weights))
        found.append(calibration.measure(values[part], votes[part], known, TREE, kind, shares))
    return calibration.summarise(found)


def test_posteriors_that_are_right_hold_what_they_state(survey):
    covered, _ = coverage_of(*survey)
    sigma = np.sqrt(covered["expected"] * (1 - covered["expected"]) / covered["galaxies"])
    assert ((covered["actual"] - covered["expected"]).abs() < 4 * sigma + 1e-9).all()
    truth = covered[covered["measure"] == "truth"]
    assert list(truth["expected"]) == pytest.approx(list(truth["stated"]))
    votes = covered[covered["measure"] == "votes"]
    # Intervals of whole numbers hold more than the stated mass; comparing with the stated mass would fail.
    assert (votes["expected"] > votes["stated"] + 0.01).all()
    assert list(covered["question"].unique()) == ["shape", "ring", "bar"]
    assert (covered.groupby(["question", "measure"])["answer"].nunique() >= 3).all()
    # What all volunteers are asked counts for all galaxies, however they are chosen.
    sizes = covered[covered["question"] == "ring"].groupby(["measure", "selected"])["galaxies"].first()
    assert (sizes == GALAXIES).all() and len(sizes) == 4


def test_weighted_mixtures_that_are_right_hold_what_they_state():
    random = np.random.default_rng(11)
    # Components that prefer different answers, with weights that are far from equal.
    values = random.gamma(1.2, 6, (GALAXIES, 7, 1)) * random.uniform(0.7, 1.4, (GALAXIES, 7, 3)) + 0.2
    values[:, [0, 3, 5], 0] *= 5
    values[:, [1, 4, 6], 1:] *= 5
    weights = np.broadcast_to(SHARES, (GALAXIES, 3, 3))
    true, votes = np.empty((GALAXIES, 7)), np.zeros((GALAXIES, 7), int)
    for number, question in enumerate(TREE.questions):
        chosen = (random.random((GALAXIES, 1)) > weights[:, number].cumsum(axis=1)).sum(axis=1)
        drawn = random.gamma(values[np.arange(GALAXIES), question.slice, chosen])
        true[:, question.slice] = drawn / drawn.sum(axis=1, keepdims=True)
        asked = votes[:, 3] if question.after else 20
        votes[:, question.slice] = random.multinomial(asked, true[:, question.slice])
    covered, _ = coverage_of(values, votes, true, weights=weights)
    sigma = np.sqrt(covered["expected"] * (1 - covered["expected"]) / covered["galaxies"])
    assert ((covered["actual"] - covered["expected"]).abs() < 4 * sigma + 1e-9).all()
    # The same components with equal weights are wrong, so the weights matter.
    equal, _ = coverage_of(values, votes, true)
    assert ((equal["actual"] - equal["expected"]).abs() > 4 * sigma).mean() > 0.3


def test_weights_are_as_if_components_were_duplicated(survey):
    values, votes, true = (numbers[:400] for numbers in survey)
    weights = some_shares(400, TREE)
    many = duplicated(values, TREE, weights)
    found = calibration.measure(values, votes, true, TREE, "concentrations", weights)
    expected = calibration.measure(many, votes, true, TREE, "concentrations")
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_galaxies_that_votes_choose_are_those_with_other_truths():
    """Every galaxy has the right posterior. Those with more rings have more bars, which no question knows."""
    random = np.random.default_rng(5)
    values = np.full((GALAXIES, 7, 1), 3.0)
    # A ring is expected in 4 of 10 answers. Some galaxies surely have one.
    values[:, 3:5, 0] = [4, 6]
    values[:1000, 3:5, 0] = [12, 2]
    common = random.normal(size=(GALAXIES, 1))
    ranks = stats.norm.cdf(0.9 * common + np.sqrt(1 - 0.9**2) * random.normal(size=(GALAXIES, 2)))
    true, votes = np.full((GALAXIES, 7), 1 / 3), np.zeros((GALAXIES, 7), int)
    for number, question in enumerate(TREE.questions[1:]):
        alpha = values[:, question.slice, 0]
        true[:, question.slice.start] = stats.beta.ppf(ranks[:, number], alpha[:, 0], alpha[:, 1])
        true[:, question.slice.start + 1] = 1 - true[:, question.slice.start]
        asked = votes[:, 3] if question.after else 40
        votes[:, question.slice] = random.multinomial(asked, true[:, question.slice])
    covered, _ = coverage_of(values, votes, true)
    bar = covered[(covered["question"] == "bar") & (covered["answer"] == "all")]
    truth = bar[bar["measure"] == "truth"].set_index(["selected", "stated"])
    assert truth.loc[("predicted", 0.5), "galaxies"] == 1000
    assert truth.loc[("votes", 0.5), "galaxies"] > 1500
    deviation = truth["actual"] - truth["expected"]
    sigma = np.sqrt(LEVELS * (1 - LEVELS) / 1000)
    assert (deviation["predicted"].abs() < 4 * sigma).all()
    assert deviation["votes", 0.5] < -0.05
    # The one is judged, the other lies beside it.
    assert set(calibration.judged(covered)["selected"]) == {"predicted"}
    assert calibration.worst(covered, "truth")["question"] != "bar"


@pytest.mark.parametrize("factor, sign", [(6, -1), (1 / 6, 1)])
def test_posteriors_that_are_too_sure_or_too_modest_show_it(survey, factor, sign):
    values, votes, true = survey
    covered, _ = coverage_of(factor * values, votes, true)
    covered = calibration.judged(covered)
    covered = covered[covered["stated"] == 0.5]
    deviation = covered.set_index(["measure", "question"]).eval("actual - expected")
    assert (sign * deviation["truth"] > 0.15).all()
    assert (sign * deviation["votes"] > 0.03).all()
    row = calibration.worst(covered, "truth")
    assert row["deviation"] == pytest.approx(deviation["truth"].loc[deviation["truth"].abs().idxmax()])


def test_intervals_of_probabilities_come_from_the_samples_alone(survey):
    values, _, _ = survey
    random = np.random.default_rng(0)
    drawn = random.gamma(values[:1000, :, :1], size=(1000, 7, 120))
    for question in TREE.questions:
        drawn[:, question.slice] /= drawn[:, question.slice].sum(axis=1, keepdims=True)
    samples, true = drawn[:, :, 1:], drawn[:, :, 0]
    share = calibration.true_inside(samples, true, TREE, "probabilities").mean(axis=0)
    assert np.abs(share - LEVELS).max() < 0.05
    votes = np.concatenate(
        [random.multinomial(20, true[:, question.slice]) for question in TREE.questions], axis=1
    )
    covered, _ = coverage_of(samples, votes, None, "probabilities")
    assert set(covered["measure"]) == {"votes"}
    assert (covered["actual"] - covered["expected"]).abs().max() < 0.05


def test_predictive_intervals_are_the_central_ones():
    a, b, total = 2.5, 1.5, 9
    vote = stats.betabinom(total, a, b)
    chances = vote.pmf(np.arange(total + 1))[None, None]
    for level, column in zip(LEVELS, range(len(LEVELS)), strict=True):
        low, high = vote.ppf([(1 - level) / 2, (1 + level) / 2])
        for votes in range(total + 1):
            inside, mass = calibration.votes_inside(chances, np.array([[votes]]))
            assert bool(inside[0, 0, column]) == (low <= votes <= high)
            assert mass[0, 0, column] == pytest.approx(vote.cdf(high) - vote.cdf(low - 1))


def test_figure_19_steps_outwards_from_the_mode():
    random = np.random.default_rng(1)
    chances = random.dirichlet(np.full(8, 0.7), 30)
    votes = random.integers(0, 8, 30)
    expected = []
    for galaxy in range(30):
        mode = chances[galaxy].argmax()
        found = set()
        for requested in np.linspace(0.1, 0.95, 50):
            low = high = mode
            while chances[galaxy, low : high + 1].sum() < requested:
                low, high = max(low - 1, 0), min(high + 1, 7)
            found.add((low, high))
        for low, high in sorted(found, key=lambda ends: ends[1] - ends[0]):
            expected.append((chances[galaxy, low : high + 1].sum(), low <= votes[galaxy] <= high))
    mass, inside = calibration.highest_density(chances, votes)
    np.testing.assert_allclose(mass, [claimed for claimed, _ in expected])
    assert list(inside) == [float(held) for _, held in expected]


def test_figure_19_counts_binary_questions_by_votes(survey):
    _, intervals = coverage_of(*survey)
    assert set(intervals["question"]) == {"ring", "bar"}
    assert set(intervals["votes"]) == {"3 < N < 5", "30 < N < 40"}
    many = intervals[intervals["intervals"] >= 400]
    assert len(many) >= 10
    # The intervals of one galaxy are not independent.
    assert (many["actual"] - many["expected"]).abs().max() < 0.1


def test_a_question_that_nobody_was_asked(survey):
    values, votes, true = (numbers[:50].copy() for numbers in survey)
    votes[:, 5:] = 0
    covered, intervals = calibration.summarise(
        [calibration.measure(values, votes, true, TREE, "concentrations")]
    )
    bar = covered[covered["question"] == "bar"]
    # Its truth is known all the same, of the galaxies of which the model expects that it is asked.
    known = (bar["measure"] == "truth") & (bar["selected"] == "predicted")
    assert (bar["galaxies"][~known] == 0).all() and bar["actual"][~known].isna().all()
    assert (bar["galaxies"][known] > 10).all() and bar["actual"][known].notna().all()
    assert calibration.worst(covered, "truth") is None
    assert "no question counts" in calibration.verdicts(covered)[0]
    assert "bar" not in set(intervals["question"])


def posteriors_of(values, votes, true, members=1, weights=None, kind="concentrations"):
    """As the study has them, each component a sample."""
    return remedies.Posteriors(values, weights, 1, kind, members, TREE, votes.astype(float), true)


def test_the_studys_remedies_undo_what_is_too_sure(survey):
    values, votes, true = (numbers[:3000] for numbers in survey)
    sure = posteriors_of(4 * values, votes, true)
    assert study.judge([remedies.coverage(sure)[0]])["right"][0] < 6
    (fixed,) = remedies.recalibrated(sure, sure)
    found = study.judge([remedies.coverage(fixed)[0]] * 2)
    assert found["right"] == [12, 12] and found["of"] == 12 and np.abs(found["greatest"]).max() < 5


@pytest.mark.parametrize(("by_truth", "limit"), [(False, 6), (True, 2)])
def test_the_studys_maps_undo_what_is_too_modest(survey, by_truth, limit):
    values, votes, true = (numbers[:2000] for numbers in survey)
    modest = posteriors_of(values / 2, votes, true)
    before = study.deviating(remedies.coverage(modest)[0]).query("measure == 'truth'")["deviation"]
    (table,) = study.mapped_tables(modest, modest, by_truth)
    deviations = 100 * (table["actual"] - table["stated"])
    assert len(table) == 12 and deviations.abs().max() < limit < before.abs().max() / 2


def test_the_studys_posteriors_may_be_weighted(survey):
    values, votes, true = (numbers[:300] for numbers in survey)
    weights = some_shares(300, TREE)
    mixed = posteriors_of(values, votes, true, weights=weights)
    many = posteriors_of(duplicated(values, TREE, weights), votes, true)
    np.testing.assert_allclose(remedies.losses(mixed), remedies.losses(many), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(remedies.transform(mixed), remedies.transform(many), rtol=1e-6, atol=1e-9)
    for pool, other in (
        (mixed, many),
        *zip(*map(study_pools, ((mixed, values), (many, values))), strict=True),
    ):
        pd.testing.assert_frame_equal(remedies.coverage(pool)[0], remedies.coverage(other)[0])
    maps = [remedies.transform_map(one, TREE.questions[0]) for one in (mixed, many)]
    np.testing.assert_allclose(*maps, atol=1e-3)


def study_pools(given):
    """Pools of a posterior and of another one with fewer components, and the first of them again."""
    posteriors, values = given
    other = posteriors_of(values[:, :, :1], posteriors.votes, posteriors.true)
    pool = remedies.linear_pool([posteriors, other])
    return pool, remedies.linear_pool([pool, pool])


def test_the_studys_ensembles_are_formed_of_trainings(survey):
    values, votes, true = (numbers[:60] for numbers in survey)
    three = posteriors_of(values, votes, true, members=3)
    trainings = remedies.members(three)
    np.testing.assert_array_equal(remedies.linear_pool(trainings).values, values)
    found = dict(study.remedies(three, three))
    assert {name: len(some) for name, some in found.items() if "log" not in name} == {
        "one member": 3,
        "one member, recalibrated": 3,
        "two members, linear pool": 3,
        "two members, linear pool, recalibrated": 3,
        "two members, recalibrated, linear pool": 3,
        "two members, recalibrated, linear pool, factor": 3,
        "three members, linear pool": 1,
        "three members, linear pool, recalibrated": 1,
        "three members, recalibrated, linear pool": 1,
        "three members, recalibrated, linear pool, factor": 1,
    }
    (pool,) = found["three members, log-linear pool"]
    np.testing.assert_allclose(pool.values, values.mean(axis=2, keepdims=True))
    weighted = posteriors_of(values, votes, true, members=3, weights=np.full((60, 3, 3), 1 / 3))
    np.testing.assert_allclose(remedies.member(weighted, 1).weights, 1)
    assert not any("log" in name for name, _ in study.remedies(weighted, weighted))
    assert study.spread([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0" and study.spread([1.0], 1) == "1.0"
    points, error = study.difference(np.array([[1.0], [3.0]]), np.array([[0.0], [0.0]]))
    assert points == pytest.approx(2) and error == pytest.approx(1)


@pytest.fixture
def files(survey, tmp_path):
    """The survey as files, the predictions in another order than the catalogue."""
    values, votes, true = survey
    names = np.array([f"g{index}" for index in range(GALAXIES)])
    for name, numbers in (("test", votes.astype("int32")), ("truth", true)):
        table = pd.DataFrame(numbers, columns=TREE.columns).assign(id_str=names)
        table.to_parquet(tmp_path / f"{name}.parquet")
    order = np.random.default_rng(0).permutation(GALAXIES)[:4500]
    with h5py.File(tmp_path / "p.hdf5", "w") as file:
        file["predictions"] = values[order]
        file.create_dataset("id_str", data=list(names[order]), dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=TREE.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind="concentrations", tree=json.dumps(TREE.to_dict()))
    return tmp_path


def calibrated(files, truth):
    output = SimpleNamespace(coverage=files / "coverage.csv", calibration=files / "calibration.csv")
    calibration.calibrate(files / "p.hdf5", files / "test.parquet", truth, output)
    return output.coverage, output.calibration


def drawn_text(files, outputs):
    draw_calibration(*outputs, [files / "drawn.svg"])
    return re.findall(r"<!-- (.*?) -->", (files / "drawn.svg").read_text(), flags=re.DOTALL)


def test_a_simulated_surveys_files_are_measured_and_drawn(survey, files):
    outputs = calibrated(files, files / "truth.parquet")
    found = pd.read_csv(outputs[0])
    shape = found[(found["question"] == "shape") & (found["answer"] == "all")]
    assert set(shape["galaxies"]) == {4500}
    truth = shape[(shape["measure"] == "truth") & (shape["selected"] == "predicted")]
    # Galaxies that were confused with one another would hold far less.
    np.testing.assert_allclose(truth["actual"], LEVELS, atol=0.02)
    texts = drawn_text(files, outputs)
    assert {"Shape (4,500)", "Ring", "3 &lt; N &lt; 5", "True probabilities", "95%"} <= set(texts)


def test_a_real_survey_has_votes_alone(files):
    outputs = calibrated(files, None)
    assert set(pd.read_csv(outputs[0])["measure"]) == {"votes"}
    pd.read_csv(outputs[1]).assign(intervals=99).to_csv(outputs[1], index=False)
    texts = drawn_text(files, outputs)
    assert "True probabilities" not in texts
    assert any("No bin has 100 intervals" in text for text in texts)


def test_many_questions_of_two_answers_are_drawn_apart(tmp_path):
    names = [f"q{number}" for number in range(9)]
    rows = [
        {
            "question": name,
            "votes": "3 < N < 5",
            "expected": 0.5,
            "actual": 0.4 + number / 50,
            "intervals": 200,
        }
        for number, name in enumerate(names)
    ]
    figure, panel = plt.subplots()
    figure_19(panel, pd.DataFrame(rows))
    curves = [line for line in panel.get_lines()[1:] if len(line.get_xdata())]
    plt.close(figure)
    assert len({(line.get_color(), line.get_marker()) for line in curves}) == len(curves) == 9


def test_the_legend_says_which_line_is_for_how_many_votes():
    groups = {"3 < N < 5": "-", "N > 5": "--"}
    rows = [
        {"question": name, "votes": votes, "expected": 0.5, "actual": 0.4, "intervals": 200}
        for name in ("bar", "disk")
        for votes in groups
    ]
    figure, panel = plt.subplots()
    figure_19(panel, pd.DataFrame(rows))
    handles, names = panel.get_legend_handles_labels()
    styles = dict(zip(names, handles, strict=True))
    plt.close(figure)
    assert list(styles) == ["Bar", "Disk", *groups]
    assert {votes: styles[votes].get_linestyle() for votes in groups} == groups
    assert {styles[name].get_linestyle() for name in ("Bar", "Disk")} == {"None"}
