"""An encoder as timm saves it: config.json and model.safetensors of a ResNet-18 with random weights."""

import json

import numpy as np
from safetensors.numpy import save

CARD = "---\nlicense: apache-2.0\ntags: [galaxies]\n---\nAn encoder that has seen nothing.\n"


def resnet18(channels=3, seed=0):
    """The weights of a ResNet-18 under timm's names, (out, in, height, width), with random statistics."""
    random = np.random.default_rng(seed)
    tensors = {}

    def convolution(name, wide, narrow, edge):
        scale = np.sqrt(2 / (narrow * edge**2))
        tensors[f"{name}.weight"] = random.normal(0, scale, (wide, narrow, edge, edge)).astype("float32")

    def norm(name, count):
        spread = {"weight": (0.9, 1.1), "bias": (-0.1, 0.1), "running_mean": (-0.1, 0.1)}
        for part, bounds in {**spread, "running_var": (0.8, 1.2)}.items():
            tensors[f"{name}.{part}"] = random.uniform(*bounds, count).astype("float32")
        tensors[f"{name}.num_batches_tracked"] = np.array(7, "int64")

    convolution("conv1", 64, channels, 7)
    norm("bn1", 64)
    narrow = 64
    for stage, wide in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            convolution(f"{name}.conv1", wide, narrow, 3)
            norm(f"{name}.bn1", wide)
            convolution(f"{name}.conv2", wide, wide, 3)
            norm(f"{name}.bn2", wide)
            if narrow != wide:
                convolution(f"{name}.downsample.0", wide, narrow, 1)
                norm(f"{name}.downsample.1", wide)
            narrow = wide
    return tensors


def config(edge=48, **changes):
    """The config.json that timm writes for Zoobot's encoders, for another architecture and size."""
    preprocessing = {
        "tag": "a1_in1k",
        "custom_load": False,
        "input_size": [3, edge, edge],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.75,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 1000,
        "pool_size": [2, 2],
        "first_conv": "conv1",
        "classifier": "fc",
    }
    top = {"architecture": changes.pop("architecture", "resnet18"), "num_classes": 0, "num_features": 512}
    changed = {key: value for key, value in {**preprocessing, **changes}.items() if value != "silent"}
    return {**top, "pretrained_cfg": changed}


def encoder_files(tensors=None, card=CARD, **changes):
    """The files of a repository, {name: bytes}."""
    return {
        "config.json": json.dumps(config(**changes)).encode(),
        "model.safetensors": save(resnet18() if tensors is None else tensors),
        "README.md": card.encode(),
    }


def write_encoder(folder, files):
    """Write these files into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
