"""Simulated volunteers: the probabilities of their answers, their votes, and the table of the votes.

docs/simulation.md says what is drawn how, and why the numbers below are what they are.

The columns are those of `gz_decals_volunteers_5` in Zenodo record 4573248 (127 of them; Walmsley
et al. 2022, arXiv:2102.08414, tables B1 and B2).
"""

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

# Values of zenodo.simulate.volunteers, the default first.
KINDS = ("varied", "identical")
# Share of the clicks that have nothing to do with the galaxy, if it is the same for all galaxies.
LAPSES = 0.08
# Otherwise the share of each galaxy is drawn from this Beta distribution, whose mean is the same.
LAPSES_OF_GALAXIES = (2.0, 23.0)
# Sum of the concentrations of the Dirichlet that scatters the answers around what the galaxy looks like: a
# probability of one half gets a standard deviation of 5 points.
SCATTER = 100.0
# Share of the galaxies that have no votes on mergers: the question was another one when they were shown
# (section 3.2).
WITHOUT_MERGING = 0.027


def clarity(galaxies):
    """How clearly a galaxy shows its features: more if it is face-on, bright above the noise, and large.

    Args:
        galaxies: the table of `galaxies.draw_galaxies`.

    Returns:
        (galaxies,) from 0, where nothing can be seen, to 1.
    """
    # The share of the light in the disc: a dominant bulge outshines the features of the disc.
    signal = galaxies["brightness"] * (1 - galaxies["bulge_share"]) ** 2 / galaxies["noise"]
    seen = signal / (signal + 1.0) * galaxies["radius"] / (galaxies["radius"] + 0.06)
    return np.asarray(seen * expit((galaxies["axis_ratio"] - 0.36) / 0.05), float)


def visible_strengths(galaxies):
    """How strong arms, ring and bar appear, given inclination, noise and resolution.

    Args:
        galaxies: the table of `galaxies.draw_galaxies`.

    Returns:
        {"spiral", "ring", "bar", "edge_on"}: each (galaxies,) from 0, invisible, to 1.
    """
    seen = clarity(galaxies)
    visible = {name: galaxies[f"{name}_strength"] * seen for name in ("spiral", "ring", "bar")}
    # Arms that are closer together than the seeing resolves cannot be told apart.
    spacing = 2 * np.pi * 0.5 * galaxies["radius"] * np.tan(np.radians(galaxies["pitch"])) / galaxies["arms"]
    visible["spiral"] = visible["spiral"] * (1 - np.exp(-((spacing / (4.5 * galaxies["seeing"])) ** 2)))
    visible["edge_on"] = (
        galaxies["disc"] * (1 - galaxies["bulge_share"] ** 2) * expit((0.26 - galaxies["axis_ratio"]) / 0.035)
    )
    return {name: np.asarray(strength, float) for name, strength in visible.items()}


def draw_probabilities(tree, galaxies, kind, rng):
    """The probabilities that the votes on each galaxy are drawn from.

    `identical` volunteers: the smooth probabilities, with a share of `LAPSES` random clicks. `varied`: each
    galaxy has its own probabilities, from a Dirichlet around the smooth ones, and its own share of random
    clicks; no image says what they are.

    Args:
        tree: the `gz_decals_5` tree.
        galaxies: the table of `galaxies.draw_galaxies`.
        kind: one of `KINDS`.
        rng: a numpy `Generator`.

    Returns:
        Three arrays: (galaxies, answers) what the votes are drawn from, all > 0; (galaxies, answers) the
        smooth probabilities without random clicks; (galaxies,) the shares of random clicks. Probabilities
        of one question sum to 1.
    """
    smooth = smooth_probabilities(tree, galaxies)
    if kind == "identical":
        lapses = np.full(len(smooth), LAPSES)
        return _with_lapses(tree, smooth, lapses), smooth, lapses
    lapses = rng.beta(*LAPSES_OF_GALAXIES, len(smooth))
    scattered = rng.standard_gamma(SCATTER * smooth)
    for question in tree.questions:
        scattered[:, question.slice] /= scattered[:, question.slice].sum(1, keepdims=True)
    return _with_lapses(tree, scattered, lapses), smooth, lapses


