"""The layers of a backbone: in blocks from the stem to the top, frozen or free to train."""

import re

import keras

# Layers called after the same stage of an architecture belong to one block.
BLOCK_NAMES = re.compile(
    # timm's names, which the zoo has, then those of keras.applications.
    r"^(stages\.\d+|layer\d+|blocks\.\d+)|(block\d+|conv\d+(?=_block)|stage_\d+|expanded_conv(?:_\d+)?(?=_))"
)
NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)


def blocks_of(backbone):
    """The blocks of a backbone, from the stem to the top.

    Layers whose names have the same stage of the architecture in them are a block (EfficientNet's
    `block5` or `blocks.4`, ResNet's `conv4` or `layer3`, ConvNeXt's `stage_2` or `stages.2`); elsewhere
    each convolution is one, together with the normalisations that follow it.

    Args:
        backbone: keras.Model.

    Returns:
        A list of lists of names of layers with weights.
    """
    blocks, last = [], None
    for layer in nested_layers(backbone):
        if not layer.weights or isinstance(layer, keras.layers.Normalization):
            continue
        match = BLOCK_NAMES.search(layer.name)
        named = match and match.group()
        if blocks and (isinstance(layer, NORMALIZATIONS) and not named or named and named == last):
            blocks[-1].append(layer.name)
        else:
            blocks.append([layer.name])
            last = named
    return blocks


def set_trainable(backbone, names, batchnorm=False):
    """Let some layers of a backbone train, and freeze all others.

    Args:
        backbone: keras.Model.
        names: of the layers that train.
        batchnorm: whether BatchNorm trains, in the frozen part too, as with Flash's `train_bn`; frozen, it
            neither trains nor updates its statistics.
    """
    # A frozen model freezes what is nested in it, whatever that says of itself.
    backbone.trainable = True
    for layer in nested_layers(backbone):
        is_batchnorm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = batchnorm if is_batchnorm else layer.name in names


def nested_layers(model):
    """All layers of a model, those of the models nested in it included.

    Args:
        model: keras.Model.

    Yields:
        keras.Layer.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from nested_layers(layer)
        else:
            yield layer
