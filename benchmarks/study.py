"""The studies of heads and calibration on the simulated survey of config/study.yaml.

`heads` writes the last section of docs/heads.md and docs/heads.png, `calibration` that of
docs/calibration.md and docs/calibration.png, from the runs results/study_<head>/.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pages import REPO, machine, write_section
from scipy import special, stats
from zoolib.config.trees import DecisionTree
from zoolib.figures.calibration import PANELS, deviations, figure_19, name_marks
from zoolib.figures.style import COLORS, FAINT, drawing
from zoolib.job.words import in_words
from zoolib.posteriors.files import open_predictions
from zoolib.posteriors.summary import log_predictive
from zoolib.scores import calibration
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.questions import matching_rows, question_losses, votes_of

HEADS = ("dirichlet", "dirichlet_wide", "multinomial")
BLOCK = 512
# The likelihood is tabulated at these logarithms of factors. Then these middles and spreads are tried.
FACTORS = np.arange(-4, 6.01, 0.25)
MIDDLES, SPREADS = np.arange(-1.5, 2.01, 0.125), np.arange(0, 2.01, 0.25)
# Seven equally probable parts of a normal distribution.
NODES = stats.norm.ppf((np.arange(7) + 0.5) / 7)


@dataclass
class Posteriors:
    """Predictions for some galaxies of a simulated survey, with their votes and the truth.

    Attributes:
        values: (galaxies, answers of all questions, components).
        kind: `concentrations` or `probabilities`.
        members: of the ensemble; the samples of one member are neighbours.
        tree: the `DecisionTree`.
        votes: (galaxies, answers of all questions).
        true: (galaxies, answers of all questions), probabilities.
        weights: (galaxies, questions, components); None if all components are equal.
    """

    values: np.ndarray
    kind: str
    members: int
    tree: DecisionTree
    votes: np.ndarray
    true: np.ndarray
    weights: np.ndarray | None = None


def load(results, head, target):
    """Read one target of one head's run.

    Args:
        results: folder of the runs.
        head: a name in `HEADS`.
        target: `test` or `val`.

    Returns:
        `Posteriors`.
    """
    run = results / f"study_{head}"
    with open_predictions(run / "predict" / target / "predictions.hdf5") as opened:
        catalog, rows = matching_rows(opened, run / "catalog" / f"{target}.parquet")
        blocks = [(values, weights) for _, values, weights in opened.blocks()]
        values = np.concatenate([values for values, _ in blocks])[rows]
        weighted = blocks[0][1] is not None
        weights = np.concatenate([weights for _, weights in blocks])[rows] if weighted else None
        votes = votes_of(catalog, opened.tree, target)
        truth = run / "download" / "truth.parquet"
        true = calibration.true_probabilities(truth, catalog["id_str"], opened.tree)
        members = int(opened.values.file.attrs["members"])
        return Posteriors(values, opened.kind, members, opened.tree, votes, true, weights)


def losses(posteriors):
    """Negative log likelihood of the votes, (galaxies, questions) in nats."""
    return question_losses(
        posteriors.tree, posteriors.votes, posteriors.values, posteriors.kind, posteriors.weights
    )


def coverage(posteriors):
    """The two tables of `calibration.calibrate`: coverage, and figure 19."""
    found = []
    for start in range(0, len(posteriors.votes), BLOCK):
        rows = slice(start, start + BLOCK)
        values, votes, true = posteriors.values[rows], posteriors.votes[rows], posteriors.true[rows]
        weights = None if posteriors.weights is None else posteriors.weights[rows]
        found.append(calibration.measure(values, votes, true, posteriors.tree, posteriors.kind, weights))
    return calibration.summarise(found)


def fitted_factors(posteriors, spreads):
    """Factors for the concentrations of each question, by maximum likelihood of the votes.

    Seven samples will replace every sample, with concentrations multiplied by exp(m + s z). Here z are
    the middles of seven equally probable parts of a normal distribution, m is the logarithm of the middle
    factor, and s is the spread. A spread of 0 is one factor, an inverse temperature.

    Args:
        posteriors: of validation galaxies.
        spreads: values of s to choose from.

    Returns:
        {question: seven factors}.
    """
    found = {}
    for number, question in enumerate(posteriors.tree.questions):
        asked = posteriors.votes[:, question.slice].sum(axis=1) > 0
        votes, values = (
            posteriors.votes[asked][:, question.slice],
            posteriors.values[asked][:, question.slice],
        )
        weights = None if posteriors.weights is None else posteriors.weights[asked, number]
        tried = [log_predictive(votes, values * np.exp(factor), weights=weights) for factor in FACTORS]
        table = np.stack(tried, axis=1)

        def likelihood(tried, table=table):
            place = np.clip((tried - FACTORS[0]) / (FACTORS[1] - FACTORS[0]), 0, len(FACTORS) - 1)
            left = np.minimum(place.astype(int), len(FACTORS) - 2)
            between = table[:, left] * (1 - place + left) + table[:, left + 1] * (place - left)
            return special.logsumexp(between, axis=1).sum()

        tried = [middle + spread * NODES for middle in MIDDLES for spread in spreads]
        found[question.name] = np.exp(max(tried, key=likelihood))
    return found


def multiplied(posteriors, factors):
    """Posteriors with one sample for each sample and each different factor of a question."""
    several = len(NODES) if any(len(np.unique(of_question)) > 1 for of_question in factors.values()) else 1
    values = np.concatenate([posteriors.values] * several, axis=2)
    samples = posteriors.values.shape[2]
    for question in posteriors.tree.questions:
        values[:, question.slice] *= np.repeat(factors[question.name][:several], samples)
    if posteriors.weights is None:
        return replace(posteriors, values=values)
    weights = np.concatenate([posteriors.weights / several] * several, axis=2)
    return replace(posteriors, values=values, weights=weights)


def first_member(posteriors):
    """Posteriors of one member of the ensemble."""
    here = slice(0, posteriors.values.shape[2] // posteriors.members)
    weights = posteriors.weights
    if weights is not None:
        # Those of each member have the same sum.
        weights = weights[:, :, here] * posteriors.members
    return replace(posteriors, values=posteriors.values[:, :, here], weights=weights, members=1)


def mean_concentrations(posteriors):
    """Posteriors of one Dirichlet, whose concentrations are the means of the samples'."""
    return replace(posteriors, values=posteriors.values.mean(axis=2, keepdims=True))


