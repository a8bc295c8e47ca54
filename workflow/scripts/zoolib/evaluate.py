"""Stage evaluate: compare predictions with the volunteers, on galaxies that no model was trained on."""

import json

import numpy as np
import pandas as pd
from scipy import stats

from zoolib.config.published import RELEVANCE, SUBSETS
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.summary import mean_fractions
from zoolib.posteriors.unseen import check_unseen
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.confusion import confusion_rows, weighted_scores
from zoolib.scores.questions import matching_rows, question_losses, relevant, votes_of


def evaluate(predictions, test, train, min_votes, confident, output, rule=RELEVANCE[0], recalibrations=None):
    """Compare posteriors with the volunteers' votes, by the rules of Walmsley et al. 2022, section 5.2.

    Args:
        predictions: HDF5 of concentrations, or of the probabilities of a tree's answers (may be
            virtual); galaxies of the catalogue may be missing.
        test: catalogue (Parquet) with the votes to compare with.
        train: catalogue (Parquet) with the votes that the constant predictor learns from.
        min_votes: fewest votes on the first question of a campaign for a galaxy to be scored.
        confident: volunteers are confident where one answer has more than this share of the votes.
        output: attributes with the paths of the files to write.
            scores: CSV of question, subset (all, confident), count, accuracy with the ends of its 95 %
            interval (accuracy_low_95, accuracy_high_95), precision, recall, f1, and the count by each rule of
            `RELEVANCE` (count_product, count_asked).
            losses: CSV of question, galaxies that were asked it, and the mean loss over all galaxies in
            nats, of the model, of the same before its recalibration (as_trained, if it has one), and of the
            best single Dirichlet (constant); the last row is `total`.
            confusion: CSV of question, subset, true, predicted, count.
            metrics: JSON, a summary of the three.
        rule: which galaxies a question counts for, one of `RELEVANCE` (`scores.questions.relevant`).
        recalibrations: files of the members to correct the predictions by.

    Raises:
        UserError: predictions and catalogue have no galaxy or no tree in common, or a model has learned from
            some of the galaxies.
    """
    with open_predictions(predictions, recalibrations) as opened:
        if opened.tree is None:
            raise UserError(
                f"{predictions}: holds {opened.kind} of labels, expected those of a tree's answers; finetuned"
                " tasks are compared with their labels by evaluate_task."
            )
        tree = opened.tree
        catalog, rows = matching_rows(opened, test)
        check_unseen(opened, rows)
        votes = votes_of(catalog, tree, test)
        known = votes_of(pd.read_parquet(train), tree, train)
        constant = constant_concentrations(tree=tree, votes=known)
        fractions = np.empty((len(rows), len(tree.columns)))
        nats = {name: np.zeros((len(rows), len(tree.questions))) for name in ("model", "constant")}
        # The blocks are in the order of the file; each fills in the rows of its galaxies.
        with progress(None, "comparing with the volunteers", total=len(opened.id_str)) as meter:
            for block, values, weights in opened.blocks():
                here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
                of_block = values[rows[here] - block.start]
                shares = None if weights is None else weights[rows[here] - block.start]
                fractions[here] = mean_fractions(of_block, tree, shares)
                nats["model"][here] = question_losses(tree, votes[here], of_block, opened.kind, shares)
                of_constant = np.broadcast_to(constant[None, :, None], (len(here), len(constant), 1))
                nats["constant"][here] = question_losses(tree, votes[here], of_constant, "concentrations")
                meter.update(len(values))
    if recalibrations:
        nats = {"model": nats["model"], "as_trained": _as_trained(predictions, rows, votes), **nats}
    loss_table = _loss_table(tree, votes, nats)
    scored = _scored(tree, votes, min_votes, confident, test)
    score_table, confusion_table = _compare(tree, votes, fractions, scored, rule)
    _write_csv(loss_table, output.losses)
    _write_csv(score_table, output.scores)
    _write_csv(confusion_table, output.confusion)
    _write_metrics(_summary(loss_table, score_table, len(rows)), output.metrics)


def _as_trained(predictions, rows, votes):
    """The losses of the same galaxies before a recalibration, (galaxies, questions)."""
    with open_predictions(predictions) as opened:
        nats = np.zeros((len(rows), len(opened.tree.questions)))
        for block, values, weights in opened.blocks():
            here = np.flatnonzero((rows >= block.start) & (rows < block.stop))
            shares = None if weights is None else weights[rows[here] - block.start]
            of_block = values[rows[here] - block.start]
            nats[here] = question_losses(opened.tree, votes[here], of_block, opened.kind, shares)
    return nats


def _loss_table(tree, votes, nats):
    rows = []
    for index, question in enumerate(tree.questions):
        galaxies = int((votes[:, question.slice].sum(axis=1) > 0).sum())
        means = {name: values[:, index].mean() for name, values in nats.items()}
        rows.append({"question": question.name, "galaxies": galaxies, **means})
    totals = {name: values.sum(axis=1).mean() for name, values in nats.items()}
    return pd.DataFrame([*rows, {"question": "total", "galaxies": len(votes), **totals}])


def _scored(tree, votes, min_votes, confident, origin):
    """The galaxies that are scored, {(subset, question, rule): (galaxies,) bool}, by the paper's limits."""
    # Each question has the volunteers of its own campaign.
    volunteers = {q.name: votes[:, tree.first(q).slice].sum(axis=1) for q in tree.questions}
    most = max(of_campaign.max() for of_campaign in volunteers.values())
    if most < min_votes:
        log.warning(
            "%s: no galaxy has %d votes (the most is %d), so the scores are empty; lower evaluate.min_votes.",
            origin,
            min_votes,
            most,
        )
    scored = {}
    for question in tree.questions:
        of_question = votes[:, question.slice]
        sure = of_question.max(axis=1) > confident * of_question.sum(axis=1)
        for rule in RELEVANCE:
            chosen = (volunteers[question.name] >= min_votes) & relevant(votes, question, tree, rule)
            scored["all", question.name, rule] = chosen
            scored["confident", question.name, rule] = chosen & sure
    return scored


def _compare(tree, votes, fractions, scored, rule):
    """The tables of scores and of confusions."""
    scores, confusions = [], []
    for subset in SUBSETS:
        for question in tree.questions:
            of_question, chosen = votes[:, question.slice], scored[subset, question.name, rule]
            truth = of_question[chosen].argmax(axis=1)
            predicted = fractions[chosen][:, question.slice].argmax(axis=1)
            found = weighted_scores(truth, predicted)
            about = {"question": question.name, "subset": subset, "count": int(chosen.sum())}
            counts = {
                f"count_{other}": int(scored[subset, question.name, other].sum()) for other in RELEVANCE
            }
            ends = _wilson(found["accuracy"], len(truth))
            scores.append({**about, "accuracy": found["accuracy"], **ends, **found, **counts})
            confusions += confusion_rows(question.name, subset, question.answers, truth, predicted)
    return pd.DataFrame(scores), pd.DataFrame(confusions)


def _wilson(accuracy, count):
    """The 95 % interval of an accuracy (Wilson 1927), NaN without galaxies."""
    ends = (np.nan, np.nan)
    if count:
        ends = stats.binomtest(round(accuracy * count), count).proportion_ci(0.95, method="wilson")
    return dict(zip(("accuracy_low_95", "accuracy_high_95"), ends, strict=True))


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
        "loss": {name: float(total[name]) for name in losses.columns[2:]},
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
    if "as_trained" in summary["loss"]:
        log.info("before the recalibration: %.4f nats", summary["loss"]["as_trained"])
    with whole(path) as partial:
        partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
