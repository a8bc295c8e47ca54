"""The first layer of a backbone, which scales pixels: set as a training asks, and kept with the model.

An encoder is imported once, with the mean and std of its config. Each training then sets its own ones.
"""

import keras
import numpy as np

from zoolib.config.normalise import ENCODER, mean_and_std, usual_normalise
from zoolib.job.logs import UserError, log


def value_of(wanted, about):
    """The value of `normalise` that a training has, and why.

    Args:
        wanted: the value in the configuration; None chooses by where the encoder comes from.
        about: content of `model.json` of the model that the training starts from.

    Returns:
        (a value that is not None, why).
    """
    if wanted is not None:
        return wanted, "the configuration says so"
    if about["kind"] == "features":
        return usual_normalise(about["training"]["pretrained"])
    return ENCODER, "the model to start from was trained with it"


def normalise_pixels(backbone, wanted, about, key, why=None):
    """Let a backbone see the pixels that a training asks for; the log says which, and why.

    Args:
        backbone: keras.Model, of the model that the training starts from; its first layer is changed.
        wanted: a value of `normalise` that is not `probe`; None chooses by where the encoder comes from.
        about: content of `model.json` of that model.
        key: of `normalise`, for messages.
        why: it is wanted; by default because the configuration says so.

    Returns:
        The `image` section of the new model: that of `about`, and in `normalise` what the network does:
        {"name", "mean", "std"}; without it where the network scales pixels in another way.

    Raises:
        UserError: as `set_normalise` and `normalise.mean_and_std`.
    """
    value, reason = value_of(wanted, about)
    found = about["image"].get("normalise")
    if value == ENCODER:
        if about["kind"] == "features" and _first(backbone):
            mean, std = (about["training"].get(name) for name in ("mean", "std"))
            count = backbone.input_shape[-1]
            found = {"name": ENCODER, "mean": mean or [0.0] * count, "std": std or [1.0] * count}
    else:
        mean, std = mean_and_std(value, backbone.input_shape[-1], key)
        set_normalise(backbone, mean, std, key)
        found = {"name": value if isinstance(value, str) else "own", "mean": mean, "std": std}
    shown = "as the model itself does" if not found else "mean {mean}, std {std}".format(**found)
    name = found["name"] if found else value
    log.info("Pixels are scaled by normalise: %s (pixels / 255, %s), because %s", name, shown, why or reason)
    return {**about["image"], **({"normalise": found} if found else {})}


def set_normalise(backbone, mean, std, key):
    """Set what a backbone subtracts from pixels that were divided by 255, and then divides them by.

    Args:
        backbone: keras.Model whose first layer scales pixels, such as those of `backbones.build_backbone`.
            Functions that Keras has compiled before do not change.
        mean: (channels,).
        std: (channels,), > 0.
        key: of `normalise`, for the message.

    Raises:
        UserError: the backbone has no such layer; some of `keras.applications` scale pixels deeper inside.
    """
    layer = _first(backbone)
    if layer is None:
        raise UserError(
            f"{key}: this model scales pixels in layers of its own, which cannot be changed; set normalise to"
            f" {ENCODER}, or start from another model."
        )
    mean, std = np.array(mean, float), np.array(std, float)
    layer.scale, layer.offset = (1 / 255 / std).tolist(), (-mean / std).tolist()


def _first(backbone):
    """The layer that scales pixels; None where the network does it deeper inside."""
    layer = backbone.layers[1]
    return layer if isinstance(layer, keras.layers.Rescaling) else None
