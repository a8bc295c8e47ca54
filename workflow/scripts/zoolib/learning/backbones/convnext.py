"""ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545) and ConvNeXt V2 (Woo et al. 2023,
https://arxiv.org/abs/2301.00808) with the sizes and the names of timm.

Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from keras import initializers, layers, ops

EPSILON = 1e-6
# The first factor of each block's contribution (section A.1 of the paper).
FIRST_SCALE = 1e-6


def convnext(x, depths, widths, second=False):
    """The layers of a ConvNeXt or a ConvNeXt V2; average pooling comes before the last normalisation.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.
        depths: blocks of each stage.
        widths: channels of each stage.
        second: V2, whose blocks normalise the responses and have no factor for each channel.

    Returns:
        (galaxies, last width), a Keras tensor.
    """
    x = _patches(x, widths[0], 4, "stem.0")
    x = _norm(x, "stem.1")
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        name = f"stages.{stage}"
        if stage:
            x = _norm(x, f"{name}.downsample.0")
            x = _patches(x, width, 2, f"{name}.downsample.1")
        for block in range(depth):
            x = _block(x, f"{name}.blocks.{block}", second)
    x = layers.GlobalAveragePooling2D(name="head.global_pool")(x)
    return _norm(x, "head.norm")


def _block(x, name, second):
    shortcut, width = x, x.shape[-1]
    x = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_small(), name=f"{name}.conv_dw")(x)
    x = _norm(x, f"{name}.norm")
    x = layers.Dense(4 * width, kernel_initializer=_small(), name=f"{name}.mlp.fc1")(x)
    x = layers.Activation("gelu", name=f"{name}.mlp.act")(x)
    if second:
        x = _normalise_responses(x, f"{name}.mlp.grn")
    x = layers.Dense(width, kernel_initializer=_small(), name=f"{name}.mlp.fc2")(x)
    if not second:
        x = scale_channels(x, f"{name}.gamma", FIRST_SCALE)
    return layers.Add(name=f"{name}.add")([x, shortcut])


def scale_channels(x, name, first, use_bias=False):
    """One factor a channel, and one number to add.

    Keras has no layer for just this. An einsum that sums over nothing does it.

    Args:
        x: (galaxies, …, channels), a Keras tensor.
        name: of the layer.
        first: the factor before training.
        use_bias: whether there is a number to add; it is 0 before training.

    Returns:
        A Keras tensor of the same shape.
    """
    axes = "hijk"[: len(x.shape) - 1]
    return layers.EinsumDense(
        f"{axes}c,c->{axes}c",
        output_shape=x.shape[1:],
        bias_axes="c" if use_bias else None,
        kernel_initializer=initializers.Constant(first),
        name=name,
    )(x)


def _normalise_responses(x, name):
    """Global response normalisation (equations 1 to 3 of the second paper): channels compete."""
    # Squares are too large for half precision. In a black image they are 0, where a root has no gradient.
    squares = ops.sum(ops.square(ops.cast(x, "float32")), axis=(1, 2), keepdims=True)
    norm = ops.sqrt(ops.maximum(squares, 1e-30))
    share = ops.cast(norm / (ops.mean(norm, axis=-1, keepdims=True) + EPSILON), x.dtype)
    return layers.Add(name=f"{name}.add")([x, scale_channels(x * share, name, 0.0, use_bias=True)])


def _patches(x, width, size, name):
    """Non-overlapping patches, one vector a patch."""
    return layers.Conv2D(width, size, strides=size, kernel_initializer=_small(), name=name)(x)


def _norm(x, name):
    return layers.LayerNormalization(epsilon=EPSILON, name=name)(x)


def _small():
    return initializers.RandomNormal(stddev=0.02)
