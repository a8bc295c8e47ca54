"""The models that a run makes, and the models that its trainings and predictions start from."""

import difflib
import json
import re
from pathlib import Path

from zoolib.config.agreement import wrong
from zoolib.config.normalise import check_normalise
from zoolib.config.sources import (
    IMAGENET,
    MODEL_FILES,
    encoder_name,
    import_settings,
    kind_of_source,
    own_path,
)
from zoolib.config.tasks import fit_names
from zoolib.job.logs import UserError

# So many of the models that a run makes are in a message; a task with label counts has hundreds.
SHOWN = 8
# Keys of the section image, with the values that are not written out.
USUAL = {"grey": "mean", "interpolation": "lanczos"}


def fit_of(task, name):
    """A finetuning as wildcards and folders have it, e.g. `ring` or `ring/fold0`."""
    return f"{task}/{name}" if name else task


def made_models(config):
    """The folders of all models that the rules of a run make; what is on disk does not matter.

    Args:
        config: the configuration, with its defaults.

    Returns:
        A list of paths: members of ensembles, finetunings, imported encoders.
    """
    tasks, ensembles = config["finetune"]["tasks"], config["train"]["ensembles"]
    made = [f"train/{entry['name']}/{member}" for entry in ensembles for member in range(entry["members"])]
    made += [f"finetune/{fit_of(task['name'], name)}" for task in tasks for name in fit_names(task)]
    made += [f"pretrained/{name}" for name in encoders_of(config)]
    return [f"results/{config['run']}/{folder}" for folder in made]


def encoders_of(config):
    """The pretrained backbones that a run imports.

    Args:
        config: the configuration, with its defaults.

    Returns:
        {name of the folder: arguments of `pretrained.import_backbone`}.
    """
    sources = [(task["pretrained"], None) for task in config["finetune"]["tasks"]]
    # The backbone of the run's own training sees the images of the run.
    sources.append((config["train"]["pretrained"], config["image"]))
    found = [_import_of(source, config, image) for source, image in sources if source]
    return {encoder_name(settings): settings for settings in found if settings}


def model_folder(source, config, image=None):
    """The model folder of a pretrained backbone: one that exists, or one that the run makes.

    Args:
        source: a text that `sources.kind_of_source` knows.
        config: the configuration.
        image: the section `image` that the backbone is to see; its own where it is None.

    Returns:
        A path; what the run makes has the path that its rules write.
    """
    settings = _import_of(source, config, image)
    if settings:
        return f"results/{config['run']}/pretrained/{encoder_name(settings)}"
    return own_path(source, config["run"]) or source


def _import_of(source, config, image):
    """The arguments of `pretrained.import_backbone`; None for a model folder, which needs no import."""
    kind = kind_of_source(source, "pretrained", config["run"])
    return None if kind == "model" else import_settings(source, config, image)


def complete_image(config):
    """The section `image`, with the grey that the run's training starts from.

    Args:
        config: a configuration that `check_starts` has checked.

    Returns:
        A copy with `grey` and `interpolation` only if they are not the mean and Lanczos: older models do not
        have these keys.
    """
    image, train = config["image"], config["train"]
    how = {key: image[key] for key in USUAL}
    if image["color"]:
        how["grey"] = None
    elif how["grey"] is None:
        how["grey"] = _grey_of(train["pretrained"] or train["start_from"], config["run"])
    plain = {key: value for key, value in image.items() if key not in USUAL}
    return plain | {key: value for key, value in how.items() if value not in (None, USUAL[key])}


def _grey_of(source, run):
    """How a model that is already there, or will be imported, sees grey."""
    if not source:
        return None
    kind = kind_of_source(source, "train.pretrained", run)
    if kind in ("hub", "encoder"):
        # An encoder that timm has saved; the import says so of each.
        return "luma"
    try:
        return json.loads((Path(source) / "model.json").read_text())["image"].get("grey")
    # A damaged model is an error of the training that starts from it; a checkpoint has no such file.
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def check_starts(config):
    """Check that each training and target starts from a model that exists, or that the run makes before it.

    Args:
        config: a configuration that is valid by its schema, with its defaults, and whose tasks are checked.

    Raises:
        UserError: names the key, what was found and what is allowed.
    """
    run, sources, models = config["run"], _sources(config), _models(config)
    for number, task in enumerate(config["finetune"]["tasks"]):
        check_normalise(task["normalise"], f"finetune.tasks[{number}].normalise")
    for key, source in sources:
        try:
            kind_of_source(source, key, run)
        except UserError as error:
            raise wrong(str(error)) from None
    for key, folder in models:
        if not own_path(folder, run) and not all((Path(folder) / name).is_file() for name in MODEL_FILES):
            raise wrong(
                f"{key} is '{folder}', expected a folder with model.keras and model.json; fix the path."
            )
    _check_training(config)
    made = made_models(config)
    for key, path in [*sources, *models]:
        own = own_path(path, run)
        if own and own not in made:
            near = difflib.get_close_matches(own, made, n=SHOWN, cutoff=0)
            others = f" and {len(made) - SHOWN} more" if len(made) > SHOWN else ""
            raise wrong(
                f"{key} is '{path}', but no rule of this run makes this model; the run makes"
                f" {', '.join(near)}{others}; choose one of these, or a model of another run."
            )
    _check_order(config["finetune"]["tasks"], run)


