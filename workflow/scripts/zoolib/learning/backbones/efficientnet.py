"""EfficientNet-B0 (Tan & Le 2019, https://arxiv.org/abs/1905.11946) and EfficientNetV2 (Tan & Le 2021,
https://arxiv.org/abs/2104.00298) with the sizes and the names of timm.

Unlike `EfficientNetB0` of keras.applications, `efficientnet_b0` pads on both sides and has another epsilon,
as in PyTorch. timm's `tf_` models pad and have the epsilon as in TensorFlow.
Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from typing import NamedTuple

from keras import initializers, layers


class Stage(NamedTuple):
    """One stage: its kind of block, and what these have.

    `kind` is `mobile` (a depthwise convolution between two of one pixel), `fused` (these are one
    convolution) or `plain` (one convolution alone). Only `mobile` blocks squeeze and excite. `stride` is that
    of the first block.
    """

    kind: str
    size: int
    depth: int
    channels: int
    expansion: int
    stride: int


def _mobile(*rows):
    return tuple(Stage("mobile", *row) for row in rows)


# (size of the kernel, blocks, channels, expansion, stride of the first block): table 1 of the first paper.
B0 = _mobile(
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)


def stages_v2(depths, widths):
    """The stages of an EfficientNetV2: one of `plain` blocks, two of `fused`, then `mobile`.

    Args:
        depths: blocks of each stage, 6 or 7.
        widths: channels of each stage.

    Returns:
        A tuple of Stages.
    """
    kinds = ("plain", "fused", "fused", *["mobile"] * 4)
    expansions = (1, 4, 4, 4, 6, 6, 6)
    strides = (1, 2, 2, 2, 1, 2, 1)
    table = zip(kinds, depths, widths, expansions, strides, strict=False)
    return tuple(Stage(kind, 3, *row) for kind, *row in table)


class _Style(NamedTuple):
    """What timm's models have as in PyTorch, or as in TensorFlow."""

    tensorflow: bool

    @property
    def epsilon(self):
        return 1e-3 if self.tensorflow else 1e-5

    def padding(self, stride):
        return "same" if self.tensorflow or stride == 1 else "valid"

    def pad(self, x, size, stride, name):
        # Keras's "same" pads an image with an even edge on one side only, as TensorFlow does.
        if self.tensorflow or stride == 1:
            return x
        return layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x)

    def norm(self, x, name):
        return layers.BatchNormalization(momentum=0.9, epsilon=self.epsilon, name=name)(x)

    def conv(self, x, channels, size, stride, name):
        return _conv(self.pad(x, size, stride, name), channels, size, name, stride, self.padding(stride))


def efficientnet(x, stem, stages, tensorflow=False):
    """The layers of an EfficientNet, average pooling included.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.
        stem: channels of the first convolution.
        stages: of Stage.
        tensorflow: padding and epsilon as in TensorFlow (timm's `tf_` models), not as in PyTorch.

    Returns:
        (galaxies, 1280), a Keras tensor.
    """
    style = _Style(tensorflow)
    x = _swish(style.norm(style.conv(x, stem, 3, 2, "conv_stem"), "bn1"), "bn1.act")
    blocks = {"mobile": _mobile_block, "fused": _fused_block, "plain": _plain_block}
    for number, stage in enumerate(stages):
        for block in range(stage.depth):
            name, shortcut = f"blocks.{number}.{block}", x
            x = blocks[stage.kind](x, stage._replace(stride=1 if block else stage.stride), name, style)
            if block or stage.stride == 1 and shortcut.shape[-1] == stage.channels:
                x = layers.Add(name=f"{name}.add")([x, shortcut])
    x = _swish(style.norm(style.conv(x, 1280, 1, 1, "conv_head"), "bn2"), "bn2.act")
    return layers.GlobalAveragePooling2D(name="global_pool")(x)


def _mobile_block(x, stage, name, style):
    narrow, first = x.shape[-1], 1
    last = "conv_pw"
    if stage.expansion > 1:
        x = style.conv(x, stage.expansion * narrow, 1, 1, f"{name}.conv_pw")
        x = _swish(style.norm(x, f"{name}.bn1"), f"{name}.bn1.act")
        first, last = 2, "conv_pwl"
    x = style.pad(x, stage.size, stage.stride, name)
    x = layers.DepthwiseConv2D(
        stage.size,
        strides=stage.stride,
        padding=style.padding(stage.stride),
        use_bias=False,
        depthwise_initializer=_normal(),
        name=f"{name}.conv_dw",
    )(x)
    x = _swish(style.norm(x, f"{name}.bn{first}"), f"{name}.bn{first}.act")
    x = squeeze_and_excite(x, narrow // 4, f"{name}.se", ("conv_reduce", "conv_expand"))
    return style.norm(style.conv(x, stage.channels, 1, 1, f"{name}.{last}"), f"{name}.bn{first + 1}")


def _fused_block(x, stage, name, style):
    x = style.conv(x, stage.expansion * x.shape[-1], stage.size, stage.stride, f"{name}.conv_exp")
    x = _swish(style.norm(x, f"{name}.bn1"), f"{name}.bn1.act")
    return style.norm(style.conv(x, stage.channels, 1, 1, f"{name}.conv_pwl"), f"{name}.bn2")


def _plain_block(x, stage, name, style):
    x = style.conv(x, stage.channels, stage.size, stage.stride, f"{name}.conv")
    return _swish(style.norm(x, f"{name}.bn1"), f"{name}.bn1.act")


def squeeze_and_excite(x, squeezed, name, convolutions):
    """Weigh the channels by numbers that come from all pixels of the image.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.
        squeezed: count of the numbers between its two convolutions.
        name: of timm's module.
        convolutions: names of the two.

    Returns:
        A Keras tensor of the same shape.
    """
    reduce, expand = convolutions
    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    weight = _conv(weight, squeezed, 1, f"{name}.{reduce}", use_bias=True)
    weight = _swish(weight, f"{name}.act1")
    weight = _conv(weight, x.shape[-1], 1, f"{name}.{expand}", use_bias=True)
    weight = layers.Activation("sigmoid", name=f"{name}.gate")(weight)
    return layers.Multiply(name=f"{name}.multiply")([x, weight])


def _conv(x, channels, size, name, stride=1, padding="same", use_bias=False):
    return layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=_normal(),
        name=name,
    )(x)


def _swish(x, name):
    return layers.Activation("silu", name=name)(x)


def _normal():
    return initializers.VarianceScaling(2, "fan_out", "untruncated_normal")
