"""ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385) with the sizes and the names of timm.

The 3 × 3 convolution of a bottleneck has the stride ("version 1.5", which is the usual one today).
Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from keras import initializers, layers

EPSILON = 1e-5


def resnet(x, depths, bottleneck):
    """The layers of a ResNet, average pooling included.

    Args:
        x: (galaxies, edge, edge, channels), a Keras tensor.
        depths: blocks of each stage.
        bottleneck: blocks of three convolutions (50 layers and more) instead of two.

    Returns:
        (galaxies, 512 or 2048), a Keras tensor.
    """
    x = _relu(_conv(x, 64, 7, 2, "conv1", "bn1"), "act1")
    # Nothing is below zero after the activation: the zeros of the padding are never the only maximum.
    x = layers.ZeroPadding2D(1, name="maxpool.padding")(x)
    x = layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            x = _block(x, 64 * 2**stage, stride, bottleneck, f"layer{stage + 1}.{block}")
    return layers.GlobalAveragePooling2D(name="global_pool")(x)


def _block(x, width, stride, bottleneck, name):
    shortcut, wide = x, width * (4 if bottleneck else 1)
    sizes = ((width, 1), (width, 3), (wide, 1)) if bottleneck else ((width, 3), (width, 3))
    if stride > 1 or x.shape[-1] != wide:
        shortcut = _conv(x, wide, 1, stride, f"{name}.downsample.0", f"{name}.downsample.1")
    strided = 2 if bottleneck else 1
    for number, (channels, size) in enumerate(sizes, start=1):
        last = number == len(sizes)
        names = f"{name}.conv{number}", f"{name}.bn{number}"
        x = _conv(x, channels, size, stride if number == strided else 1, *names, silent=last)
        x = x if last else _relu(x, f"{name}.act{number}")
    return _relu(layers.Add(name=f"{name}.add")([x, shortcut]), f"{name}.act{len(sizes)}")


def _conv(x, channels, size, stride, name, norm, silent=False):
    """Convolution and BatchNorm; `silent`: it starts with outputs of 0, so that only the shortcut counts."""
    if stride > 1 and size > 1:
        # Keras's "same" would pad an image with an even edge on one side only.
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x)
    x = layers.Conv2D(
        channels,
        size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(2, "fan_out", "untruncated_normal"),
        name=name,
    )(x)
    gamma = "zeros" if silent else "ones"
    return layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, gamma_initializer=gamma, name=norm)(x)


def _relu(x, name):
    return layers.Activation("relu", name=name)(x)
