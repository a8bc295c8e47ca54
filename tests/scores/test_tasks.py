"""Scores of finetuned tasks against scikit-learn: each kind of label, with splits, folds and intervals."""

import logging
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import duplicated, some_concentrations, some_shares, weigh
from scipy import stats
from sklearn import metrics
from task_fits import (
    KIND,
    RING,
    SIZE,
    TREE,
    VOTES,
    Fits,
    recalibrate,
    write_fits,
    write_predictions,
    write_probe,
)
from zoolib.config.labels import Label
from zoolib.data.catalogs import read_catalog
from zoolib.job.logs import UserError
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.summary import log_predictive
from zoolib.scores.outcomes import labels_of, outcomes, read_galaxies
from zoolib.scores.tasks import evaluate_label_counts, evaluate_task


def run(folder, fits, seed=1, **beside):
    names = {"galaxies": "parquet", "scores": "csv", "confusion": "csv", "advice": "csv"}
    output = SimpleNamespace(**{name: folder / "out" / f"{name}.{suffix}" for name, suffix in names.items()})
    evaluate_task(fits.galaxies, fits.predictions, seed, output, **beside)
    labels, table = read_galaxies(output.galaxies)
    scores = pd.read_csv(output.scores).set_index(["label", "split", "score"]).sort_index()
    return SimpleNamespace(
        labels=labels, table=table, scores=scores, confusion=pd.read_csv(output.confusion), output=output
    )


def of_split(found, split):
    return found.table[found.table["split"] == split].reset_index(drop=True)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_scores_of_a_binary_label_are_scikit_learns(tmp_path, split):
    fits = write_fits(tmp_path, [RING])
    found = run(tmp_path, fits)
    table = of_split(found, split)
    assert set(table["id_str"]) == set(fits.read(split)["id_str"])
    truth, probability = table["ring"], table["ring_predicted"]
    called = probability > 0.5
    share = np.full(len(truth), fits.read("train")["ring"].mean())
    expected = {
        "accuracy": metrics.accuracy_score(truth, called),
        "precision": metrics.precision_score(truth, called),
        "recall": metrics.recall_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "auc": metrics.roc_auc_score(truth, probability),
        "log_loss": metrics.log_loss(truth, probability),
    }
    scores = found.scores.loc["ring", split]
    for name, value in expected.items():
        assert scores.loc[name, "value"] == pytest.approx(value, abs=1e-5), name
    assert 0.6 < scores.loc["accuracy", "value"] < 1
    assert scores.loc["log_loss", "constant"] == pytest.approx(metrics.log_loss(truth, share), abs=1e-5)
    assert scores.loc["auc", "constant"] == 0.5
    assert (scores["galaxies"] == len(table)).all()
    counts = found.confusion.query("subset == @split")
    assert list(counts["count"]) == list(metrics.confusion_matrix(truth, called).ravel())
    assert list(counts["true"]) == ["no ring", "no ring", "ring", "ring"]


def test_scores_of_several_labels_are_scikit_learns(tmp_path):
    fits = write_fits(tmp_path, [KIND, SIZE])
    found = run(tmp_path, fits)
    table = of_split(found, "test")
    truth = table["type"].astype(int)
    probabilities = table[[f"{name}_predicted" for name in KIND.outputs]].to_numpy()
    called = probabilities.argmax(axis=1)
    averages = metrics.precision_recall_fscore_support(truth, called, average="weighted", zero_division=0)[:3]
    expected = dict(zip(("precision", "recall", "f1"), averages, strict=True))
    expected["accuracy"] = metrics.accuracy_score(truth, called)
    expected["auc"] = metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    expected["log_loss"] = metrics.log_loss(truth, probabilities, labels=range(4))
    scores = found.scores.loc["type", "test"]["value"]
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-5), name
    size, value = table["size"], table["size_predicted"]
    scores = found.scores.loc["size", "test"]
    expected = {
        "rmse": metrics.root_mean_squared_error(size, value),
        "mae": metrics.mean_absolute_error(size, value),
        "r2": metrics.r2_score(size, value),
        "bias": (value - size).mean(),
    }
    for name, value in expected.items():
        assert scores.loc[name, "value"] == pytest.approx(value, abs=1e-4), name
    known = fits.read("train")["size"].mean()
    assert scores.loc["mae", "constant"] == pytest.approx(np.abs(size - known).mean(), abs=1e-4)
    assert set(found.confusion["question"]) == {"type"}


