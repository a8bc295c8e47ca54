"""The fit of a recalibration: which correction of posteriors the votes of validation galaxies support.

`recalibration` says what the corrections are, and applies them. docs/calibration.md shows what they reach.
"""

import numpy as np
from scipy import interpolate, special, stats

from zoolib.posteriors.recalibration import SPREAD, apply

# Three components replace one. Seven of the same spread gain 0.000 to 0.002 nats a galaxy and question more.
NODES = stats.norm.ppf((np.arange(SPREAD) + 0.5) / SPREAD)
# The likelihood is tabulated at these logarithms of factors. A cubic spline through them errs by 0.01 nats
# at most where concentrations are far from 1 to 101, and by 1e-4 as a rule.
GRID = np.arange(-4, 5.01, 0.5)
# All corrections (m, s) that are tried, with and without a spread.
MIDDLES, SPREADS = np.arange(-1.5, 2.51, 0.125), np.arange(0, 2.51, 0.25)
TRIED = np.array([(middle, spread) for spread in SPREADS for middle in MIDDLES])
UNCHANGED = int(np.flatnonzero((TRIED == 0).all(axis=1))[0])
# How strongly a fit is drawn to no change: the log likelihood of all galaxies is reduced by this number
# times (m² + s²) / 2, and so many galaxies are added that speak for the weights as they are.
STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0, 0.0)
# Corrections from the cheapest to the most expensive; a later one must be better than those before it.
KINDS = ("leave", "factor", "weights", "spread")
# What a question has that is left alone when others are not: the correction of all questions together.
TOGETHER = "together"
# The samples become one if it is sure that the votes of a galaxy on all questions lose no more, in nats.
POOL_COST = 0.02
# Fewer galaxies say nothing of all questions together.
FEWEST = 50
# Logarithms of the factors that are tried for all questions together.
FACTORS = np.arange(-1.5, 2.51, 0.05)
AS_IT_IS = int(np.abs(FACTORS).argmin())
# Parts of the galaxies: each is scored with what was fitted to the others.
FOLDS = 5
# A correction of one question is taken if it is better by this many standard errors. There are many of them,
# so chance would choose some. All questions have only one factor together: for the gain of one number, one
# standard error means that the number is two standard errors from 1.
SURE, SURE_TOGETHER = 2.0, 1.0
# Galaxies that are tabulated at once; rounds of a fit of weights, and turns of it and the fit of the factor.
BLOCK, ROUNDS, TURNS = 256, 30, 2


def fit(votes, values, tree, seed, weights=None, per_sample=1):
    """Fit the corrections of one member, each question on its own.

    Each kind of correction and each strength is scored by cross-validation over galaxies: how probable
    the votes of one part are after a fit to the others. A question keeps its posterior unless a
    correction is better by two standard errors, so that few galaxies change nothing.

    Args:
        votes: (galaxies, answers of all questions), whole numbers, of validation galaxies.
        values: (galaxies, answers of all questions, components), concentrations of the member's samples.
        tree: a `DecisionTree`.
        seed: whole number; it divides the galaxies.
        weights: (galaxies, questions, components), or None if all components are equal.
        per_sample: components of a sample; they are neighbours.

    Returns:
        {question: plain values}: `kind` (a name in `KINDS`, or `TOGETHER`), `strength` (None if left alone),
        `pooled` (whether the samples become one), `factors` (one number or three, that of all questions
        included), `added` (v of each component of a sample; empty if the weights stay), `galaxies` that were
        asked the question, and mean log losses of their votes in nats: `before`, and `after`, which is
        cross-validated.
    """
    pooled, factor, before = _fit_together((votes, values, weights, per_sample), tree, seed)
    first = {
        question.name: {"pooled": pooled, "factors": [factor], "added": []} for question in tree.questions
    }
    found = {}
    values, weights, _ = apply([first], values, weights, tree, per_sample)
    for number, question in enumerate(tree.questions):
        asked = np.flatnonzero(votes[:, question.slice].sum(axis=1) > 0)
        fold = np.random.default_rng([seed, number]).permutation(len(asked)) % FOLDS
        table = _tabulated(votes, values, weights, per_sample, (asked, number, question.slice))
        one = _fit_question(table, fold)
        if one["kind"] == "leave" and (pooled or factor != 1):
            one["kind"] = TOGETHER
        one |= {"pooled": pooled, "factors": [factor * each for each in one["factors"]]}
        if one["before"] is not None:
            one["before"] = before[question.name]
        found[question.name] = one
    return found


