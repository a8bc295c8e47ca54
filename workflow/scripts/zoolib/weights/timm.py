"""Weights that timm (https://github.com/huggingface/pytorch-image-models) keeps, put into our backbones."""

import numpy as np
from keras import layers

from zoolib.job.logs import UserError
from zoolib.learning.blocks import nested_layers

# PyTorch has the channels first; the order of its axes in Keras's arrays.
AXES = {layers.Conv2D: (2, 3, 1, 0), layers.DepthwiseConv2D: (2, 3, 0, 1), layers.Dense: (1, 0)}
NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# A model that was published whole has a classifier, which a backbone ends before.
CLASSIFIERS = ("head.fc.", "fc.", "classifier.")


def set_timm_weights(backbone, name, tensors):
    """Put weights of timm's into a backbone of the zoo.

    The layers of the zoo are called what timm calls its modules, so that nothing needs a table. A
    classifier among the weights, and the number of batches that BatchNorm has seen, are left out.

    Args:
        backbone: of `build_backbone(name, …)`; it is changed.
        name: of the architecture, for the message.
        tensors: {timm's name: numpy array}.

    Raises:
        UserError: a weight missing, left over or of another shape; nothing has been changed then.
    """
    wanted = timm_names(backbone)
    given = {key for key in tensors if not key.endswith(".num_batches_tracked")}
    given = {key for key in given if not key.startswith(CLASSIFIERS)}
    missing, strange = sorted(set(wanted) - given), sorted(given - set(wanted))
    if missing:
        raise UserError(
            f"{name}: the weights have no '{missing[0]}' ({len(missing)} of {len(wanted)} are missing);"
            f" they are not timm's weights of a whole {name}, choose others."
        )
    if strange:
        raise UserError(
            f"{name}: the weights have '{strange[0]}', which {name} has not ({len(strange)} are left over);"
            " they belong to another architecture, choose others."
        )
    values = {
        key: _in_order(key, tensors[key], axes, name, variable) for key, (variable, axes) in wanted.items()
    }
    for key, (variable, _) in wanted.items():
        variable.assign(values[key])


def timm_names(backbone):
    """What timm calls the weights of a backbone.

    Args:
        backbone: of `build_backbone`, a name in `backbones.ZOO`.

    Returns:
        {timm's name: (keras.Variable, the order of timm's axes in it)}.
    """
    found = {}
    for layer in nested_layers(backbone):
        for variable in layer.weights:
            # Layer scale is a number a channel by itself, not the weight of a module.
            own = isinstance(layer, layers.EinsumDense)
            key = layer.name if own else f"{layer.name}.{NAMES[variable.name]}"
            axes = AXES.get(type(layer)) if variable.name == "kernel" else None
            found[key] = variable, axes or tuple(range(len(variable.shape)))
    return found


def _in_order(key, tensor, axes, name, variable):
    """A tensor of timm's as Keras has it."""
    # Some ConvNeXts have convolutions of one pixel where others have dense layers.
    kept = tensor.reshape(tensor.shape[:2]) if tensor.shape[2:] == (1, 1) and len(axes) == 2 else tensor
    expected = tuple(np.array(variable.shape)[np.argsort(axes)].tolist())
    if tuple(kept.shape) != expected:
        raise UserError(
            f"{name}: the weight '{key}' has the shape {tuple(tensor.shape)}, expected {expected}; it is of"
            " another architecture or of another number of channels (greyscale has 1, colour 3)."
        )
    return kept.transpose(axes)
