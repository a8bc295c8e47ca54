"""Confusion matrices, and the scores that follow from them."""

import numpy as np

SCORES = ("accuracy", "precision", "recall", "f1")


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


def confusion_rows(question, subset, answers, counts):
    """Rows of a table of confusions.

    Args:
        question: what was asked.
        subset: which galaxies.
        answers: names of the classes.
        counts: (answers, answers), as `confusion_matrix` gives it.

    Returns:
        A list of {"question", "subset", "true", "predicted", "count"}.
    """
    return [
        {"question": question, "subset": subset, "true": true, "predicted": predicted, "count": count}
        for true, of_true in zip(answers, counts, strict=True)
        for predicted, count in zip(answers, of_true, strict=True)
    ]
