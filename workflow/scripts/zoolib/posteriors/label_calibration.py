"""Recalibration of finetuned labels: what the labels of the validation galaxies say about their intervals.

Classes have a temperature T: each sample's probabilities become softmax(log p / T) (Guo et al. 2017,
arXiv:1706.04599). Numbers have the scatter of their residuals: the samples of a member are replaced by its
mean plus the residuals that split-conformal prediction allows (Lei et al. 2018, arXiv:1604.04173). The mean
stays as it was. Votes are recalibrated as those of a big model (`recalibration`).
"""

import numpy as np

# scipy.optimize is imported where it is used: it takes most of a second, and most jobs only read files.
import scipy

# With fewer validation galaxies a label stays as it is.
FEWEST = 10
# A parameter must make the data likelier by so many nats (the criterion of Akaike 1974).
GAIN = 1.0
# Logarithms of a temperature; no probability is smaller.
TEMPERATURES, SMALLEST = (-3.0, 3.0), 1e-15
# So many residuals are kept, or as many quantiles.
KEPT = 999
# Components of a number, at least.
NODES = 200


def fit(labels, targets, values, known):
    """Fit the recalibration of the labels of one finetuned model.

    Args:
        labels: a list of `Label`; votes are left out.
        targets: data frame of the labels of the validation galaxies.
        values: (galaxies, outputs of all labels, samples), what the model predicted for them.
        known: data frame of the labels of all galaxies of the task: they tell which numbers are fractions.

    Returns:
        {label: plain values}: `kind` (leave, temperature or residuals), `galaxies`. Classes have
        `temperature`, and mean log losses in nats `before` and `after`. Numbers have `scale` (a, b of the
        scatter sqrt(a² + b² s²), s the deviation of the samples), `residuals` (sorted, absolute, in units of
        the scatter), `noise` (root mean squared residual; None where it is not known), `bounds` ([lowest,
        highest] or None) and `guessed` (whether the bounds are).
    """
    found = {}
    for label, own in zip(labels, slices(labels), strict=True):
        if label.kind == "regression":
            found[label.name] = _fit_number(label, targets[label.name].to_numpy(float), values[:, own][:, 0])
            found[label.name] |= _bounds(label, known[label.name].to_numpy(float))
        elif label.kind != "votes":
            classes = targets[label.name].to_numpy(int)
            found[label.name] = _fit_classes(classes, with_no(values[:, own]))
    return found


def slices(labels):
    """The columns of each label among the outputs of all: a list of slices."""
    ends = np.cumsum([0, *(len(label.outputs) for label in labels)])
    return [slice(int(begin), int(end)) for begin, end in zip(ends, ends[1:], strict=False)]


def with_no(values):
    """Probabilities of all classes: those of yes get those of no before them."""
    return values if values.shape[1] > 1 else np.concatenate([np.maximum(1 - values, 0), values], axis=1)


