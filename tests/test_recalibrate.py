"""The stage recalibrate: from predicted validation galaxies to a file beside the model, and back."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from drawn import SMALL, mixtures, some_concentrations, some_weights
from stored import files
from zoolib import evaluate, predict, recalibrate
from zoolib.figures.calibration import draw_calibration
from zoolib.job.logs import UserError
from zoolib.job.provenance import hash_of_file
from zoolib.posteriors import recalibration, recalibration_fit
from zoolib.posteriors.files import describe_posteriors, open_predictions, read_described
from zoolib.posteriors.summary import log_predictive
from zoolib.posteriors.writer import predictions_file
from zoolib.scores import calibration

SETTINGS = {"samples": 2, "views": 0, "seed": 3}


@pytest.fixture
def survey(tmp_path):
    """Predictions by two members that are three times too sure, their models, and votes on the galaxies."""
    random = np.random.default_rng(0)
    true = some_concentrations(900, SMALL, 1)[:, :, 0]
    votes = np.zeros((900, 7), int)
    for question in SMALL.questions:
        for galaxy in range(900):
            shares = random.dirichlet(true[galaxy, question.slice])
            votes[galaxy, question.slice] = random.multinomial(20, shares)
    names = [f"g{number}" for number in range(900)]
    # The catalogue has another order, and one galaxy more.
    order = random.permutation(900)
    table = pd.DataFrame(votes[order], columns=SMALL.columns)
    table.insert(0, "id_str", [names[galaxy] for galaxy in order])
    pd.concat([table, table[:1].assign(id_str="unread")]).to_parquet(tmp_path / "val.parquet")
    models = []
    for member in range(2):
        (tmp_path / str(member)).mkdir()
        models.append(tmp_path / str(member) / "model.keras")
        models[-1].write_bytes(b"PK" + bytes([member]))
    values = 3 * true[:, :, None] * np.exp(0.05 * random.normal(size=(900, 7, 4)))
    about = {"kind": "concentrations", "tree": SMALL.to_dict(), "columns": SMALL.columns}

    def written(path, members, about=about, values=values, weights=None):
        each = [hash_of_file(models[member])[:32] for member in members]
        part = {"models": each[0] if len(each) == 1 else "both", "each_model": json.dumps(each)}
        with predictions_file(path, 900, about, len(members), 2, 0, 3, part) as append:
            append(names, values, weights)
        return path

    one = written(tmp_path / "one.hdf5", [0], values=values[:, :, :2])
    both = written(tmp_path / "both.hdf5", [0, 1])
    return SimpleNamespace(
        folder=tmp_path, models=models, one=one, both=both, votes=votes, values=values, written=written
    )


def recalibrated(survey, member=0, predictions=None):
    output = survey.models[member].with_name("recalibration.json")
    recalibrate.recalibrate_member(
        predictions or survey.one,
        survey.models[member],
        survey.folder / "val.parquet",
        SETTINGS,
        output,
    )
    return output


def pool(values):
    """The samples of a member as one."""
    return np.exp(np.log(values).mean(axis=2, keepdims=True))


def all_blocks(path, recalibrations=None):
    with open_predictions(path, recalibrations) as opened:
        values, weights = zip(*(block[1:] for block in opened.blocks()), strict=True)
        weights = None if weights[0] is None else np.concatenate(weights)
        return np.concatenate(values), weights, opened


def test_what_is_fitted_is_found_beside_the_model_and_improves_the_votes(survey):
    output = recalibrated(survey)
    about = json.loads(output.read_text())
    assert about["checksum"] == hash_of_file(survey.models[0])
    assert {name: about[name] for name in SETTINGS} == SETTINGS and about["galaxies"] == 900
    assert list(about["questions"]) == [question.name for question in SMALL.questions]
    expected = recalibration_fit.fit(survey.votes, survey.values[:, :, :2].astype("float32"), SMALL, 3)
    # Other folds, as the galaxies have another order, but the same model of the same galaxies.
    for name, one in about["questions"].items():
        assert one["kind"] == expected[name]["kind"] == "together"
        assert one["factors"] == pytest.approx(expected[name]["factors"], rel=0.2)
        assert one["factors"] == [pytest.approx(1 / 3, rel=0.4)]
    before, _, _ = all_blocks(survey.one)
    after, weights, opened = all_blocks(survey.one, [output])
    assert weights is None and opened.per_sample == 1
    assert opened.recalibrated == {question.name: ["together"] for question in SMALL.questions}
    for question in SMALL.questions:
        one = about["questions"][question.name]
        expected = one["factors"][0] * pool(before)[:, question.slice]
        np.testing.assert_allclose(after[:, question.slice], expected)
        votes = survey.votes[:, question.slice]
        losses = [-log_predictive(votes, each[:, question.slice]).mean() for each in (before, after)]
        assert losses[0] == pytest.approx(one["before"], abs=1e-3)
        assert losses[1] == pytest.approx(one["after"], abs=5e-3) and losses[1] < losses[0]
    # A second time gives the same bytes.
    text = output.read_bytes()
    assert recalibrated(survey).read_bytes() == text


def test_each_member_gets_its_own_recalibration_by_the_checksum_of_its_model(survey):
    second = survey.models[1].with_name("recalibration.json")
    one = {"kind": "spread", "factors": [0.5, 1, 2], "added": [], "before": 2.0, "after": 1.9}
    alone = {**one, "kind": "leave", "factors": [1.0]}
    questions = {"shape": one, "edge": alone, "bulge": alone}
    second.write_text(json.dumps({"model": hash_of_file(survey.models[1])[:32], "questions": questions}))
    before, _, _ = all_blocks(survey.both)
    after, _, opened = all_blocks(survey.both, [second])
    # The first member has none: its components become three equal ones.
    assert after.shape == (900, 7, 12) and opened.per_sample == 3
    np.testing.assert_allclose(after[:, :, :6], np.repeat(before[:, :, :2], 3, axis=2))
    np.testing.assert_allclose(after[:, :3, 6:9], before[:, :3, 2:3] * np.array([0.5, 1, 2]))
    np.testing.assert_allclose(after[:, 3:, 6:], np.repeat(before[:, 3:, 2:], 3, axis=2))
    first = recalibrated(survey)
    both, _, opened = all_blocks(survey.both, [second, first])
    assert opened.recalibrated["shape"] == ["together", "spread"]
    np.testing.assert_allclose(both, all_blocks(survey.both, [first, second])[0])
    factor = json.loads(first.read_text())["questions"]["edge"]["factors"][0]
    np.testing.assert_allclose(both[:, 3:5, :6], factor * np.repeat(pool(before[:, 3:5, :2]), 6, axis=2))


def ensemble(survey, paths):
    """The stage for an ensemble of both members; returns its file."""
    output = survey.folder / "recalibration.json"
    recalibrate.recalibrate_ensemble(survey.both, paths, survey.folder / "val.parquet", SETTINGS, output)
    return output


def test_an_ensemble_gets_a_factor_after_its_members(survey):
    one = recalibrated(survey)
    # One member is three times too sure, the other much too wide.
    text = json.loads(one.read_text())
    for each in text["questions"].values():
        each["factors"] = [0.1]
    one.write_text(json.dumps(text))
    paths = [one, ensemble(survey, [one])]
    about = json.loads(paths[1].read_text())
    assert about["models"] == [hash_of_file(model)[:32] for model in survey.models]
    assert about["factor"] > 1.1 and about["after"] < about["before"]
    before, after = (all_blocks(survey.both, some)[0] for some in (paths[:1], paths))
    np.testing.assert_allclose(after, about["factor"] * before)
    np.testing.assert_allclose(
        all_blocks(survey.both, paths[1:])[0], about["factor"] * survey.values, rtol=1e-6
    )
    folders, models = [model.parent for model in survey.models], about["models"]
    assert recalibration.beside(folders, models, SMALL) == paths
    # A factor of 1 changes nothing, also where no member has a recalibration.
    paths[1].write_text(json.dumps({**about, "factor": 1.0}))
    np.testing.assert_array_equal(all_blocks(survey.both, paths[1:])[0], all_blocks(survey.both)[0])
    paths[1].write_text(json.dumps(about))
    # One of its members alone is not the ensemble.
    assert recalibration.beside(folders[:1], models[:1], SMALL) == paths[:1]
    with pytest.raises(
        UserError, match="recalibration.json: belongs to an ensemble of other models .*one.hdf5"
    ):
        all_blocks(survey.one, paths)
    for damaged in ('"factor": -1.0', '"factor": "x"', '"factor": NaN'):
        paths[1].write_text(json.dumps(about).replace(f'"factor": {about["factor"]}', damaged))
        with pytest.raises(UserError, match="'factor' is no number above 0"):
            all_blocks(survey.both, paths)


def test_the_flat_catalogue_says_which_questions_are_recalibrated(survey):
    output = recalibrated(survey)
    for name, paths in (("before", []), ("after", [output])):
        describe_posteriors(survey.one, survey.folder / f"{name}.parquet", 0.9, recalibrations=paths)
    before, after = (read_described([survey.folder / f"{name}.parquet"])[0] for name in ("before", "after"))
    kinds = json.loads(pq.read_schema(survey.folder / "after.parquet").metadata[b"recalibrated"])
    assert kinds == {question.name: ["together"] for question in SMALL.questions}
    assert b"recalibrated" not in pq.read_schema(survey.folder / "before.parquet").metadata
    widths = [table["shape_star_high"] - table["shape_star_low"] for table in (before, after)]
    assert (widths[1] > widths[0]).all()
    edge = pool(all_blocks(survey.one)[0])[:, 3:5, 0]
    np.testing.assert_allclose(after["edge_yes_fraction"], edge[:, 0] / edge.sum(axis=1), atol=1e-6)
    with pytest.raises(UserError, match="recalibrated"):
        read_described([survey.folder / "before.parquet", survey.folder / "after.parquet"])


def test_a_mixture_head_is_recalibrated_with_its_weights(survey):
    weights = some_weights(900, SMALL, 2, 2)
    path = survey.written(survey.folder / "mixed.hdf5", [0], mixtures(SMALL, 2), survey.values, weights)
    output = recalibrated(survey, predictions=path)
    values, shares, opened = all_blocks(path, [output])
    questions = json.loads(output.read_text())["questions"]
    pieces = max(len(one["factors"]) for one in questions.values())
    samples = 1 if questions["shape"]["pooled"] else 2
    assert (opened.per_sample, values.shape[2]) == (2 * pieces, 2 * pieces * samples)
    np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-6)
    assert all(len(one["added"]) in (0, 2) for one in questions.values())


def test_a_recalibration_of_another_model_is_refused_and_so_is_a_damaged_one(survey):
    output = recalibrated(survey)
    text = output.read_text()
    survey.models[0].write_bytes(b"PK trained again")
    other = survey.written(survey.folder / "again.hdf5", [0, 1])
    with pytest.raises(UserError, match="recalibration.json: belongs to another model.keras .*again.hdf5"):
        all_blocks(other, [output])
    for damaged, words in [
        ("", "cannot be read as a recalibration"),
        ("[]", "cannot be read as a recalibration"),
        (text[: len(text) // 2], "cannot be read as a recalibration"),
        (text.replace('"edge"', '"angle"'), "'edge'"),
        (text.replace('"added": []', '"added": [2]'), "impossible numbers for 'shape'"),
        (text.replace('"factors": [', '"factors": [-1, 2, '), "impossible numbers for 'shape'"),
    ]:
        output.write_text(damaged)
        with pytest.raises(UserError, match=words):
            all_blocks(survey.one, [output])


def test_predictions_that_no_recalibration_can_be_for_are_refused(survey):
    output = recalibrated(survey)
    with h5py.File(survey.folder / "old.hdf5", "w") as file, h5py.File(survey.one) as new:
        for name in new:
            new.copy(name, file)
        file.attrs.update(kind="concentrations", tree=json.dumps(SMALL.to_dict()))
    with pytest.raises(UserError, match="old.hdf5: does not say which models it is of"):
        all_blocks(survey.folder / "old.hdf5", [output])
    about = {"kind": "probabilities", "tree": SMALL.to_dict(), "columns": SMALL.columns}
    path = survey.written(survey.folder / "shares.hdf5", [0], about, survey.values[:, :, :2] / 1000)
    with pytest.raises(UserError, match="has probabilities"):
        all_blocks(path, [output])
    with pytest.raises(UserError, match="predicts probabilities, expected concentrations"):
        recalibrated(survey, predictions=path)


@pytest.mark.parametrize("suffix", [".tfrecord", ".parquet"])
def test_a_trained_model_from_shards_and_from_lists(stored, model_folder, tmp_path, suffix):
    file, about = files(stored, "val", suffix)
    output = SimpleNamespace(predictions=tmp_path / "val.hdf5", rejected=tmp_path / "rejected.csv")
    galaxies = about if suffix == ".tfrecord" else file
    predict.predict_chunk(galaxies, [model_folder], (0, 1), **SETTINGS, output=output)
    path = tmp_path / "recalibration.json"
    recalibrate.recalibrate_member(
        output.predictions, model_folder / "model.keras", stored / "val.parquet", SETTINGS, path
    )
    found = json.loads(path.read_text())
    assert found["checksum"] == hash_of_file(model_folder / "model.keras") and found["galaxies"] == 12
    # Twelve galaxies are too few to change anything.
    assert [(one["kind"], one["pooled"]) for one in found["questions"].values()] == [("leave", False)] * 2
    np.testing.assert_array_equal(
        all_blocks(output.predictions)[0], all_blocks(output.predictions, [path])[0]
    )


def test_python_users_get_the_recalibration_of_the_folder(stored, model_folder, tmp_path):
    for name in ("model.keras", "model.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    before = predict.load(tmp_path).predict(stored / "3.png")
    model = predict.identity_of(predict.load(tmp_path).members)
    one = {"kind": "factor", "factors": [0.1], "added": []}
    text = json.dumps({"model": model, "questions": {"a": one, "b": one}})
    (tmp_path / "recalibration.json").write_text(text)
    after = predict.load(tmp_path).predict(stored / "3.png")
    assert after["a_x_fraction"][0] == pytest.approx(before["a_x_fraction"][0])
    widths = [table["a_x_high"][0] - table["a_x_low"][0] for table in (before, after)]
    assert widths[1] > 1.5 * widths[0]
    (tmp_path / "recalibration.json").write_text(text.replace(model, "0" * 32))
    with pytest.raises(UserError, match="recalibration.json: belongs to another model.keras"):
        predict.load(tmp_path)


def test_scores_and_coverage_say_what_was_before(survey):
    path, output = survey.folder / "val.parquet", recalibrated(survey)
    outputs = {name: survey.folder / name for name in ("scores", "losses", "confusion", "metrics")}
    evaluate.evaluate(*(survey.one, path, path, 5, 0.8, SimpleNamespace(**outputs)), recalibrations=[output])
    losses = pd.read_csv(outputs["losses"]).set_index("question")
    assert list(losses) == ["galaxies", "model", "as_trained", "constant"]
    found = json.loads(output.read_text())["questions"]
    for name, one in found.items():
        assert losses.loc[name, "as_trained"] == pytest.approx(one["before"], abs=1e-3)
        assert losses.loc[name, "model"] < losses.loc[name, "as_trained"]
    metrics = json.loads(outputs["metrics"].read_text())["loss"]
    assert metrics["as_trained"] == pytest.approx(losses.loc["total", "as_trained"], abs=1e-4)
    tables = []
    for name, paths in (("before", None), ("after", [output])):
        files = [survey.folder / f"{name}-{file}.csv" for file in ("coverage", "calibration")]
        about = SimpleNamespace(coverage=files[0], calibration=files[1])
        calibration.calibrate(survey.one, path, None, about, recalibrations=paths)
        tables.append(pd.read_csv(files[0]))
    together = [table[(table["answer"] == "all") & (table["galaxies"] > 200)] for table in tables]
    worst = [(table["actual"] - table["expected"]).abs().max() for table in together]
    assert worst[0] > 0.1 and worst[1] < worst[0] / 2
    pictures = [survey.folder / "calibration.png"]
    draw_calibration(files[0], files[1], pictures, as_trained=survey.folder / "before-coverage.csv")
    assert pictures[0].stat().st_size > 10_000