def remedies(val, test):
    """The remedies for the posteriors of a head: {name: (validation, test) posteriors}."""
    found = {"one member": (first_member(val), first_member(test)), "the ensemble": (val, test)}
    if val.kind == "concentrations":
        for name, spreads in (("one factor", [0.0]), ("spread factors", SPREADS)):
            factors = fitted_factors(val, spreads)
            found[name] = multiplied(val, factors), multiplied(test, factors)
    # The components of different samples of a mixture are not one another's.
    if val.kind == "concentrations" and val.weights is None:
        val, test = mean_concentrations(val), mean_concentrations(test)
        factors = fitted_factors(val, SPREADS)
        found["mean concentrations"] = val, test
        found["mean concentrations, spread factors"] = multiplied(val, factors), multiplied(test, factors)
    return found


def judge(covered):
    """How many pairs of question and level deviate by an accepted amount, and the greatest deviations."""
    chosen = calibration.judged(covered)
    chosen = chosen[chosen["galaxies"] >= calibration.ENOUGH]
    chosen = chosen.assign(deviation=100 * (chosen["actual"] - chosen["expected"]))
    truth, votes = (chosen[chosen["measure"] == measure] for measure in PANELS)
    greatest = truth.groupby("stated")["deviation"].agg(
        lambda of_level: of_level.loc[of_level.abs().idxmax()]
    )
    return {
        "right": int((truth["deviation"].abs() <= PANELS["truth"][1]).sum()),
        "of": len(truth),
        "mean": truth["deviation"].abs().mean(),
        "greatest": list(greatest),
        "votes": votes["deviation"].loc[votes["deviation"].abs().idxmax()],
    }


