"""The linear probe: what a regression makes of the features of a backbone that has not been finetuned.

A finetuned model that is worse than this has not learned what its start already knew. The features are those
of the central view; they are scaled, and a logistic or ridge regression learns from them. How strongly it is
regularised is chosen by cross-validation.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from zoolib.config.labels import Label
from zoolib.data.catalogs import read_catalog
from zoolib.data.fits import cut_fit
from zoolib.job.logs import UserError, log, whole
from zoolib.posteriors.summary import log_predictive

# Regularisation that is tried: C of a logistic regression, from the strongest; alpha of a ridge regression.
CS = np.logspace(-5, 1, 7)
ALPHAS = np.logspace(-1, 6, 15)
# C where there are too few galaxies of a class to choose one.
USUAL_C = 0.01
FOLDS = 5
# More galaxies hardly make a regression better, and these take a minute.
MOST = 20_000
# No probability is smaller where a regression is scored, or where it becomes a concentration.
SMALLEST = 1e-6
# Logarithms of the sum of the concentrations of a question.
STRENGTHS = (0.0, 9.0)


def probe_task(galaxies, model, fits, abouts, output):
    """Fit a probe for each finetuning of a task, on the galaxies whose labels the finetuning sees.

    The features of all galaxies are computed once for each way in which the finetunings scale pixels. A
    finetuning from scratch has the same probe as the one from the pretrained model, so it is left out.

    Args:
        galaxies: `galaxies.parquet` of the task.
        model: folder of the model that the task starts from.
        fits: names of the finetunings, "" or e.g. "fold0".
        abouts: {name of a finetuning on all labels: its `model.json`}; one on some labels has the pixels of
            the finetuning on all of them.
        output: Parquet to write: id_str, fit, and for each output of the labels what the probe gives: a
            probability, a number, or a concentration. One row for each galaxy and finetuning.

    Raises:
        UserError: a model or an image that cannot be read.
    """
    catalog = read_catalog(galaxies)
    labels = [Label.from_dict(label) for label in catalog.about["labels"]]
    columns = [column for label in labels for column in label.outputs]
    pixels = {name: _pixels_of(path) for name, path in abouts.items()}
    names, features, tables = pd.Index(catalog.table["id_str"]), {}, []
    for name in fits:
        if name.endswith("-scratch"):
            continue
        scaled = pixels[name if name in pixels else ""]
        if scaled not in features:
            features[scaled] = _features_of(catalog, model, scaled, galaxies)
        found, cut = features[scaled], cut_fit(catalog, name, str(galaxies))
        known = pd.concat([cut["train"].table, cut["val"].table], ignore_index=True)[:MOST]
        where = f"{galaxies}{', ' * bool(name)}{name}"
        probe = fit_probe(found[names.get_indexer(known["id_str"])], labels, known, where)
        table = pd.DataFrame(probe(found), columns=columns).astype(np.float32)
        tables.append(catalog.table[["id_str"]].assign(fit=name).join(table))
        log.info("%s: a linear probe of %d features, from %d galaxies", where, found.shape[1], len(known))
    with whole(output) as partial:
        pd.concat(tables, ignore_index=True).to_parquet(partial, index=False)


def _pixels_of(path):
    """(mean, std) by which a finetuned model scales pixels; None where the network does it in another way."""
    found = json.loads(Path(path).read_text())["image"].get("normalise")
    return found and (tuple(found["mean"]), tuple(found["std"]))


def _features_of(catalog, model, scaled, galaxies):
    """What a model's backbone makes of the central view of each galaxy, (galaxies, features)."""
    # Scores do not need Keras, which takes 7 s to import.
    from zoolib.learning import datasets, models
    from zoolib.learning.augment import augmentation_of
    from zoolib.learning.features import features_of_store
    from zoolib.learning.normalise import set_normalise

    start = models.load_model(model)
    if scaled:
        set_normalise(start.backbone, *scaled, f"{model}, normalise")
    store = datasets.from_catalog([catalog.table], [], start.about["image"])
    with datasets.images_read(store):
        features = features_of_store(start.backbone, store, augmentation_of(start.about))[0]
    if not np.isfinite(features).all():
        raise UserError(
            f"{model}: gives features that are no numbers for some galaxies of {galaxies}; start from another"
            " model."
        )
    return features


def fit_probe(features, labels, table, where):
    """Fit a regression for each label, or for each question of a tree.

    Args:
        features: (galaxies, features).
        labels: a list of `Label`.
        table: the targets of the labels, one row for each galaxy.
        where: what messages call the galaxies.

    Returns:
        A function: (galaxies, features) -> (galaxies, outputs of all labels), the probability of yes or of
        each class, the number, or concentrations.
    """
    scaler = StandardScaler().fit(features)
    x = scaler.transform(features).astype(np.float32)
    # On a busy machine, threads that wait for each other make small regressions 30 times slower.
    with threadpool_limits(1):
        parts = [part for label in labels for part in _fit_label(x, label, table, where)]

    def predict(others):
        scaled = scaler.transform(others).astype(np.float32)
        return np.concatenate([part(scaled) for part in parts], axis=1)

    return predict


