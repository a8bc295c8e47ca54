"""timm's models with random weights, and their features: our backbones are compared with them.

`python tests/support/timm_models.py` writes the features of one small model of each family to
timm_features.npz, so that parity is tested without torch and timm, too. Weights and images are drawn
from their names and shapes. Stored are the features, and the levels around which the statistics of BatchNorm
are drawn.
"""

import dataclasses
import functools
import re
import zlib
from pathlib import Path

import numpy as np
import torchvision_operators

FEATURES = Path(__file__).with_name("timm_features.npz")
# MaxViT with one block a stage: a complete one would take too long in a test.
MAXVIT = ("maxvit_tiny_rw_224", "maxvit_rmlp_small_rw_224", "maxvit_rmlp_base_rw_224")
SHRUNK_DEPTHS, SHRUNK_WIDTHS = (1, 1, 1, 1), (32, 32, 64, 64)
SMALL = (
    "convnext_pico",
    "resnet18",
    "resnet50",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
    "convnextv2_atto",
    "vit_tiny_patch16_224",
    *MAXVIT,
)
# What is stored: one architecture a family, in as few sizes as show its padding.
STORED = [
    *((name, *s) for name in ("convnext_pico", "resnet18", "efficientnet_b0") for s in ((3, 64), (1, 98))),
    ("tf_efficientnetv2_b0", 1, 98),
    ("convnextv2_atto", 3, 64),
    ("vit_tiny_patch16_224", 3, 224),
    *((name, 1, 224) for name in MAXVIT),
]
# Where a branch beside a shortcut ends, in the families that have no small factor (`gamma`) there.
DEEP = ("tf_efficientnetv2", "convnextv2", "vit", "maxvit")
ENDS = re.compile(
    r"((?<!rel_pos\.)mlp\.fc2|attn\.proj|conv3_1x1"
    r"|^blocks\.(0\.[1-9]\d*\.bn1|[12]\.[1-9]\d*\.bn2|\d\.[1-9]\d*\.bn3))$"
)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@functools.cache
def load_timm():
    """timm and torch.

    Raises:
        ImportError: one of them or a library that torch needs is missing.
    """
    try:
        import torch

        # timm imports torchvision.
        operators = torchvision_operators.declared()
        import timm

        timm.torchvision_operators = operators
    except (OSError, RuntimeError, ValueError) as error:
        raise ImportError(f"torch or timm cannot be used: {error}") from error
    return timm, torch


def random_tensors(shapes, name, levels):
    """Random weights and statistics of BatchNorm; the same names and levels give the same numbers.

    Args:
        shapes: {timm's name of a weight: its shape}.
        name: of the architecture.
        levels: {timm's name of a BatchNorm: (centre, spread) of what arrives there}, of `settle`.

    Returns:
        {timm's name: float32 array}.
    """
    tensors = {}
    for key, shape in shapes.items():
        random = np.random.default_rng(zlib.crc32(f"{name} {key}".encode()))
        # timm's learned tables have an axis for the galaxies, ours have not.
        whole, shape = shape, shape[1:] if len(shape) == 3 else shape
        module, _, kind = key.rpartition(".")
        if kind == "running_mean":
            centre, spread = levels[module]
            value = centre + 0.3 * spread * random.normal(size=shape)
        elif kind == "running_var":
            value = levels[module][1] ** 2 * random.uniform(0.5, 1.5, shape)
        elif kind == "gamma":
            value = random.uniform(0.1, 0.5, shape)
        elif kind == "weight" and len(shape) == 1:
            value = random.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = random.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        else:
            value = random.normal(0, 0.2, shape)
        if name.startswith(DEEP) and kind in ("weight", "bias") and ENDS.search(module):
            # From block to block rounding noise would grow, and so would what all galaxies share.
            value = 0.1 * value
        tensors[key] = value.astype("float32").reshape(whole)
    return tensors


def images(edge, channels):
    """(4, edge, edge, channels) float32 0-255: faint noise, single pixels, stripes, a bright field."""
    noise = np.random.default_rng(edge + channels).uniform(0, 1, (4, edge, edge, channels))
    tint = np.linspace(0.3, 1, channels)
    stripes = (np.sin(30 * np.arange(edge) / edge) > 0)[:, None] * tint[::-1]
    pixels = [
        0.03 * noise[0] * tint,
        noise[1] > 0.5,
        np.broadcast_to(stripes, noise[2].shape),
        0.9 * tint + 0.1 * noise[3],
    ]
    return (255 * np.clip(pixels, 0, 1)).astype("float32")


