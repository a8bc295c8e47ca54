"""Published weights in Keras's formats: Zoobot's TensorFlow checkpoints, and those of ImageNet."""

import os
import re
import sys
from pathlib import Path

import keras
import numpy as np

from zoolib.job.logs import UserError, log
from zoolib.learning.backbones import build_backbone
from zoolib.learning.blocks import nested_layers

# Zoobot's TensorFlow version was trained on images of 300 pixels, cropped to 224.
ZOOBOT_EDGE = 224
# Keras 2 numbers the layers of a model, and of the models nested in it, in the order of the data flow; the
# variables of an optimiser have other names, or .OPTIMIZER_SLOT in them.
LAYER_VARIABLE = re.compile(r"((?:layer_with_weights-\d+/)+)(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
STEM_KERNEL = (3, 3, 32)
HEAD = {"kernel", "bias"}
# Variables that have another name in Keras 3 than in Keras 2.
RENAMED = {"depthwise_kernel": "kernel"}
FETCH = "train.pretrained: imagenet"


def zoobot_checkpoint_backbone(path, edge=ZOOBOT_EDGE):
    """The EfficientNetB0 of a checkpoint that Zoobot's TensorFlow version wrote.

    Its network is that of `keras.applications` with the same weights: ZeroPadding2D before a `valid`
    convolution pads as `same` does, for odd and even sizes. Its input was pixels / 255 and nothing else. Here
    it is the same, because an untrained Normalization changes nothing. The head and the states of the
    optimiser and of the augmentations are not used; the log says so.

    Args:
        path: the prefix that was given to `save_weights`, e.g. `zoobot/checkpoint` for the files
            `checkpoint.index` and `checkpoint.data-00000-of-00001`; or their folder.
        edge: pixels of the backbone's input.

    Returns:
        keras.Model named `backbone`, (galaxies, edge, edge, channels) float32 0-255 -> (galaxies, 1280); 1
        channel for a grey checkpoint (the mean of three colours), 3 for one in colour.

    Raises:
        UserError: there is no checkpoint, or it is damaged or of another model; the message names what is
            missing, unknown, or of another shape.

    Source: https://github.com/mwalmsley/zoobot/tree/v0.0.3/zoobot/tensorflow/estimators
    """
    prefix = _prefix(Path(path))
    variables, shapes = _open(prefix)
    found = _layers_with_weights(shapes)
    if not found:
        raise _another(prefix, f"no layer of a Keras model among its {len(shapes)} variables")
    stem = list(shapes[found[0].get("kernel", next(iter(found[0].values())))])
    if len(stem) != 4 or (*stem[:2], stem[3]) != STEM_KERNEL or stem[2] not in (1, 3):
        key = next(iter(found[0].values()))
        raise _another(
            prefix, f"its first layer ({_short(key)}) has the shape {stem}, not [3, 3, 1 or 3, 32]"
        )
    backbone = build_backbone("EfficientNetB0", edge, stem[2])
    layers = [layer for layer in nested_layers(backbone) if _is_trained(layer)]
    keys = [
        key
        for layer, here in zip(layers, _as_many(found, layers, prefix), strict=True)
        for key in _keys_of(layer, here, shapes, prefix)
    ]
    head = _head(found[len(layers) :], shapes, layers[-1], prefix)
    values = _read(prefix, variables, keys)
    weights = [weight for layer in layers for weight in layer.weights]
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)
    log.info("%s: %d layers of EfficientNetB0, %d channel(s)", prefix, len(layers), stem[2])
    log.info("%s: left out: %s, %s", prefix, head, "the state of the optimiser, the number of steps")
    return backbone


def _prefix(path):
    if Path(f"{path}.index").is_file():
        return path
    inside = sorted(path.glob("*.index")) if path.is_dir() else []
    if len(inside) == 1:
        return inside[0].with_suffix("")
    if inside:
        names = ", ".join(file.stem for file in inside)
        raise UserError(
            f"{path}: has {len(inside)} checkpoints ({names}), expected one; name one of them, such as"
            f" {inside[0].with_suffix('')}."
        )
    raise UserError(
        f"{path}: there is no TensorFlow checkpoint, expected {path}.index or a folder with checkpoint.index"
        " and checkpoint.data-00000-of-00001; give the folder, or the name that was given to save_weights."
    )


