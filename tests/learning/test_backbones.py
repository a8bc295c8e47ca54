"""Backbones: their inputs, outputs and layers, and timm's weights in them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import timm_models
from zoolib.job.logs import UserError
from zoolib.learning import backbones, models
from zoolib.learning.backbones import ZOO, build_backbone
from zoolib.learning.blocks import nested_layers
from zoolib.weights.timm import set_timm_weights, timm_names

SMALL = (
    "convnext_pico",
    "resnet18",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "convnextv2_atto",
    "vit_tiny_patch16_224",
    "maxvit_tiny_rw_224",
    "maxvit_rmlp_small_rw_224",
)
# Those with operations outside of layers, which no precision policy reaches.
MIXED = ("convnextv2_atto", "vit_tiny_patch16_224", "maxvit_rmlp_small_rw_224")


@pytest.fixture
def shrunk(monkeypatch, name):
    """The zoo with small MaxViTs."""
    monkeypatch.setattr(backbones, "ZOO", timm_models.shrink(ZOO, name))


def random_tensors(backbone, seed=0):
    """Random weights for a backbone, with timm's names, shapes and order of axes."""
    generator = np.random.default_rng(seed)
    shapes = {name: np.array(v.shape)[np.argsort(axes)] for name, (v, axes) in timm_names(backbone).items()}
    return {name: generator.uniform(0.1, 0.5, shape).astype("float32") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_states_what_it_builds(name, monkeypatch):
    """For colour images, with the number of parameters in timm; for grey ones, with fewer in the stem."""
    # Hundreds of millions of random numbers take long, and this test does not need them.
    for initializer in ("RandomNormal", "VarianceScaling"):
        monkeypatch.setattr(keras.initializers, initializer, lambda *about, **more: "zeros")
    keras.utils.clear_session()
    edge = ZOO[name].edge or 64
    backbone = build_backbone(name, edge, 3)
    trained = sum(int(np.prod(weight.shape)) for weight in backbone.trainable_weights)
    assert trained == ZOO[name].parameters
    assert backbone.output_shape == (None, ZOO[name].features)
    if name in SMALL:
        stem = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
        grey = build_backbone(name, edge, 1)
        assert backbone.count_params() - grey.count_params() == 2 * np.prod(stem.kernel.shape) // 3


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in SMALL), *((name, "mixed_float16") for name in MIXED)],
)
@pytest.mark.usefixtures("shrunk")
def test_a_backbone_of_the_zoo_saves_and_loads_in_safe_mode(tmp_path, name, precision):
    edge = ZOO[name].edge or 46
    keras.config.set_dtype_policy(precision)
    try:
        backbone = build_backbone(name, edge, 1, mean=[0.3], std=[0.2])
    finally:
        keras.config.set_dtype_policy("float32")
    set_timm_weights(backbone, name, random_tensors(backbone))
    inputs = keras.Input(backbone.input_shape[1:], name="image")
    network = keras.Model(inputs, backbone(inputs), name="galaxies")
    about = {"kind": "features", "tree": None, "columns": [], "image": {}, "training": {}}
    models.save_model(network, about, tmp_path / "model.keras", tmp_path / "model.json")
    loaded = models.load_model(tmp_path).backbone
    assert all(type(layer).__module__.startswith("keras.") for layer in nested_layers(loaded))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, edge, edge, 1)).astype("float32")
    np.testing.assert_array_equal(loaded(pixels), backbone(pixels))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("shrunk")
def test_a_backbone_of_the_zoo_learns_from_scratch(name):
    """One step of gradient descent with all weights lowers the loss."""
    keras.utils.set_random_seed(3)
    edge = ZOO[name].edge or 32
    backbone = build_backbone(name, edge, 1)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, edge, edge, 1)).astype("float32")
    pixels *= np.linspace(0.1, 1, 4, dtype="float32")[:, None, None, None]
    weights = [weight.value for weight in backbone.trainable_weights]

    def loss():
        return tf.reduce_mean((backbone(pixels, training=True) - 1) ** 2)

    with tf.GradientTape() as tape:
        before = loss()
    gradients = tape.gradient(before, weights)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    norm = tf.linalg.global_norm(gradients)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.assign_sub(0.001 * gradient / norm)
    assert loss() < before