def test_votes_and_other_labels_have_the_scores_that_each_has_alone(tmp_path):
    labels = [SIZE, VOTES, RING]
    fits = write_fits(tmp_path, labels)
    found = run(tmp_path, fits)
    questions = ["shape", "edge", "all questions"]
    assert set(found.scores.index.get_level_values("label")) == {"size", "ring", *questions}
    with open_predictions(fits.path) as opened:
        ids, values = opened.id_str, opened.values[:]
    for label, columns in zip(labels, ([0], [1, 2, 3, 4, 5], [6]), strict=True):
        alone = Fits(fits.galaxies)
        path = write_predictions(tmp_path / label.name / "p.hdf5", [label], ids, values[:, columns])
        alone.predictions[""] = path
        scores = run(tmp_path / label.name, alone).scores[["value", "constant"]]
        pd.testing.assert_frame_equal(found.scores.loc[scores.index, ["value", "constant"]], scores)


def test_votes_are_scored_question_by_question(tmp_path):
    fits = write_fits(tmp_path, [VOTES])
    found = run(tmp_path, fits)
    table = of_split(found, "test")
    votes = table[TREE.columns].to_numpy()
    asked = votes[:, 3:].sum(axis=1)
    # The question follows one answer of the first one; exactly one half is not enough.
    chosen = (asked > 0) & (votes[:, 1] > votes[:, :3].sum(axis=1) / 2)
    assert 5 < chosen.sum() < len(table)
    predicted = table[["edge_yes_predicted", "edge_no_predicted"]].to_numpy()[chosen].argmax(axis=1)
    scores = found.scores.loc["edge", "test"]
    assert (scores["galaxies"] == chosen.sum()).all()
    accuracy = metrics.accuracy_score(votes[chosen, 3:].argmax(axis=1), predicted)
    assert scores.loc["accuracy", "value"] == pytest.approx(accuracy, abs=1e-5)
    with open_predictions(fits.path) as opened:
        values = opened.values[:][pd.Index(opened.id_str).get_indexer(table["id_str"])].astype(float)
    nats = sum(-log_predictive(votes[:, q.slice], values[:, q.slice]) for q in TREE.questions)
    loss = found.scores.loc["all questions", "test", "log_loss"]
    assert loss["value"] == pytest.approx(nats.mean(), rel=1e-5)
    assert loss["value"] < loss["constant"]
    assert list(found.confusion["question"].unique()) == ["shape", "edge"]


def test_votes_of_a_weighted_mixture_are_scored_as_those_of_duplicated_components(tmp_path):
    fits = write_fits(tmp_path, [VOTES])
    with open_predictions(fits.path) as opened:
        ids = opened.id_str
    values, weights = some_concentrations(len(ids), TREE, 3), some_shares(len(ids), TREE)
    write_predictions(fits.path, [VOTES], ids, values)
    weigh(fits.path, weights)
    found = run(tmp_path, fits)
    write_predictions(fits.path, [VOTES], ids, duplicated(values, TREE, weights))
    expected = run(tmp_path, fits)
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-5)
    pd.testing.assert_frame_equal(found.scores, expected.scores, rtol=1e-4)


def test_intervals_are_scipys_bootstrap_and_shrink_with_galaxies(tmp_path):
    found = run(tmp_path, write_fits(tmp_path, [SIZE], counts=(50, 20, 100)))
    table = of_split(found, "test")
    error = (table["size_predicted"] - table["size"]).to_numpy()
    row = found.scores.loc["size", "test", "bias"]
    for level, ends in ((0.68, ["low_68", "high_68"]), (0.95, ["low_95", "high_95"])):
        expected = stats.bootstrap(
            (error,), np.mean, confidence_level=level, method="percentile", random_state=3
        ).confidence_interval
        assert list(row[ends]) == pytest.approx(list(expected), abs=0.15 * error.std() / 10 * 2)
    few = found.scores.loc["size", "val", "bias"]
    assert few["high_95"] - few["low_95"] > 1.4 * (row["high_95"] - row["low_95"])
    again = run(tmp_path, write_fits(tmp_path, [SIZE], counts=(50, 20, 100)))
    pd.testing.assert_frame_equal(found.scores, again.scores)