def _open(prefix):
    """The checkpoint's reader, and {key: shape}."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        return reader, reader.get_variable_to_shape_map()
    # TensorFlow's own errors, or Python's errors that its C++ code raises instead.
    except Exception as error:
        raise _damaged(prefix, f"{prefix.name}.index", error) from None


def _read(prefix, reader, keys):
    try:
        return [reader.get_tensor(key) for key in keys]
    except Exception as error:
        raise _damaged(prefix, f"{prefix.name}.data-*", error) from None


def _damaged(prefix, file, error):
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{prefix}: the checkpoint cannot be read ({file}: {reason}); one of its files is missing or damaged:"
        " get all its files again."
    )


def _another(prefix, why):
    return UserError(
        f"{prefix}: is not a checkpoint of Zoobot's EfficientNetB0: {why}; choose a checkpoint of an"
        " EfficientNetB0 that Zoobot's TensorFlow version wrote."
    )


def _layers_with_weights(shapes):
    """[{name of a variable: its key}], one dict a layer, in the order of the layers."""
    layers = {}
    for key in shapes:
        if match := LAYER_VARIABLE.fullmatch(key):
            numbers = tuple(int(number) for number in re.findall(r"-(\d+)/", match.group(1)))
            name = RENAMED.get(match.group(2), match.group(2))
            layers.setdefault(numbers, {})[name] = key
    return [layers[numbers] for numbers in sorted(layers)]


def _is_trained(layer):
    return layer.weights and not isinstance(layer, keras.layers.Normalization)


def _as_many(found, layers, prefix):
    """Those of the found layers that belong to the backbone."""
    if len(found) < len(layers):
        first = layers[len(found)].name
        raise _another(
            prefix, f"it has {len(found)} layers with weights, expected {len(layers)}; {first} is missing"
        )
    return found[: len(layers)]


def _keys_of(layer, here, shapes, prefix):
    """The keys of a layer's weights in the order of the weights, each of the right shape."""
    place = _short(next(iter(here.values()))).rpartition("/")[0]
    names = [weight.name for weight in layer.weights]
    if missing := [name for name in names if name not in here]:
        raise _another(prefix, f"{layer.name} ({place}) has no {missing[0]}, only {', '.join(sorted(here))}")
    if unknown := sorted(set(here) - set(names)):
        raise _another(prefix, f"{layer.name} ({place}) has an unknown {unknown[0]}")
    for weight in layer.weights:
        shape = list(shapes[here[weight.name]])
        if shape != list(weight.shape):
            raise _another(
                prefix,
                f"{weight.name} of {layer.name} ({place}) has the shape {shape},"
                f" expected {list(weight.shape)}",
            )
    return [here[name] for name in names]


def _head(rest, shapes, last, prefix):
    """What the log says of the layers after the backbone, which must be dense."""
    for here in rest:
        if set(here) != HEAD or len(shapes[here["kernel"]]) != 2:
            key = _short(next(iter(here.values())))
            raise _another(prefix, f"{key} is unknown after its last layer, {last.name}")
    answers = [f"{shapes[here['kernel']][1]} outputs" for here in rest]
    return f"the head's dense layer(s) ({', '.join(answers)})" if answers else "no head"


def _short(key):
    """A key of a checkpoint without the ending that all keys have."""
    return key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")


def imagenet_backbone(name, edge, channels):
    """A backbone of `keras.applications` with the weights that Keras publishes for ImageNet.

    They come from Keras's cache, `~/.keras/models` or `$KERAS_HOME/models`, or are downloaded. Pixels are
    scaled as in the training of each architecture (its `preprocess_input`).

    Args:
        name: a class of `keras.applications`, such as `EfficientNetB0`.
        edge: pixels of the model's input.
        channels: 3; the weights are for colour images.

    Returns:
        keras.Model named `backbone`, (galaxies, edge, edge, 3) float32 0-255 -> (galaxies, features).

    Raises:
        UserError: not three channels, no such architecture, an architecture that refuses this input size, or
            weights that are not in the cache and cannot be downloaded (the message says which file to put
            where).

    Source: https://keras.io/api/applications/
    """
    if channels != 3:
        raise UserError(
            f"{FETCH} needs colour images (3 channels), and image.color is false ({channels} channel); set"
            " image.color to true, or choose other weights."
        )
    application = getattr(keras.applications, name, None) if isinstance(name, str) else None
    if not callable(application):
        known = ", ".join(sorted(n for n in dir(keras.applications) if n[0].isupper()))
        raise UserError(
            f"{FETCH}: there are no ImageNet weights for train.backbone: {name}; choose one of {known}."
        )
    try:
        network = application(
            include_top=False, weights="imagenet", input_shape=(edge, edge, channels), pooling="avg"
        )
    # A failed download raises a plain Exception or any error of connections, a wrong size a ValueError.
    except Exception as error:
        raise _no_imagenet(name, edge, error) from None
    inputs = keras.Input((edge, edge, channels), name="image")
    return keras.Model(inputs, network(_as_trained(network, application, inputs)), name="backbone")


def _no_imagenet(name, edge, error):
    reason = " ".join(str(error).split())[:300]
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras"), "models")
    if address := re.search(r"URL fetch failure on (\S+/([^/\s]+)): ", reason):
        return UserError(
            f"{FETCH}: the weights of {name} are not in Keras's cache and cannot be downloaded ({reason}); on"
            f" a computer with a network, download {address.group(1)} and copy it to"
            f" {cache / address.group(2)}; a damaged file would be downloaded again."
        )
    return UserError(
        f"{FETCH}: {name} with ImageNet weights does not work for {edge} px images ({reason}); choose"
        f" another size or backbone, or, if a file in {cache} is damaged, delete it and retry."
    )


def _as_trained(network, application, inputs):
    """The images scaled as in the network's training, by one layer; unchanged if the network scales them.

    Architectures differ in what they subtract and divide by, and some have the order blue, green, red. The
    output of Keras's own function for black and for pure colours shows all of this.
    """
    preprocess = sys.modules[application.__module__].preprocess_input
    black_and_colours = 255 * np.eye(4, 3, k=-1, dtype="float32").reshape(4, 1, 1, 3)
    seen = preprocess(black_and_colours)[:, 0, 0]
    offset, scale = seen[0], (seen[1:] - seen[0]) / 255
    if scale[0, 2]:
        # The first kernel is reversed instead of the colours, so that no layer is needed.
        first = next(layer for layer in nested_layers(network) if isinstance(layer, keras.layers.Conv2D))
        first.kernel.assign(keras.ops.flip(first.kernel, axis=2))
        offset, scale = offset[::-1], scale[:, ::-1]
    scale, offset = np.diag(scale).tolist(), offset.tolist()
    if scale == [1, 1, 1] and offset == [0, 0, 0]:
        return inputs
    return keras.layers.Rescaling(scale, offset=offset)(inputs)
