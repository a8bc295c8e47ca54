"""Parity: timm's weights give the features here that they give in timm."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import timm_models
from zoolib.backbones import build_backbone
from zoolib.models import load_model
from zoolib.pretrained import import_backbone
from zoolib.timm_weights import set_timm_weights, timm_names

TOLERANCE = 1e-4
SIGHTS = [(channels, edge) for channels in (3, 1) for edge in timm_models.EDGES]


@functools.cache
def missing():
    """Why timm cannot be asked; empty where it can."""
    try:
        timm_models.load_timm()
    except ImportError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", timm_models.SMALL)
def test_features_of_weights_that_timm_saved_are_timm_s(tmp_path, name):
    if missing():
        pytest.skip(f"SKIPPED, NOT TESTED: weights as timm saves them; make env-parity ({missing()})")
    timm, _ = timm_models.load_timm()
    for channels in (3, 1):
        keras.utils.clear_session()
        model = timm_models.random_model(name, channels)
        timm.models.save_for_hf(model, tmp_path / f"{channels}", safe_serialization=True)
        # A folder says what the encoder was trained with; timm's default in colour.
        mean, std = timm_models.preprocessing(3)
        for edge in timm_models.EDGES:
            folder = tmp_path / f"{channels}-{edge}"
            folder.mkdir()
            image = {"size": edge, "crop": 1.0, "final_size": edge, "color": channels == 3, "encoding": "png"}
            output = SimpleNamespace(model=folder / "model.keras", about=folder / "model.json")
            import_backbone(str(tmp_path / f"{channels}"), output, image)
            loaded = load_model(folder)
            assert loaded.about["training"]["backbone"] == name
            pixels = timm_models.images(edge, channels)
            own = [mean, std] if channels == 3 else [np.mean(mean), np.mean(std)]
            theirs = timm_models.timm_features(model, pixels, *own)
            ours = keras.ops.convert_to_numpy(loaded.backbone(pixels, training=False))
            assert timm_models.difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("name", timm_models.SMALL)
def test_features_are_those_that_timm_once_gave(name):
    """The same without timm: the weights are drawn anew, the features are stored."""
    stored = np.load(timm_models.FEATURES)
    for channels, edge in SIGHTS:
        keras.utils.clear_session()
        backbone = build_backbone(name, edge, channels, *timm_models.preprocessing(channels))
        wanted = timm_names(backbone).items()
        shapes = {key: tuple(np.array(v.shape)[np.argsort(axes)]) for key, (v, axes) in wanted}
        # timm has convolutions of one pixel, which draw the same numbers as dense layers.
        set_timm_weights(backbone, name, timm_models.random_tensors(shapes, name))
        pixels = timm_models.images(edge, channels)
        ours = keras.ops.convert_to_numpy(backbone(pixels, training=False))
        assert timm_models.difference(ours, stored[f"{name} {channels} {edge}"]) < TOLERANCE


def test_the_measure_of_difference_would_see_a_wrong_epsilon():
    """The oracle can fail: BatchNorm's epsilon of keras.applications is far outside the tolerance."""
    stored = np.load(timm_models.FEATURES)
    keras.utils.clear_session()
    backbone = build_backbone("resnet18", 64, 1)
    wanted = timm_names(backbone).items()
    shapes = {key: tuple(np.array(v.shape)[np.argsort(axes)]) for key, (v, axes) in wanted}
    set_timm_weights(backbone, "resnet18", timm_models.random_tensors(shapes, "resnet18"))
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-3
    ours = keras.ops.convert_to_numpy(backbone(timm_models.images(64, 1), training=False))
    assert timm_models.difference(ours, stored["resnet18 1 64"]) > 10 * TOLERANCE
