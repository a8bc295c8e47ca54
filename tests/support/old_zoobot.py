"""Zoobot's TensorFlow version, as far as its checkpoints need it: the model, in Keras 2, and its variables.

The network is EfficientNetB0 (Tan and Le 2019, https://arxiv.org/abs/1905.11946) with `same` padding and
nothing before its stem: https://github.com/mwalmsley/zoobot/tree/v0.0.3/zoobot/tensorflow/estimators
"""

import numpy as np

# Kernel, repeats, filters in, filters out, expansion, stride.
BLOCKS = (
    (3, 1, 32, 16, 1, 1),
    (3, 2, 16, 24, 6, 2),
    (5, 2, 24, 40, 6, 2),
    (3, 3, 40, 80, 6, 2),
    (5, 3, 80, 112, 6, 1),
    (5, 4, 112, 192, 6, 2),
    (3, 1, 192, 320, 6, 1),
)
DROP_CONNECT = 0.2
NESTED = "layer_with_weights-0/layer_with_weights-0/layer_with_weights-{}/{}"


def old_zoobot(tf_keras, channels, rng):
    """The model in Keras 2, with random weights and random statistics.

    Args:
        tf_keras: the module.
        channels: 1 or 3.
        rng: numpy Generator.

    Returns:
        (tf_keras model whose `save_weights` writes the checkpoint, a function of images in 0-1 that gives
        their 1280 features).
    """
    layers = tf_keras.layers
    effnet = _efficientnet(tf_keras, channels)
    network = tf_keras.Sequential(
        [
            layers.InputLayer((300, 300, channels)),
            layers.RandomRotation(0.5, fill_mode="reflect"),
            layers.RandomFlip(),
            layers.RandomCrop(224, 224),
            tf_keras.Sequential([effnet]),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2, name="top_dropout"),
            layers.Dense(34),
        ]
    )
    randomise(effnet, images_of(75, channels, rng) / 255, rng)
    # An optimiser with its slots, which a checkpoint of a training has.
    network.compile(tf_keras.optimizers.legacy.Adam())
    network.optimizer._create_all_weights(network.trainable_variables)
    return network, lambda images: layers.GlobalAveragePooling2D()(effnet(images, training=False))


def images_of(edge, channels, rng, number=8):
    """Images that differ as galaxies do: in brightness, contrast, colour and grain.

    Args:
        edge: pixels.
        channels: 1 or 3.
        rng: numpy Generator.
        number: how many.

    Returns:
        (number, edge, edge, channels) float32 0-255.
    """
    coarse = rng.uniform(0, 1, (number, edge // 8 + 1, edge // 8 + 1, channels))
    coarse = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :edge, :edge]
    grain = rng.uniform(0, 1, (number, edge, edge, channels))
    share, bright = rng.uniform(0, 1, (2, number, 1, 1, channels))
    return (255 * bright * (share * coarse + (1 - share) * grain)).astype("float32")


def randomise(network, images, rng):
    """Give a network random weights and BatchNorm statistics, with which its features tell images apart.

    With statistics that have nothing to do with what arrives, all images would look alike after some blocks,
    and so would two networks that differ.

    Args:
        network: of Keras 2 or 3.
        images: (images, edge, edge, channels), what it sees.
        rng: numpy Generator.
    """
    norms = [layer for layer in network.layers if type(layer).__name__ == "BatchNormalization"]
    for layer in norms:
        layer.gamma.assign(rng.uniform(0.6, 1.4, layer.gamma.shape))
        layer.beta.assign(rng.normal(0, 0.2, layer.beta.shape))
        layer.momentum = 0.0
    network(images, training=True)
    for layer in norms:
        mean, variance = np.array(layer.moving_mean), np.array(layer.moving_variance)
        layer.moving_mean.assign(mean + 0.1 * np.sqrt(variance) * rng.normal(size=mean.shape))
        layer.moving_variance.assign(variance * rng.uniform(0.8, 1.25, mean.shape))
        layer.momentum = 0.99
    for layer in network.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))


def _efficientnet(tf_keras, channels):
    layers = tf_keras.layers
    inputs = layers.Input((None, None, channels))

    def convolved(x, filters, kernel, stride=1):
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
        return layers.Activation("swish")(layers.BatchNormalization()(x))

    x, number = convolved(inputs, 32, 3, 2), 0
    for kernel, repeats, filters_in, filters_out, expansion, stride in BLOCKS:
        for repeat in range(repeats):
            filters_in, stride = (filters_out, 1) if repeat else (filters_in, stride)
            before, wide = x, filters_in * expansion
            x = convolved(x, wide, 1) if expansion > 1 else x
            x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False)(x)
            x = layers.Activation("swish")(layers.BatchNormalization()(x))
            squeezed = layers.Reshape((1, 1, wide))(layers.GlobalAveragePooling2D()(x))
            squeezed = layers.Conv2D(filters_in // 4, 1, activation="swish")(squeezed)
            x = layers.multiply([x, layers.Conv2D(wide, 1, activation="sigmoid")(squeezed)])
            x = layers.Conv2D(filters_out, 1, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization()(x)
            if repeat:
                x = layers.Dropout(DROP_CONNECT * number / 16, noise_shape=(None, 1, 1, 1))(x)
                x = layers.add([x, before])
            number += 1
    return tf_keras.Model(inputs, convolved(x, 1280, 1))


def checkpoint_of(layers):
    """The variables of a checkpoint with the weights of these layers, named as Keras 2 names them.

    Args:
        layers: of a Keras 3 model, in its order; those without weights are passed over.

    Returns:
        {key: array}
    """
    variables = {}
    for number, layer in enumerate(layer for layer in layers if layer.weights):
        depthwise = "Depthwise" in type(layer).__name__
        for weight in layer.weights:
            name = "depthwise_kernel" if depthwise and weight.name == "kernel" else weight.name
            variables[NESTED.format(number, name)] = np.array(weight)
    return variables


def write_checkpoint(prefix, variables):
    """Write a checkpoint in TensorFlow's format.

    Args:
        prefix: the path without its endings.
        variables: {key: array}, a key with a slash for each step down.
    """
    import tensorflow as tf

    root = tf.train.Checkpoint()
    for key, value in variables.items():
        *steps, name = key.split("/")
        here = root
        for step in steps:
            if not hasattr(here, step):
                setattr(here, step, tf.train.Checkpoint())
            here = getattr(here, step)
        setattr(here, name, tf.Variable(np.asarray(value, "float32")))
    root.write(str(prefix))
