"""How well predictions agree with the volunteers on galaxies that no model was trained on."""

import json

import numpy as np
import pandas as pd
from scipy import stats

from zoolib.baselines import constant_concentrations
from zoolib.logs import UserError, log, progress, whole
from zoolib.posteriors import log_predictive, mean_fractions
from zoolib.predictions import open_predictions

# A question counts for a galaxy that at least this share of its volunteers answered it for.
RELEVANT = 0.5
SCORES = ("accuracy", "precision", "recall", "f1")
KINDS = ("binary",)


def evaluate(predictions, test, train, min_votes, confident, scores, losses, confusion, metrics):
    """Compare posteriors with the volunteers' votes, by the rules of Walmsley et al. 2022, section 5.2.

    Args:
        predictions: HDF5 of concentrations (may be virtual); galaxies of the catalogue may be missing.
        test: catalogue (Parquet) with the votes to compare with.
        train: catalogue (Parquet) whose votes the constant predictor knows.
        min_votes: votes on the first question that a galaxy needs to be scored.
        confident: volunteers are confident where one answer has more than this share of the votes.
        scores: CSV to write: question, subset (all, confident), count, accuracy, precision, recall, f1.
        losses: CSV to write: question, galaxies that were asked it, and the mean loss over all
            galaxies in nats of the model and of the best single Dirichlet; last row `total`.
        confusion: CSV to write: question, subset, true, predicted, count.
        metrics: JSON to write: a summary of the three.

    Raises:
        UserError: predictions and catalogue have no galaxy or no tree in common.
    """
    with open_predictions(predictions) as opened:
        if opened.tree is None:
            raise UserError(
                f"{predictions}: holds {opened.kind}, expected concentrations; finetuned tasks are"
                " compared with their labels by evaluate_labels."
            )
        tree = opened.tree
        catalog, rows = _matching_rows(opened, test)
        votes = _votes(catalog, tree, test)
        known = _votes(pd.read_parquet(train), tree, train)
        constant = constant_concentrations(tree=tree, votes=known)
        fractions = np.empty((len(rows), len(tree.columns)))
        nats = {name: np.zeros((len(rows), len(tree.questions))) for name in ("model", "constant")}
        # Blocks follow the file; each galaxy of the catalogue is filled in when its block comes.
        with progress(None, "comparing with the volunteers", total=len(opened.id_str)) as meter:
            for block, values in opened.blocks():
                here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
                of_block = values[rows[here] - block.start]
                fractions[here] = mean_fractions(of_block, tree)
                nats["model"][here] = _question_losses(tree, votes[here], of_block)
                of_constant = np.broadcast_to(constant[None, :, None], (len(here), len(constant), 1))
                nats["constant"][here] = _question_losses(tree, votes[here], of_constant)
                meter.update(len(values))
    loss_table = _loss_table(tree, votes, nats)
    score_table, confusion_table = _compare(tree, votes, fractions, min_votes, confident, test)
    _write_csv(loss_table, losses)
    _write_csv(score_table, scores)
    _write_csv(confusion_table, confusion)
    _write_metrics(_summary(loss_table, score_table, len(rows)), metrics)


