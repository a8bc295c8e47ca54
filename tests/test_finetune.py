"""Finetuning: what moves in each stage, what is kept, and what ends in a sentence."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from zoolib import finetune, models
from zoolib.logs import UserError

TASK = {
    "name": "bright",
    "label": "bright",
    "head": {"units": [8], "dropout": 0.1},
    "learning_rate": 0.02,
    "batch_size": 12,
    "epochs": 15,
    "patience": 15,
    "unfreeze": None,
}


@pytest.fixture(scope="module")
def labelled(stored, tmp_path_factory):
    """Catalogues with the label that the galaxies' brightness decides."""
    folder = tmp_path_factory.mktemp("labelled")
    for name in ("train", "val"):
        table = pd.read_parquet(stored / f"{name}.parquet")[["id_str", "archive", "member", "file_loc"]]
        table["bright"] = [float(int(row[1:]) % 2) for row in table["id_str"]]
        table.to_parquet(folder / f"{name}.parquet")
    return folder


def run(labelled, model_folder, folder, **changes):
    output = SimpleNamespace(
        model=folder / "model.keras", about=folder / "model.json", history=folder / "history.csv"
    )
    finetune.finetune_task(
        train=labelled / "train.parquet",
        validation=labelled / "val.parquet",
        model=model_folder,
        task=TASK | changes,
        seed=1,
        output=output,
        folder=folder,
    )
    return models.load_model(folder), pd.read_csv(folder / "history.csv")


def weights(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.backbone.weights}


def moved(before, after):
    return {path for path in before if np.abs(before[path] - after[path]).max() > 0}


def test_a_frozen_backbone_stays_and_the_head_learns(labelled, model_folder, tmp_path):
    before = weights(models.load_model(model_folder))
    model, history = run(labelled, model_folder, tmp_path)
    assert moved(before, weights(model)) == set()
    assert history["val_loss"].min() < 0.3
    assert set(history["stage"]) == {"head"}
    assert model.about["kind"] == "probabilities"
    assert model.columns == ["bright"]
    assert model.network.output_shape == (None, 1)


def test_an_unfrozen_backbone_moves_but_for_batchnorm(labelled, model_folder, tmp_path):
    before = weights(models.load_model(model_folder))
    stage = {"learning_rate": 0.001, "epochs": 2, "patience": 2}
    model, history = run(labelled, model_folder, tmp_path, epochs=2, unfreeze=stage)
    after = weights(model)
    convolutions = {path for path in before if "conv" in path}
    assert convolutions
    assert moved(before, after) == convolutions
    assert list(history["stage"]) == ["head"] * 2 + ["unfrozen"] * 2
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert all(layer.trainable for layer in finetune.nested_layers(model.backbone))


def test_a_second_stage_that_is_no_better_is_not_kept(labelled, model_folder, tmp_path):
    head, _ = run(labelled, model_folder, tmp_path / "head")
    ruin = {"learning_rate": 10.0, "epochs": 1, "patience": 1}
    both, history = run(labelled, model_folder, tmp_path / "both", unfreeze=ruin)
    losses = history.groupby("stage")["val_loss"].min()
    assert losses["unfrozen"] > losses["head"]
    for one, other in zip(head.network.get_weights(), both.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert both.about["scores"]["val_loss"] == pytest.approx(losses["head"])


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (lambda values: values * 0, "all 40 galaxies have bright = 0; both 0 and 1 are needed"),
        (lambda values: values + (values.index == 4) * 2, "of galaxy 'J4' is 2, expected 0 or 1"),
    ],
)
def test_labels_that_cannot_be_learned_end_in_a_sentence(labelled, model_folder, tmp_path, labels, sentence):
    for name in ("train", "val"):
        table = pd.read_parquet(labelled / f"{name}.parquet")
        table["bright"] = labels(table["bright"])
        table.to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, model_folder, tmp_path / "model")
