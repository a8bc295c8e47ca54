"""Stage pretrained: published encoders become model folders, with a backbone and its image settings, no head.

`sources.kind_of_source` lists the kinds of sources.
"""

import json
import math
from pathlib import Path

import numpy as np
from huggingface_hub.repocard import metadata_load
from safetensors import SafetensorError
from safetensors.numpy import load_file

from zoolib.config.sources import ENCODER_FILES, files_of_source, kind_of_source
from zoolib.data.images import INTERPOLATIONS
from zoolib.job.logs import UserError, check_machine, log
from zoolib.job.provenance import hash_of_file, versions
from zoolib.learning import models
from zoolib.learning.augment import PAPER
from zoolib.learning.backbones import ZOO, build_backbone
from zoolib.weights.hub import Repository
from zoolib.weights.keras import imagenet_backbone, zoobot_checkpoint_backbone
from zoolib.weights.timm import set_timm_weights

# How Zoobot's encoders see galaxies: images of 300 pixels, of which the middle 0.75 are shown, at 224 pixels.
CONVENTION = {"size": 300, "crop": 0.75, "final_size": 224, "color": True, "encoding": "png"}
# How the pickles of PyTorch begin: since version 1.6 (a zip), and before.
PICKLED = (b"PK\x03\x04", b"\x80\x02")
UNKNOWN = "not stated"
# Names of the first convolution in the architectures of the zoo; its axes are (out, channels, height, width).
FIRST = ("stem.0.weight", "conv1.weight", "conv_stem.weight", "patch_embed.proj.weight", "stem.conv1.weight")
SMALLEST = 32


def import_backbone(source, output, image=None, backbone=None):
    """Write a model folder with a pretrained backbone and no head.

    Args:
        source: any source of `sources.kind_of_source` but a model folder.
        output: attributes model, about: the files to write.
        image: the `image` section of the run whose galaxies it will see; None for the encoder's own.
        backbone: name of a backbone of `keras.applications`, for `imagenet`.

    Raises:
        UserError: the source cannot be downloaded or read, its architecture is not supported, its weights do
            not fit, or it needs another number of channels than the run's images have.
    """
    kind = kind_of_source(source, "pretrained")
    try:
        if kind == "imagenet":
            network, seen, origin = _of_imagenet(backbone, image)
        elif kind == "checkpoint":
            network, seen, origin = _of_checkpoint(source, image)
        else:
            network, seen, origin = _of_timm(source, kind, image)
    except UserError as error:
        # The backbone is the encoder's own: the key train.backbone is not the cause.
        message = str(error).removeprefix("train.backbone: ")
        raise (error if message == str(error) else UserError(f"{source}: {message}")) from None
    if image and seen["color"] != image["color"]:
        wanted = "colour images (3 channels)" if seen["color"] else "grey images (1 channel)"
        raise UserError(
            f"train.pretrained: {source} sees {wanted}, and image.color is {str(image['color']).lower()}; set"
            f" image.color to {str(seen['color']).lower()}, or choose another encoder."
        )
    about = {
        "kind": "features",
        "tree": None,
        "labels": [],
        "columns": [],
        "image": seen,
        "training": {"augmentation": PAPER, "pretrained": source, **origin},
        "data": {Path(file).name: hash_of_file(file) for file in files_of_source(source)},
        "versions": versions(),
        "scores": {},
    }
    models.save_model(models.join(network), about, output.model, output.about)
    log.info(
        "%s: %s, %s parameters, %d features of %d px %s images, licence: %s",
        *(source, origin["backbone"], f"{network.count_params():,}", network.output_shape[-1]),
        *(seen["final_size"], "colour" if seen["color"] else "grey", origin["licence"]),
    )


def _of_imagenet(name, image):
    network = imagenet_backbone(name, image["final_size"], 3 if image["color"] else 1)
    licence = "that of keras.applications, https://keras.io/api/applications/"
    return network, image, _origin(name, licence)


