"""What the training galaxies of a model look like to its backbone, and how far another galaxy is from them.

A galaxy is described by the direction of its features and by the logarithm of their length. The training
galaxies are taken for a Gaussian: with a variance of its own along each axis of large variance, and with a
common one along all others. docs/unfamiliar.md compares this with nearest neighbours and k-means.
"""

import base64
from dataclasses import replace

import numpy as np

from zoolib.job.logs import log
from zoolib.learning.features import features_of_store

# The key of `model.json`.
FAMILIAR = "familiar"
# At most so many galaxies of the training and of the validation are looked at, evenly over all of them.
LEARNED, CHECKED = 20_000, 5_000
# Axes that have a variance of their own; of a backbone with 1280 features they take 0.4 MB in `model.json`.
AXES = 64
# So many distances of validation galaxies are kept; if there are more galaxies, as many quantiles.
KEPT = 1_000
# A length of 1.1 times the mean one counts as much as a direction that is 0.01 away from the mean one.
LENGTH = 0.1
# No variance is smaller than this share of the mean variance: features may always be 0.
SMALLEST = 1e-6


def familiar_galaxies(backbone, learn, check, augmentation):
    """Describe the training galaxies as a trained backbone sees them upright and central: one pass over some.

    Args:
        backbone: keras.Model.
        learn: the `datasets.Store` of the galaxies that were learned from.
        check: that of the validation galaxies.
        augmentation: {"name", "steps"} of the training.

    Returns:
        What `summarize` returns.
    """
    learned, checked = (
        features_of_store(backbone, _some(store, most), augmentation)[0]
        for store, most in ((learn, LEARNED), (check, CHECKED))
    )
    log.info("Described %s training galaxies, by %s of validation", f"{len(learned):,}", f"{len(checked):,}")
    return summarize(learned, checked)


def _some(store, most):
    """At most so many galaxies of a store, every second for example; images of others are not decoded."""
    every = -(-store.count // most)
    counts = tuple(-(-count // every) for count in store.counts)
    return replace(store, counts=counts, open=lambda number: store.open(number).shard(every, 0))


def summarize(learned, checked):
    """What `model.json` says of the features of the training galaxies.

    Args:
        learned: (galaxies, features), of training galaxies.
        checked: (galaxies, features), of validation galaxies.

    Returns:
        {"galaxies": how many were looked at; "center", "axes", "variances" and "validation": float32 numbers
        as text}; None if there are too few galaxies, or features that are no numbers.
    """
    seen = _prepared(learned)
    galaxies, size = seen.shape
    if galaxies < 3 or not len(checked) or not (np.isfinite(seen).all() and np.isfinite(checked).all()):
        return None
    center = seen.mean(axis=0)
    # The variances of few galaxies are known along few axes only.
    count = min(AXES, size - 1, (galaxies - 1) // 2)
    variances, axes = np.linalg.eigh((seen - center).T @ (seen - center) / (galaxies - 1))
    variances, axes = np.maximum(variances[::-1], 0), axes.T[::-1]
    rest = variances[count:].sum() / (size - count)
    variances = np.maximum([*variances[:count], rest], SMALLEST * max(variances.sum() / size, SMALLEST))
    about = {"galaxies": galaxies}
    about |= {"center": _text(center), "axes": _text(axes[:count]), "variances": _text(variances)}
    found = np.sort(Familiar({FAMILIAR: {**about, "validation": ""}}).distances(checked))
    if len(found) > KEPT:
        found = np.quantile(found, (np.arange(KEPT) + 0.5) / KEPT)
    return {**about, "validation": _text(found)}


class Familiar:
    """The training galaxies of a model, as its `model.json` describes them.

    Args:
        about: the content of `model.json`; that of an older model has no such description.

    Attributes:
        validation: (galaxies,) sorted distances of validation galaxies, float32; empty without a description.
    """

    def __init__(self, about):
        self.said = about.get(FAMILIAR)
        if self.said:
            keys = ("center", "variances", "axes")
            self.center, self.variances, axes = (_numbers(self.said[key]).astype(float) for key in keys)
            self.axes = axes.reshape(-1, len(self.center))
        self.validation = _numbers(self.said["validation"] if self.said else "")

    def distances(self, features):
        """How far galaxies are from the training galaxies: the Mahalanobis distance.

        Args:
            features: (galaxies, features), what the model's backbone gives for their images.

        Returns:
            (galaxies,) float32, in units in which the mean square of a Gaussian's distances is 1; NaN without
            a description.
        """
        if not self.said:
            return np.full(len(features), np.nan, np.float32)
        away = _prepared(features) - self.center
        along = away @ self.axes.T
        # Not by the squares' difference, which is small where the first axes have nearly all of the variance.
        others = away - along @ self.axes
        squares = (along**2 / self.variances[:-1]).sum(axis=1) + (others**2).sum(axis=1) / self.variances[-1]
        return np.sqrt(squares / len(self.center)).astype(np.float32)

    def represent(self, features, kind):
        """Galaxies as `representations` keeps them.

        Args:
            features: (galaxies, features), what the model's backbone gives for their images.
            kind: `features`: as they are; `pca`: along the axes of the largest variance of the training
                galaxies, at most 64, from their mean; `none`.

        Returns:
            (galaxies, numbers); None for `none`, and for `pca` without a description.
        """
        if kind == "features":
            return features
        if kind == "none" or not self.said:
            return None
        return (_prepared(features) - self.center) @ self.axes.T


def _prepared(features):
    """(galaxies, features + 1): the direction of the features, and their length, logarithmic."""
    features = np.asarray(features, dtype=float)
    length = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.concatenate([features / length, LENGTH * np.log(length)], axis=1)


def _text(numbers):
    return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


def _numbers(text):
    return np.frombuffer(base64.b64decode(text), "<f4")
