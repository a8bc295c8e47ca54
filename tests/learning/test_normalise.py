"""The first layer of a backbone: each `normalise` gives the features of a network that was built so."""

import numpy as np
import pytest
from zoolib.job.logs import UserError
from zoolib.learning import models
from zoolib.learning.backbones import build_backbone
from zoolib.learning.normalise import normalise_pixels, set_normalise

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OWN = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
FOREIGN, ZOOBOT = "hf://owner/encoder", "hf://mwalmsley/zoobot-encoder-resnet18"


def about(source=FOREIGN, kind="features", **image):
    training = {"pretrained": source, "mean": MEAN, "std": STD}
    return {"kind": kind, "image": {"size": 24, "color": True, **image}, "training": training}


def encoder():
    """An imported encoder: its config's mean and std are in its first layer."""
    return build_backbone("tiny", 18, 3, MEAN, STD)


def pixels(channels=3):
    return np.random.default_rng(1).uniform(0, 255, (4, 18, 18, channels)).astype("float32")


def features_of(weights, seen):
    """Features of a network without mean and std, for pixels that were scaled by hand."""
    plain = build_backbone("tiny", 18, seen.shape[-1])
    plain.set_weights(weights)
    return plain.predict_on_batch(seen)


@pytest.mark.parametrize(
    ("wanted", "source", "name", "scaled"),
    [
        ("unit", FOREIGN, "unit", lambda p: p),
        ("unit/255", FOREIGN, "unit/255", lambda p: p / 255),
        ("imagenet", ZOOBOT, "imagenet", lambda p: 255 * (p / 255 - MEAN) / STD),
        ("encoder", ZOOBOT, "encoder", lambda p: 255 * (p / 255 - MEAN) / STD),
        (OWN, FOREIGN, "own", lambda p: 255 * (p / 255 - OWN["mean"]) / OWN["std"]),
        (None, ZOOBOT, "unit", lambda p: p),
        (None, FOREIGN, "encoder", lambda p: 255 * (p / 255 - MEAN) / STD),
    ],
    ids=["unit", "twice", "imagenet", "encoder", "own", "zoobot", "foreign"],
)
def test_an_encoder_sees_the_pixels_that_a_training_asks_for(tmp_path, wanted, source, name, scaled):
    backbone = encoder()
    image = normalise_pixels(backbone, wanted, about(source), "normalise")
    assert image["normalise"]["name"] == name and image["size"] == 24
    expected = features_of(backbone.get_weights(), scaled(pixels()).astype("float32"))
    backbone.save(tmp_path / "model.keras")
    for network in (backbone, models.keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)):
        found = network.predict_on_batch(pixels())
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_unit_and_imagenet_are_exactly_the_networks_that_were_built_so():
    backbone = encoder()
    as_imported = backbone.predict_on_batch(pixels())
    built = {"unit": (None, None), "imagenet": (MEAN, STD)}
    for name, (mean, std) in built.items():
        normalise_pixels(backbone, name, about(), "normalise")
        again = models.keras.Model(backbone.inputs, backbone.outputs)
        expected = build_backbone("tiny", 18, 3, mean, std)
        expected.set_weights(backbone.get_weights())
        difference = again.predict_on_batch(pixels()) - expected.predict_on_batch(pixels())
        assert np.abs(difference).max() == 0
    np.testing.assert_array_equal(again.predict_on_batch(pixels()), as_imported)


def test_a_trained_model_keeps_its_own_pixels_unless_it_is_told():
    seen = {"name": "imagenet", "mean": MEAN, "std": STD}
    for wanted in (None, "encoder"):
        backbone = encoder()
        before = backbone.predict_on_batch(pixels())
        found = normalise_pixels(backbone, wanted, about(ZOOBOT, "probabilities", normalise=seen), "x")
        assert found["normalise"] == seen
        # A model of an older version does not say it.
        older = about(ZOOBOT, "probabilities")
        assert normalise_pixels(backbone, wanted, older, "x") == older["image"]
        np.testing.assert_array_equal(
            models.keras.Model(backbone.inputs, backbone.outputs).predict_on_batch(pixels()), before
        )
    told = normalise_pixels(encoder(), "unit", about(ZOOBOT, "probabilities", normalise=seen), "x")
    assert told["normalise"] == {"name": "unit", "mean": [0.0] * 3, "std": [1.0] * 3}


def test_a_config_without_mean_and_std_is_unit():
    started = about()
    started["training"] |= {"mean": None, "std": None}
    found = normalise_pixels(build_backbone("tiny", 18, 3), "encoder", started, "x")["normalise"]
    assert found == {"name": "encoder", "mean": [0.0] * 3, "std": [1.0] * 3}


def test_a_grey_encoder_has_one_mean(tmp_path):
    backbone = build_backbone("tiny", 18, 1, [0.4], [0.3])
    found = normalise_pixels(backbone, "imagenet", about(), "x")["normalise"]
    assert (found["mean"], found["std"]) == ([pytest.approx(0.449)], [pytest.approx(0.226)])
    seen = 255 * (pixels(1) / 255 - 0.449) / 0.226
    expected = features_of(backbone.get_weights(), seen.astype("float32"))
    np.testing.assert_allclose(backbone.predict_on_batch(pixels(1)), expected, rtol=1e-4, atol=1e-6)


def test_a_network_that_scales_pixels_deeper_inside_is_left_or_refused():
    inner = models.keras.Sequential([models.keras.layers.Rescaling(1 / 255), models.keras.layers.Flatten()])
    inputs = models.keras.Input((18, 18, 3))
    deep = models.keras.Model(inputs, inner(inputs))
    started = about("imagenet")
    assert normalise_pixels(deep, None, started, "x") == started["image"]
    with pytest.raises(
        UserError, match="x: this model scales pixels in layers of its own.*set normalise to enc"
    ):
        set_normalise(deep, [0] * 3, [1] * 3, "x")