def tempered(values, temperature):
    """Probabilities at a temperature.

    Args:
        values: (galaxies, classes, samples).
        temperature: above 1 they become less sure.

    Returns:
        The same shape; the sum over classes is 1.
    """
    logits = np.log(np.maximum(values, SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def temperature_loss(logarithm, classes, values):
    """What a temperature minimises: the log loss of the mean of the samples, with Platt's targets.

    A few galaxies that are all right must not make a model certain, so the target of the true class is
    (n + 1) / (n + K), as if there was another galaxy of each of the K classes (Platt 1999).

    Args:
        logarithm: of the temperature.
        classes: (galaxies,) the true class.
        values: (galaxies, classes, samples), probabilities.

    Returns:
        nats a galaxy.
    """
    logs = np.log(np.maximum(tempered(values, np.exp(logarithm)).mean(axis=2), SMALLEST))
    galaxies, count = logs.shape
    wanted = (np.eye(count)[classes] * galaxies + 1) / (galaxies + count)
    return -(wanted * logs).sum(axis=1).mean()


def _fit_classes(classes, values):
    found = {"kind": "leave", "temperature": 1.0, "galaxies": len(classes), "before": None, "after": None}
    if len(classes) < FEWEST:
        return found
    given = classes, values
    best = scipy.optimize.minimize_scalar(temperature_loss, args=given, bounds=TEMPERATURES, method="bounded")
    if len(classes) * (temperature_loss(0.0, *given) - best.fun) > GAIN:
        found |= {"kind": "temperature", "temperature": float(np.exp(best.x))}
    chosen = np.arange(len(classes)), classes
    for key, temperature in (("before", 1.0), ("after", found["temperature"])):
        mean = tempered(values, temperature).mean(axis=2)
        found[key] = float(-np.log(np.maximum(mean[chosen], SMALLEST)).mean())
    return found


def _fit_number(label, truth, samples):
    residuals, spread = truth - samples.mean(axis=1), samples.std(axis=1)
    found = {"kind": "leave", "scale": [0.0, 1.0], "residuals": [], "galaxies": len(truth)}
    found["noise"] = float(np.sqrt((residuals**2).mean())) if len(truth) > 1 else None
    if len(truth) < FEWEST:
        return found
    scale = _scatter(residuals, spread)
    scores = np.sort(np.abs(residuals) / _deviation(scale, spread))
    if len(scores) > KEPT:
        scores = np.quantile(scores, np.arange(1, KEPT + 1) / (KEPT + 1), method="weibull")
    return found | {"kind": "residuals", "scale": [float(one) for one in scale], "residuals": scores.tolist()}


def _scatter(residuals, spread):
    """(a, b) of the scatter by maximum likelihood; b is 0 unless the spread of the samples helps."""
    alone = np.sqrt((residuals**2).mean())
    if not alone > 0 or not spread.any():
        return alone, 0.0

    def loss(logs):
        variance = np.exp(2 * logs[0]) + np.exp(2 * logs[1]) * spread**2
        return (np.log(variance) + residuals**2 / variance).sum() / 2

    start = np.log([alone / 2, alone / 2 / np.sqrt((spread**2).mean())])
    best = scipy.optimize.minimize(
        loss, start, bounds=[(one - 10, one + 10) for one in start], method="L-BFGS-B"
    )
    plain = len(residuals) * (np.log(alone) + 0.5)
    return tuple(np.exp(best.x)) if plain - best.fun > GAIN else (alone, 0.0)


def _deviation(scale, spread):
    # A scatter of 0 is that of numbers that are all predicted exactly.
    return np.maximum(np.hypot(scale[0], scale[1] * spread), np.finfo(float).tiny)


def _bounds(label, known):
    """The bounds of a label; numbers that are all from 0 to 1 are taken for fractions."""
    if label.bounds:
        return {"bounds": list(label.bounds), "guessed": False}
    known = known[~np.isnan(known)]
    guessed = bool(len(known) and known.min() >= 0 and known.max() <= 1)
    return {"bounds": [0.0, 1.0] if guessed else None, "guessed": guessed}


def apply(members, values, labels):
    """Correct the samples of some galaxies.

    Args:
        members: what `fit` returned for each member, in their order; None for one that stays as it is.
        values: (galaxies, outputs of all labels, samples); those of one member are neighbours.
        labels: a list of `Label`.

    Returns:
        (galaxies, outputs, components). If there is a number, there are several components for each sample,
        so that its intervals are smooth.
    """
    share = values.shape[2] // len(members)
    times = -(-NODES // values.shape[2]) if any(label.kind == "regression" for label in labels) else 1
    found = []
    for number, member in enumerate(members):
        own = values[:, :, number * share : (number + 1) * share]
        some = np.repeat(own, times, axis=2)
        for label, columns in zip(labels, slices(labels), strict=True):
            one = (member or {}).get(label.name, {"kind": "leave"})
            if one["kind"] == "temperature":
                of_classes = tempered(with_no(some[:, columns]), one["temperature"])
                some[:, columns] = of_classes[:, 1:] if columns.stop - columns.start == 1 else of_classes
            elif one["kind"] == "residuals":
                some[:, columns] = _drawn(one, own[:, columns], share * times)
        found.append(some)
    return np.concatenate(found, axis=2)


def _drawn(one, samples, count):
    """Numbers at evenly spaced levels of the predictive distribution, (galaxies, 1, count)."""
    levels = 2 * (np.arange(count) + 0.5) / count - 1
    scores = np.array([0.0, *one["residuals"]])
    # The i-th of n residuals is at i / (n + 1); beyond the last one nothing is known.
    sizes = np.interp(np.abs(levels), np.arange(len(scores)) / len(scores), scores)
    scatter = _deviation(one["scale"], samples.std(axis=2, keepdims=True))
    return samples.mean(axis=2, keepdims=True) + scatter * np.sign(levels) * sizes


def tempered_only(members):
    """The recalibrations of classes alone: numbers stay as they were drawn."""
    return [
        member and {name: one if "temperature" in one else {"kind": "leave"} for name, one in member.items()}
        for member in members
    ]


def bounds_of(members, labels):
    """Lowest and highest possible values of the outputs of some labels.

    Args:
        members: as for `apply`.
        labels: a list of `Label`.

    Returns:
        Two arrays (outputs,), infinite where there is no bound.
    """
    low, high = np.full((2, sum(len(label.outputs) for label in labels)), np.inf) * [[-1], [1]]
    for label, own in zip(labels, slices(labels), strict=True):
        found = [(member or {}).get(label.name, {}).get("bounds") for member in members]
        if all(found):
            low[own], high[own] = min(one[0] for one in found), max(one[1] for one in found)
    return low, high


def noise_of(members, labels):
    """Residual variance of each label, the mean of the members; NaN if one does not say it."""
    found = [
        [(member or {}).get(label.name, {}).get("noise") for member in members or [None]] for label in labels
    ]
    return [np.nan if None in ones else float(np.mean(np.square(ones))) for ones in found]


def check(found, labels):
    """Check what a file says of some labels, so far that `apply` can use it.

    Args:
        found: as `fit` returned it.
        labels: a list of `Label`.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or is a number that no fit gives.
    """
    for label in labels:
        if label.kind == "votes":
            continue
        one = found[label.name]
        keys = ("residuals", "scale") if label.kind == "regression" else ("temperature",)
        numbers = np.concatenate([np.atleast_1d(np.array(one[key], float)) for key in keys])
        kinds = ("leave", "residuals" if label.kind == "regression" else "temperature")
        good = one["kind"] in kinds and np.isfinite(numbers).all() and (numbers >= 0).all()
        if label.kind == "regression":
            rest = [*(one["bounds"] or []), 0 if one["noise"] is None else one["noise"]]
            good &= np.isfinite(rest).all() and len(rest) in (1, 3) and len(one["scale"]) == 2
        elif good:
            good = one["temperature"] > 0
        if not good:
            raise ValueError(f"impossible numbers for '{label.name}'")
