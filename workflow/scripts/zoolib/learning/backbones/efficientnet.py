"""EfficientNet-B0 (Tan & Le 2019, https://arxiv.org/abs/1905.11946) with the names of timm.

Unlike `EfficientNetB0` of keras.applications it pads on both sides and has another epsilon, as in PyTorch.
Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from keras import initializers, layers

EPSILON = 1e-5
# (size of the kernel, blocks, channels, expansion, stride of the first block): table 1 of the paper.
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)


def efficientnet_b0(x):
    """The layers of EfficientNet-B0, average pooling included.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.

    Returns:
        (galaxies, 1280), a Keras tensor.
    """
    x = _swish(_norm(_conv(x, 32, 3, 2, "conv_stem"), "bn1"), "bn1.act")
    for stage, (size, depth, channels, expansion, stride) in enumerate(STAGES):
        for block in range(depth):
            x = _block(x, size, channels, expansion, 1 if block else stride, f"blocks.{stage}.{block}")
    x = _swish(_norm(_conv(x, 1280, 1, 1, "conv_head"), "bn2"), "bn2.act")
    return layers.GlobalAveragePooling2D(name="global_pool")(x)


def _block(x, size, channels, expansion, stride, name):
    shortcut, first = x, 1
    last = "conv_pw"
    if expansion > 1:
        x = _conv(x, expansion * x.shape[-1], 1, 1, f"{name}.conv_pw")
        x = _swish(_norm(x, f"{name}.bn1"), f"{name}.bn1.act")
        first, last = 2, "conv_pwl"
    x = _pad(x, size, stride, name)
    x = layers.DepthwiseConv2D(
        size,
        strides=stride,
        padding=_padding(stride),
        use_bias=False,
        depthwise_initializer=_normal(),
        name=f"{name}.conv_dw",
    )(x)
    x = _swish(_norm(x, f"{name}.bn{first}"), f"{name}.bn{first}.act")
    x = _squeeze_and_excite(x, shortcut.shape[-1] // 4, f"{name}.se")
    x = _norm(_conv(x, channels, 1, 1, f"{name}.{last}"), f"{name}.bn{first + 1}")
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}.add")([x, shortcut])
    return x


def _squeeze_and_excite(x, squeezed, name):
    """Weigh the channels by numbers that come from all pixels of the image."""
    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)
    weight = _conv(weight, squeezed, 1, 1, f"{name}.conv_reduce", use_bias=True)
    weight = _swish(weight, f"{name}.act1")
    weight = _conv(weight, x.shape[-1], 1, 1, f"{name}.conv_expand", use_bias=True)
    weight = layers.Activation("sigmoid", name=f"{name}.gate")(weight)
    return layers.Multiply(name=f"{name}.multiply")([x, weight])


def _conv(x, channels, size, stride, name, use_bias=False):
    return layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding=_padding(stride),
        use_bias=use_bias,
        kernel_initializer=_normal(),
        name=name,
    )(_pad(x, size, stride, name))


def _pad(x, size, stride, name):
    # Keras's "same" would pad an image with an even edge on one side only.
    return layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x) if stride > 1 else x


def _padding(stride):
    return "same" if stride == 1 else "valid"


def _norm(x, name):
    return layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, name=name)(x)


def _swish(x, name):
    return layers.Activation("silu", name=name)(x)


def _normal():
    return initializers.VarianceScaling(2, "fan_out", "untruncated_normal")
