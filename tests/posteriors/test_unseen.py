"""No model is scored on galaxies that it has learned from, whichever run predicts them."""

import json
import logging
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import some_survey
from zoolib.data.learned import learned_from
from zoolib.evaluate import evaluate
from zoolib.job.logs import UserError
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.unseen import check_unseen, marking_learned
from zoolib.scores.calibration import calibrate
from zoolib.scores.held_out import held_out

GALAXIES = 300


def model(ids, start=None):
    """`model.json` of a model that has learned from some galaxies."""
    return {"learned_from": learned_from(ids, start)}


@pytest.fixture(scope="module")
def survey(tmp_path_factory, tree):
    """Predictions and a catalogue of the same galaxies."""
    return some_survey(tmp_path_factory.mktemp("survey"), tree, GALAXIES)


@pytest.fixture
def names(survey):
    """Names of the galaxies."""
    return pd.read_parquet(survey.files[1])["id_str"].tolist()


def marked(survey, *abouts):
    """The predictions, by these models; three blocks of galaxies."""
    path = survey.files[0]
    with h5py.File(path, "a") as file:
        file.pop("learned", None)
        ids = file["id_str"].asstr()[:]
    with marking_learned(path, [(f"models/{number}", about) for number, about in enumerate(abouts)]) as mark:
        for block in np.array_split(ids, 3):
            mark(block)
    return path


def scorers(survey, folder):
    """Each that scores votes, as the rules call them."""
    predictions, catalog = survey.files
    output = SimpleNamespace(
        **{
            name: folder / name
            for name in ("scores", "losses", "confusion", "metrics", "coverage", "calibration")
        }
    )
    return {
        "evaluate": lambda: evaluate(predictions, catalog, catalog, 1, 0.8, output),
        "calibrate": lambda: calibrate(predictions, catalog, None, output),
        "held_out": lambda: held_out(predictions, catalog, 0),
    }


@pytest.mark.parametrize("name", ["evaluate", "calibrate", "held_out"])
def test_galaxies_that_a_model_has_learned_from_are_not_scored(survey, names, tmp_path, name):
    marked(survey, model(["other"]), model(names[:7]), model(names[:2]))
    with pytest.raises(
        UserError, match="7 of the 300 galaxies to be scored are in the training .* of models/1,"
    ):
        scorers(survey, tmp_path)[name]()
    assert not list(tmp_path.iterdir())


def test_others_are_scored_and_those_of_a_backbone_are_logged(survey, names, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    marked(survey, model(["other"]), model(["another"]))
    for scorer in scorers(survey, tmp_path).values():
        scorer()
    assert "galaxies to be scored" not in caplog.text
    votes = model(names[:5])
    marked(survey, model(["other"], start=model(["more"], start=votes)))
    scorers(survey, tmp_path)["evaluate"]()
    assert "5 of the 300 galaxies to be scored are in the training of the backbone of models/0" in caplog.text


def test_a_model_that_does_not_say_it_is_a_warning(survey, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    marked(survey, model(["other"]), {})
    scorers(survey, tmp_path)["evaluate"]()
    assert "models/1 does not say which galaxies it has learned from" in caplog.text
    caplog.clear()
    with h5py.File(survey.files[0], "a") as file:
        del file["learned"]
    scorers(survey, tmp_path)["evaluate"]()
    assert "the model does not say which galaxies it has learned from" in caplog.text


def test_damaged_bytes_of_what_was_learned_are_refused(survey, names):
    path = marked(survey, model(names))
    with h5py.File(path) as file:
        where = file["learned"].id.get_chunk_info(0).byte_offset
    content = path.read_bytes()
    path.write_bytes(content[:where] + bytes(4) + content[where + 4 :])
    with (
        pytest.raises(UserError, match="hdf5: which galaxies the models have learned from cannot be read"),
        open_predictions(path) as opened,
    ):
        check_unseen(opened, np.arange(3))
    path.write_bytes(content)


def test_the_parts_of_a_virtual_file_are_asked(tmp_path):
    parts, layout = ("b", "a"), h5py.VirtualLayout((4, 1, 1), dtype="float32")
    for number, part in enumerate(parts):
        ids = [f"{part}{galaxy}" for galaxy in range(2)]
        with h5py.File(tmp_path / f"{part}.hdf5", "w") as file:
            file["predictions"], file["id_str"] = np.ones((2, 1, 1), "float32"), ids
        with marking_learned(tmp_path / f"{part}.hdf5", [("models/0", model(["a1"]))]) as mark:
            mark(ids)
        layout[2 * number : 2 * number + 2] = h5py.VirtualSource(f"{part}.hdf5", "predictions", (2, 1, 1))
    with h5py.File(tmp_path / "predictions.hdf5", "w") as file:
        file.create_virtual_dataset("predictions", layout)
        file["id_str"], file["label_cols"] = ["b0", "b1", "a0", "a1"], ["x"]
        file.attrs.update(kind="values", tree=json.dumps(None))
    with open_predictions(tmp_path / "predictions.hdf5") as opened:
        check_unseen(opened, np.array([0, 1, 2]))
        with pytest.raises(UserError, match="1 of the 1 galaxies"):
            check_unseen(opened, np.array([3]))
