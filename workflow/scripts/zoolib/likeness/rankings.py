"""Rankings of a catalogue by what its galaxies look like: near ones, more of the same, odd ones.

Likeness is the cosine between representations, after the mean of the catalogue has been subtracted.
docs/search.md compares this with other distances.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

# Galaxies whose likeness is in memory at once.
BLOCK = 65_536
# Galaxies that stand for all others: examples of what is not wanted, and to be near to. Among more of them,
# odd galaxies of one kind would be near to each other.
OTHERS = CROWD = 1_000
# How much of one "no" such another galaxy counts: it may be a wanted one.
OTHER = 0.1
# Inverse strength of the regularisation of a regression on directions, whose length is 1.
C = 10.0
# A galaxy is odd if this many others are not near.
NEIGHBOURS = 20


def directions(values):
    """Representations as directions from the mean galaxy.

    Args:
        values: (galaxies, numbers).

    Returns:
        (galaxies, numbers) float32 of length 1; of length 0 for a galaxy that is the mean.
    """
    away = values - values.mean(axis=0, dtype=float).astype(np.float32)
    return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def nearest(found, rows, count):
    """The galaxies that look most like given ones: all are compared.

    Args:
        found: (galaxies, numbers), from `directions`.
        rows: (given,) positions of the given galaxies.
        count: neighbours of each.

    Returns:
        (positions (given, count), most alike first; likeness (given, count) from -1 to 1). A given galaxy is
        no neighbour of itself; there are fewer than `count` if there are fewer galaxies.
    """
    count = min(count, len(found) - 1)
    best, alike = np.zeros((len(rows), 0), int), np.zeros((len(rows), 0), np.float32)
    for start in range(0, len(found), BLOCK):
        some = found[start : start + BLOCK]
        likeness = found[rows] @ some.T
        inside = (rows >= start) & (rows < start + len(some))
        likeness[inside, rows[inside] - start] = -np.inf
        alike = np.concatenate([alike, likeness], axis=1)
        places = np.broadcast_to(np.arange(start, start + len(some)), likeness.shape)
        best = np.concatenate([best, places], axis=1)
        if alike.shape[1] > count:
            kept = np.argpartition(-alike, count - 1, axis=1)[:, :count]
            best, alike = (np.take_along_axis(each, kept, axis=1) for each in (best, alike))
    order = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return tuple(np.take_along_axis(each, order, axis=1) for each in (best, alike))


def more_like(found, yes, no, seed):
    """How much each galaxy looks like wanted ones: a logistic regression on directions.

    Examples of what is not wanted are the galaxies with a "no", and a thousand others that nobody has looked
    at; each of these counts a tenth of a "no". Wanted and other galaxies have the same weight together.

    Args:
        found: (galaxies, numbers), from `directions`.
        yes: (wanted,) positions of wanted galaxies, at least one.
        no: (unwanted,) positions.
        seed: whole number, which chooses the others.

    Returns:
        (galaxies,) scores, larger for galaxies that look more like the wanted ones.
    """
    unseen = np.setdiff1d(np.arange(len(found)), np.concatenate([yes, no]))
    others = np.random.default_rng(seed).permutation(unseen)[:OTHERS]
    rows = np.concatenate([yes, no, others]).astype(int)
    wanted = np.arange(len(rows)) < len(yes)
    if wanted.all():
        return np.zeros(len(found))
    weights = np.where(np.arange(len(rows)) < len(yes) + len(no), 1.0, OTHER)
    for side in (wanted, ~wanted):
        weights[side] *= len(rows) / 2 / weights[side].sum()
    with threadpool_limits(1):
        regression = LogisticRegression(C=C, max_iter=1000).fit(found[rows], wanted, weights)
        return regression.decision_function(found)


def oddness(values, seed):
    """How far each galaxy is from others: the distance to the 20th nearest of 1,000 galaxies.

    Args:
        values: (galaxies, numbers) representations.
        seed: whole number, which chooses these galaxies where there are more.

    Returns:
        (galaxies,) distances, relative to their median.
    """
    chosen = np.random.default_rng(seed).permutation(len(values))[:CROWD]
    count = min(NEIGHBOURS, len(chosen) - 1)
    nearby = NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(values[chosen])
    own = np.zeros(len(values), bool)
    own[chosen] = True
    distances = np.zeros(len(values))
    for start in range(0, len(values), BLOCK // 8):
        rows = slice(start, start + BLOCK // 8)
        found, _ = nearby.kneighbors(values[rows])
        # One of the crowd is its own nearest neighbour.
        distances[rows] = np.where(own[rows], found[:, count], found[:, count - 1])
    return distances / max(np.median(distances), np.finfo(float).tiny)


def odd_and_wanted(odd, found, yes, no, seed):
    """Oddness, increased for galaxies like those that a user finds interesting, and decreased for the others.

    Args:
        odd: (galaxies,) from `oddness`.
        found: (galaxies, numbers), from `directions`.
        yes: (interesting,) positions.
        no: (uninteresting,) positions.
        seed: whole number.

    Returns:
        (galaxies,) scores; `odd` itself without any answer.
    """
    if not len(yes) and not len(no):
        return odd
    wanted = more_like(found, yes, no, seed) if len(yes) else -more_like(found, no, yes, seed)
    # As odds: the regression's answer changes the oddness by some factor.
    return np.log(np.maximum(odd, np.finfo(float).tiny)) + wanted