def smooth_probabilities(tree, galaxies):
    """Probability of every answer of an attentive volunteer who is asked; smooth in all parameters.

    Args:
        tree: the `gz_decals_5` tree.
        galaxies: the table of `galaxies.draw_galaxies`.

    Returns:
        (galaxies, answers) in the order of `tree.columns`; those of one question sum to 1.
    """
    visible = visible_strengths(galaxies)
    spiral, ring, bar, edge_on = (visible[name] for name in ("spiral", "ring", "bar", "edge_on"))
    disturbance, companion = galaxies["disturbance"], galaxies["companion"]
    bulge = np.sqrt(galaxies["bulge_share"])
    structure = 1 - (1 - spiral) * (1 - 0.9 * ring) * (1 - 0.7 * bar)
    featured = 1 - expit(8 * (0.36 - structure)) * (1 - 0.95 * edge_on) * (1 - 0.5 * disturbance**2)
    artifact = 0.02 + 0.7 * expit(9 * (galaxies["artifact"] - 0.6))
    arms = expit(9 * (spiral - 0.3 - 0.15 * ring))
    strong, no_bar = expit(6 * (bar - 0.55)), expit(7 * (0.3 - bar))
    no_bulge = expit(10 * (0.36 - bulge))
    major, disturbed = expit(5 * (disturbance - 0.6)), expit(7 * (disturbance - 0.38))
    merger = 0.95 * expit(8 * (companion - 0.38))
    # A round bulge makes a galaxy look rounder than its disc is.
    rounder = galaxies["disc"] * galaxies["bulge_share"] * np.maximum(0.62 - galaxies["axis_ratio"], 0)
    ratio = galaxies["axis_ratio"] + rounder
    boxy = 0.6 * galaxies["boxiness"]
    answers = {
        "smooth-or-featured": {
            "smooth": (1 - featured) * (1 - artifact),
            "featured-or-disk": featured * (1 - artifact),
            "artifact": artifact,
        },
        "disk-edge-on": {"yes": edge_on, "no": 1 - edge_on},
        "has-spiral-arms": {"yes": arms, "no": 1 - arms},
        "bar": {"strong": strong * (1 - no_bar), "weak": (1 - strong) * (1 - no_bar), "no": no_bar},
        "bulge-size": _nearest(
            bulge, 0.15, {"dominant": 0.76, "large": 0.6, "moderate": 0.44, "small": 0.28, "none": 0.1}
        ),
        "how-rounded": _nearest(ratio, 0.17, {"round": 0.95, "in-between": 0.62, "cigar-shaped": 0.25}),
        "edge-on-bulge": {
            "boxy": (1 - no_bulge) * boxy,
            "none": no_bulge,
            "rounded": (1 - no_bulge) * (1 - boxy),
        },
        "spiral-winding": _nearest(
            np.log(galaxies["pitch"]), 0.55, {"tight": np.log(9), "medium": np.log(17), "loose": np.log(32)}
        ),
        "spiral-arm-count": _arm_count(galaxies["arms"], spiral),
        "merging": {
            "none": (1 - merger) * (1 - disturbed),
            "minor-disturbance": (1 - merger) * disturbed * (1 - major),
            "major-disturbance": (1 - merger) * disturbed * major,
            "merger": merger,
        },
    }
    chosen = [
        np.column_stack([answers[question.name][answer] for answer in question.answers])
        for question in tree.questions
    ]
    return np.concatenate([of_question / of_question.sum(1, keepdims=True) for of_question in chosen], 1)


def _with_lapses(tree, probabilities, lapses):
    """Probabilities of the answers, (galaxies, answers), with a share (galaxies,) of random clicks."""
    at_random = np.concatenate([np.full(len(q.answers), 1 / len(q.answers)) for q in tree.questions])
    return (1 - lapses[:, None]) * probabilities + lapses[:, None] * at_random


def _nearest(value, width, centres):
    """Answers along a scale: an answer is likelier if its centre is nearer."""
    scores = np.column_stack([-0.5 * ((value - centre) / width) ** 2 for centre in centres.values()])
    return dict(zip(centres, softmax(scores, axis=1).T, strict=True))


def _arm_count(arms, spiral):
    arms = np.asarray(arms)
    distance = np.abs(arms[:, None] - np.arange(1, 6))
    counted = softmax(-(0.4 + 1.3 * spiral[:, None]) * distance, axis=1)
    lost = expit(6 * (0.3 + 0.05 * (arms - 2) - spiral))
    answers = dict(zip(("1", "2", "3", "4", "more-than-4"), (counted * (1 - lost[:, None])).T, strict=True))
    return {**answers, "cant-tell": lost}


