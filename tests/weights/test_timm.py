"""Parity: timm's weights give the same features here as in timm."""

import functools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import timm_models
from zoolib import pretrained
from zoolib.learning import backbones
from zoolib.learning.backbones import build_backbone
from zoolib.learning.models import load_model
from zoolib.pretrained import import_backbone
from zoolib.weights.timm import set_timm_weights, timm_names

TOLERANCE = 1e-4


@functools.cache
def missing():
    """Why timm cannot be imported; empty if it can."""
    try:
        timm_models.load_timm()
    except ImportError as error:
        return str(error)
    return ""


@pytest.fixture
def shrunk(monkeypatch, name):
    """The zoo with small MaxViTs."""
    zoo = timm_models.shrink(backbones.ZOO, name)
    for module in (backbones, pretrained):
        monkeypatch.setattr(module, "ZOO", zoo)


@pytest.mark.parametrize(("channels", "edges"), [(3, (64, 98)), (1, (98,))])
@pytest.mark.parametrize("name", timm_models.SMALL)
@pytest.mark.usefixtures("shrunk")
def test_features_of_weights_that_timm_saved_are_timm_s(tmp_path, name, channels, edges):
    """The files are the same for every size: the second size is tested without them, in colour."""
    if missing():
        pytest.skip(f"SKIPPED, NOT TESTED: weights as timm saves them; make env-parity ({missing()})")
    keras.utils.clear_session()
    timm, _ = timm_models.load_timm()
    model = timm_models.random_model(name, channels, shrunk=True)
    # timm's default mean and deviation; a grey encoder has their averages over the colours.
    own = [model.pretrained_cfg[key] for key in ("mean", "std")]
    own = own if channels == 3 else [np.mean(own[0]), np.mean(own[1])]
    if only := backbones.ZOO[name].edge:
        edges = (only,)

    _, theirs = timm_models.settle(model, name, timm_models.images(edges[0], channels), *own)
    timm.models.save_for_hf(model, tmp_path / "timm", safe_serialization=True)
    image = {"size": edges[0], "crop": 1.0, "final_size": edges[0], "color": channels == 3, "encoding": "png"}
    output = SimpleNamespace(model=tmp_path / "model.keras", about=tmp_path / "model.json")
    import_backbone(str(tmp_path / "timm"), output, image)
    loaded = load_model(tmp_path)
    assert loaded.about["training"]["backbone"] == name
    assert timm_models.difference(features(loaded.backbone, channels, edges[0]), theirs) < TOLERANCE

    for edge in edges[1:]:
        # The statistics of BatchNorm are drawn again: what arrives there depends on the size.
        _, theirs = timm_models.settle(model, name, timm_models.images(edge, channels), *own)
        backbone = build_backbone(name, edge, channels, *own)
        set_timm_weights(backbone, name, {key: value.numpy() for key, value in model.state_dict().items()})
        assert timm_models.difference(features(backbone, channels, edge), theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "channels", "edge"),
    [sight for sight in timm_models.STORED if sight[0].startswith(("convnextv2", "vit", "maxvit"))],
)
@pytest.mark.usefixtures("shrunk")
def test_in_half_precision_features_are_nearly_those_of_timm(name, channels, edge):
    """These have operations outside of layers, which no precision policy reaches."""
    backbone, theirs = with_stored_levels(name, channels, edge, "mixed_float16")
    ours = features(backbone, channels, edge)
    assert ours.dtype == "float16"
    assert timm_models.difference(ours.astype("float32"), theirs) < 0.03


def with_stored_levels(name, channels, edge, policy="float32"):
    """Our backbone with the weights of timm's model, drawn again from the seed, and timm's features."""
    keras.utils.clear_session()
    levels, theirs = timm_models.stored_features(name, channels, edge)
    keras.config.set_dtype_policy(policy)
    try:
        backbone = build_backbone(name, edge, channels, *timm_models.preprocessing(channels))
    finally:
        keras.config.set_dtype_policy("float32")
    wanted = timm_names(backbone).items()
    # Convolutions of one pixel in timm draw the same numbers as dense layers here.
    shapes = {key: tuple(np.array(v.shape)[np.argsort(axes)]) for key, (v, axes) in wanted}
    set_timm_weights(backbone, name, timm_models.random_tensors(shapes, name, levels))
    return backbone, theirs


def features(backbone, channels, edge):
    return keras.ops.convert_to_numpy(backbone(timm_models.images(edge, channels), training=False))


@pytest.mark.parametrize(("name", "channels", "edge"), timm_models.STORED)
@pytest.mark.usefixtures("shrunk")
def test_features_are_those_that_timm_gave_and_the_repository_stores(name, channels, edge):
    """The same without timm: the weights are drawn again, the features are stored."""
    backbone, theirs = with_stored_levels(name, channels, edge)
    assert timm_models.difference(features(backbone, channels, edge), theirs) < TOLERANCE
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert bool(norms) == (not name.startswith(("convnext", "vit")))
    if norms:
        # The test can fail: with the epsilon of keras.applications or of PyTorch, features differ too much.
        for layer in norms:
            layer.epsilon = 1e-5 if name.startswith("tf_") else 1e-3
        assert timm_models.difference(features(backbone, channels, edge), theirs) > 10 * TOLERANCE
