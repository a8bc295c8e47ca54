"""The study of searches: what near galaxies, a few examples and oddness find in a simulated survey.

Writes the section "What it finds" of docs/search.md from the runs results/study_pretext/ and
results/study_search_asked/.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from pages import REPO, machine, write_section
from sklearn.ensemble import IsolationForest
from zoolib.likeness.rankings import directions, more_like, nearest, odd_and_wanted, oddness
from zoolib.likeness.representations import read_representations
from zoolib.posteriors.files import read_described

RUN, ASKED = "study_pretext", "study_search_asked"
# The ensembles, and how they learned.
ENSEMBLES = {"metrics": "votes", "both": "votes and views"}
MODELS, DRAWS, SEARCHED = 3, 5, 10_000
# The share of a kind that is searched for, and that of oddities.
THIN, ODD = 0.05, 0.01
EXAMPLES, CLICKS, ROUND, ODD_CLICKS = 5, 50, 10, 100
STARS = 90
# The answer whose expected fraction ranks galaxies by the posterior of a model that was asked.
ANSWERS = {"bars": "bar_strong", "edge-on discs": "disk-edge-on_yes", "mergers": "merging_merger"}


def kinds(truth):
    """{kind: (galaxies of this kind, galaxies that are not clearly without it)}, two boolean arrays each."""
    disc = truth["disc"] == 1
    face = disc & (truth["axis_ratio"] > 0.4)
    found = {
        "rings": (face & (truth["ring_strength"] > 0.6), truth["ring_strength"] > 0.2),
        "bars": (face & (truth["bar_strength"] > 0.6), truth["bar_strength"] > 0.2),
        "edge-on discs": (disc & (truth["axis_ratio"] < 0.25), disc & (truth["axis_ratio"] < 0.35)),
        "mergers": (truth["merging_merger"] > 0.6, truth["merging_merger"] > 0.3),
    }
    return {name: tuple(each.to_numpy() for each in pair) for name, pair in found.items()}


def thinned(wanted, unclear, share, rng):
    """Positions of the galaxies that are clearly not of a kind, and of a few of it, this share of all."""
    others = np.flatnonzero(~wanted & ~unclear)
    some = rng.choice(np.flatnonzero(wanted), round(len(others) * share / (1 - share)), replace=False)
    return np.sort(np.concatenate([others, some]))


def precision(values, wanted):
    """The share of the kind among the ten nearest of each of its galaxies, over its share of all."""
    rows = np.flatnonzero(wanted)
    near, _ = nearest(directions(values), rows, 10)
    return wanted[near].mean() / wanted.mean()


def clicked(wanted, score, count, known=()):
    """How many wanted galaxies a user finds who looks at the first ones, and answers after each round.

    Args:
        wanted: (galaxies,) boolean.
        score: function of (positions with yes, positions with no): (galaxies,) scores.
        count: galaxies that the user looks at.
        known: positions of the examples, which do not count.
    """
    yes, no = list(known), []
    for _ in range(count // ROUND):
        scores = np.array(score(np.array(yes, int), np.array(no, int)), float)
        scores[yes + no] = -np.inf
        for row in np.argsort(-scores, kind="stable")[:ROUND]:
            (yes if wanted[row] else no).append(row)
    return len(yes) - len(known)


def searches(truth, known, posterior):
    """A row for each kind, model and draw: what is found."""
    rows = []
    for kind, (wanted, unclear) in kinds(truth).items():
        for model, values in enumerate(known):
            for draw in range(DRAWS):
                rng = np.random.default_rng(draw)
                kept = thinned(wanted, unclear, THIN, rng)
                some, found = wanted[kept], directions(values[kept])
                examples = rng.choice(np.flatnonzero(some), EXAMPLES, replace=False)

                def score(yes, no, found=found, draw=draw):
                    return more_like(found, yes, no, draw)

                row = {"kind": kind, "model": model, "draw": draw, "precision": precision(values[kept], some)}
                row["found"] = clicked(some, score, CLICKS, examples)
                row["random"] = CLICKS * some.mean()
                if kind in posterior:
                    order = np.argsort(-posterior[kind][kept], kind="stable")
                    row["posterior"] = some[order[:CLICKS]].sum()
                rows.append(row)
    return pd.DataFrame(rows)


def oddities(truth, known, strange):
    """A row for each kind of oddity, way, model and draw: the share that is found.

    Args:
        truth: of all galaxies.
        known: representations of all galaxies, by each model.
        strange: representations of stars, by each model.
    """
    merger, artefact = truth["merging_merger"].to_numpy(), truth["artifact"].to_numpy()
    plain, rows = (merger < 0.3) & (artefact < 0.35), []
    for model, values in enumerate(known):
        pools = {"mergers": values[merger > 0.6], "artefacts": values[artefact > 0.35]}
        for kind, pool in (pools | {"stars": strange[model]}).items():
            for draw in range(DRAWS):
                rng = np.random.default_rng(draw)
                count = round(plain.sum() * ODD / (1 - ODD))
                some = rng.permutation(len(pool))[: min(count, len(pool))]
                every = np.concatenate([values[plain], pool[some]])
                wanted = np.arange(len(every)) >= plain.sum()
                forest = -IsolationForest(n_estimators=200, random_state=draw).fit(every).score_samples(every)
                odd, found = oddness(every, draw), directions(every)

                def answered(yes, no, odd=odd, found=found, draw=draw):
                    return odd_and_wanted(odd, found, yes, no, draw)

                ways = {"isolation forest": forest, "oddness": odd}
                ways = {name: lambda yes, no, scores=scores: scores for name, scores in ways.items()}
                for way, score in (ways | {"oddness and answers": answered}).items():
                    share = clicked(wanted, score, ODD_CLICKS) / wanted.sum()
                    rows.append({"kind": kind, "way": way, "model": model, "draw": draw, "share": share})
    return pd.DataFrame(rows)


def stars_of(folder, model):
    """Representations of stars on the sky of simulated galaxies."""
    from PIL import Image
    from study_unfamiliar import stars
    from zoolib.represent import represent

    rng, size = np.random.default_rng(0), 96
    sky = rng.normal(20, 2, (STARS, size, size, 1)).clip(0, 255).astype("uint8")
    with tempfile.TemporaryDirectory() as images:
        for number, one in enumerate(stars(sky, rng)):
            Image.fromarray(np.repeat(one, 3, axis=2)).save(Path(images, f"star{number:03d}.png"))
        path = represent(images, model, folder / "stars.hdf5")
    return read_representations(path).values


def measure(results):
    """The tables of the section "What it finds", with the ensemble in the column `learned`."""
    truth = pd.read_parquet(results / RUN / "download" / "truth.parquet").set_index("id_str")
    truth = truth.sample(min(SEARCHED, len(truth)), random_state=0)
    parts = sorted((results / ASKED / "predict" / "0" / "catalog").glob("*.parquet"))
    described = read_described(parts)[0].set_index("id_str").loc[truth.index]
    posterior = {kind: described[f"{answer}_fraction"].to_numpy() for kind, answer in ANSWERS.items()}
    searched, odd = [], []
    for ensemble, learned in ENSEMBLES.items():
        found = [
            read_representations(results / RUN / "predict" / f"{ensemble}{model}" / "representations.hdf5")
            for model in range(MODELS)
        ]
        known = [one.values[one.rows_of(truth.index, "truth.parquet")] for one in found]
        models = [results / RUN / "train" / ensemble / str(model) for model in range(MODELS)]
        with tempfile.TemporaryDirectory() as folder:
            strange = [stars_of(Path(folder), model) for model in models]
        searched.append(searches(truth, known, posterior).assign(learned=learned))
        odd.append(oddities(truth, known, strange).assign(learned=learned))
    return pd.concat(searched), pd.concat(odd)


def spread(table, by, column, form):
    """{group: "mean ± standard deviation over the models"}; draws are averaged before."""
    means = table.groupby([*by, "model"], sort=False)[column].mean().groupby(by, sort=False)
    return {
        key: f"{form.format(mean)} ± {form.format(deviation)}"
        for key, mean, deviation in zip(means.mean().index, means.mean(), means.std(), strict=True)
    }


def lines(searched, odd):
    """The section "What it finds"."""
    by = ["kind", "learned"]
    near, clicks = (spread(searched, by, column, "{:.1f}") for column in ("precision", "found"))
    own, random = (searched.groupby("kind")[column].mean() for column in ("posterior", "random"))
    rows = [
        f"| {kind} | {learned} | {near[kind, learned]} | {clicks[kind, learned]} | {random[kind]:.1f} |"
        f" {'not asked' if pd.isna(own[kind]) else f'{own[kind]:.1f}'} |"
        for kind in searched["kind"].unique()
        for learned in ENSEMBLES.values()
    ]
    shares = spread(odd.assign(share=100 * odd["share"]), [*by, "way"], "share", "{:.0f}")
    ways = list(odd["way"].unique())
    table = [
        f"| {kind} | {learned} | {' | '.join(shares[kind, learned, way] for way in ways)} |"
        for kind in odd["kind"].unique()
        for learned in ENSEMBLES.values()
    ]
    return [
        machine("study-search"),
        "",
        f"{SEARCHED:,} galaxies of a simulated survey, of which each kind is thinned to 5 %; galaxies"
        " that are neither clearly of the kind nor clearly not are left out. The models are those of"
        " [training.md](training.md#what-votes-and-views-give) (`tiny`, 48 px): three have learned the"
        " votes on spiral arms and bulges, three these votes and pairs of views."
        " Nobody was asked about rings, bars, edge-on discs, roundness or mergers"
        " (`benchmarks/study_search_tree.yaml`). They have learned from 40 % of these galaxies."
        f" Mean over {DRAWS} draws of the galaxies, and standard deviation over the trainings.",
        "",
        "- **near galaxies**: the share of the kind among the ten galaxies that look most like one of it"
        " (`similar`), over its share of all galaxies. 1 is chance.",
        f"- **after {CLICKS} clicks**: galaxies of the kind that a user finds who gives {EXAMPLES} examples"
        f" and answers five rounds of {ROUND} (`more`); beside it what random galaxies give, and the first"
        f" {CLICKS} galaxies by the posterior of a model that was asked the question.",
        "",
        "| kind | learned from | near galaxies | after 50 clicks | random | a model that was asked |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"Oddities are {100 * ODD:.0f} % of the galaxies. Per cent of them among the {ODD_CLICKS} galaxies"
        f" that a user looks at, in rounds of {ROUND}; random galaxies would give about 1:",
        "",
        f"| oddity | learned from | {' | '.join(ways)} |",
        f"| --- | --- |{' ---: |' * len(ways)}",
        *table,
        "",
        "That oddness is the distance to the 20th of 1,000 galaxies was chosen on these galaxies, among 5, 20"
        " and 100 of 300 to 20,000. With more galaxies to be near to, the stars are near to each other.",
    ]


if __name__ == "__main__":
    write_section("search.md", "What it finds", lines(*measure(REPO / "results")))