def fit_ensemble(votes, values, tree, seed, weights=None):
    """Fit the factor of an ensemble, whose members were corrected before.

    Members that are right each make an ensemble that is too wide: their disagreement comes on top of
    what each of them says already (Gneiting and Ranjan 2013, arXiv:1106.1638). As this is known before, the
    most probable factor is taken without a test of how sure it is, but none below 1.

    Args:
        votes, values, tree, seed, weights: as for `fit`; the numbers are those of all members.

    Returns:
        `factor`, by which all concentrations of all members are to be multiplied, and the mean log losses of
        a galaxy's votes on all questions in nats: `before`, and `after`, which is cross-validated.
    """
    scores, _ = _scores((votes, values, weights), tree)
    scores = scores[votes.sum(axis=1) > 0]
    scores[:, :AS_IT_IS] = -np.inf
    factor, gain, _ = _fit_factor(scores, seed)
    before = float(-scores[:, AS_IT_IS].mean()) if len(scores) else None
    return {"factor": factor, "before": before, "after": before if before is None else before - gain}


def _fit_together(predicted, tree, seed):
    """What all questions have in common: whether the samples become one, and a factor.

    Args:
        predicted: (votes, values, weights, per_sample) as for `fit`.
        tree: a `DecisionTree`.
        seed: whole number; it divides the galaxies.

    Returns:
        (pooled, factor, {question: mean log loss of its votes as they were predicted, in nats}).
    """
    votes, values, weights, per_sample = predicted
    chosen, losses = _scores(predicted[:3], tree)
    answered, pooled = votes.sum(axis=1) > 0, False
    chosen = chosen[answered]
    if values.shape[2] > per_sample and len(chosen) >= FEWEST:
        about = {
            question.name: {"pooled": True, "factors": [1.0], "added": []} for question in tree.questions
        }
        of_pool, _ = _scores((votes, *apply([about], values, weights, tree, per_sample)[:2]), tree)
        of_pool = of_pool[answered]
        loss = chosen[:, chosen.sum(axis=0).argmax()] - of_pool[:, of_pool.sum(axis=0).argmax()]
        pooled = bool(loss.mean() + SURE_TOGETHER * loss.std() / np.sqrt(len(loss)) <= POOL_COST)
        chosen = of_pool if pooled else chosen
    factor, _, sure = _fit_factor(chosen, seed)
    return pooled, factor if sure else 1.0, losses


def _scores(predicted, tree):
    """Log probability of a galaxy's votes, (galaxies, `FACTORS`), and each question's mean loss as it is."""
    votes, values, weights = predicted
    total, losses = np.zeros((len(votes), len(FACTORS))), {}
    for number, question in enumerate(tree.questions):
        asked = np.flatnonzero(votes[:, question.slice].sum(axis=1) > 0)
        table = _tabulated(votes, values, weights, 1, (asked, number, question.slice))
        found = _at(table[:, 0], np.stack([FACTORS, np.zeros_like(FACTORS)], axis=1))
        total[asked] += found
        losses[question.name] = float(-found[:, AS_IT_IS].mean()) if len(asked) else None
    return total, losses


def _fit_factor(scores, seed):
    """(factor, cross-validated gain in nats) from `_scores`, and whether it is sure."""
    if len(scores) < FEWEST:
        return 1.0, 0.0, False
    fold = np.random.default_rng(seed).permutation(len(scores)) % FOLDS
    gain = np.empty(len(scores))
    for part in range(FOLDS):
        own = fold == part
        gain[own] = scores[own, scores[~own].sum(axis=0).argmax()] - scores[own, AS_IT_IS]
    sure = bool(gain.mean() > SURE_TOGETHER * gain.std() / np.sqrt(len(gain)))
    return float(np.exp(FACTORS[scores.sum(axis=0).argmax()])), float(gain.mean()), sure


def _tabulated(votes, values, weights, per_sample, which):
    """Log probability of the votes at each factor, (galaxies, rows, `GRID`).

    The first row has the components' own weights. With several components a sample, one row for each
    follows, in which it has all the weight.
    """
    galaxies, question, answers = which
    rows = 1 + per_sample if per_sample > 1 else 1
    table = np.empty((len(galaxies), rows, len(GRID)))
    for start in range(0, len(galaxies), BLOCK):
        some = galaxies[start : start + BLOCK]
        of_votes, of_values = votes[some, answers].astype(float), values[some, answers].astype(float)
        coefficient = special.gammaln(of_votes.sum(axis=1) + 1) - special.gammaln(of_votes + 1).sum(axis=1)
        own = np.full(of_values.shape[::2], 1 / of_values.shape[2])
        if weights is not None:
            own = weights[some, question].astype(float)
        samples = of_values.shape[2] // per_sample
        for column, exponent in enumerate(GRID):
            # (galaxies, components)
            logs = coefficient[:, None] + _log_votes(of_votes, of_values * np.exp(exponent))
            part = table[start : start + len(some), :, column]
            part[:, 0] = _log_sum(logs, 1, own)
            if rows > 1:
                of_samples = logs.reshape(len(some), samples, per_sample)
                part[:, 1:] = _log_sum(of_samples, 1) - np.log(samples)
    return table