def _of_checkpoint(source, image):
    seen = image or CONVENTION
    network = zoobot_checkpoint_backbone(source, seen["final_size"])
    return network, {**seen, "color": network.input_shape[-1] == 3}, _origin("EfficientNetB0", UNKNOWN)


def _of_timm(source, kind, image):
    """An encoder that timm has saved, from a repository or a folder."""
    config, weights = ENCODER_FILES
    repository = Repository(source) if kind == "hub" else None
    fetch = repository.fetch if repository else Path(source).joinpath
    settings = read_timm_config(fetch(config), source)
    # Checked before the weights are downloaded, which may be hundreds of megabytes.
    if settings["architecture"] not in ZOO:
        raise UserError(
            f"{source}: its architecture is '{settings['architecture']}', which is not supported; expected"
            f" one of {', '.join(ZOO)}; choose another encoder."
        )
    path = fetch(weights)
    tensors = read_tensors(path, source)
    try:
        own, channels = timm_preprocessing(settings, tensors)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    seen = {**(image or own["image"]), "color": channels == 3}
    network = build_backbone(settings["architecture"], seen["final_size"], channels, own["mean"], own["std"])
    try:
        set_timm_weights(network, settings["architecture"], tensors)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    theirs, here = (found.get("interpolation", "lanczos") for found in (own["image"], seen))
    if theirs != here:
        log.info(
            "%s: its config says interpolation %s, and the run's images are resampled by %s; set"
            " image.interpolation to %s for the same",
            *(source, theirs, here, theirs),
        )
    licence = _licence(repository, source)
    origin = _origin(settings["architecture"], licence, repository and repository.commit)
    origin |= {key: own[key] for key in ("mean", "std", "interpolation")}
    return network, seen, {**origin, "weights": hash_of_file(path)}


def _origin(backbone, licence, revision=None):
    empty = dict.fromkeys(("mean", "std", "interpolation"))
    return {"backbone": backbone, "licence": licence, "revision": revision, **empty}


def _licence(repository, source):
    """The licence that the model card states."""
    card = "README.md"
    if repository:
        path = repository.fetch(card) if repository.has(card) else None
    else:
        path = Path(source, card) if Path(source, card).is_file() else None
    try:
        licence = (path and metadata_load(path) or {}).get("license") or UNKNOWN
        return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)
    # A card is written by hand and can have any error of YAML.
    except Exception as error:
        check_machine(error, path)
        return UNKNOWN


def read_timm_config(path, source):
    """Read timm's config.json of an encoder.

    Args:
        path: of config.json.
        source: what an error message calls the encoder.

    Returns:
        {"architecture", "input_size" (channels, height, width), "crop_pct", "mean", "std", "interpolation"};
        None for each that the file does not have.

    Raises:
        UserError: the file is not JSON, or not what timm writes.
    """
    try:
        config = json.loads(Path(path).read_text())
        architecture = str(config["architecture"]).partition(".")[0]
        # Before version 0.9 timm wrote all keys at the top level.
        found = config.get("pretrained_cfg", config)
        numbers = {key: found.get(key) for key in ("input_size", "mean", "std")}
        settings = {key: value and [float(number) for number in value] for key, value in numbers.items()}
        crop = found.get("crop_pct")
        if crop is not None and not 0.1 <= crop <= 1:
            raise ValueError(f"crop_pct is {crop}, expected a number from 0.1 to 1")
        for key, values in settings.items():
            if not all(map(math.isfinite, values or [])):
                raise ValueError(f"{key} is {found[key]}, expected finite numbers")
        if (size := settings["input_size"]) and not _is_square(size):
            raise ValueError(
                f"input_size is {found['input_size']}, expected [channels, height, width], 1 or 3 channels"
                f" and a square of {SMALLEST} px or more"
            )
        if bool(settings["mean"]) != bool(settings["std"]):
            raise ValueError("only one of mean and std is there, expected both or neither")
        if min(settings["std"] or [1]) <= 0:
            raise ValueError(f"std is {found['std']}, expected numbers above 0")
        interpolation = found.get("interpolation") or None
        if interpolation not in (None, "random", *INTERPOLATIONS):
            words = ", ".join(INTERPOLATIONS)
            raise ValueError(f"interpolation is '{interpolation}', expected one of {words}, random")
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        missing = f"has no key {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise UserError(
            f"{source}: its config.json {missing}, expected what timm writes; fix it or choose another."
        ) from None
    return {"architecture": architecture, "crop_pct": crop, **settings, "interpolation": interpolation}


