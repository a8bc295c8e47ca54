"""Which pixels an encoder was trained on: linear probes of its features try the likely ones."""

import numpy as np
import pandas as pd

from zoolib.config.normalise import mean_and_std
from zoolib.job.logs import UserError, log
from zoolib.learning.features import features_of_store
from zoolib.learning.normalise import set_normalise
from zoolib.posteriors.summary import log_predictive
from zoolib.scores.linear_probe import SMALLEST, fit_probe

# The first one wins if two are equally good.
CANDIDATES = ("unit", "imagenet", "unit/255")


def probe_normalise(backbone, stores, labels, augmentation, key):
    """Score a linear probe for each normalisation that an encoder may have been trained with.

    Each probe learns from the galaxies that the training learns from, and is scored on those that decide when
    it stops. Test galaxies have no part in it: with folds, each fold chooses on its own labels, because the
    labels of one fold are the test labels of another.

    Args:
        backbone: keras.Model; its first layer is changed.
        stores: {"train", "validation": `datasets.Store`}, labelled with the targets of the labels.
        labels: a list of `Label`.
        augmentation: {"name", "steps"}; the central view has its mean scale.
        key: of `normalise`, for messages.

    Returns:
        {name of the normalisation: mean loss of the validation galaxies, the smaller the better}.

    Raises:
        UserError: the backbone cannot be changed, or gives no finite features in any way.
    """
    targets = [column for label in labels for column in label.targets]
    losses = {}
    for name in CANDIDATES:
        set_normalise(backbone, *mean_and_std(name, backbone.input_shape[-1], key), key)
        seen = {}
        for split, store in stores.items():
            features, values = features_of_store(backbone, store, augmentation)
            seen[split] = features, pd.DataFrame(values, columns=targets)
        if all(np.isfinite(features).all() for features, _ in seen.values()):
            probe = fit_probe(seen["train"][0], labels, seen["train"][1], f"{key}, {name}")
            losses[name] = _loss(probe(seen["validation"][0]), labels, *(seen[s][1] for s in stores))
    if not losses:
        raise UserError(f"{key}: the model gives features that are no numbers; start from another model.")
    for name, loss in losses.items():
        log.info("normalise: probe: %s has a validation loss of %.4f", name, loss)
    return losses


def _loss(outputs, labels, train, validation):
    """The mean loss of the validation galaxies, summed over the labels; numbers in units of their spread."""
    total, start = 0.0, 0
    for label in labels:
        found = outputs[:, start : start + len(label.outputs)]
        start += len(label.outputs)
        if label.kind == "votes":
            for question in label.tree.questions:
                votes = validation[question.columns].to_numpy(float)
                total -= log_predictive(votes, found[:, question.slice, None]).mean()
            continue
        known = validation[label.name].to_numpy()
        if label.kind == "regression":
            total += ((found[:, 0] - known) ** 2).mean() / max(train[label.name].var(ddof=0), SMALLEST)
            continue
        shares = np.column_stack([1 - found, found]) if label.kind == "binary" else found
        total -= np.log(np.maximum(shares[np.arange(len(known)), known.astype(int)], SMALLEST)).mean()
    return float(total)