def shrink(zoo, name):
    """A copy of the zoo that has a MaxViT with one block a stage; without changes for other names."""
    if name not in MAXVIT:
        return zoo
    layers = functools.partial(zoo[name].layers, depths=SHRUNK_DEPTHS, widths=SHRUNK_WIDTHS)
    return {**zoo, name: dataclasses.replace(zoo[name], layers=layers, features=SHRUNK_WIDTHS[-1])}


def random_model(name, channels, shrunk=False):
    """timm's model without a classifier, with random weights; `settle` draws its statistics of BatchNorm.

    Args:
        name: of the architecture.
        channels: 1 or 3.
        shrunk: a MaxViT as `shrink` makes it.

    Returns:
        torch.nn.Module in evaluation mode.
    """
    timm, torch = load_timm()
    changes = {}
    if shrunk and name in MAXVIT:
        changes = {"depths": SHRUNK_DEPTHS, "embed_dim": SHRUNK_WIDTHS}
        if name == "maxvit_rmlp_base_rw_224":
            changes["head_hidden_size"] = SHRUNK_WIDTHS[-1]
    model = timm.create_model(name, num_classes=0, in_chans=channels, **changes).eval()
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    drawn = random_tensors(shapes, name, {})
    model.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()}, strict=False)
    return model


def settle(model, name, pixels, mean=None, std=None):
    """Draw random statistics for each BatchNorm, around the values that arrive there for some images.

    Statistics around 0 would let a constant grow from layer to layer until galaxies hardly differ. Statistics
    around the mean of each channel would let the rounding noise of float32 grow. The centre is therefore
    halfway between the mean of the channel and the mean of all channels.

    Args:
        model: of `random_model`; it is changed.
        name: of the architecture.
        pixels: as for `timm_features`.
        mean: the same.
        std: the same.

    Returns:
        ({timm's name of a BatchNorm: (centres (channels,) float16, spread around them float64)}, features as
        `timm_features` gives them from now on).
    """
    _, torch = load_timm()
    levels = {}

    def draw(module, arguments, key):
        arriving = arguments[0].double().numpy()
        means = arriving.mean(axis=(0, 2, 3))
        centres = ((means + means.mean()) / 2).astype("float16")
        levels[key] = centres, np.sqrt(((arriving - centres[:, None, None]) ** 2).mean())
        shapes = {f"{key}.{kind}": centres.shape for kind in ("running_mean", "running_var")}
        for kind, value in random_tensors(shapes, name, levels).items():
            getattr(module, kind.rpartition(".")[2]).copy_(torch.from_numpy(value))

    hooks = [
        module.register_forward_pre_hook(functools.partial(draw, key=key))
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    features = timm_features(model, pixels, mean, std)
    for hook in hooks:
        hook.remove()
    return levels, features


def timm_features(model, pixels, mean=None, std=None):
    """The features that timm's model gives for images.

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
    """The largest difference of any feature, relative to how much features differ between galaxies.

    Args:
        ours: (galaxies, features).
        theirs: the same.

    Returns:
        A number; 1 is the standard deviation over galaxies, its square averaged over features.
    """
    spread = np.sqrt(theirs.var(axis=0).mean())
    # If all galaxies had the same features, nothing would be tested.
    assert spread > 0.2 * theirs.std(), f"features differ by {spread} only, of {theirs.std()}"
    return float(np.abs(ours - theirs).max() / spread)


def preprocessing(channels):
    """Mean and standard deviation for a test: timm's in colour, none in grey, as for Zoobot."""
    return (MEAN, STD) if channels == 3 else (None, None)


def stored_features(name, channels, edge):
    """The stored values: (levels of `settle`, features)."""
    with np.load(FEATURES) as stored:
        sight = f"{name} {channels} {edge}"
        norms, sizes, spreads = (stored[f"{sight} {what}"] for what in ("norms", "sizes", "spreads"))
        centres = np.split(stored[f"{sight} centres"], np.cumsum(sizes)[:-1]) if len(sizes) else []
        return dict(zip(norms.tolist(), zip(centres, spreads, strict=True), strict=True)), stored[sight]


def main():
    """Write the levels and features of one small member of each family."""
    stored = {}
    for name, channels, edge in STORED:
        model, pixels = random_model(name, channels, shrunk=True), images(edge, channels)
        levels, features = settle(model, name, pixels, *preprocessing(channels))
        sight = f"{name} {channels} {edge}"
        centres = [centre for centre, _ in levels.values()]
        stored[f"{sight} norms"] = np.array(list(levels), dtype=str)
        stored[f"{sight} sizes"] = np.array([len(centre) for centre in centres], dtype=int)
        stored[f"{sight} centres"] = np.concatenate([*centres, np.zeros(0, "float16")])
        stored[f"{sight} spreads"] = np.array([spread for _, spread in levels.values()])
        stored[sight] = features
    np.savez_compressed(FEATURES, **stored)


if __name__ == "__main__":
    main()