def _log_votes(votes, values):
    """Log probability of votes in one order, (galaxies, components), by each Dirichlet-multinomial."""
    total, sums = votes.sum(axis=1)[:, None], values.sum(axis=1)
    chosen = special.gammaln(values + votes[:, :, None]) - special.gammaln(values)
    return chosen.sum(axis=1) - special.gammaln(sums + total) + special.gammaln(sums)


def _at(table, tried):
    """Log probability after some corrections: (galaxies, GRID) table -> (galaxies, corrections)."""
    several = bool((tried[:, 1] > 0).any())
    exponents = tried[:, :1] + tried[:, 1:] * (NODES if several else np.zeros(1))
    spline = interpolate.CubicSpline(GRID, np.eye(len(GRID)))(exponents.ravel())
    of_nodes = (table @ spline.T).reshape(len(table), *exponents.shape)
    return _log_sum(of_nodes, 2) - np.log(exponents.shape[1])


def _log_sum(logs, axis, shares=1.0):
    """Logarithm of a sum of exponentials; SciPy's is several times slower."""
    if logs.shape[axis] == 1 and np.all(shares == 1):
        return logs.squeeze(axis)
    highest = logs.max(axis=axis, keepdims=True)
    return np.log((shares * np.exp(logs - highest)).sum(axis=axis)) + highest.squeeze(axis)


def _fit_question(table, fold):
    """The correction of one question from its table; see `fit`."""
    left = table[:, 0, GRID == 0][:, 0]
    found = {"kind": "leave", "strength": None, "factors": [1.0], "added": []}
    found |= {"galaxies": len(table), "before": None, "after": None}
    if len(table) < FOLDS:
        return found
    # Sums over the galaxies of each fold: nothing else is needed to fit factors, whatever the strength.
    sums = np.zeros((FOLDS, len(TRIED)))
    for start in range(0, len(table), BLOCK):
        here = slice(start, start + BLOCK)
        np.add.at(sums, fold[here], _at(table[here, 0], TRIED))
    kinds = [kind for kind in KINDS[1:] if table.shape[1] > 1 or kind != "weights"]
    scores = {(kind, strength): np.empty(len(table)) for kind in kinds for strength in STRENGTHS}
    for part in range(FOLDS):
        others, own = fold != part, fold == part
        for (kind, strength), of_kind in scores.items():
            correction = _fitted(table[others], sums.sum(axis=0) - sums[part], kind, strength)
            of_kind[own] = _score(table[own], *correction)
    kept, best = left, None
    for kind in kinds:
        key = max(((kind, strength) for strength in STRENGTHS), key=lambda key: scores[key].mean())
        gain = scores[key] - kept
        if gain.mean() > SURE * gain.std() / np.sqrt(len(gain)):
            kept, best = scores[key], key
    found |= {"before": float(-left.mean()), "after": float(-kept.mean())}
    if best:
        (middle, spread), added = _fitted(table, sums.sum(axis=0), *best)
        exponents = middle + spread * NODES if spread else [middle]
        found |= dict(zip(("kind", "strength"), best, strict=True))
        found |= {"factors": [float(np.exp(each)) for each in exponents], "added": added.tolist()}
    return found


def _fitted(table, sums, kind, strength):
    """((m, s), v of each component) of the penalised maximum of the likelihood."""
    penalty = strength * (TRIED**2).sum(axis=1) / 2
    alone = TRIED[:, 1] == 0
    if kind != "weights":
        allowed = alone if kind == "factor" else np.full(len(TRIED), True)
        return TRIED[np.where(allowed, sums - penalty, -np.inf).argmax()], np.zeros(0)
    best, shares = TRIED[UNCHANGED], np.full(table.shape[1], 1 / table.shape[1])
    # In turns: a factor on its own would do what the weights should do.
    for _ in range(TURNS):
        shares = _shares(_rows(table, best), shares, strength)
        mixed = _log_sum(table, 1, shares[:, None])
        best = TRIED[alone][(_at(mixed, TRIED[alone]).sum(axis=0) - penalty[alone]).argmax()]
    return best, _shares(_rows(table, best), shares, strength)[1:]


def _shares(rows, shares, strength):
    """Shares of the rows by expectation maximisation, which has one maximum; `strength` favours the first."""
    chances = np.exp(rows - rows.max(axis=1, keepdims=True))
    for _ in range(ROUNDS):
        counts = (chances * shares / (chances @ shares)[:, None]).sum(axis=0)
        counts[0] += strength
        shares = counts / counts.sum()
    return shares


def _rows(table, correction):
    """Log probability by each row of a table after one correction, (galaxies, rows)."""
    return np.stack([_at(row, correction[None])[:, 0] for row in np.moveaxis(table, 1, 0)], axis=1)


def _score(table, correction, added):
    """Log probability of the votes of each galaxy after a correction, (galaxies,)."""
    if not len(added):
        return _at(table[:, 0], correction[None])[:, 0]
    return _log_sum(_rows(table, correction), 1, np.array([1 - added.sum(), *added]))
