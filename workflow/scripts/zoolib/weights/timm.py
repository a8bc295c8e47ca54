"""Weights of timm (https://github.com/huggingface/pytorch-image-models), put into our backbones."""

import numpy as np
from keras import layers

from zoolib.job.logs import UserError
from zoolib.learning.blocks import nested_layers

# PyTorch has the channels first; this is the order of its axes in Keras's arrays.
AXES = {layers.Conv2D: (2, 3, 1, 0), layers.DepthwiseConv2D: (2, 3, 0, 1), layers.Dense: (1, 0)}
NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# A complete published model has a classifier, which is not part of a backbone.
CLASSIFIERS = ("head.fc.", "fc.", "classifier.", "head.weight", "head.bias")


def set_timm_weights(backbone, name, tensors):
    """Put timm's weights into a backbone of the zoo.

    The layers of the zoo have the names of timm's modules, so no table of names is needed. A classifier among
    the weights, and the number of batches that BatchNorm has seen, are not used.

    Args:
        backbone: from `build_backbone(name, …)`; it is changed.
        name: of the architecture, for messages.
        tensors: {timm's name: numpy array}.

    Raises:
        UserError: a weight is missing, unknown or of another shape; the backbone is not changed then.
    """
    wanted = timm_names(backbone)
    given = {key for key in tensors if not key.endswith(".num_batches_tracked")}
    given = {key for key in given if not key.startswith(CLASSIFIERS)}
    missing, unknown = sorted(set(wanted) - given), sorted(given - set(wanted))
    if missing:
        raise UserError(
            f"{name}: the weights have no '{missing[0]}' ({len(missing)} of {len(wanted)} are missing);"
            f" they are not timm's weights of a complete {name}; choose others."
        )
    if unknown:
        raise UserError(
            f"{name}: the weights have '{unknown[0]}', which {name} does not have ({len(unknown)} are"
            " unknown); they belong to another architecture; choose others."
        )
    values = {
        key: _in_order(key, tensors[key], axes, name, variable) for key, (variable, axes) in wanted.items()
    }
    for key, (variable, _) in wanted.items():
        variable.assign(values[key])


def timm_names(backbone):
    """The names of a backbone's weights in timm.

    Args:
        backbone: from `build_backbone`, of a name in `backbones.ZOO`.

    Returns:
        {timm's name: (keras.Variable, the order of timm's axes in it)}.
    """
    found = {}
    for layer in nested_layers(backbone):
        for variable in layer.weights:
            # timm's layer scale and tables are parameters of their own and not a module's weight.
            own = isinstance(layer, layers.EinsumDense) and layer.bias is None
            key = layer.name if own else f"{layer.name}.{NAMES[variable.name]}"
            axes = AXES.get(type(layer)) if variable.name == "kernel" else None
            found[key] = variable, axes or tuple(range(len(variable.shape)))
    return found


def _in_order(key, tensor, axes, name, variable):
    """One of timm's tensors with its axes in Keras's order."""
    # Some ConvNeXts have convolutions of one pixel, others have dense layers instead.
    kept = tensor.reshape(tensor.shape[:2]) if tensor.shape[2:] == (1, 1) and len(axes) == 2 else tensor
    # timm's learned tables have an axis for the galaxies.
    kept = kept[0] if kept.shape[:1] == (1,) and kept.ndim == len(axes) + 1 else kept
    expected = tuple(np.array(variable.shape)[np.argsort(axes)].tolist())
    if tuple(kept.shape) != expected:
        raise UserError(
            f"{name}: the weight '{key}' has the shape {tuple(tensor.shape)}, expected {expected}; it belongs"
            " to another architecture or number of channels (greyscale has 1, colour 3); choose others."
        )
    return kept.transpose(axes)