def draw_totals(galaxies, rng):
    """Number of volunteers for each galaxy: the median is 5, a quarter has about 40, the most is 80.

    Walmsley et al. 2022, sections 3 and 6: 59,337 of 253,286 galaxies have 30 or more.

    Args:
        galaxies: number of galaxies.
        rng: a numpy `Generator`.

    Returns:
        (galaxies,) whole numbers from 3 to 80.
    """
    few = 3 + rng.binomial(6, 0.33, galaxies)
    many = np.round(rng.normal(40, 2.5, galaxies)).astype(int)
    twice = rng.integers(50, 81, galaxies)
    group = rng.random(galaxies)
    return np.where(group < 0.745, few, np.where(group < 0.975, many, twice))


def draw_votes(tree, probabilities, totals, rng):
    """Draw the votes: the volunteers go down the tree and answer by the probabilities.

    As in the record, volunteers who answer artifact are asked nothing more, not even about merging.

    Args:
        tree: the `gz_decals_5` tree.
        probabilities: (galaxies, answers) of `draw_probabilities`.
        totals: (galaxies,) volunteers.
        rng: a numpy `Generator`.

    Returns:
        (galaxies, answers) int64.
    """
    votes = np.zeros(probabilities.shape, np.int64)
    artifact = tree.columns.index("smooth-or-featured_artifact")
    shown = rng.random(len(votes)) >= WITHOUT_MERGING
    for question in tree.questions:
        asked = totals
        if question.after:
            asked = votes[:, tree.parents(question)].sum(1)
        elif question.name == "merging":
            asked = (totals - votes[:, artifact]) * shown
        votes[:, question.slice] = rng.multinomial(asked, probabilities[:, question.slice])
    return votes


def volunteers_table(tree, galaxies, votes, rng):
    """The record's table: positions, photometry, votes and fractions, blank where the record is blank.

    Args:
        tree: the `gz_decals_5` tree.
        galaxies: the table of `galaxies.draw_galaxies`.
        votes: (galaxies, answers).
        rng: a numpy `Generator`, for the columns that nothing depends on.

    Returns:
        A data frame with the 127 columns in the record's order and types.
    """
    count = len(galaxies)
    theta = galaxies["radius"] * rng.lognormal(2.4, 0.3, count)
    redshift = rng.uniform(0.02, 0.15, count)
    flux = galaxies["brightness"] * theta**2 * 40
    magnitude = 22.5 - 2.5 * np.log10(flux) - 5 * np.log10(redshift * 3e5 / 70 * 1e5)
    totals = votes[:, tree.questions[0].slice].sum(1)
    few = np.where(rng.random(count) < 0.05, "active_priority", "active_baseline")
    table = {
        "iauname": galaxies["id_str"],
        "ra": galaxies["ra"],
        "dec": galaxies["dec"],
        "redshift": redshift,
        "elpetro_absmag_r": magnitude,
        "sersic_nmgy_r": flux,
        "petro_th50": theta * 0.42,
        "petro_th90": theta * 1.15,
        "petro_theta": theta,
        "upload_group": np.where(totals >= 30, "pre_active", few),
        "active_learning_on": (few == "active_priority") & (totals < 30),
        "in_gzd_ab": rng.random(count) < 0.13,
        "png_loc": [f"dr5/{name[:4]}/{name}.png" for name in galaxies["id_str"]],
    }
    # The simulated survey has no bias with redshift, so debiased fractions equal the voted ones.
    debiased = (totals >= 30) & (magnitude > -23) & (magnitude < -21.5)
    for question in tree.questions:
        total = votes[:, question.slice].sum(1)
        table[f"{question.name}_total-votes"] = total
        for column, answered in zip(question.columns, votes[:, question.slice].T, strict=True):
            fraction = np.divide(answered, total, out=np.full(count, np.nan), where=total > 0)
            table[column] = answered
            table[f"{column}_fraction"] = fraction
            table[f"{column}_debiased"] = np.where(debiased, fraction, np.nan)
    table["wrong_size_statistic"] = rng.normal(150, 3, count)
    table["wrong_size_warning"] = table["wrong_size_statistic"] > 161.0
    return pd.DataFrame(table)
