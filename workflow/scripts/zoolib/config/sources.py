"""Where pretrained backbones come from: the values of `train.pretrained` and of a task's `pretrained`."""

import glob
import json
import os
import re
from pathlib import Path

from zoolib.job.logs import UserError
from zoolib.job.provenance import hash_of

IMAGENET = "imagenet"
MODEL_FILES = ("model.keras", "model.json")
ENCODER_FILES = ("config.json", "model.safetensors")
# Names that huggingface_hub accepts: no -- or .., no .git at the end; a letter, digit or _ at both ends.
HUB = re.compile(
    r"hf://(?![^@]*(--|\.\.|\.git(@|$)))(?P<repository>\w([\w.-]*\w)?/\w([\w.-]{0,94}\w)?)"
    r"(@(?P<revision>[\w./-]+))?",
    re.ASCII,
)
# Keys of model.json that say where weights come from; every model trained from these weights has them.
ORIGIN = ("pretrained", "backbone", "licence", "revision", "weights")
# Files of PyTorch and Lightning; they contain pickles.
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Zoobot and timm write hf_hub:; the error message says how to write it here.
HUB_PREFIXES = ("hf:", "hf_hub:", "hf-hub:")
EXPECTED = (
    "a model folder (a folder with model.keras and model.json), hf://organisation/name, a folder with"
    " config.json and model.safetensors, imagenet, or a checkpoint of Zoobot's TensorFlow version"
)


def own_path(path, run):
    """A path in the results of a run, as its rules write it.

    What a rule makes is the same file however its path is written: `./results/…`, with // or / at the end,
    absolute, or through a link to the folder of results.

    Args:
        path: text.
        run: name of the run.

    Returns:
        `results/<run>/…`; None for all other paths.
    """
    results = f"results/{run}"
    for absolute_path in (os.path.abspath, os.path.realpath):
        below = os.path.relpath(absolute_path(path), absolute_path(results))
        if below.partition(os.sep)[0] not in (os.curdir, os.pardir):
            return f"{results}/{below}"
    return None


def kind_of_source(source, key, run=None):
    """Find out what kind of source a text names.

    Args:
        source: e.g. `hf://mwalmsley/zoobot-encoder-convnext_nano`, or a path.
        key: the key that has this value, for error messages.
        run: name of the run, whose own results are not looked at: a path in them is a model folder, because
            rules make nothing else to start from, and whether it is there changes while the run goes on.

    Returns:
        `hub` (a repository of Hugging Face), `imagenet`, `model` (a model folder), `encoder` (a folder with
        timm's config.json and model.safetensors) or `checkpoint` (Zoobot's TensorFlow version).

    Raises:
        UserError: none of these, or weights in a pickle.
    """
    if source == IMAGENET:
        return "imagenet"
    if source.startswith(HUB_PREFIXES):
        if not HUB.fullmatch(source):
            raise UserError(
                f"{key} is '{source}', expected hf://organisation/name or hf://organisation/name@revision,"
                " such as hf://mwalmsley/zoobot-encoder-convnext_nano; fix it."
            )
        return "hub"
    if run and own_path(source, run):
        return "model"
    folder = Path(source)
    for kind, files in (("model", MODEL_FILES), ("encoder", ENCODER_FILES)):
        if all((folder / file).is_file() for file in files):
            return kind
    if files_of_checkpoint(source):
        return "checkpoint"
    inside = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    pickle = next((path.name for path in inside if path.is_file() and path.suffix in PICKLES), None)
    if pickle:
        raise UserError(
            f"{key} is '{source}', expected config.json and model.safetensors, but the weights are in a"
            f" pickle ({pickle}), which can run any program when it is opened; convert it (see"
            " docs/pretrained.md)."
        )
    raise UserError(f"{key} is '{source}', expected {EXPECTED}; fix it.")


def files_of_checkpoint(source):
    """The files of a TensorFlow checkpoint.

    Args:
        source: a prefix such as `mine/zoobot` for the file `mine/zoobot.index`, or the checkpoint's folder.

    Returns:
        A sorted list of paths; empty if there is no checkpoint.
    """
    path = Path(source)
    place, name = (path, "") if path.is_dir() else (path.parent, path.name)
    name = glob.escape(name) or "*"
    found = [*place.glob(f"{name}.index"), *place.glob(f"{name}.data-*")]
    return sorted(map(str, found)) if any(file.suffix == ".index" for file in found) else []


def files_of_source(source):
    """The local files that a backbone is imported from; none if it is downloaded.

    Args:
        source: a text that `kind_of_source` knows.

    Returns:
        A list of paths.
    """
    if source == IMAGENET or HUB.fullmatch(source):
        return []
    encoder = [f"{source}/{file}" for file in ENCODER_FILES]
    if all(Path(file).is_file() for file in encoder):
        return encoder
    return files_of_checkpoint(source) or encoder


def origin_of(folder):
    """Where the weights of a model originally came from, however many models were trained in between.

    Args:
        folder: a model folder; None for an untrained network.

    Returns:
        A dict with the keys of `ORIGIN` that are known; None if training began without published weights.
    """
    if not folder:
        return None
    training = json.loads((Path(folder) / "model.json").read_text())["training"]
    if "licence" in training:
        return {key: training[key] for key in ORIGIN if key in training}
    return training.get("origin")


def absolute(source):
    """A source as an absolute path, if it is a path; others as they are.

    Args:
        source: a text that `kind_of_source` knows.

    Returns:
        text.
    """
    named = source == IMAGENET or source.startswith(HUB_PREFIXES)
    return source if named else str(Path(source).absolute())


def import_settings(source, config, image=None):
    """The settings for the import of a backbone, besides its files.

    Args:
        source: a text that `kind_of_source` knows.
        config: the configuration, with its defaults.
        image: the `image` section for the backbone; None means the backbone's own.

    Returns:
        The arguments of `pretrained.import_backbone`, without its output.
    """
    if source != IMAGENET:
        return {"source": source, "image": image, "backbone": None}
    # ImageNet's images have colours; all other settings of images come from the configuration.
    image = image or {**config["image"], "color": True}
    return {"source": source, "image": image, "backbone": config["train"]["backbone"]}


def encoder_name(settings):
    """A name for the folder of an imported backbone: readable, and different for different settings.

    Args:
        settings: from `import_settings`.

    Returns:
        text, e.g. `zoobot-encoder-convnext_nano-1f2e3d4c`.
    """
    found = HUB.fullmatch(settings["source"])
    last = Path(found["repository"] if found else settings["source"]).name
    return f"{re.sub('[^A-Za-z0-9_-]+', '_', last)}-{hash_of(settings)[:8]}"