def study_calibration(results):
    """Measure the coverage of each head and remedy; write the section and the figure."""
    rows, tables, chosen = [], {}, None
    for head in HEADS:
        val, test = load(results, head, "val"), load(results, head, "test")
        for remedy, (of_val, of_test) in remedies(val, test).items():
            on_val, measured = judge(coverage(of_val)[0]), coverage(of_test)
            found = judge(measured[0])
            tables[head, remedy] = measured
            rows.append(
                f"| {head} | {remedy} | {found['right']} of {found['of']} |"
                f" {' | '.join(f'{points:+.1f}' for points in found['greatest'])} | {found['mean']:.1f} |"
                f" {on_val['mean']:.1f} | {found['votes']:+.1f} | {losses(of_test).sum(axis=1).mean():.3f} |"
            )
            print(rows[-1], flush=True)
            if chosen is None or on_val["mean"] < chosen[0]:
                chosen = on_val["mean"], (head, remedy)
    shown = [(head, "the ensemble") for head in HEADS]
    shown += [chosen[1]] if chosen[1] not in shown else []
    levels = " | ".join(f"{level:.0%}" for level in calibration.LEVELS)
    section = [
        about(results, "study-calibration"),
        "",
        "Greatest deviations of the share of true probabilities inside the central credible intervals, in"
        " points, over the questions asked often enough; how many pairs of question and mass are within"
        f" ±{PANELS['truth'][1]}; means of the deviations' sizes on the test galaxies and on the validation"
        " galaxies; the greatest deviation of the votes; and the test loss.",
        "",
        f"| head | posterior | within ±{PANELS['truth'][1]} | {levels} | mean | mean, validation | votes |"
        " loss (nats) |",
        f"| --- | --- | ---: |{' ---: |' * (len(calibration.LEVELS) + 4)}",
        *rows,
        "",
        f"Least on the validation galaxies: **{chosen[1][0]}, {chosen[1][1]}**.",
        "",
        "![Coverage of each head](calibration.png)",
    ]
    for key in shown:
        section += ["", f"### {key[0]}, {key[1]}", "", *question_table(tables[key][0])]
    write_section("calibration.md", "Results", section)
    draw_coverages({", ".join(key).replace(", ", ",\n"): tables[key] for key in shown})


def question_table(covered):
    """Lines of a table of deviations, a row for each question."""
    covered = calibration.judged(covered)
    covered = covered.assign(deviation=100 * (covered["actual"] - covered["expected"]))
    heading = [f"{measure} {level:.0%}" for measure in PANELS for level in calibration.LEVELS]
    lines = [f"| question | galaxies | {' | '.join(heading)} |", f"| --- | ---: |{' ---: |' * len(heading)}"]
    for question, rows in covered.groupby("question", sort=False):
        # Of the truth, which comes first; votes are known of those of these galaxies that have any.
        galaxies = rows["galaxies"].iloc[0]
        points = rows.set_index(["measure", "stated"])["deviation"]
        cells = [f"{points[measure, level]:+.1f}" for measure in PANELS for level in calibration.LEVELS]
        lines.append(f"| {question} | {galaxies:,} | {' | '.join(cells)} |")
    return lines


def draw_coverages(tables):
    """Draw docs/calibration.png: truth, votes, and figure 19 of the paper; a column for each posterior.

    Args:
        tables: {title: the tables of `coverage`}.
    """
    outputs = [REPO / "docs" / "calibration.png"]
    with drawing(outputs, figsize=(4.4 * len(tables) + 3, 17), layout="constrained") as figure:
        panels = figure.subplots(3, len(tables), squeeze=False)
        for column, (title, (covered, intervals)) in enumerate(tables.items()):
            covered = calibration.judged(covered)
            for row, (measure, (what, band)) in enumerate(PANELS.items()):
                panel = panels[row, column]
                deviations(panel, covered[covered["measure"] == measure], what, band)
                if column:
                    panel.set_yticklabels([])
            panels[0, column].set_title(f"{title}\n\n{PANELS['truth'][0]}")
            figure_19(panels[2, column], intervals)
            panels[2, column].set_title("Figure 19 of Walmsley et al. 2022")
            # One legend is enough for all panels.
            if column and panels[2, column].get_legend():
                panels[2, column].get_legend().remove()
        name_marks(figure, panels[0, 0])


