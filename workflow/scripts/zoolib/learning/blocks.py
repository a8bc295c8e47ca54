"""The layers of a backbone: in blocks from the stem to the top, frozen or free to train."""

import re

import keras

# Layers with the name of the same stage of an architecture belong to one block.
BLOCK_NAMES = re.compile(
    # First timm's names, which the zoo uses, then those of keras.applications.
    r"^(stages\.\d+|layer\d+|blocks\.\d+)|(block\d+|conv\d+(?=_block)|stage_\d+|expanded_conv(?:_\d+)?(?=_))"
)
# What a network of attention begins with: patches, and where they are.
STEM = re.compile(r"^(stem\.|patch_embed|cls_token|pos_embed)")
NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)


def blocks_of(backbone):
    """The blocks of a backbone, from the stem to the top.

    Layers whose names contain the same stage of the architecture are a block (EfficientNet's `block5` or
    `blocks.4`, ResNet's `conv4` or `layer3`, ConvNeXt's `stage_2` or `stages.2`). So is each block of a
    vision transformer. Without such names, each convolution is a block, together with the normalisations that
    follow it.

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
        named = "stem" if STEM.match(layer.name) else match and match.group()
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
        batchnorm: True trains all BatchNorm layers, also among frozen layers, as Flash's `train_bn` does. A
            frozen BatchNorm neither trains nor updates its statistics.
    """
    # A frozen model freezes its nested layers too, even those that are set to train.
    backbone.trainable = True
    for layer in nested_layers(backbone):
        is_batchnorm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = batchnorm if is_batchnorm else layer.name in names


def nested_layers(model):
    """All layers of a model, including those of nested models.

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
