"""What a backbone makes of images: the features of galaxies, a few galaxies at a time."""

import keras
import numpy as np
import tensorflow as tf

from zoolib.learning.datasets import central_batches

# Galaxies that are decoded together, and that go through a backbone at once on a GPU.
BLOCK = 128
# The most pixels that go through it at once on a processor, whose caches hold what few images become between
# two layers (measured in docs/speed.md).
PIXELS = 2**20


def images_at_once(edge):
    """How many images of one size go through a backbone at once, a power of two.

    Args:
        edge: of an image, in pixels.

    Returns:
        1 to `BLOCK`.
    """
    if tf.config.list_physical_devices("GPU"):
        return BLOCK
    fit = max(PIXELS // edge**2, 1)
    return min(1 << (fit.bit_length() - 1), BLOCK)


def features_of(backbone, images):
    """The features of images.

    Args:
        backbone: keras.Model, compiled without XLA, which is several times slower on a processor.
        images: (galaxies, edge, edge, channels) float32, 0-255; one or more.

    Returns:
        (galaxies, features), float32.
    """
    count, step = len(images), images_at_once(images.shape[1])
    # All batches have one shape, because each shape is traced again.
    filled = np.pad(images, [(0, -count % step), (0, 0), (0, 0), (0, 0)])
    parts = [backbone.predict_on_batch(filled[start : start + step]) for start in range(0, count, step)]
    return np.concatenate(parts)[:count].astype(np.float32)


def features_of_store(backbone, store, augmentation):
    """The features of the central view of every galaxy of a store.

    Args:
        backbone: keras.Model.
        store: a `datasets.Store`.
        augmentation: {"name", "steps"} of the backbone's training.

    Returns:
        (features (galaxies, features), labels (galaxies, labels)), float32 arrays.
    """
    # A new model of the same layers: this one may be compiled for several devices, or for other pixels.
    network = keras.Model(backbone.inputs, backbone.outputs)
    network.compile(jit_compile=False)
    found = [
        (features_of(network, pixels), labels.numpy())
        for pixels, labels in central_batches(store, augmentation, BLOCK)
    ]
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