def _sources(config):
    """(key, source) of all pretrained backbones."""
    tasks = enumerate(config["finetune"]["tasks"])
    found = [("train.pretrained", config["train"]["pretrained"])]
    found += [(f"finetune.tasks[{number}].pretrained", task["pretrained"]) for number, task in tasks]
    return [(key, source) for key, source in found if source]


def _models(config):
    """(key, folder) of all models that are taken with their heads."""
    start, targets = config["train"]["start_from"], enumerate(config["predict"]["targets"])
    found = [("train.start_from", start)] if start else []
    return found + [
        (f"predict.targets[{number}].models", folder)
        for number, entry in targets
        for folder in entry["models"]
    ]


def _check_training(config):
    """Check what the members of the ensembles start from: one model, older than the run, for its images."""
    train, image = config["train"], config["image"]
    check_normalise(train["normalise"], "train.normalise", probe=False)
    if train["normalise"] and not train["pretrained"]:
        raise wrong(
            "train.normalise is for the backbone of train.pretrained, which is null; set train.normalise to"
            " null, or name a backbone."
        )
    if train["pretrained"] == IMAGENET and not image["color"]:
        raise wrong(
            f"train.pretrained is {IMAGENET}, whose networks need colour images, but image.color is false;"
            " set image.color to true."
        )
    for key in ("pretrained", "start_from"):
        own = train[key] and own_path(train[key], config["run"])
        if own and own.split("/")[2] in ("train", "finetune"):
            raise wrong(
                f"train.{key} is '{train[key]}', a model that this run itself trains, expected a model that"
                " exists before the run; choose the model of another run."
            )
    if train["pretrained"] and image["encoding"] == "raw":
        raise wrong(
            "image.encoding is raw, so pixels are not clipped to 0-255, but the backbone of"
            " train.pretrained expects values from 0 to 255; set image.encoding to png."
        )
    if train["pretrained"] and train["start_from"]:
        raise wrong(
            "train has both pretrained (a backbone that gets a new head) and start_from (a model that keeps"
            " its head), expected only one; set the other to null."
        )


def _check_order(tasks, run):
    """Check that no task starts from itself, be it through other tasks."""
    starts = {}
    for number, task in enumerate(tasks):
        start, own = task["pretrained"], Path(f"results/{run}/finetune/{task['name']}")
        parts = (own_path(start, run) or "").split("/") if start else []
        starts[task["name"]] = parts[3] if parts[2:3] == ["finetune"] else None
        # A folder elsewhere may hold a link to this task's model.
        linked = start and own.resolve() in (Path(start) / "model.keras").resolve().parents
        if starts[task["name"]] == task["name"] or linked:
            raise wrong(
                f"finetune.tasks[{number}].pretrained is '{start}', but this task writes its own model there"
                " and would overwrite the model that it starts from; rename the task or the run."
            )
    for number, task in enumerate(tasks):
        chain = [task["name"]]
        while (before := starts[chain[-1]]) and before not in chain:
            chain.append(before)
        if before:
            circle = " → ".join([*chain[chain.index(before) :], before])
            raise wrong(
                f"finetune.tasks[{number}].pretrained is '{task['pretrained']}', but these tasks start from"
                f" each other in a circle ({circle}), so none can be the first; choose another model for one"
                " of them."
            )


def models_in(folder):
    """The models that a folder stands for.

    Args:
        folder: pathlib.Path of a model folder, or of the folders of folds (`fold0`) or members (`0`).

    Returns:
        The folder itself if it is a model folder, else those of folds or members in it, in their order.
    """
    if (folder / "model.keras").is_file():
        return [folder]
    inside = {path.parent.name: path.parent for path in folder.glob("*/model.keras")}
    numbers = {name: int(name.removeprefix("fold")) for name in inside if re.fullmatch(r"(fold)?\d+", name)}
    return [inside[name] for name in sorted(numbers, key=numbers.get)]
