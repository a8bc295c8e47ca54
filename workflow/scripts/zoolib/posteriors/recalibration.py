"""Recalibration: a member's concentrations and weights are corrected by the votes of validation galaxies.

First all questions together:

- the samples of a member (dropout draws and views) become one posterior, a log-linear pool: the geometric
  mean of their concentrations, component by component, and of their weights. Each sample is as wide as the
  votes say, so their mixture is too wide. This is done unless it makes the votes less probable;
- a factor: all concentrations of all questions are multiplied by the same number.

Then one of these corrections is chosen for each question, or none. The numbers of a correction are the same
for all galaxies.

- `factor`: all concentrations are multiplied by exp(m), an inverse temperature.
- `spread`: each component is replaced by three with equal weights, whose concentrations are multiplied by
  exp(m + s z). z are the middles of three equally probable parts of a normal distribution. This gives a
  posterior a sharp core and wide wings.
- `weights`: of a mixture head, the components' weights w become (1 - Σv) w + v; with one factor, too.

What comes out is again a mixture of Dirichlets for each question, so that fractions sum to 1.
"""

import json
from pathlib import Path

import numpy as np

from zoolib.job.logs import UserError, check_machine
from zoolib.posteriors import label_calibration

# Components that replace one in a spread.
SPREAD = 3
NAME = "recalibration.json"
# A question that stays as it is.
LEFT = {"kind": "leave", "factors": [1.0], "added": []}
# A weight of 0 has no logarithm.
SMALLEST = np.finfo(float).tiny


