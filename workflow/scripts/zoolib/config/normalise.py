"""How pixels are scaled before a backbone sees them: the values of `normalise`."""

import math

import numpy as np

from zoolib.config.agreement import wrong
from zoolib.config.sources import HUB
from zoolib.job.logs import UserError

# (mean, std) of red, green and blue: of pixels divided by 255, mean is subtracted, then std divides them.
NAMED = {
    # As Zoobot's data library gives them to its PyTorch encoders.
    "unit": ([0.0] * 3, [1.0] * 3),
    # timm's default: the colours of ImageNet.
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    # A loader of Zoobot divided twice for some weeks (https://github.com/mwalmsley/zoobot, commit 54f02bf).
    "unit/255": ([0.0] * 3, [255.0] * 3),
}
ENCODER, PROBE = "encoder", "probe"
# Repositories of Zoobot's author. Their configs have timm's default mean and std, which Zoobot never applied.
ZOOBOT = "mwalmsley/"


def usual_normalise(source):
    """Which pixels an encoder sees if `normalise` is null; this is the only place that decides it.

    Args:
        source: what the encoder was imported from, a text that `sources.kind_of_source` knows.

    Returns:
        (a value of `normalise`, why).
    """
    found = HUB.fullmatch(source)
    if found and found["repository"].startswith(ZOOBOT):
        return "unit", f"encoders of {ZOOBOT}* were trained on pixels from 0 to 1"
    return ENCODER, "its config says so"


def check_normalise(value, key, probe=True):
    """Check a value of `normalise`.

    Args:
        value: of a configuration that is valid by its schema: text, {"mean", "std"} or None.
        key: its key, for the message.
        probe: whether `probe` is a value.

    Raises:
        UserError: an unknown word, or numbers that are no mean and std.
    """
    words = [*NAMED, ENCODER, *[PROBE] * probe]
    if isinstance(value, str) and value not in words:
        more = "" if probe or value != PROBE else "; only tasks have probe"
        raise wrong(
            f"{key} is '{value}', expected one of {', '.join(words)}, null, or a mapping with mean and std;"
            f" fix it{more}."
        )
    if isinstance(value, dict) and not (set(value) == {"mean", "std"} and _are_numbers(**value)):
        found = ", ".join(f"{name} {numbers}" for name, numbers in value.items()) or "nothing"
        raise wrong(
            f"{key} has {found}, expected mean and std, lists of 3 numbers for colour or 1 for grey,"
            " for pixels divided by 255, and std above 0; fix them."
        )


def _are_numbers(mean, std):
    """Whether these are lists of 1 or 3 numbers, and the second ones above 0."""
    if not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) in (1, 3)):
        return False
    kinds = {type(number) for number in mean + std}
    return kinds <= {int, float} and all(map(math.isfinite, mean + std)) and min(std) > 0


def mean_and_std(value, channels, key):
    """The numbers of a normalisation.

    Args:
        value: a key of `NAMED`, or {"mean", "std"}.
        channels: 1 or 3. A named one has the averages of the three colours for grey.
        key: its key, for the message.

    Returns:
        (mean, std), lists of one number a channel, of pixels divided by 255.

    Raises:
        UserError: numbers for another number of channels.
    """
    if isinstance(value, str):
        found = NAMED[value]
        return found if channels == 3 else tuple([float(np.mean(numbers))] for numbers in found)
    if len(value["mean"]) != channels:
        raise UserError(
            f"{key} has {len(value['mean'])} numbers for mean and std, but the model sees {channels}"
            f" channel(s); give {channels} each."
        )
    return value["mean"], value["std"]
