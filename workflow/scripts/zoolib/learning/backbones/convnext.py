"""ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545) with the sizes and the names of timm.

Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from keras import initializers, layers

EPSILON = 1e-6
# The first factor of each block's contribution (section A.1 of the paper).
FIRST_SCALE = 1e-6


def convnext(x, depths, widths):
    """The layers of a ConvNeXt; average pooling comes before the last normalisation.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.
        depths: blocks of each stage.
        widths: channels of each stage.

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
            x = _block(x, f"{name}.blocks.{block}")
    x = layers.GlobalAveragePooling2D(name="head.global_pool")(x)
    return _norm(x, "head.norm")


def _block(x, name):
    shortcut, width = x, x.shape[-1]
    x = layers.DepthwiseConv2D(7, padding="same", depthwise_initializer=_small(), name=f"{name}.conv_dw")(x)
    x = _norm(x, f"{name}.norm")
    x = layers.Dense(4 * width, kernel_initializer=_small(), name=f"{name}.mlp.fc1")(x)
    x = layers.Activation("gelu", name=f"{name}.mlp.act")(x)
    x = layers.Dense(width, kernel_initializer=_small(), name=f"{name}.mlp.fc2")(x)
    # One factor a channel. Keras has no layer for just this; an einsum that sums over nothing does it.
    x = layers.EinsumDense(
        "hijc,c->hijc",
        output_shape=(*x.shape[1:3], width),
        kernel_initializer=initializers.Constant(FIRST_SCALE),
        name=f"{name}.gamma",
    )(x)
    return layers.Add(name=f"{name}.add")([x, shortcut])


def _patches(x, width, size, name):
    """Non-overlapping patches, one vector a patch."""
    return layers.Conv2D(width, size, strides=size, kernel_initializer=_small(), name=name)(x)


def _norm(x, name):
    return layers.LayerNormalization(epsilon=EPSILON, name=name)(x)


def _small():
    return initializers.RandomNormal(stddev=0.02)