def apply(recalibrations, values, weights, tree, per_sample=1):
    """Correct the posteriors of some galaxies.

    If a question of a member needs three factors, every component of all questions and members becomes
    three; those without a spread become three equal ones. If the samples of all members become one, one
    sample a member is left; otherwise those of a member that become one are equal copies of it.

    Args:
        recalibrations: what `fit` returned for each member, in their order; None for a member that stays as
            it is.
        values: (galaxies, answers of all questions, components), concentrations; the components of one member
            are neighbours, and so are those of each of its samples.
        weights: (galaxies, questions, components), or None if all components are equal.
        tree: a `DecisionTree`.
        per_sample: components of a sample.

    Returns:
        (values, weights, per_sample) as they were given, of the corrected posterior; values are float64.
    """
    members = [found or {} for found in recalibrations]
    values, weights = _pooled(members, np.asarray(values, dtype=float), weights, tree, per_sample)
    several, share = pieces(recalibrations), values.shape[2] // len(members)
    values = np.repeat(values, several, axis=2)
    added = any(len(one["added"]) for found in members for one in found.values())
    if weights is not None:
        weights = np.repeat(np.asarray(weights, dtype=float), several, axis=2) / several
    elif added:
        weights = np.full((len(values), len(tree.questions), values.shape[2]), 1 / values.shape[2])
    samples = values.shape[2] // (per_sample * several)
    for member, found in enumerate(members):
        own = slice(member * share * several, (member + 1) * share * several)
        for number, question in enumerate(tree.questions):
            one = found.get(question.name, LEFT)
            factors = np.resize(one["factors"], several)
            values[:, question.slice, own] *= np.tile(factors, share)
            if len(one["added"]):
                more = np.tile(np.repeat(one["added"], several), share // per_sample) / (several * samples)
                weights[:, number, own] = (1 - sum(one["added"])) * weights[:, number, own] + more
    return values, weights, per_sample * several


def _pooled(members, values, weights, tree, per_sample):
    """Values and weights after the log-linear pool of the samples of each member whose samples become one."""
    which = np.array(
        [
            [found.get(question.name, {}).get("pooled", False) for question in tree.questions]
            for found in members
        ]
    )
    if not which.any():
        return values, weights
    # (galaxies, answers or questions, members, samples of a member, components of a sample)
    shape = (len(values), -1, len(members), values.shape[2] // (len(members) * per_sample), per_sample)
    values, samples = values.reshape(shape).copy(), shape[3]
    if weights is not None:
        weights = np.array(weights, dtype=float).reshape(shape)
    for member, number in np.argwhere(which):
        answers = tree.questions[number].slice
        logs = np.log(values[:, answers, member])
        values[:, answers, member] = np.exp(logs.mean(axis=2, keepdims=True))
        if weights is not None:
            own = weights[:, number, member]
            total = own.sum(axis=2, keepdims=True)
            mean = np.exp(np.log(np.maximum(own / total, SMALLEST)).mean(axis=1, keepdims=True))
            weights[:, number, member] = total * mean / mean.sum(axis=2, keepdims=True)
    if which.all():
        values, weights = values[:, :, :, :1], None if weights is None else samples * weights[:, :, :, :1]
    flat = (len(values), -1, int(np.prod(values.shape[2:])))
    return values.reshape(flat), None if weights is None else weights.reshape(flat)


def pieces(recalibrations):
    """How many components each component becomes by `apply`, 1 or 3."""
    return max((len(one["factors"]) for found in recalibrations for one in (found or {}).values()), default=1)


def beside(folders, models, tree, labels=None):
    """The `recalibration.json` files in the folders of models, and that of the ensemble which they are.

    Args:
        folders: of the models.
        models: the hash of each.
        tree: their `DecisionTree`; None if they are of labels.
        labels: a list of `Label`, those of finetuned models.

    Returns:
        A list of paths. The file of an ensemble counts if it is beside all folders and of just these models.
    """
    paths = [Path(folder) / NAME for folder in folders]
    parents = {Path(folder).resolve().parent for folder in folders}
    found = [path for path in paths if path.is_file()]
    if len(folders) > 1 and len(parents) == 1 and (own := parents.pop() / NAME).is_file():
        about = _read(own, tree, labels)
        found += [own] if sorted(about.get("models", ())) == sorted(models) else []
    return found


def of_predictions(paths, opened, about, pooled=True):
    """Read the recalibrations of the members that predictions are of.

    Args:
        paths: as for `of_members`.
        opened: `files.Predictions`.
        about: the attributes of its file.
        pooled: False keeps the samples of each member apart.

    Returns:
        See `of_members`.

    Raises:
        UserError: see `of_members`; or the predictions are no concentrations, or do not name their models.
    """
    models = json.loads(about.get("each_model", "null"))
    labels = opened.named_labels
    if models is None or not (opened.kind == "concentrations" if opened.tree else labels):
        what = "does not say which models it is of" if models is None else f"has {opened.kind}"
        raise UserError(
            f"{opened.path}: {what}, so {paths[0]} cannot be applied to it; predict again with this version"
            " and a model of a tree, or set predict.recalibrate to false."
        )
    found = of_members(paths, models, opened.tree, opened.path, labels)
    if opened.tree and not pooled:
        members = [found_of or {} for found_of in found]
        found = [{name: {**one, "pooled": False} for name, one in member.items()} for member in members]
    return found


def of_members(paths, models, tree, origin, labels=None):
    """Read the recalibrations of an ensemble, and find the member that each one belongs to.

    Args:
        paths: files `recalibration.json` of members and of the ensemble, in any order; members without one
            stay as they are.
        models: the hash of each member, `predict.identity_of`.
        tree: the `DecisionTree` of the members; None if they are of labels.
        origin: what the members are, in messages.
        labels: a list of `Label`, those of finetuned members.

    Returns:
        A list for `apply`, or without a tree for `label_calibration.apply`, one entry a member; None without
        any file.

    Raises:
        UserError: a file is damaged, or belongs to a model that is no member, or to another ensemble.
    """
    found, factor = {}, 1.0
    for path in paths:
        about = _read(path, tree, labels)
        if "factor" in about:
            if sorted(about["models"]) != sorted(models):
                raise UserError(
                    f"{path}: belongs to an ensemble of other models ({', '.join(about['models'])}) than"
                    f" {origin} ({', '.join(map(str, models))}); if this run trains them, type the same"
                    " command with --forcerun recalibrate_ensemble; if not, delete this file."
                )
            factor *= about["factor"]
            continue
        if about["model"] not in models:
            raise UserError(
                f"{path}: belongs to another model.keras (its hash is {about['model']}) than {origin}"
                f" ({', '.join(map(str, models))}); if this run trains the model, type the same command with"
                " --forcerun recalibrate_member recalibrate_task; if not, delete this file or copy the one"
                " that belongs to the model, or set predict.recalibrate to false."
            )
        found[about["model"]] = about["questions" if tree else "labels"]
    if factor != 1:
        left = {question.name: LEFT for question in tree.questions}
        of_models = {model: found.get(model, left) for model in models}
        for model, one_of in of_models.items():
            scaled = {name: [factor * each for each in one["factors"]] for name, one in one_of.items()}
            found[model] = {name: {**one, "factors": scaled[name]} for name, one in one_of.items()}
    return [found.get(model) for model in models] if paths else None


def _read(path, tree, labels):
    """The content of a `recalibration.json`, checked so far that `apply` can use it."""
    try:
        about = json.loads(Path(path).read_text())
        if tree and "factor" in about:
            if not (isinstance(about["factor"], float) and 0 < about["factor"] < np.inf):
                raise ValueError("'factor' is no number above 0")
            if not all(isinstance(model, str) for model in about["models"]):
                raise ValueError("'models' are no texts")
            return about
        if not isinstance(about["model"], str):
            raise ValueError("'model' is no text")
        if not tree:
            label_calibration.check(about["labels"], labels)
        for question in tree.questions if tree else ():
            one = about["questions"][question.name]
            factors, added = (np.array(one[key], float) for key in ("factors", "added"))
            if not isinstance(one.get("pooled", False), bool):
                raise ValueError(f"'pooled' of '{question.name}' is not true or false")
            good = factors.shape in ((1,), (SPREAD,)) and np.isfinite(factors).all() and (factors > 0).all()
            if not good or added.ndim != 1 or not (added >= 0).all() or added.sum() > 1 + 1e-9:
                raise ValueError(f"impossible numbers for '{question.name}'")
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        check_machine(error, path)
        reason = " ".join(str(error).split()) + " is missing" * isinstance(error, KeyError)
        what = f"the tree '{tree.name}'" if tree else " and ".join(f"'{label.name}'" for label in labels)
        raise UserError(
            f"{path}: cannot be read as a recalibration of {what} ({reason}); delete it, and if this run"
            " trains the model, type the same command again."
        ) from None
    return about
