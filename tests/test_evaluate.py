"""Stage evaluate against scikit-learn and SciPy, on a small survey."""

import json
import logging
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import duplicated, some_shares, weigh
from scipy import stats
from sklearn import metrics
from zoolib import evaluate as stage
from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.job.logs import UserError
from zoolib.posteriors.summary import mean_fractions
from zoolib.posteriors.unseen import marking_learned
from zoolib.predict import predict_chunk

TREE = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk", "star"]},
            "edge": {"answers": ["yes", "no"], "after": "shape_disk"},
            "rare": {"answers": ["a", "b"], "after": "edge_yes"},
        },
    }
)


def some_votes(galaxies, seed=0):
    """Votes down the tree; no volunteer is asked the last question."""
    random = np.random.default_rng(seed)
    totals = random.integers(1, 60, galaxies)
    shape = np.array([random.multinomial(n, random.dirichlet([0.4, 0.6, 0.1])) for n in totals])
    edge = np.array([random.multinomial(n, random.dirichlet([0.5, 0.5])) for n in shape[:, 1]])
    return np.concatenate([shape, edge, np.zeros((galaxies, 2))], axis=1).astype(int)


def catalog_of(path, votes, prefix="g"):
    table = pd.DataFrame(votes, columns=TREE.columns).astype("int32")
    table.insert(0, "id_str", [f"{prefix}{index}" for index in range(len(votes))])
    table.to_parquet(path)
    return path


def predictions_of(path, ids, values, columns, **attributes):
    with h5py.File(path, "w") as file:
        file["predictions"] = values.astype("float32")
        file.create_dataset("id_str", data=list(ids), dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=columns, dtype=h5py.string_dtype())
        file.attrs.update(attributes)
    return path


@pytest.fixture
def survey(tmp_path):
    """600 test galaxies, of which 590 are predicted, in another order and with one more."""
    random = np.random.default_rng(5)
    votes = some_votes(600)
    # Exactly half of the volunteers were asked the second question.
    votes[:12, :5] = [8, 20, 12, 17, 3]
    values = 1 + random.gamma(1, 1, (600, 7, 3)) + votes[:, :, None] * random.uniform(0, 1, (600, 7, 1))
    order = random.permutation(600)[:590]
    ids = [f"g{index}" for index in order] + ["stranger"]
    stored = np.concatenate([values[order], np.ones((1, 7, 3))])
    tree = json.dumps(TREE.to_dict())
    path = predictions_of(tmp_path / "p.hdf5", ids, stored, TREE.columns, kind="concentrations", tree=tree)
    order.sort()
    return SimpleNamespace(
        folder=tmp_path,
        predictions=path,
        test=catalog_of(tmp_path / "test.parquet", votes),
        train=catalog_of(tmp_path / "train.parquet", some_votes(400, 1), "t"),
        votes=votes[order],
        values=values[order].astype("float32"),
    )


def run(survey, min_votes=34, confident=0.8, **rule):
    names = {"scores": "csv", "losses": "csv", "confusion": "csv", "metrics": "json"}
    outputs = {name: survey.folder / "out" / f"{name}.{suffix}" for name, suffix in names.items()}
    output = SimpleNamespace(**outputs)
    stage.evaluate(survey.predictions, survey.test, survey.train, min_votes, confident, output, **rule)
    tables = {name: pd.read_csv(path) for name, path in outputs.items() if path.suffix == ".csv"}
    return SimpleNamespace(metrics=json.loads(outputs["metrics"].read_text()), **tables)


