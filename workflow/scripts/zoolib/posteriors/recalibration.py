"""Recalibration: a member's concentrations and weights are corrected by the votes of validation galaxies.

For each question one of these corrections is chosen, or none. The numbers of a correction are the same for
all galaxies.

- `factor`: all concentrations are multiplied by exp(m), an inverse temperature.
- `spread`: each component is replaced by three with equal weights, whose concentrations are multiplied by
  exp(m + s z). z are the middles of three equally probable parts of a normal distribution. This gives a
  posterior a sharp core and wide wings.
- `weights`: of a mixture head, the components' weights w become (1 - Σv) w + v; with one factor, too.

What comes out is again a mixture of Dirichlets for each question, so that fractions sum to 1.
"""

import json
from pathlib import Path

import numpy as np
from scipy import interpolate, special, stats

from zoolib.job.logs import UserError, check_machine

# Three components replace one. Seven of the same spread gain 0.000 to 0.002 nats a galaxy and question more.
NODES = stats.norm.ppf((np.arange(3) + 0.5) / 3)
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
# Parts of the galaxies: each is scored with what was fitted to the others.
FOLDS = 5
# A correction is taken if it is better by this many standard errors.
SURE = 2.0
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
        {question: plain values}: `kind` (a name in `KINDS`), `strength` (None if left alone), `factors` (one
        number or three), `added` (v of each component of a sample; empty if the weights stay), `galaxies`
        that were asked the question, and mean log losses of their votes in nats, both cross-validated:
        `before` and `after`.
    """
    found = {}
    for number, question in enumerate(tree.questions):
        asked = np.flatnonzero(votes[:, question.slice].sum(axis=1) > 0)
        fold = np.random.default_rng([seed, number]).permutation(len(asked)) % FOLDS
        table = _tabulated(votes, values, weights, per_sample, (asked, number, question.slice))
        found[question.name] = _fit_question(table, fold)
    return found


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


def apply(recalibrations, values, weights, tree, per_sample=1):
    """Correct the posteriors of some galaxies.

    If a question of a member needs three factors, every component of all questions and members becomes
    three; those without a spread become three equal ones.

    Args:
        recalibrations: what `fit` returned for each member, in their order; None for a member that stays as
            it is.
        values: (galaxies, answers of all questions, components), concentrations; the components of one member
            are neighbours, and so are those of each of its samples.
        weights: (galaxies, questions, components), or None if all components are equal.
        tree: a `DecisionTree`.
        per_sample: components of a sample.

    Returns:
        (values, weights, per_sample) as they were given, of the corrected posterior; values are float64.
    """
    members = [found or {} for found in recalibrations]
    several, share = pieces(recalibrations), values.shape[2] // len(members)
    values = np.repeat(np.asarray(values, dtype=float), several, axis=2)
    added = any(len(one["added"]) for found in members for one in found.values())
    if weights is not None:
        weights = np.repeat(np.asarray(weights, dtype=float), several, axis=2) / several
    elif added:
        weights = np.full((len(values), len(tree.questions), values.shape[2]), 1 / values.shape[2])
    samples = values.shape[2] // (per_sample * several)
    for member, found in enumerate(members):
        own = slice(member * share * several, (member + 1) * share * several)
        for number, question in enumerate(tree.questions):
            one = found.get(question.name, {"factors": [1.0], "added": []})
            factors = np.resize(one["factors"], several)
            values[:, question.slice, own] *= np.tile(factors, share)
            if len(one["added"]):
                more = np.tile(np.repeat(one["added"], several), share // per_sample) / (several * samples)
                weights[:, number, own] = (1 - sum(one["added"])) * weights[:, number, own] + more
    return values, weights, per_sample * several


def pieces(recalibrations):
    """How many components each component becomes by `apply`, 1 or 3."""
    return max((len(one["factors"]) for found in recalibrations for one in (found or {}).values()), default=1)


def of_predictions(paths, opened, about):
    """Read the recalibrations of the members that predictions are of.

    Args:
        paths: as for `of_members`.
        opened: `files.Predictions`.
        about: the attributes of its file.

    Returns:
        See `of_members`.

    Raises:
        UserError: see `of_members`; or the predictions are no concentrations, or do not name their models.
    """
    models = json.loads(about.get("each_model", "null"))
    if models is None or opened.kind != "concentrations":
        what = "does not say which models it is of" if models is None else f"has {opened.kind}"
        raise UserError(
            f"{opened.path}: {what}, so {paths[0]} cannot be applied to it; predict again with this version"
            " and a model of a tree, or set predict.recalibrate to false."
        )
    return of_members(paths, models, opened.tree, opened.path)


def of_members(paths, models, tree, origin):
    """Read the recalibrations of an ensemble, and find the member that each one belongs to.

    Args:
        paths: files `recalibration.json`, in any order; members without one stay as they are.
        models: the hash of each member, `predict.identity_of`.
        tree: the `DecisionTree` of the members.
        origin: what the members are, in messages.

    Returns:
        A list for `apply`, one entry a member; None where no member has a recalibration.

    Raises:
        UserError: a file is damaged, or belongs to a model that is no member.
    """
    found = {}
    for path in paths:
        about = _read(path, tree)
        if about["model"] not in models:
            raise UserError(
                f"{path}: belongs to another model.keras (its hash is {about['model']}) than {origin}"
                f" ({', '.join(map(str, models))}); if this run trains the model, type the same command with"
                " --forcerun recalibrate_member; if not, delete this file or copy the one that belongs to the"
                " model, or set predict.recalibrate to false."
            )
        found[about["model"]] = about["questions"]
    return [found.get(model) for model in models] if found else None


def _read(path, tree):
    """The content of a `recalibration.json`, checked so far that `apply` can use it."""
    try:
        about = json.loads(Path(path).read_text())
        if not isinstance(about["model"], str):
            raise ValueError("'model' is no text")
        for question in tree.questions:
            one = about["questions"][question.name]
            factors, added = (np.array(one[key], float) for key in ("factors", "added"))
            good = factors.shape in ((1,), NODES.shape) and np.isfinite(factors).all() and (factors > 0).all()
            if not good or added.ndim != 1 or not (added >= 0).all() or added.sum() > 1 + 1e-9:
                raise ValueError(f"impossible numbers for '{question.name}'")
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        check_machine(error, path)
        reason = " ".join(str(error).split()) + " is missing" * isinstance(error, KeyError)
        raise UserError(
            f"{path}: cannot be read as a recalibration of the tree '{tree.name}' ({reason}); delete it, and"
            " if this run trains the model, type the same command again."
        ) from None
    return about
