"""Augmentations, read from YAML: named lists of steps with their ranges, checked before any job starts."""

import difflib
import math
from pathlib import Path

import yaml

from zoolib.config.schema import EXPONENT
from zoolib.job.logs import UserError

# The parameters of each step, with the smallest and the largest value that makes sense.
GEOMETRY = {
    "rotate": {"degrees": (-360, 360)},
    "flip": {},
    "crop": {},
    "resized_crop": {"area": (0.01, 1), "aspect": (0.1, 10)},
    "shift": {"share": (-1, 1)},
    "zoom": {"factor": (0.1, 10)},
    "shear": {"degrees": (-80, 80)},
    # From 45 degrees on in both directions nothing is left of an image.
    "shear_both": {"degrees": (-40, 40)},
    "black_edges": {},
}
LIGHT = {
    "dim": {"redshift": (0, 20)},
    "redden": {"color_excess": (0, 5)},
    "blur": {"fwhm": (0, 0.5)},
    "noise": {"sigma": (0, 100)},
    "erase": {"area": (0, 1), "aspect": (0.1, 10)},
}
STEPS = GEOMETRY | LIGHT


def load_augmentation(name, folder):
    """Read an augmentation by its name in `config/augmentations/`, or by the path of a YAML file.

    Args:
        name: e.g. `paper` or `my_survey/strong.yaml`.
        folder: where an augmentation is looked up by name.

    Returns:
        {"name", "steps": [{name of a step: {parameter: [lowest, highest]}}]}: everything that the views
        depend on, so an edit of the file causes a new training.

    Raises:
        UserError: there is no such file, a step is unknown, or a range makes no sense.
    """
    named = "/" not in name and not name.endswith((".yaml", ".yml"))
    path = Path(folder) / f"{name}.yaml" if named else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in Path(folder).glob("*.yaml")))
        raise UserError(
            f"Configuration: train.augmentation is '{name}', but there is no file {path};"
            f" config/augmentations/ has {known}; choose one of these, or give the path of a YAML file."
        )
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: is not valid YAML{line}; fix the file.") from None
    if not isinstance(content, dict) or list(content) != ["steps"] or not isinstance(content["steps"], list):
        raise UserError(f"{path}: expected only the key 'steps', with a list; see config/augmentations/.")
    steps = [_step(entry, f"{path}: step {number}") for number, entry in enumerate(content["steps"], 1)]
    _check_order([next(iter(step)) for step in steps], path)
    return {"name": path.stem, "steps": steps}


def load_augmentations(name, folder):
    """Read the augmentation of a run, and the others of the folder to compare it with.

    Args:
        name: the name of the run's augmentation, or its path.
        folder: `config/augmentations/`.

    Returns:
        A list of what `load_augmentation` returns; the run's augmentation comes first.

    Raises:
        UserError: as `load_augmentation`.
    """
    own = load_augmentation(name, folder)
    others = sorted(path.stem for path in Path(folder).glob("*.yaml") if path.stem != own["name"])
    return [own] + [load_augmentation(other, folder) for other in others]


def _step(entry, where):
    """One step as {name: {parameter: [lowest, highest]}}; a step without parameters may be just a name."""
    entry = {entry: {}} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError(f"{where} is {entry}, expected one step with its ranges; choose one of {_known()}.")
    name, ranges = next(iter(entry.items()))
    if name not in STEPS:
        near = difflib.get_close_matches(str(name), STEPS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"{where} is '{name}'{hint}, which is not a step; choose one of {_known()}.")
    ranges = {} if ranges is None else ranges
    expected = STEPS[name]
    if not isinstance(ranges, dict) or set(ranges) != set(expected):
        found = ", ".join(map(str, ranges)) if isinstance(ranges, dict) else repr(ranges)
        raise UserError(
            f"{where} ({name}) has {found or 'no ranges'}, expected {', '.join(expected) or 'no ranges'}; fix"
            " the step."
        )
    return {name: {key: _range(ranges[key], expected[key], f"{where} ({name}): {key}") for key in expected}}


def _range(found, limits, where):
    if isinstance(found, list):
        found = [
            float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value for value in found
        ]
    numbers = isinstance(found, list) and len(found) == 2
    numbers = numbers and all(type(value) in (int, float) and math.isfinite(value) for value in found)
    if not numbers or not limits[0] <= found[0] <= found[1] <= limits[1]:
        raise UserError(
            f"{where} is {found}, expected [lowest, highest] between {limits[0]} and {limits[1]}; fix it."
        )
    return [float(value) for value in found]


def _check_order(names, path):
    """Check the order: the steps that move pixels are one interpolation, before those that change light."""
    changed = next((number for number, name in enumerate(names) if name in LIGHT), len(names))
    for number, name in enumerate(names):
        if name in GEOMETRY and name in names[:number]:
            raise UserError(
                f"{path}: step {number + 1} ({name}) repeats step {names.index(name) + 1}; write each step"
                " that moves pixels only once, with a wider range."
            )
        if name in GEOMETRY and number > changed:
            raise UserError(
                f"{path}: step {number + 1} ({name}) moves pixels, but comes after step {changed + 1}"
                f" ({names[changed]}), which changes their values; put the steps that move pixels first."
            )


def _known():
    return ", ".join(STEPS)