@pytest.mark.parametrize("rule", ["product", "asked"])
@pytest.mark.parametrize("subset", ["all", "confident"])
def test_scores_are_scikit_learns_on_the_papers_galaxies(survey, subset, rule):
    found = run(survey, rule=rule)
    volunteers = survey.votes[:, :3].sum(axis=1)
    fractions = mean_fractions(survey.values, TREE)
    for question in TREE.questions[:2]:
        votes = survey.votes[:, question.slice]
        # The rules of the paper, written out for each galaxy.
        chosen = []
        for galaxy in range(len(votes)):
            asked = votes[galaxy].sum()
            # A question of this tree has one parent: the product is the share that was asked.
            above = (
                asked > 0.5 * volunteers[galaxy] if rule == "product" else asked >= 0.5 * volunteers[galaxy]
            )
            relevant = volunteers[galaxy] >= 34 and above
            sure = relevant and (votes[galaxy] / asked).max() > 0.8
            if sure or (relevant and subset == "all"):
                chosen.append(galaxy)
        truth = votes[chosen].argmax(axis=1)
        predicted = fractions[chosen][:, question.slice].argmax(axis=1)
        row = found.scores.query("question == @question.name and subset == @subset").iloc[0]
        assert row["count"] == row[f"count_{rule}"] == len(chosen) > 20
        assert row["count_product"] < row["count_asked"] or question.name == "shape"
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted), abs=1e-5)
        assert 0.3 < row["accuracy"] <= 1
        # Wilson's ends are the shares from which the accuracy is 1.96 of their own standard errors away.
        low, high = ends = row[["accuracy_low_95", "accuracy_high_95"]].to_numpy(float)
        assert low < row["accuracy"] < high
        away = np.abs(ends - row["accuracy"]) / np.sqrt(ends * (1 - ends) / len(chosen))
        assert away == pytest.approx([1.96, 1.96], abs=1e-3)
        expected = metrics.precision_recall_fscore_support(
            truth, predicted, average="weighted", zero_division=0
        )
        assert list(row[["precision", "recall", "f1"]]) == pytest.approx(list(expected[:3]), abs=1e-5)
        counts = found.confusion.query("question == @question.name and subset == @subset")
        assert list(counts["true"].unique()) == list(question.answers)
        answers = range(len(question.answers))
        matrix = metrics.confusion_matrix(truth, predicted, labels=answers)
        assert list(counts["count"]) == list(matrix.ravel())


def test_a_question_that_nobody_was_asked_has_no_scores(survey):
    found = run(survey)
    rare = found.scores.query("question == 'rare'")
    assert list(rare["count"]) == [0, 0]
    ends = ["accuracy_low_95", "accuracy_high_95"]
    assert rare[["accuracy", "precision", "recall", "f1", *ends]].isna().all(axis=None)
    assert found.losses.set_index("question").loc["rare", ["galaxies", "model", "constant"]].eq(0).all()
    assert found.metrics["all"]["rare"] == {"count": 0, "accuracy": None}


def test_losses_are_scipys(survey):
    found = run(survey).losses.set_index("question")
    total = np.zeros(590)
    for question in TREE.questions[:2]:
        votes, values = survey.votes[:, question.slice], survey.values[:, question.slice].astype(float)
        each = [
            stats.dirichlet_multinomial.pmf(votes, values[:, :, sample], votes.sum(axis=1))
            for sample in range(3)
        ]
        losses = -np.log(np.mean(each, axis=0))
        assert found.loc[question.name, "model"] == pytest.approx(losses.mean(), rel=1e-5)
        assert found.loc[question.name, "galaxies"] == (votes.sum(axis=1) > 0).sum()
        total += losses
    assert found.loc["total", "model"] == pytest.approx(total.mean(), rel=1e-5)
    assert found.loc["total", "galaxies"] == 590
    # The predictions were made from the votes; the constant predictor knows only votes on other galaxies.
    assert found.loc["total", "model"] < found.loc["total", "constant"]


def test_the_constant_predictor_is_one_dirichlet_a_question(survey):
    found = run(survey).losses.set_index("question")
    known = pd.read_parquet(survey.train)[TREE.columns].to_numpy()
    constant = np.asarray(stage.constant_concentrations(tree=TREE, votes=known))
    votes = survey.votes[:, :3]
    losses = -stats.dirichlet_multinomial.logpmf(votes, constant[:3], votes.sum(axis=1))
    assert found.loc["shape", "constant"] == pytest.approx(losses.mean(), rel=1e-5)


def test_no_galaxy_with_so_many_votes_is_a_warning(survey, caplog):
    with caplog.at_level(logging.WARNING, logger="zoolib"):
        found = run(survey, min_votes=1000)
    assert "no galaxy has 1000 votes" in caplog.text
    assert (found.scores["count"] == 0).all()
    assert (found.confusion["count"] == 0).all()
    assert found.metrics["galaxies"] == 590


