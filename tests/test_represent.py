"""Representations from the pass of a prediction, and those that Python users make."""

from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from stored import files
from zoolib import api, predict
from zoolib.job.logs import UserError
from zoolib.learning import models
from zoolib.learning.familiar import Familiar
from zoolib.likeness.representations import read_representations


@pytest.mark.parametrize("kind", ["features", "pca"])
def test_a_prediction_keeps_what_represent_writes(stored, model_folder, tmp_path, kind):
    output = SimpleNamespace(predictions=tmp_path / "p.hdf5", rejected=tmp_path / "p.csv")
    sidecars = files(stored, "val")[1]
    predict.predict_chunk(sidecars, [model_folder], (0, 1), 2, 0, 1, output, kept=kind)
    with h5py.File(output.predictions) as file:
        kept, names = file["representations"][:], list(file["id_str"].asstr())
    api.represent(stored / "val.parquet", model_folder, tmp_path / "r.hdf5", kind)
    found = read_representations(tmp_path / "r.hdf5")
    assert found.id_str.tolist() == names
    np.testing.assert_allclose(found.values, kept.astype(np.float32), atol=2e-3 * np.abs(kept).max())
    model = models.load_model(model_folder)
    numbers = {"features": model.backbone.output_shape[-1], "pca": len(Familiar(model.about).axes)}
    assert kept.shape == (12, numbers[kind]) and kept.dtype == np.float16


def test_the_coordinates_are_those_of_the_distance(model_folder):
    """Along the axes, the squares over the variances are the axes' part of the Mahalanobis distance."""
    model = models.load_model(model_folder)
    known, features = (
        Familiar(model.about),
        np.random.default_rng(1).random((9, model.backbone.output_shape[-1])),
    )
    along = known.represent(features, "pca")
    squares = (along**2 / known.variances[:-1]).sum(axis=1) / len(known.center)
    assert (squares <= known.distances(features) ** 2 * (1 + 1e-6)).all()
    assert known.represent(features, "none") is None
    assert Familiar({}).represent(features, "pca") is None


def test_predictions_without_representations_have_none(stored, model_folder, tmp_path):
    output = SimpleNamespace(predictions=tmp_path / "p.hdf5", rejected=tmp_path / "p.csv")
    predict.predict_chunk(files(stored, "val")[1], [model_folder], (0, 1), 2, 0, 1, output)
    with h5py.File(output.predictions) as file:
        assert "representations" not in file


def test_an_image_that_cannot_be_read_is_left_out(stored, model_folder, tmp_path, caplog):
    table = pd.read_parquet(stored / "val.parquet")[["id_str", "file_loc", "archive", "member"]]
    table.loc[3, ["file_loc", "archive", "member"]] = [str(tmp_path / "gone.png"), "", ""]
    (tmp_path / "broken.png").write_bytes(b"no image")
    table.loc[5, ["file_loc", "archive", "member"]] = [str(tmp_path / "broken.png"), "", ""]
    table.to_parquet(tmp_path / "list.parquet")
    api.represent(tmp_path / "list.parquet", model_folder, tmp_path / "r.hdf5")
    found = read_representations(tmp_path / "r.hdf5")
    assert set(table["id_str"]) - set(found.id_str) == set(table["id_str"].iloc[[3, 5]])


def test_what_cannot_be_represented_is_a_message(stored, model_folder, tmp_path):
    with pytest.raises(UserError, match="kind is 'both', expected features or pca"):
        api.represent(stored / "val.parquet", model_folder, tmp_path / "r.hdf5", "both")
    with pytest.raises(UserError, match="no image found"):
        api.represent(tmp_path, model_folder, tmp_path / "r.hdf5")
    assert not (tmp_path / "r.hdf5").exists()
