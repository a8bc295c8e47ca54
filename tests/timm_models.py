"""Models of timm's with random weights, and the features they give: the oracle of our backbones.

`python tests/timm_models.py` writes those of the small members of the zoo to tests/timm_features.npz, so
that parity stays tested where torch and timm are missing. Weights and images are drawn from their names and
shapes alone; only the features are stored.
"""

import functools
import zlib
from pathlib import Path

import numpy as np

FEATURES = Path(__file__).with_name("timm_features.npz")
SMALL = ("convnext_pico", "resnet18", "resnet50", "efficientnet_b0")
EDGES = (64, 98)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@functools.cache
def load_timm():
    """timm and torch.

    Raises:
        ImportError: one is missing, or torch lacks libraries of its own.
    """
    try:
        import torch

        # torchvision, which timm imports, was built for torch with CUDA; without it, it misses its own
        # operators, and all that is needed of it is that it can be imported.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm

        # It takes its operators with it.
        timm.torchvision_operators = library
    except (OSError, RuntimeError, ValueError) as error:
        raise ImportError(f"torch or timm cannot be used: {error}") from error
    return timm, torch


def random_tensors(shapes, name):
    """Weights and statistics of BatchNorm, random, the same for the same names.

    Args:
        shapes: {timm's name of a weight: its shape}.
        name: of the architecture.

    Returns:
        {timm's name: float32 array}.
    """
    # A gate halves what goes through EfficientNet's blocks, and what differs between images with it.
    gain = 1.35 if name.startswith("efficientnet") else 1
    tensors = {}
    for key, shape in shapes.items():
        random = np.random.default_rng(zlib.crc32(f"{name} {key}".encode()))
        if key.endswith("gamma"):
            value = random.uniform(0.1, 0.5, shape)
        elif key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
            value = random.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = random.normal(0, gain * np.prod(shape[1:]) ** -0.5, shape)
        else:
            value = random.normal(0, 0.2, shape)
        tensors[key] = value.astype("float32")
    return tensors


def images(edge, channels):
    """(4, edge, edge, channels) float32 0-255, of different brightness."""
    pixels = np.random.default_rng(edge + channels).uniform(0, 255, (4, edge, edge, channels))
    return (pixels * np.linspace(0.2, 1, 4)[:, None, None, None]).astype("float32")


def random_model(name, channels):
    """A model of timm's without a classifier, with `random_tensors`.

    Args:
        name: of the architecture.
        channels: 1 or 3.

    Returns:
        torch.nn.Module, which evaluates.
    """
    timm, torch = load_timm()
    model = timm.create_model(name, num_classes=0, in_chans=channels).eval()
    state = {key: value for key, value in model.state_dict().items() if "num_batches" not in key}
    drawn = random_tensors({key: tuple(value.shape) for key, value in state.items()}, name)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()}, strict=False)
    return model


def timm_features(model, pixels, mean=None, std=None):
    """What a model of timm's gives for images.

    Args:
        model: of `random_model`.
        pixels: (galaxies, edge, edge, channels) float32 0-255.
        mean: (channels,), of pixels scaled to 0-1; None: 0.
        std: the same; None: 1.

    Returns:
        (galaxies, features) float32.
    """
    _, torch = load_timm()
    scaled = (pixels / 255 - (0 if mean is None else mean)) / (1 if std is None else std)
    with torch.no_grad():
        return model(torch.from_numpy(scaled.astype("float32").transpose(0, 3, 1, 2).copy())).numpy()


def difference(ours, theirs):
    """The largest difference of any feature, relative to the standard deviation of the features.

    Args:
        ours: (galaxies, features).
        theirs: the same.

    Returns:
        A number; the standard deviation over galaxies and features is 1.
    """
    spread = np.sqrt(theirs.var(axis=0).mean())
    # Features that are the same for every galaxy would make a test of nothing.
    assert spread > 0.01 * theirs.std(), f"features differ by {spread} only, of {theirs.std()}"
    return float(np.abs(ours - theirs).max() / theirs.std())


def preprocessing(channels):
    """Mean and standard deviation for a test: timm's in colour, Zoobot's none in grey."""
    return (MEAN, STD) if channels == 3 else (None, None)


def main():
    """Write the features of the small members of the zoo."""
    stored = {}
    for name in SMALL:
        for channels in (3, 1):
            model = random_model(name, channels)
            for edge in EDGES:
                seen = timm_features(model, images(edge, channels), *preprocessing(channels))
                stored[f"{name} {channels} {edge}"] = seen
    np.savez_compressed(FEATURES, **stored)


if __name__ == "__main__":
    main()