def test_a_weighted_mixture_is_scored_as_duplicated_components_are(survey):
    with h5py.File(survey.predictions) as file:
        ids, values = list(file["id_str"].asstr()), file["predictions"][:].astype(float)
    weights = some_shares(len(values), TREE)
    equal = run(survey)
    weigh(survey.predictions, weights)
    found = run(survey)
    many = duplicated(values, TREE, weights)
    tree = json.dumps(TREE.to_dict())
    predictions_of(survey.predictions, ids, many, TREE.columns, kind="concentrations", tree=tree)
    expected = run(survey)
    for name in ("scores", "losses", "confusion"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name), rtol=2e-5)
    assert found.metrics["loss"]["model"] != pytest.approx(equal.metrics["loss"]["model"], rel=1e-3)


def test_a_multinomial_head_is_scored_by_its_probabilities(survey):
    values = survey.values.astype(float)
    for question in TREE.questions:
        values[:, question.slice] /= values[:, question.slice].sum(axis=1, keepdims=True)
    ids = [f"g{index}" for index in range(len(values))]
    tree = json.dumps(TREE.to_dict())
    catalog_of(survey.test, survey.votes)
    predictions_of(survey.predictions, ids, values, TREE.columns, kind="probabilities", tree=tree)
    found = run(survey)
    values = values.astype("float32")
    losses = found.losses.set_index("question")["model"]
    for question in TREE.questions[:2]:
        of_galaxies = []
        for votes, chances in zip(survey.votes[:, question.slice], values[:, question.slice], strict=True):
            each = [stats.multinomial.pmf(votes, votes.sum(), p / p.sum()) for p in chances.T.astype(float)]
            of_galaxies.append(-np.log(np.mean(each)))
        assert losses[question.name] == pytest.approx(np.mean(of_galaxies), rel=1e-3)
    volunteers = survey.votes[:, :3].sum(axis=1)
    truth = survey.votes[volunteers >= 34][:, :3].argmax(axis=1)
    predicted = values[volunteers >= 34][:, :3].mean(axis=2).argmax(axis=1)
    row = found.scores.query("question == 'shape' and subset == 'all'").iloc[0]
    assert row["accuracy"] == pytest.approx(np.mean(truth == predicted), abs=1e-5)


def test_missing_predictions_are_logged(survey, caplog):
    with caplog.at_level(logging.INFO, logger="zoolib"):
        run(survey)
    assert "10 of 600 test galaxies have no prediction" in caplog.text


def test_no_galaxy_in_common(survey):
    survey.test = catalog_of(survey.folder / "other.parquet", some_votes(5), "other")
    with pytest.raises(UserError, match="none of its 591 galaxies is among the 5 of"):
        run(survey)
    assert not (survey.folder / "out").exists()


def test_a_catalogue_of_another_tree(survey):
    pd.read_parquet(survey.test).drop(columns="edge_no").to_parquet(survey.test)
    with pytest.raises(UserError, match="the votes 'edge_no' are missing"):
        run(survey)


def test_a_model_is_not_scored_on_the_galaxies_of_its_training(stored, model_folder, tmp_path):
    output = SimpleNamespace(
        **{name: tmp_path / name for name in ("predictions", "rejected", "scores", "losses", "confusion")},
        metrics=tmp_path / "metrics",
    )
    shards = [stored / "val" / f"{number}.json" for number in range(2)]
    predict_chunk(shards, [model_folder], (0, 1), samples=2, views=0, seed=1, output=output)
    catalog = stored / "val.parquet"
    with pytest.raises(UserError, match=f"12 of the 12 galaxies to be scored are .* of {model_folder}, so"):
        stage.evaluate(output.predictions, catalog, catalog, 1, 0.8, output)
    # The same galaxies under names that the model does not know.
    with h5py.File(output.predictions, "a") as file:
        del file["learned"]
        names = [f"other {name}" for name in file["id_str"].asstr()]
        # Longer than the names that the file has room for.
        del file["id_str"]
        file["id_str"] = names
    about = json.loads((model_folder / "model.json").read_text())
    with marking_learned(output.predictions, [(model_folder, about)]) as mark:
        mark(names)
    table = read_catalog(catalog)
    renamed = table.table.assign(id_str="other " + table.table["id_str"])
    write_catalog(Catalog(renamed, table.columns, table.tree), tmp_path / "other.parquet")
    stage.evaluate(output.predictions, *[tmp_path / "other.parquet"] * 2, 1, 0.8, output)
    assert output.metrics.exists()