def evaluate_labels(predictions, test, train, label, kind, scores, confusion):
    """Compare a finetuned classifier with the labels of the test galaxies.

    Args:
        predictions: HDF5 of probabilities of the label, (galaxies, 1, samples).
        test: catalogue (Parquet) with the labels to compare with.
        train: catalogue (Parquet) whose share of positive labels the constant predictor knows.
        label: name of the catalogue's column of labels, 0 or 1.
        kind: kind of the label; `binary` is the only one.
        scores: CSV to write, one row: question (the label), subset, count, accuracy; precision, recall
            and f1 of the label 1; auc (area under the receiver operating characteristic); loss and
            constant_loss, mean negative log likelihoods in nats.
        confusion: CSV to write: question, subset, true, predicted, count.

    Raises:
        UserError: another kind, no galaxy in common, or a label that is neither 0 nor 1.
    """
    if kind not in KINDS:
        raise UserError(f"a task of kind '{kind}' cannot be evaluated; the kinds are: {', '.join(KINDS)}.")
    with open_predictions(predictions) as opened:
        catalog, rows = _matching_rows(opened, test)
        if label not in opened.columns:
            raise UserError(
                f"{predictions}: predicts {', '.join(opened.columns)}, expected '{label}'; predict again."
            )
        means = [values[:, opened.columns.index(label)].mean(axis=1) for _, values in opened.blocks()]
        probability = np.concatenate(means)[rows]
    truth = _labels(catalog, label, test)
    known = _labels(pd.read_parquet(train), label, train)
    counts = confusion_matrix(truth, (probability > 0.5).astype(int), 2)
    right, called, true = counts[1, 1], counts[:, 1].sum(), counts[1].sum()
    row = {
        "question": label,
        "subset": "all",
        "count": len(rows),
        "accuracy": np.trace(counts) / len(rows),
        "precision": right / called if called else np.nan,
        "recall": right / true if true else np.nan,
        "f1": 2 * right / (called + true) if called + true else np.nan,
        "auc": area_under_curve(truth, probability),
        "loss": _binary_loss(truth, probability),
        "constant_loss": _binary_loss(truth, np.full(len(truth), known.mean())),
    }
    _write_csv(pd.DataFrame([row]), scores)
    _write_csv(pd.DataFrame(_confusion_rows(label, "all", (f"no {label}", label), counts)), confusion)
    log.info(
        "%s: accuracy %.3f on %d galaxies, loss %.3f (constant: %.3f)",
        label,
        row["accuracy"],
        len(rows),
        row["loss"],
        row["constant_loss"],
    )


def confusion_matrix(truth, predicted, classes):
    """Count galaxies by what they are and what they are said to be.

    Args:
        truth: (galaxies,), whole numbers from 0.
        predicted: (galaxies,), the same.
        classes: how many there are.

    Returns:
        (classes, classes), true classes in rows, predicted ones in columns.
    """
    pairs = np.asarray(truth) * classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def weighted_scores(counts):
    """Accuracy, precision, recall and F1, averaged over classes with their true counts as weights.

    These are the averages of Walmsley et al. 2022, table 1. A class that is never predicted has
    precision and F1 0.

    Args:
        counts: (classes, classes), as `confusion_matrix` gives it.

    Returns:
        {name: score}; NaN where there is no galaxy.
    """
    if not counts.sum():
        return dict.fromkeys(SCORES, np.nan)
    right, true, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    precision = right / np.maximum(called, 1)
    recall = right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(called + true, 1)
    averages = [np.average(score, weights=true) for score in (precision, recall, f1)]
    return dict(zip(SCORES, [right.sum() / counts.sum(), *averages], strict=True))


def area_under_curve(truth, scores):
    """Probability that a positive galaxy scores above a negative one; ties count half.

    Args:
        truth: (galaxies,), 0 or 1.
        scores: (galaxies,), higher for positive ones.

    Returns:
        Between 0 and 1; NaN where all galaxies are alike.
    """
    truth = np.asarray(truth, dtype=bool)
    positive, negative = truth.sum(), (~truth).sum()
    if not positive or not negative:
        return np.nan
    # The rank sum of Mann and Whitney.
    ranks = stats.rankdata(scores)[truth].sum()
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)


def _matching_rows(opened, test):
    """Rows of the catalogue that were predicted, and where each lies in the predictions."""
    catalog = pd.read_parquet(test)
    rows = pd.Index(opened.id_str).get_indexer(catalog["id_str"])
    found = rows >= 0
    if not found.any():
        raise UserError(
            f"{opened.path}: none of its {len(opened.id_str)} galaxies is among the {len(catalog)} of {test};"
            " evaluate.target must name a target of predict.targets that predicts the test split."
        )
    if not found.all():
        log.info(
            "%d of %d test galaxies have no prediction, as their image was rejected; they are left out.",
            (~found).sum(),
            len(catalog),
        )
    return catalog[found], rows[found]


