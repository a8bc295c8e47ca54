"""Backbones: networks that turn the image of a galaxy into numbers that describe it.

The zoo has the architectures of the published Zoobot encoders, as timm builds them, with Keras's own layers
alone. `tiny` is for laptops. Any class of keras.applications can be used too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from keras import layers

from zoolib.job.logs import UserError
from zoolib.learning.backbones.convnext import convnext
from zoolib.learning.backbones.efficientnet import B0, efficientnet, stages_v2
from zoolib.learning.backbones.maxvit import maxvit
from zoolib.learning.backbones.resnet import resnet
from zoolib.learning.backbones.vit import vit

NONE = "no encoder of Zoobot seen"


@dataclass(frozen=True)
class Architecture:
    """An architecture of the zoo.

    Attributes:
        layers: (galaxies, edge, edge, channels) -> (galaxies, features), Keras tensors.
        features: count of the numbers that it gives for a galaxy.
        parameters: count of the weights that train, with three channels.
        input: the images that it can see.
        licence: of the weights of the published Zoobot encoder, as the page of an encoder of the same kind
            states it.
        edge: of the only images that it can see, in pixels; None for any edge from 32 px.
    """

    layers: Callable
    features: int
    parameters: int
    input: str = "any edge from 32 px, 1 or 3 channels; published for 224 px"
    licence: str = "apache-2.0"
    edge: int | None = None


def _convnext(parameters, depths, widths, second=False, **about):
    network = partial(convnext, depths=depths, widths=widths, second=second)
    return Architecture(network, widths[-1], parameters, **about)


def _resnet(parameters, depths, bottleneck):
    features = 2048 if bottleneck else 512
    network = partial(resnet, depths=depths, bottleneck=bottleneck)
    return Architecture(network, features, parameters)


def _efficientnet(parameters, stem, stages, tensorflow=True, **about):
    network = partial(efficientnet, stem=stem, stages=stages, tensorflow=tensorflow)
    return Architecture(network, 1280, parameters, **about)


def _fixed(parameters, network, features, **about):
    return Architecture(
        network, features, parameters, input="224 px only, 1 or 3 channels", edge=224, **about
    )


def _vit(parameters, patch, width):
    # A head has 64 features.
    network = partial(vit, patch=patch, depth=12, width=width, heads=width // 64)
    return _fixed(parameters, network, width, licence=NONE if patch == 16 else "not seen")


def _maxvit(parameters, depths, widths, **options):
    return _fixed(parameters, partial(maxvit, depths=depths, widths=widths, **options), widths[-1])


ZOO = {
    "convnext_pico": _convnext(8_532_672, (2, 2, 6, 2), (64, 128, 256, 512)),
    "convnext_nano": _convnext(14_952_560, (2, 2, 8, 2), (80, 160, 320, 640)),
    "convnext_tiny": _convnext(27_820_128, (3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": _convnext(49_454_688, (3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": _convnext(87_566_464, (3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": _convnext(196_230_336, (3, 3, 27, 3), (192, 384, 768, 1536)),
    "resnet18": _resnet(11_176_512, (2, 2, 2, 2), bottleneck=False),
    "resnet50": _resnet(23_508_032, (3, 4, 6, 3), bottleneck=True),
    "resnet101": _resnet(42_500_160, (3, 4, 23, 3), bottleneck=True),
    "efficientnet_b0": _efficientnet(4_007_548, 32, B0, tensorflow=False, licence="gpl-3.0"),
    "tf_efficientnetv2_b0": _efficientnet(
        5_858_704, 32, stages_v2((1, 2, 2, 3, 5, 8), (16, 32, 48, 96, 112, 192)), licence=NONE
    ),
    "tf_efficientnetv2_s": _efficientnet(
        20_177_488, 24, stages_v2((2, 4, 4, 6, 9, 15), (24, 48, 64, 128, 160, 256))
    ),
    "tf_efficientnetv2_m": _efficientnet(
        52_858_356, 24, stages_v2((3, 5, 5, 7, 14, 18, 5), (24, 48, 80, 160, 176, 304, 512))
    ),
    "tf_efficientnetv2_l": _efficientnet(
        117_234_272, 32, stages_v2((4, 7, 7, 10, 19, 25, 7), (32, 64, 96, 192, 224, 384, 640))
    ),
    "convnextv2_atto": _convnext(3_387_400, (2, 2, 6, 2), (40, 80, 160, 320), second=True, licence=NONE),
    "convnextv2_nano": _convnext(14_982_800, (2, 2, 8, 2), (80, 160, 320, 640), second=True, licence=NONE),
    "convnextv2_tiny": _convnext(27_866_496, (3, 3, 9, 3), (96, 192, 384, 768), second=True, licence=NONE),
    "convnextv2_base": _convnext(
        87_692_800, (3, 3, 27, 3), (128, 256, 512, 1024), second=True, licence="not seen"
    ),
    "vit_tiny_patch16_224": _vit(5_524_416, 16, 192),
    "vit_small_patch16_224": _vit(21_665_664, 16, 384),
    "vit_small_patch8_224": _vit(21_670_272, 8, 384),
    "maxvit_tiny_rw_224": _maxvit(28_544_312, (2, 2, 5, 2), (64, 128, 256, 512)),
    "maxvit_rmlp_small_rw_224": _maxvit(
        64_126_044, (2, 2, 5, 2), (96, 192, 384, 768), perceptron=True, scaled=True
    ),
    "maxvit_rmlp_base_rw_224": _maxvit(
        115_366_788, (2, 6, 14, 2), (96, 192, 384, 768), perceptron=True, hidden=True
    ),
}


def build_backbone(name, edge, channels, mean=None, std=None):
    """An untrained backbone that ends in global average pooling.

    Args:
        name: `tiny`, a name in `ZOO`, or any class of `keras.applications`.
        edge: edge of the model's input in pixels.
        channels: 1 or 3.
        mean: (channels,), subtracted from the pixels after they are scaled to 0-1; None subtracts nothing, as
            in Zoobot. Classes of `keras.applications` scale pixels in their own way and ignore mean and std.
        std: (channels,), the pixels are then divided by it; None for 1.

    Returns:
        keras.Model named `backbone`, (galaxies, edge, edge, channels) float32 0-255 ->
        (galaxies, features).

    Raises:
        UserError: there is no such backbone, or it refuses this input size.
    """
    inputs = layers.Input((edge, edge, channels), name="image")
    if name != "tiny" and name not in ZOO:
        return _application(name, inputs, edge, channels)
    if name in ZOO and edge < 32:
        raise UserError(f"train.backbone: {name} cannot see {edge} px images, it needs 32 px or more.")
    if name in ZOO and ZOO[name].edge not in (None, edge):
        raise UserError(
            f"train.backbone: {name} cannot see {edge} px images, only {ZOO[name].edge} px; set"
            f" image.final_size to {ZOO[name].edge}, or choose another backbone."
        )
    build = _tiny if name == "tiny" else ZOO[name].layers
    return keras.Model(inputs, build(_scaled(inputs, mean, std)), name="backbone")


def _scaled(inputs, mean, std):
    """Pixels scaled from 0-255 to 0-1, minus the mean, divided by the standard deviation."""
    if mean is None and std is None:
        return layers.Rescaling(1 / 255)(inputs)
    mean = np.broadcast_to(0.0 if mean is None else mean, inputs.shape[-1])
    std = np.broadcast_to(1.0 if std is None else std, inputs.shape[-1])
    return layers.Rescaling((1 / 255 / std).tolist(), offset=(-mean / std).tolist())(inputs)


def _tiny(x):
    """Five small convolutions, which learn simulated galaxies in minutes on a laptop."""
    for filters, pool in ((16, True), (32, True), (64, False), (64, True), (128, False)):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        # With Keras's momentum of 0.99, validation scores mean nothing in the first hundreds of steps.
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D()(x) if pool else x
    return layers.GlobalAveragePooling2D()(x)


def _application(name, inputs, edge, channels):
    application = getattr(keras.applications, name, None) if isinstance(name, str) else None
    if not callable(application):
        known = ", ".join(sorted(n for n in dir(keras.applications) if n[0].isupper()))
        raise UserError(
            f"train.backbone: there is no backbone '{name}'; choose tiny, one of {', '.join(ZOO)}, or one of"
            f" keras.applications: {known}."
        )
    try:
        network = application(
            include_top=False, weights=None, input_shape=(edge, edge, channels), pooling="avg"
        )
    except ValueError as error:
        raise UserError(f"train.backbone: {name} cannot see {edge} px images: {error}") from None
    # Some scale pixels themselves; ConvNeXt has only a Normalization for it.
    own = (layers.Rescaling, layers.Normalization)
    rescales = any(isinstance(layer, own) for layer in network.layers[:4])
    scaled = inputs if rescales else layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    return keras.Model(inputs, network(scaled), name="backbone")