def _is_square(size):
    return len(size) == 3 and size[0] in (1, 3) and size[1] == size[2] >= SMALLEST


def read_tensors(path, source):
    """Read the weights in a safetensors file.

    Args:
        path: of model.safetensors.
        source: what an error message calls the encoder.

    Returns:
        {timm's name: float32 array}.

    Raises:
        UserError: the file is damaged, or is a pickle with this name.
    """
    try:
        tensors = {name: np.asarray(values, "float32") for name, values in load_file(path).items()}
    # Numbers that numpy does not have (bfloat16) are a KeyError or a TypeError.
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        with open(path, "rb") as file:
            begin = file.read(4)
        if begin.startswith(PICKLED):
            raise UserError(
                f"{source}: its model.safetensors is a pickle under another name, and opening it can run any"
                " program; convert it (docs/pretrained.md)."
            ) from None
        raise UserError(
            f"{source}: its model.safetensors cannot be read ({error}); it is damaged or has other numbers"
            " than float32 and float16; get it again, or choose another encoder."
        ) from None
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"{source}: the weight '{name}' in its model.safetensors has numbers that are not finite;"
                " choose another encoder."
            )
    return tensors


def timm_preprocessing(settings, tensors):
    """The image settings of an encoder; where its config says nothing, Zoobot's own.

    timm resamples an image so that its middle `crop_pct` has the model's size. These settings do the same,
    with a margin of the same whole number of pixels on both sides: then the middle is cut out without
    resampling it again. Mean and standard deviation of a grey encoder are averages over the three channels.

    Args:
        settings: from `read_timm_config`.
        tensors: {timm's name: array}; the first convolution says how many channels there are.

    Returns:
        ({"image": the `image` section, "mean", "std" (a list, one number a channel, or None),
        "interpolation"}, channels).

    Raises:
        UserError: the numbers of means and of channels differ, or there are neither 1 nor 3 channels.
    """
    edge = int(settings["input_size"][-1]) if settings["input_size"] else CONVENTION["final_size"]
    if settings["crop_pct"]:
        size = edge + 2 * round((edge / settings["crop_pct"] - edge) / 2)
        image = {**CONVENTION, "size": size, "crop": edge / size, "final_size": edge}
    else:
        size = round(edge * CONVENTION["size"] / CONVENTION["final_size"])
        image = {**CONVENTION, "size": size, "final_size": edge}
    image["interpolation"] = settings["interpolation"] if settings["interpolation"] != "random" else None
    image["interpolation"] = image["interpolation"] or "lanczos"
    name = next((name for name in FIRST if name in tensors), None)
    channels = int((settings["input_size"] or [3])[0])
    if name:
        shape = tensors[name].shape
        if len(shape) != 4 or shape[1] not in (1, 3):
            raise UserError(
                f"model.safetensors: the weight '{name}' has the shape {shape}, expected four axes, the"
                " second of length 1 (grey) or 3 (colour); choose another encoder."
            )
        channels = shape[1]
    image["color"] = channels == 3
    if not image["color"]:
        # Zoobot's PyTorch encoders of today; those of its older versions have seen the mean.
        image["grey"] = "luma"
    both = settings["mean"] and settings["std"]
    found = {key: _of_channels(settings[key], channels, key) if both else None for key in ("mean", "std")}
    return {"image": image, **found, "interpolation": settings["interpolation"]}, channels


def _of_channels(numbers, channels, key):
    if len(numbers) == channels:
        return numbers
    if channels == 1:
        return [float(np.mean(numbers))]
    raise UserError(
        f"config.json: {key} has {len(numbers)} numbers and the encoder {channels} channels; fix the file."
    )