def test_folds_have_each_galaxy_tested_once_and_a_spread(tmp_path):
    names = [f"fold{number}" for number in range(4)]
    found = run(tmp_path, write_fits(tmp_path, [RING], names, counts=(40, 20, 20)))
    table = of_split(found, "test")
    assert len(table) == table["id_str"].nunique() == 80
    each = [
        metrics.accuracy_score(part["ring"], part["ring_predicted"] > 0.5) for _, part in table.groupby("fit")
    ]
    row = found.scores.loc["ring", "test", "accuracy"]
    assert list(row[names]) == pytest.approx(each, abs=1e-5)
    assert row["fold_mean"] == pytest.approx(np.mean(each), abs=1e-5)
    assert row["fold_deviation"] == pytest.approx(np.std(each, ddof=1), abs=1e-5)
    # Each galaxy trains two folds: it is resampled with both, and counted once.
    assert found.scores.loc["ring", "train", "accuracy"]["galaxies"] == 80
    assert (of_split(found, "train").groupby("id_str").size() == 2).all()


def test_classes_that_are_missing_and_single_galaxies_have_no_score(tmp_path):
    fits = write_fits(tmp_path, [RING, KIND, SIZE], counts=(30, 10, 1))
    fits.assign(1, ring=0.0, type=1.0, size=2.5)
    found = run(tmp_path, fits)
    values = found.scores["value"]
    for name in ("auc", "recall"):
        assert np.isnan(values["ring", "val", name])
    assert np.isnan(values["type", "val", "auc"])
    assert np.isnan(values["size", "val", "r2"])
    assert values["type", "val", "recall"] == values["type", "val", "accuracy"]
    assert values["size", "val", "rmse"] > 0
    single = found.scores.xs("test", level="split")
    assert single[["low_68", "high_95"]].isna().all(axis=None)
    assert single.loc["ring", "accuracy"]["value"] in (0, 1)


def test_one_sample_has_no_coverage(tmp_path):
    fits = write_fits(tmp_path, [SIZE], counts=(20, 5, 5))
    with open_predictions(fits.path) as opened:
        ids, values = opened.id_str, opened.values[:, :, :1]
    write_predictions(fits.path, [SIZE], ids, values)
    scores = run(tmp_path, fits).scores["value"]
    assert np.isnan(scores["size", "test", "coverage_90"])
    assert scores["size", "test", "rmse"] > 0


def test_galaxies_whose_image_was_rejected_are_left_out(tmp_path):
    fits = write_fits(tmp_path, [RING])
    with open_predictions(fits.path) as opened:
        ids, values = opened.id_str, opened.values[:]
    kept = ~np.isin(ids, fits.read("test")["id_str"][:7])
    write_predictions(fits.path, [RING], ids[kept], values[kept])
    assert (run(tmp_path, fits).scores.loc["ring", "test"]["galaxies"] == 33).all()


def test_predictions_that_cannot_be_scored_are_an_error(tmp_path):
    fits = write_fits(tmp_path, [RING])
    fits.predictions = {"": tmp_path / "other.hdf5"}
    write_predictions(fits.path, [RING], ["stranger"], np.full((1, 1, 2), 0.5))
    with pytest.raises(UserError, match="none of the galaxies of .* is predicted in it"):
        run(tmp_path, fits)
    write_predictions(fits.path, [Label("bar")], ["g1"], np.full((1, 1, 2), 0.5))
    with pytest.raises(UserError, match="has no column 'bar'"):
        run(tmp_path, fits)
    assert not (tmp_path / "out").exists()


def test_predictions_that_do_not_name_their_labels_are_binary(tmp_path):
    path = write_predictions(tmp_path / "p.hdf5", [RING], ["g1"], np.full((1, 1, 2), 0.5))
    with h5py.File(path, "a") as file:
        del file.attrs["labels"]
    with open_predictions(path) as opened:
        assert labels_of(opened) == [RING]


def test_numbers_may_be_negative_probabilities_not(tmp_path):
    path = write_predictions(tmp_path / "p.hdf5", [SIZE], ["g1"], np.full((1, 1, 2), -3.0))
    with open_predictions(path) as opened:
        assert [block.min() for _, block, _ in opened.blocks()] == [-3]
    path = write_predictions(tmp_path / "p.hdf5", [RING], ["g1"], np.full((1, 1, 2), -3.0))
    with (
        open_predictions(path) as opened,
        pytest.raises(UserError, match="is -3, expected a positive number"),
    ):
        list(opened.blocks())


def test_the_log_names_the_main_score(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="zoolib"):
        found = run(tmp_path, write_fits(tmp_path, [RING]))
    assert f"ring: accuracy {found.scores['value']['ring', 'test', 'accuracy']:.3f} (constant:" in caplog.text


