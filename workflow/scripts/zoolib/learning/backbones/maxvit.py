"""MaxViT (Tu et al. 2022, https://arxiv.org/abs/2204.01697) in timm's own variants (`rw`), with its names.

Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

import numpy as np
from keras import layers, ops

from zoolib.learning.backbones.attention import attend, learned_table, norm, perceive, small
from zoolib.learning.backbones.convnext import scale_channels
from zoolib.learning.backbones.efficientnet import squeeze_and_excite

# Pixels along the edge of a window, for images of 224 px.
WINDOW = 7
HEAD = 32
FIRST_SCALE = 1e-6


def maxvit(x, depths, widths, perceptron=False, scaled=False, hidden=False):
    """The layers of a MaxViT, average pooling included.

    Args:
        x: (galaxies, 224, 224, channels), a Keras tensor.
        depths: blocks of each stage.
        widths: features of each stage.
        perceptron: a small network computes the bias of the attention from the distance (`rmlp`); without it,
            each distance has its own.
        scaled: each branch ends with a factor for each channel.
        hidden: a dense layer follows the pooling.

    Returns:
        (galaxies, last width), a Keras tensor.
    """
    x = _conv(x, 32, 3, 2, "stem.conv1")
    x = layers.Activation("silu", name="stem.act")(_batch_norm(x, "stem.norm1"))
    x = _conv(x, 64, 3, 1, "stem.conv2")
    bias_of = _Distances(x, perceptron)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            x = _convolve(x, width, 1 if block else 2, f"{name}.conv")
            for kind in ("attn_block", "attn_grid"):
                x = _attend_in_parts(x, bias_of, kind == "attn_grid", scaled, f"{name}.{kind}")
    if not hidden:
        return layers.GlobalAveragePooling2D(name="head.global_pool")(norm(x, "norm"))
    x = norm(layers.GlobalAveragePooling2D(name="head.global_pool")(x), "head.norm")
    return layers.Dense(
        x.shape[-1], activation="tanh", kernel_initializer=small(), name="head.pre_logits.fc"
    )(x)


def _convolve(x, width, stride, name):
    """An inverted bottleneck, as in EfficientNet, with a normalisation before it."""
    shortcut, narrow = x, x.shape[-1]
    if stride > 1:
        shortcut = layers.AveragePooling2D(stride, name=f"{name}.shortcut.pool")(shortcut)
    if narrow != width:
        shortcut = _conv(shortcut, width, 1, 1, f"{name}.shortcut.expand")
    x = _conv(_batch_norm(x, f"{name}.pre_norm"), 4 * narrow, 1, 1, f"{name}.conv1_1x1")
    x = layers.Activation("silu", name=f"{name}.act1")(_batch_norm(x, f"{name}.norm1"))
    x = _pad(x, 3, stride, f"{name}.conv2_kxk")
    x = layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        depthwise_initializer=small(),
        name=f"{name}.conv2_kxk",
    )(x)
    x = layers.Activation("silu", name=f"{name}.act2")(_batch_norm(x, f"{name}.norm2"))
    x = squeeze_and_excite(x, narrow // 4, f"{name}.se", ("fc1", "fc2"))
    x = _conv(x, width, 1, 1, f"{name}.conv3_1x1")
    return layers.Add(name=f"{name}.add")([x, shortcut])


def _attend_in_parts(x, bias_of, grid, scaled, name):
    """Attention within windows, or, if `grid`, among the pixels at the same place of all windows."""
    _, edge, _, width = x.shape
    count = edge // WINDOW
    # The axes (galaxies, row, row within, column, column within, features); a grid has them the other way.
    sizes = (WINDOW, count) if grid else (count, WINDOW)
    order = (0, 2, 4, 1, 3, 5) if grid else (0, 1, 3, 2, 4, 5)
    parts = ops.transpose(ops.reshape(norm(x, f"{name}.norm1"), (-1, *sizes, *sizes, width)), order)
    parts = ops.reshape(parts, (-1, WINDOW**2, width))
    heads = width // HEAD
    parts = attend(parts, heads, f"{name}.attn", by_head=True, bias=bias_of(heads, f"{name}.attn.rel_pos"))
    parts = ops.reshape(parts, (-1, count, count, WINDOW, WINDOW, width))
    parts = ops.transpose(parts, np.argsort(order).tolist())
    attended = ops.reshape(parts, (-1, edge, edge, width))
    if scaled:
        attended = scale_channels(attended, f"{name}.ls1.gamma", FIRST_SCALE)
    x = layers.Add(name=f"{name}.add1")([x, attended])
    perceived = perceive(norm(x, f"{name}.norm2"), f"{name}.mlp")
    if scaled:
        perceived = scale_channels(perceived, f"{name}.ls2.gamma", FIRST_SCALE)
    return layers.Add(name=f"{name}.add2")([x, perceived])


class _Distances:
    """What each distance between two pixels of a window adds to the attention."""

    def __init__(self, x, perceptron):
        """`x` is any tensor of the network: its graph needs one to begin with."""
        apart = np.arange(1 - WINDOW, WINDOW)
        rows, columns = np.meshgrid(apart, apart, indexing="ij")
        places = np.stack(np.meshgrid(*[np.arange(WINDOW)] * 2, indexing="ij")).reshape(2, -1)
        between = places[:, :, None] - places[:, None, :] + WINDOW - 1
        zero = ops.cast(ops.zeros_like(ops.mean(x)), "float32")
        index = between[0] * len(apart) + between[1]
        self.index = ops.cast(zero, "int32") + index.astype("int32")
        self.perceptron = perceptron
        if perceptron:
            # Logarithms: what is far away needs fewer numbers.
            table = np.stack([rows, columns], axis=-1).reshape(1, -1, 2)
            self.inputs = zero + (np.sign(table) * np.log1p(np.abs(table))).astype("float32")
        else:
            self.inputs = zero + np.ones((1, len(apart) ** 2), "float32")

    def __call__(self, heads, name):
        """(1, heads, places, places), a Keras tensor."""
        if self.perceptron:
            x = layers.Dense(512, activation="relu", name=f"{name}.mlp.fc1")(self.inputs)
            x = layers.Dense(heads, kernel_initializer=small(), name=f"{name}.mlp.fc2")(x)
        else:
            x = learned_table(self.inputs, heads, f"{name}.relative_position_bias_table")
        return ops.transpose(ops.take(x, self.index, axis=1), (0, 3, 1, 2))


def _conv(x, channels, size, stride, name):
    return layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=small(),
        name=name,
    )(_pad(x, size, stride, name))


def _pad(x, size, stride, name):
    # Keras's "same" would pad an image with an even edge on one side only.
    return layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x) if stride > 1 else x


def _batch_norm(x, name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