def test_a_black_image_has_gradients():
    """The responses of ConvNeXt V2 are divided by their norm, which is zero here."""
    backbone = build_backbone("convnextv2_atto", 32, 1)
    weights = [weight.value for weight in backbone.trainable_weights]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(backbone(np.zeros((1, 32, 32, 1), "float32"), training=True))
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, weights))


def test_mean_and_standard_deviation_are_of_pixels_from_zero_to_one():
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    for given, expected in (
        ({}, pixels / 255),
        ({"mean": mean, "std": std}, (pixels / 255 - mean) / std),
        ({"std": std}, pixels / 255 / std),
    ):
        scaling = build_backbone("resnet18", 32, 3, **given).layers[1]
        np.testing.assert_allclose(scaling(pixels), expected, atol=1e-5)


def test_weights_of_timm_are_assigned_without_classifier_and_batch_counts():
    backbone = build_backbone("resnet18", 32, 1)
    tensors = random_tensors(backbone)
    tensors |= {"fc.weight": np.ones((1000, 512)), "bn1.num_batches_tracked": np.array(7)}
    set_timm_weights(backbone, "resnet18", tensors)
    kernel, norm = backbone.get_layer("layer2.0.downsample.0"), backbone.get_layer("bn1")
    np.testing.assert_array_equal(kernel.kernel[0, 0], tensors["layer2.0.downsample.0.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(norm.moving_variance, tensors["bn1.running_var"])


def without(key):
    return lambda tensors: tensors.pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("head.norm.bias"), r"have no 'head.norm.bias' \(1 of 126 are missing\)"),
        (
            lambda tensors: tensors.update({"norm_pre.weight": np.ones(512)}),
            r"have 'norm_pre.weight', which convnext_pico does not have \(1 are unknown\)",
        ),
        (
            lambda tensors: tensors.update({"stem.0.weight": np.ones((64, 3, 4, 4))}),
            r"'stem.0.weight' has the shape \(64, 3, 4, 4\), expected \(64, 1, 4, 4\); .*greyscale has 1",
        ),
        (
            lambda tensors: tensors.update({"stages.0.blocks.0.mlp.fc1.weight": np.ones((64, 256, 1, 1))}),
            r"fc1.weight' has the shape \(64, 256, 1, 1\), expected \(256, 64\)",
        ),
    ],
)
def test_weights_that_do_not_fit_end_with_a_message_and_change_nothing(damage, message):
    keras.utils.clear_session()
    backbone = build_backbone("convnext_pico", 32, 1)
    before, tensors = backbone.get_weights()[-1].copy(), random_tensors(backbone)
    damage(tensors)
    with pytest.raises(UserError, match=message):
        set_timm_weights(backbone, "convnext_pico", tensors)
    np.testing.assert_array_equal(backbone.get_weights()[-1], before)


def test_efficientnet_of_keras_has_the_published_size():
    backbone = build_backbone("EfficientNetB0", 64, 1)
    assert backbone.output_shape == (None, 1280)
    # 4,049,571 for colour (keras.applications without its top), minus two bands of the stem (2*3*3*32) and
    # minus the mean and variance of two bands in the normalisation.
    assert backbone.count_params() == 4_049_571 - 2 * 3 * 3 * 32 - 2 * 2


def test_other_backbones_see_rescaled_pixels():
    backbone = build_backbone("MobileNetV2", 32, 3)
    assert any(isinstance(layer, keras.layers.Rescaling) for layer in backbone.layers)


@pytest.mark.parametrize(
    ("name", "edge", "message"),
    [
        ("EfficientNetZ9", 32, "there is no backbone 'EfficientNetZ9'; choose tiny, one of convnext_pico, "),
        (None, 32, "there is no backbone 'None'"),
        ("InceptionV3", 32, "cannot see 32 px"),
        ("resnet18", 30, "resnet18 cannot see 30 px images, it needs 32 px or more"),
        (
            "vit_tiny_patch16_224",
            128,
            "vit_tiny_patch16_224 cannot see 128 px images, only 224 px; set image.final_size to 224, or",
        ),
        ("maxvit_tiny_rw_224", 256, "cannot see 256 px images, only 224 px; set image.final_size to 224"),
    ],
)
def test_wrong_backbones_end_with_a_message(name, edge, message):
    with pytest.raises(UserError, match=message):
        build_backbone(name, edge, 1)