def test_label_counts_become_a_table(tmp_path):
    names = [
        f"labels{count}-{seed}-{start}"
        for count in (20, 100)
        for seed in (0, 1)
        for start in ("finetuned", "scratch")
    ]
    fits = write_fits(tmp_path, [RING], names)
    evaluate_label_counts(fits.galaxies, fits.predictions, tmp_path / "counts.csv")
    table = pd.read_csv(tmp_path / "counts.csv").query("score == 'accuracy'")
    assert len(table) == 8
    row = table.query("labels == 100 and seed == 1 and start == 'scratch'").iloc[0]
    fits.predictions = {"": fits.predictions["labels100-1-scratch"]}
    found = run(tmp_path, fits)
    assert row["value"] == pytest.approx(found.scores["value"]["ring", "test", "accuracy"], abs=1e-5)
    assert table["value"].nunique() > 2


def test_outcomes_of_fewer_galaxies_are_the_same_galaxies(tmp_path):
    found = run(tmp_path, write_fits(tmp_path, [RING]))
    outcome = outcomes(found.labels, of_split(found, "test"))[0]
    chosen = outcome.truth == 1
    assert (outcome.at(chosen).truth == 1).all()
    assert list(outcome.at(chosen).rows) == list(np.flatnonzero(chosen))


@pytest.mark.parametrize("names", [("",), ("fold0", "fold1", "fold2")], ids=["split", "folds"])
def test_recalibrated_numbers_are_covered_and_scored_beside_what_they_were(tmp_path, names):
    fits = write_fits(tmp_path, [SIZE], names, counts=(400, 400, 400))
    for path in fits.predictions.values():
        with h5py.File(path, "r+") as file:
            # Dropout hardly knows how much a number may be wrong.
            values = file["predictions"][:]
            mean = values.mean(axis=2, keepdims=True)
            file["predictions"][:] = mean + (values - mean) / 3
    before = run(tmp_path / "a", fits).scores.loc["size", "test"]
    after = run(tmp_path / "b", fits, recalibrations=recalibrate(tmp_path, fits)).scores.loc["size", "test"]
    levels = {f"coverage_{level}": level / 100 for level in (50, 80, 90, 95)}
    for name, level in levels.items():
        error = np.sqrt(level * (1 - level) * (1 / 400 + 1 / 400))
        assert after.loc[name, "value"] == pytest.approx(level, abs=3 * error)
        assert after.loc[name, "as_trained"] == pytest.approx(before.loc[name, "value"])
        assert before.loc[name, "value"] < level - 3 * error
    for name in ("rmse", "mae", "r2", "bias"):
        assert after.loc[name, "value"] == pytest.approx(before.loc[name, "value"])


def test_recalibrated_classes_keep_their_accuracy_and_lose_calibration_error(tmp_path):
    fits = write_fits(tmp_path, [RING, KIND], counts=(100, 300, 600))
    with h5py.File(fits.path, "r+") as file:
        # All samples agree, and are much too sure.
        values = np.clip(file["predictions"][:].astype(float), 1e-4, 1 - 1e-4)
        values[:] = values[:, :, :1]
        yes = 1 / (1 + ((1 - values[:, :1]) / values[:, :1]) ** 8)
        classes = values[:, 1:] ** 8 / (values[:, 1:] ** 8).sum(axis=1, keepdims=True)
        file["predictions"][:] = np.concatenate([yes, classes], axis=1)
    found = run(tmp_path, fits, recalibrations=recalibrate(tmp_path, fits)).scores
    for label in ("ring", "type"):
        scores = found.loc[label, "test"]
        assert scores.loc["accuracy", "value"] == pytest.approx(
            scores.loc["accuracy", "as_trained"], abs=0.02
        )
        assert scores.loc["log_loss", "value"] < scores.loc["log_loss", "as_trained"] - 0.02
        errors = scores.loc["calibration_error"]
        assert errors["value"] < errors["as_trained"]


def test_votes_are_recalibrated_as_those_of_a_big_model(tmp_path):
    fits = write_fits(tmp_path, [VOTES], counts=(50, 300, 100))
    with h5py.File(fits.path, "r+") as file:
        file["predictions"][:] = 30 * file["predictions"][:]
    found = run(tmp_path, fits, recalibrations=recalibrate(tmp_path, fits)).scores
    losses = found.loc["all questions", "test"].loc["log_loss"]
    assert losses["value"] < losses["as_trained"] - 0.1


