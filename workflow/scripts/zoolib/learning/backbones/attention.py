"""Layers of networks that attend: tables that are learned, attention, and its small network.

Layers have the names of timm's modules: timm's weights are assigned by name alone.
"""

from keras import initializers, layers, ops


def learned_table(ones, features, name):
    """Numbers that are learned, the same for all galaxies.

    Keras has no layer for just this. An einsum that sums over nothing does it.

    Args:
        ones: (galaxies or 1, rows), a Keras tensor of ones.
        features: count of the numbers in a row.
        name: of the layer.

    Returns:
        (galaxies or 1, rows, features), a Keras tensor.
    """
    return layers.EinsumDense(
        "nr,rf->nrf", output_shape=(ones.shape[1], features), kernel_initializer=small(), name=name
    )(ones)


def attend(x, heads, name, by_head=False, bias=None):
    """Multi-head attention of places to places (Vaswani et al. 2017, equation 1).

    Args:
        x: (galaxies, places, features), a Keras tensor.
        heads: count; each has features / heads numbers.
        name: of timm's module.
        by_head: how query, key and value lie in the weights: together for each head, or all heads of each.
        bias: (1, heads, places, places), added before the softmax; None adds nothing.

    Returns:
        (galaxies, places, features), a Keras tensor.
    """
    places, features = x.shape[1:]
    size = features // heads
    packed = layers.Dense(3 * features, kernel_initializer=small(), name=f"{name}.qkv")(x)
    shape = (-1, places, heads, 3 * size) if by_head else (-1, places, 3 * heads, size)
    query, key, value = ops.split(ops.reshape(packed, shape), 3, axis=3 if by_head else 2)
    weights = ops.einsum("nqhs,nkhs->nhqk", query * size**-0.5, key)
    weights = weights if bias is None else weights + bias
    # In half precision, exponentials lose too much.
    weights = layers.Softmax(dtype="float32", name=f"{name}.softmax")(weights)
    x = ops.einsum("nhqk,nkhs->nqhs", ops.cast(weights, value.dtype), value)
    x = ops.reshape(x, (-1, places, features))
    return layers.Dense(features, kernel_initializer=small(), name=f"{name}.proj")(x)


def perceive(x, name):
    """The two dense layers that follow attention; between them there are four times as many features."""
    features = x.shape[-1]
    x = layers.Dense(4 * features, kernel_initializer=small(), name=f"{name}.fc1")(x)
    x = layers.Activation("gelu", name=f"{name}.act")(x)
    return layers.Dense(features, kernel_initializer=small(), name=f"{name}.fc2")(x)


def norm(x, name):
    """Layer normalisation over the features."""
    return layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def small():
    """The usual first weights of such networks."""
    return initializers.RandomNormal(stddev=0.02)