def _votes(catalog, tree, origin):
    missing = [column for column in tree.columns if column not in catalog]
    if missing:
        raise UserError(
            f"{origin}: the votes '{missing[0]}' are missing; the predictions are for the tree"
            f" '{tree.name}', so the catalogue must be made with that tree (catalogs[].tree)."
        )
    return catalog[tree.columns].to_numpy()


def _labels(catalog, label, origin):
    values = pd.to_numeric(catalog[label], errors="coerce") if label in catalog else pd.Series([np.nan])
    wrong = ~values.isin((0, 1))
    if wrong.any():
        found = catalog[label][wrong].iloc[0] if label in catalog else "no such column"
        raise UserError(f"{origin}: label '{label}': found {found}, expected 0 or 1 for every galaxy.")
    return values.to_numpy().astype(int)


def _question_losses(tree, votes, concentrations):
    losses = [-log_predictive(votes[:, q.slice], concentrations[:, q.slice]) for q in tree.questions]
    return np.stack(losses, axis=1)


def _binary_loss(truth, probability):
    smallest = np.finfo(np.float32).eps
    chosen = np.where(truth == 1, probability, 1 - probability)
    return -np.log(np.clip(chosen, smallest, 1)).mean()


def _loss_table(tree, votes, nats):
    rows = []
    for index, question in enumerate(tree.questions):
        galaxies = int((votes[:, question.slice].sum(axis=1) > 0).sum())
        means = {name: values[:, index].mean() for name, values in nats.items()}
        rows.append({"question": question.name, "galaxies": galaxies, **means})
    totals = {name: values.sum(axis=1).mean() for name, values in nats.items()}
    return pd.DataFrame([*rows, {"question": "total", "galaxies": len(votes), **totals}])


def _compare(tree, votes, fractions, min_votes, confident, origin):
    """The tables of scores and of confusions, by the paper's rules."""
    volunteers = votes[:, tree.questions[0].slice].sum(axis=1)
    enough = volunteers >= min_votes
    if not enough.any():
        log.warning(
            "%s: no galaxy has %d votes (the most is %d), so the scores are empty; lower evaluate.min_votes.",
            origin,
            min_votes,
            volunteers.max(),
        )
    scores, confusions = [], []
    for subset in ("all", "confident"):
        for question in tree.questions:
            of_question = votes[:, question.slice]
            asked = of_question.sum(axis=1)
            chosen = enough & (asked > 0) & (asked >= RELEVANT * volunteers)
            if subset == "confident":
                chosen &= of_question.max(axis=1) > confident * asked
            truth = of_question[chosen].argmax(axis=1)
            predicted = fractions[chosen][:, question.slice].argmax(axis=1)
            counts = confusion_matrix(truth, predicted, len(question.answers))
            about = {"question": question.name, "subset": subset, "count": int(chosen.sum())}
            scores.append({**about, **weighted_scores(counts)})
            confusions += _confusion_rows(question.name, subset, question.answers, counts)
    return pd.DataFrame(scores), pd.DataFrame(confusions)


def _confusion_rows(question, subset, answers, counts):
    return [
        {"question": question, "subset": subset, "true": true, "predicted": predicted, "count": count}
        for true, of_true in zip(answers, counts, strict=True)
        for predicted, count in zip(answers, of_true, strict=True)
    ]


def _summary(losses, scores, galaxies):
    total = losses.set_index("question").loc["total"]
    by_subset = {}
    for subset, rows in scores.groupby("subset"):
        accuracies = rows.set_index("question")["accuracy"]
        counts = rows.set_index("question")["count"]
        by_subset[subset] = {
            name: {"count": int(counts[name]), "accuracy": None if np.isnan(accuracy) else float(accuracy)}
            for name, accuracy in accuracies.items()
        }
    return {
        "galaxies": galaxies,
        "loss": {"model": float(total["model"]), "constant": float(total["constant"])},
        **by_subset,
    }


def _write_csv(table, path):
    with whole(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")


def _write_metrics(summary, path):
    log.info(
        "mean loss of %d galaxies: %.4f nats (constant predictor: %.4f)",
        summary["galaxies"],
        summary["loss"]["model"],
        summary["loss"]["constant"],
    )
    with whole(path) as partial:
        partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