@pytest.mark.parametrize("label", [RING, KIND, SIZE, VOTES], ids=lambda label: label.kind)
def test_the_probe_stands_beside_the_model_on_test_alone(tmp_path, label, caplog):
    fits = write_fits(tmp_path, [label], counts=(100, 20, 200))
    ids, table = read_ids(fits), read_catalog(fits.galaxies).table
    # The probe says what the model says, or the truth.
    with open_predictions(fits.path) as opened:
        values = next(opened.blocks())[1].mean(axis=2)[pd.Index(opened.id_str).get_indexer(ids)]
    same = run(tmp_path, fits, probe=write_probe(tmp_path / "p.parquet", fits, [label], [""], values))
    name = "all questions" if label is VOTES else label.name
    score = {"regression": "rmse", "votes": "log_loss"}.get(label.kind, "accuracy")
    if label is not VOTES:
        row = same.scores.loc[name, "test", score]
        assert row["probe"] == pytest.approx(row["value"])
        assert [row["minus_probe_low_95"], row["minus_probe_high_95"]] == pytest.approx([0, 0], abs=1e-12)
    assert same.scores.loc[(name, ["train", "val"]), "probe"].isna().all()
    truth = 1 + 10 * table[label.targets].to_numpy(float)
    if label is KIND:
        truth = np.eye(4)[table["type"].astype(int)]
    elif label is not VOTES:
        truth = table[[label.name]].to_numpy(float)
    with caplog.at_level(logging.WARNING, logger="zoolib"):
        better = run(tmp_path, fits, probe=write_probe(tmp_path / "q.parquet", fits, [label], [""], truth))
    row = better.scores.loc[name, "test", score]
    apart = row["value"] - row["probe"]
    assert row["minus_probe_low_95"] < apart < row["minus_probe_high_95"]
    advice = pd.read_csv(better.output.advice)
    assert list(advice["label"]) == [name]
    assert f"{name}: on test the model is not better than a linear probe" in advice["advice"][0]
    assert advice["advice"][0] in caplog.text
    assert "chance" not in advice["advice"][0]


def read_ids(fits):
    return read_catalog(fits.galaxies).table["id_str"]


def test_a_probe_of_another_task_is_an_error(tmp_path):
    fits = write_fits(tmp_path, [RING])
    ids = read_ids(fits)
    good = pd.DataFrame({"id_str": ids, "fit": "", "ring": 0.5})
    for table, said in ((good.rename(columns={"ring": "bar"}), "no column 'ring'"), (good[1:], "not all")):
        table.to_parquet(tmp_path / "probe.parquet")
        with pytest.raises(UserError, match=f"probe.parquet: has {said}"):
            run(tmp_path, fits, probe=tmp_path / "probe.parquet")


def test_label_counts_have_the_probe_of_the_same_labels(tmp_path):
    names = [f"labels{count}-0-{start}" for count in (20, 100) for start in ("finetuned", "scratch")]
    fits = write_fits(tmp_path, [RING], names)
    probe = write_probe(tmp_path / "p.parquet", fits, [RING], names[::2], np.full((160, 1), 0.7))
    evaluate_label_counts(fits.galaxies, fits.predictions, tmp_path / "counts.csv", probe)
    table = pd.read_csv(tmp_path / "counts.csv").query("score == 'accuracy'")
    assert table["probe"].to_numpy() == pytest.approx(fits.read("test")["ring"].mean(), abs=1e-5)
    assert len(table) == 4


@pytest.mark.parametrize("names", [("",), ("fold0", "fold1", "fold2")], ids=["split", "folds"])
def test_a_training_from_random_weights_stands_beside_the_model(tmp_path, names):
    fits, others = (
        write_fits(tmp_path / place, [RING, SIZE], names, counts=(40, 40, 40), seed=seed)
        for seed, place in enumerate("ab")
    )
    swapped = Fits(fits.galaxies)
    swapped.predictions.update(others.predictions)
    own = run(tmp_path / "own", swapped)
    found = run(tmp_path, fits, scratch=list(others.predictions.values())).scores
    np.testing.assert_allclose(found["scratch"], own.scores["value"])
    assert (found["scratch"] != found["value"]).any()
    with h5py.File(others.path, "r+") as file:
        file["id_str"][0] = "another"
    with pytest.raises(UserError, match="has other galaxies than the predictions beside it"):
        run(tmp_path, fits, scratch=list(others.predictions.values()))