def _fit_label(x, label, table, where):
    """A function for each part of a label's outputs, (galaxies, features) -> (galaxies, outputs)."""
    if label.kind == "votes":
        questions = label.tree.questions
        return [_fit_question(x, table[q.columns].to_numpy(float), f"{where}, {q.name}") for q in questions]
    if label.kind == "regression":
        ridge = RidgeCV(alphas=ALPHAS).fit(x, table[label.name].to_numpy(float))
        low, high = label.bounds or (-np.inf, np.inf)
        return [lambda others: np.clip(ridge.predict(others), low, high)[:, None]]
    classes = len(label.classes) if label.kind == "multiclass" else 2
    counts = np.eye(classes)[table[label.name].to_numpy(int)]
    predict = _fit_counts(x, counts, f"{where}, {label.name}")[0]
    return [lambda others: predict(others)[:, 1:] if label.kind == "binary" else predict(others)]


def _fit_question(x, votes, where):
    """Concentrations: the probabilities of a regression, times the strength that fits the votes best."""
    asked = votes.sum(axis=1) > 0
    if not asked.any():
        return lambda others: np.ones((len(others), votes.shape[1]))
    predict, found = _fit_counts(x[asked], votes[asked], where)

    def concentrations(strength, probabilities):
        return np.exp(strength) * np.maximum(probabilities, SMALLEST)

    def loss(strength):
        return -log_predictive(votes[asked], concentrations(strength, found)[:, :, None]).sum()

    best = minimize_scalar(loss, bounds=STRENGTHS, method="bounded").x
    return lambda others: concentrations(best, predict(others))


def _fit_counts(x, counts, where):
    """Fit a logistic regression to counts of classes: of a galaxy's class 1, or volunteers' votes.

    Args:
        x: (galaxies, features).
        counts: (galaxies, classes), >= 0.
        where: for messages.

    Returns:
        (a function: (galaxies, features) -> probabilities (galaxies, classes); those of the galaxies
        themselves, each predicted by a regression that has not seen it where there are enough galaxies).
    """
    # As many galaxies as there are, however many votes each has: the regularisation then means the same.
    weights = counts * len(counts) / counts.sum()
    splits = _splits(counts)
    if (counts.sum(axis=0) > 0).sum() < 2:
        return _constant(weights), _constant(weights)(x)
    if not splits:
        log.warning(
            "%s: only one galaxy of a class is there for a linear probe, too few for cross-validation; its"
            " regularisation is not chosen, C is %g",
            *(where, USUAL_C),
        )
        return _regression(x, weights, [USUAL_C])[0], _constant(weights)(x)
    losses, held = np.zeros(len(CS)), np.zeros((len(CS), *counts.shape))
    for known, unknown in splits:
        for number, predict in enumerate(_regression(x[known], weights[known], CS)):
            held[number, unknown] = predict(x[unknown])
    losses = -(weights * np.log(np.maximum(held, SMALLEST))).sum(axis=(1, 2))
    best = losses.argmin()
    return _regression(x, weights, CS[best : best + 1])[0], held[best]


def _splits(counts):
    """Parts for cross-validation, as many as the smallest class has galaxies; empty if it has only one."""
    rows = np.arange(len(counts))
    if (counts.sum(axis=1) == 1).all():
        classes = counts.argmax(axis=1)
        folds = min(FOLDS, np.unique(classes, return_counts=True)[1].min())
        cut = StratifiedKFold
    else:
        classes, folds, cut = rows, min(FOLDS, len(rows)), KFold
    return list(cut(folds, shuffle=True, random_state=0).split(rows, classes)) if folds > 1 else []


def _regression(x, weights, strengths):
    """A function for each C, (galaxies, features) -> (galaxies, classes); classes without galaxies get 0."""
    galaxy, of_class = np.nonzero(weights)
    if len(np.unique(of_class)) < 2:
        return [_constant(weights)] * len(strengths)
    found, start = [], LogisticRegression(max_iter=300, warm_start=True)
    for strength in strengths:
        start.set_params(C=strength)
        with warnings.catch_warnings():
            # Weak regularisation needs many steps; such a regression is rarely the one that is chosen.
            warnings.simplefilter("ignore", ConvergenceWarning)
            start.fit(x[galaxy], of_class, weights[galaxy, of_class])
        found.append(_of_regression(start.coef_.copy(), start.intercept_.copy(), start.classes_, weights))
    return found


def _of_regression(slopes, offsets, classes, weights):
    """Probabilities by the numbers of a regression: it has one row of slopes for two classes."""
    if len(slopes) == 1:
        slopes, offsets = np.concatenate([0 * slopes, slopes]), np.array([0, *offsets])

    def predict(others):
        logits = others @ slopes.T + offsets
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found = np.zeros((len(others), weights.shape[1]))
        found[:, classes] = powers / powers.sum(axis=1, keepdims=True)
        return found

    return predict


def _constant(weights):
    """The shares of the classes, whatever the galaxy looks like."""
    shares = weights.sum(axis=0) / weights.sum()
    return lambda others: np.broadcast_to(shares, (len(others), len(shares)))
