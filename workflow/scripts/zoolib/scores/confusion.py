"""Confusion matrices, and the scores of table 1 of Walmsley et al. 2022."""

import numpy as np
from sklearn import metrics

from zoolib.config.published import SCORES


def weighted_scores(truth, predicted):
    """Accuracy, precision, recall and F1, averaged over classes with their true counts as weights.

    These are the averages of Walmsley et al. 2022, table 1. A class that is never predicted has
    precision and F1 0.

    Args:
        truth: (galaxies,), numbers of the classes.
        predicted: (galaxies,), the same.

    Returns:
        {name: score}; NaN where there is no galaxy.
    """
    if not len(truth):
        return dict.fromkeys(SCORES, np.nan)
    averages = metrics.precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)
    return dict(zip(SCORES, [metrics.accuracy_score(truth, predicted), *averages[:3]], strict=True))


def confusion_rows(question, subset, answers, truth, predicted):
    """Rows of a table of confusions.

    Args:
        question: its name.
        subset: name of the set of galaxies.
        answers: names of the classes.
        truth: (galaxies,), numbers of the classes.
        predicted: (galaxies,), the same.

    Returns:
        A list of {"question", "subset", "true", "predicted", "count"}, one for each pair of classes.
    """
    counts = np.zeros((len(answers), len(answers)), int)
    if len(truth):
        counts = metrics.confusion_matrix(truth, predicted, labels=range(len(answers)))
    return [
        {"question": question, "subset": subset, "true": true, "predicted": claimed, "count": count}
        for true, of_true in zip(answers, counts, strict=True)
        for claimed, count in zip(answers, of_true, strict=True)
    ]
