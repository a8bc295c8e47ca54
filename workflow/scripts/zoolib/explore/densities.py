"""The posterior of each answer as the masses of equal bins, small enough for a page of many galaxies."""

import numpy as np
from scipy import special

from zoolib.config.labels import by_label
from zoolib.posteriors.intervals import marginals

# Bins between the lowest and the highest value.
BINS = 40
# Two points in each bin are exact for a polynomial of third degree (Gauss and Legendre).
POINTS = (np.arange(BINS)[:, None] + 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)).ravel() / BINS
LOGS, LOGS_OF_REST = np.log(POINTS).astype(np.float32), np.log1p(-POINTS).astype(np.float32)
EDGES = np.linspace(0, 1, BINS + 1)
# Narrower Betas, in bins, could lie between the points.
NARROW = 0.6


def densities(opened, values, weights, ranges):
    """The posterior of each output of a model, as masses of bins.

    Args:
        opened: the `Predictions` that the values are from.
        values: (galaxies, outputs, components), as `Predictions.blocks` yields them.
        weights: (galaxies, questions, components), or None.
        ranges: (2, outputs), where the bins of each output begin and end. Those of vote fractions are 0 to 1.

    Returns:
        (galaxies, outputs, BINS) float32, each posterior sums to 1. What lies beyond a range is in its first
        or last bin.
    """
    if opened.kind == "concentrations":
        return of_votes(values, opened.tree, weights)
    if opened.kind != "mixed":
        return of_samples(values, *ranges)
    found, first = [], 0
    for label, of_label in by_label(opened.named_labels, values):
        here = slice(first, first + of_label.shape[1])
        votes = label.kind == "votes"
        found.append(of_votes(of_label, label.tree) if votes else of_samples(of_label, *ranges[:, here]))
        first = here.stop
    return np.concatenate(found, axis=1)


def of_votes(values, tree, weights=None):
    """The posteriors of vote fractions: mixtures of Betas, the marginals of mixtures of Dirichlets.

    Args:
        values: (galaxies, answers, components), concentrations.
        tree: a `DecisionTree`.
        weights: (galaxies, questions, components), whose sums are 1, or None if all components are equal.

    Returns:
        As `densities`.
    """
    chosen, others = marginals(values, tree)
    repeated = [len(question.answers) for question in tree.questions]
    weights = None if weights is None else np.repeat(weights, repeated, axis=1)
    found = np.zeros((*chosen.shape[:2], BINS), np.float32)
    for number in range(chosen.shape[2]):
        share = 1 / chosen.shape[2] if weights is None else weights[:, :, number, None]
        found += share * _of_betas(chosen[:, :, number], others[:, :, number])
    return found


def of_samples(values, low, high):
    """The shares of samples in each bin.

    Args:
        values: (galaxies, outputs, samples).
        low: (outputs,), where the bins of each output begin.
        high: (outputs,), where they end.

    Returns:
        As `densities`.
    """
    width = np.maximum(high - low, np.finfo(float).tiny)[:, None]
    bins = np.clip((values - low[:, None]) / width * BINS, 0, BINS - 1).astype(int)
    rows = np.arange(bins.shape[0] * bins.shape[1]).reshape(*bins.shape[:2], 1)
    counts = np.bincount((rows * BINS + bins).ravel(), minlength=rows.size * BINS)
    return (counts.reshape(*bins.shape[:2], BINS) / bins.shape[2]).astype(np.float32)


def as_bytes(masses):
    """The masses in whole numbers, those of each posterior from 0 to 255 in its highest bin.

    Args:
        masses: (galaxies, outputs, BINS).

    Returns:
        The same shape, uint8.
    """
    highest = masses.max(axis=2, keepdims=True)
    return np.rint(255 * masses / np.maximum(highest, np.finfo(np.float32).tiny)).astype(np.uint8)


def _of_betas(a, b):
    """(galaxies, answers, BINS) masses of Beta distributions; those of wide ones are integrated."""
    total = a + b
    narrow = a * b / (total**2 * (total + 1)) < (NARROW / BINS) ** 2
    # At a concentration below 1 the density has no end.
    narrow |= (a < 1) | (b < 1)
    # Single precision is enough for a picture, and takes half the time.
    before, behind, beta = (
        each.astype(np.float32)[..., None] for each in (a - 1, b - 1, special.betaln(a, b))
    )
    logs = before * LOGS
    logs += behind * LOGS_OF_REST
    logs -= beta
    found = np.exp(logs, out=logs).reshape(*a.shape, BINS, 2)
    masses = (found[..., 0] + found[..., 1]) / (2 * BINS)
    masses[narrow] = np.diff(special.betainc(a[narrow, None], b[narrow, None], EDGES))
    return masses