def study_heads(results):
    """Compare the heads by test loss and calibration; write the section and the figure."""
    test = {head: load(results, head, "test") for head in HEADS}
    found = {head: losses(posteriors) for head, posteriors in test.items()}
    known, tree = test[HEADS[0]], test[HEADS[0]].tree
    train = pd.read_parquet(results / f"study_{HEADS[0]}" / "catalog" / "train.parquet")
    constant = constant_concentrations(tree, votes_of(train, tree, "train"))
    constant = np.broadcast_to(constant[None, :, None], (*known.votes.shape, 1))
    ends = {
        "constant": losses(replace(known, values=constant, kind="concentrations")),
        "truth": losses(replace(known, values=known.true[:, :, None], kind="probabilities")),
    }
    names = [question.name for question in tree.questions]
    lines = [
        f"| question | constant | {' | '.join(HEADS)} | truth |",
        f"| --- | ---: |{' ---: |' * (len(HEADS) + 1)}",
    ]
    for name, columns in [*((name, [number]) for number, name in enumerate(names)), ("total", slice(None))]:
        of_heads = {head: table[:, columns].sum(axis=1) for head, table in found.items()}
        cells = [f"{of_heads[HEADS[0]].mean():.3f}"]
        for head in HEADS[1:]:
            difference = of_heads[head] - of_heads[HEADS[0]]
            error = difference.std() / np.sqrt(len(difference))
            cells.append(f"{of_heads[head].mean():.3f} ({difference.mean():+.3f} ± {error:.3f})")
        constant, truth = (table[:, columns].sum(axis=1).mean() for table in ends.values())
        lines.append(f"| {name} | {constant:.3f} | {' | '.join(cells)} | {truth:.3f} |")
    judged = []
    for head in HEADS:
        of_head = judge(coverage(test[head])[0])
        judged.append(
            f"| {head} | {of_head['right']} of {of_head['of']} | {of_head['mean']:.1f} |"
            f" {of_head['votes']:+.1f} |"
        )
    section = [
        about(results, "study-heads"),
        "",
        f"Mean test loss of {len(known.votes):,} galaxies, nats; lower is better. In brackets: the difference"
        f" from {HEADS[0]}, with its standard error over galaxies.",
        "",
        *lines,
        "",
        "Calibration, as [calibration.md](calibration.md) measures it: pairs of question and mass of which"
        " the credible intervals hold the true probability within ±5 points, the mean size of the deviations,"
        " and the greatest deviation of the votes.",
        "",
        "| head | within ±5 | mean deviation | votes, greatest deviation |",
        "| --- | ---: | ---: | ---: |",
        *judged,
        "",
        "![Test loss of each head](heads.png)",
    ]
    write_section("heads.md", "Results", section)
    draw_losses(found, names)


def draw_losses(found, names):
    """Draw docs/heads.png: how much better or worse than the published head, question by question.

    Args:
        found: {head: (galaxies, questions) losses}.
        names: of the questions.
    """
    with drawing([REPO / "docs" / "heads.png"], figsize=(10, 7), layout="constrained") as figure:
        panel = figure.subplots()
        for number, head in enumerate(HEADS[1:], start=1):
            difference = found[head] - found[HEADS[0]]
            error = difference.std(axis=0) / np.sqrt(len(difference))
            height = np.arange(len(names)) + 0.2 * (number - 1.5)
            style = {"color": COLORS[number], "ms": 9, "lw": 2, "label": head}
            panel.errorbar(difference.mean(axis=0), height, xerr=error, fmt="os"[number - 1], **style)
        panel.axvline(0, color=FAINT, lw=1)
        panel.set_yticks(range(len(names)), [in_words(name) for name in names])
        panel.invert_yaxis()
        panel.grid(axis="x")
        panel.set_xlabel(f"test loss − that of {HEADS[0]} (nats a galaxy, one standard error; better: left)")
        panel.legend()


def about(results, target):
    """One paragraph: the command, the date, the machine, the time that all jobs took."""
    jobs = [
        table for head in HEADS for table in (results.parent / "benchmarks" / f"study_{head}").rglob("*.tsv")
    ]
    seconds = {job: pd.read_csv(job, sep="\t")["s"].iloc[0] for job in jobs}
    training = [time for job, time in seconds.items() if job.parent.name == "train_member"]
    return (
        f"{machine(target)} The jobs of the {len(HEADS)} runs took {sum(seconds.values()) / 60:.0f} minutes,"
        f" {sum(training) / 60:.0f} of them to train {len(training)} members."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=["heads", "calibration"])
    parser.add_argument("--results", type=Path, default=REPO / "results")
    arguments = parser.parse_args()
    {"heads": study_heads, "calibration": study_calibration}[arguments.study](arguments.results)
