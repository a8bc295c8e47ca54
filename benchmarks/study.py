"""The studies of heads and calibration on the simulated surveys of config/study.yaml.

`heads` writes the last section of docs/heads.md and docs/heads.png; `calibration` that of
docs/calibration.md, and docs/calibration.png and docs/coverage.png. The runs results/study_<head>/ have
three trainings of each head (one of multinomial). The runs results/study_identical_<head>/ have one, on the
survey whose volunteers all have the same share of clicks at random. All rows are kept in results/study/.
"""

import argparse
import textwrap
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from pages import REPO, machine, write_section
from remedies import (
    coverage,
    linear_pool,
    load,
    log_linear_pool,
    losses,
    mapped_coverage,
    members,
    recalibrated,
    seconds_of,
    with_factor,
)
from zoolib.figures.calibration import PANELS, deviations, name_marks
from zoolib.figures.style import COLORS, FAINT, drawing
from zoolib.job.words import in_words
from zoolib.scores import calibration
from zoolib.scores.baselines import constant_concentrations
from zoolib.scores.questions import votes_of

HEADS = ("dirichlet", "dirichlet_wide", "dirichlet_mixture", "multinomial")
# Before the name of the head, and what the survey is.
SURVEYS = {"": "the survey", "identical_": "the survey with identical volunteers"}
ONE, CORRECTED = "one member", "one member, recalibrated"
POOLED = "{} members, recalibrated, linear pool"
FACTORED = "{} members, recalibrated, linear pool, factor"
NUMBERS = {2: "two", 3: "three"}
# The posteriors of the figure.
SHOWN = [
    ("dirichlet", ONE),
    ("dirichlet", CORRECTED),
    ("dirichlet_mixture", ONE),
    ("dirichlet_mixture", CORRECTED),
    ("dirichlet_mixture", FACTORED.format("three")),
]
# The posteriors of the figure of the README.
IN_SHORT = {
    "published head": ("dirichlet", ONE),
    "mixture head, as trained": ("dirichlet_mixture", ONE),
    "mixture head, recalibrated": ("dirichlet_mixture", CORRECTED),
}


def remedies(val, test):
    """What can be done with the trainings of one head.

    Args:
        val: `Posteriors` of the validation galaxies, of all trainings; on these everything is fitted.
        test: of the test galaxies.

    Yields:
        (name, test `Posteriors` of each training, or of each ensemble that can be formed of so many).
    """
    of_val, of_test = members(val), members(test)
    yield ONE, of_test
    if val.kind != "concentrations":
        return
    # (validation, test) of each member
    corrected = [recalibrated(one, one, other) for one, other in zip(of_val, of_test, strict=True)]
    yield CORRECTED, [other for _, other in corrected]
    for size in range(2, len(of_test) + 1):
        name, chosen = f"{NUMBERS[size]} members", list(combinations(range(len(of_test)), size))
        pools = [
            (linear_pool([of_val[n] for n in some]), linear_pool([of_test[n] for n in some]))
            for some in chosen
        ]
        yield f"{name}, linear pool", [pool for _, pool in pools]
        yield f"{name}, linear pool, recalibrated", [recalibrated(*pool)[0] for pool in pools]
        right = [tuple(linear_pool([corrected[n][part] for n in some]) for part in (0, 1)) for some in chosen]
        yield POOLED.format(NUMBERS[size]), [pool for _, pool in right]
        yield FACTORED.format(NUMBERS[size]), [with_factor(*pool)[0] for pool in right]
        if test.weights is None:
            pools = [tuple(map(log_linear_pool, pool)) for pool in pools]
            yield f"{name}, log-linear pool", [pool for _, pool in pools]
            yield f"{name}, log-linear pool, recalibrated", [recalibrated(*pool)[0] for pool in pools]


def deviating(covered, selected=calibration.SELECTED[0]):
    """The rows of a table of coverage that are judged, with their deviations in points."""
    chosen = covered[(covered["answer"] == "all") & (covered["selected"] == selected)]
    chosen = chosen[chosen["galaxies"] >= calibration.ENOUGH]
    return chosen.assign(deviation=100 * (chosen["actual"] - chosen["expected"]))


def greatest(deviations):
    """The deviation that is farthest from 0."""
    return deviations.iloc[deviations.abs().argmax()] if len(deviations) else np.nan


def judge(tables):
    """What one posterior reaches in several trainings.

    Args:
        tables: of coverage, one a training.

    Returns:
        A dict: `right`, pairs of question and mass within the limit, and `by_votes`, the same of the galaxies
        that the votes choose, each a list with one number a training; `of` pairs; `mean` size of the
        deviations, a list; `greatest` of each mass and `votes`, the greatest deviations of any training.
    """
    limit, found = PANELS["truth"][1], {"right": [], "by_votes": [], "mean": []}
    for table in tables:
        truth = deviating(table).query("measure == 'truth'")
        by_votes = deviating(table, calibration.SELECTED[1]).query("measure == 'truth'")
        found["right"].append(int((truth["deviation"].abs() <= limit).sum()))
        found["by_votes"].append(int((by_votes["deviation"].abs() <= limit).sum()))
        found["mean"].append(truth["deviation"].abs().mean())
    together = deviating(pd.concat(tables))
    truth, votes = (together[together["measure"] == measure] for measure in PANELS)
    of_levels = [greatest(truth.loc[truth["stated"] == level, "deviation"]) for level in calibration.LEVELS]
    pairs = len(truth) // len(tables)
    return found | {"of": pairs, "greatest": of_levels, "votes": greatest(votes["deviation"])}


def spread(numbers, digits):
    """The mean of the numbers of several trainings, with their standard deviation."""
    if len(numbers) == 1:
        # Counts stay whole numbers.
        return f"{numbers[0]:.{digits}f}" if isinstance(numbers[0], float) else str(numbers[0])
    return f"{np.mean(numbers):.{digits}f} ± {np.std(numbers, ddof=1):.{digits}f}"


def row_of(survey, head, name, tables, nats=None):
    """One row of the table of posteriors, as {heading: text or number}."""
    found = judge(tables)
    levels = {
        f"{level:.0%}": f"{points:+.1f}"
        for level, points in zip(calibration.LEVELS, found["greatest"], strict=True)
    }
    return {
        "survey": SURVEYS[survey],
        "head": head,
        "posterior": name,
        "trainings": len(tables),
        "within": f"{spread(found['right'], 1)} of {found['of']}",
        # Maps are measured on the galaxies of the predicted share alone.
        "by votes": spread(found["by_votes"], 1) if nats else "–",
        **levels,
        "mean": spread(found["mean"], 1),
        "votes": f"{found['votes']:+.1f}" if np.isfinite(found["votes"]) else "–",
        "loss": spread(nats, 3) if nats else "–",
    }


def mapped_tables(val, test, by_truth):
    """Tables of coverage after maps of the probability integral transform, one a training."""
    tables = []
    for pair in zip(members(val), members(test), strict=True):
        rows = mapped_coverage(*pair, by_truth)
        table = pd.DataFrame(rows, columns=["question", "stated", "actual", "galaxies"])
        same = {"expected": table["stated"], "measure": "truth", "answer": "all"}
        tables.append(table.assign(**same, selected=calibration.SELECTED[0]))
    return tables


def study_calibration(results):
    """Measure the coverage of each head and remedy; write the section and the figure."""
    rows, tables = [], {}
    for survey, head in ((survey, head) for survey in SURVEYS for head in HEADS):
        run = results / f"study_{survey}{head}"
        # The survey of identical volunteers has fewer heads.
        if not run.is_dir():
            continue
        val, test = load(run, "val"), load(run, "test")
        for name, trainings in remedies(val, test):
            measured = [coverage(posteriors) for posteriors in trainings]
            if not survey:
                tables[head, name] = measured[0]
            nats = [losses(posteriors).sum(axis=1).mean() for posteriors in trainings]
            rows.append(row_of(survey, head, name, [covered for covered, _ in measured], nats))
            print(*rows[-1].values(), sep=" | ", flush=True)
        for by_truth in (False, True) if test.kind == "concentrations" and not survey else ():
            name = f"one member, maps fitted to {'the true probabilities' if by_truth else 'votes'}"
            rows.append(row_of(survey, head, name, mapped_tables(val, test, by_truth)))
            print(*rows[-1].values(), sep=" | ", flush=True)
    keep(results, "calibration", rows)
    section = [about(results, "study-calibration"), "", *explained(rows)]
    shown = [key for key in SHOWN if key in tables]
    for key in shown:
        section += ["", f"### {key[0]}, {key[1]}", "", *question_table(tables[key][0])]
    write_section("calibration.md", "Results", section)
    draw_coverages({", ".join(key): tables[key] for key in shown})
    in_short = {title: tables[key] for title, key in IN_SHORT.items() if key in tables}
    draw_coverages(in_short, "coverage.png", ("truth",))


def explained(rows):
    """Lines of the table of all posteriors, with what it shows."""
    limit = PANELS["truth"][1]
    headings = {"within": f"within ±{limit}", "by votes": f"within ±{limit}, chosen by votes"}
    columns = [name for name in rows[0] if name != "survey"]
    lines = [
        "How many pairs of question and mass hold the true probabilities within"
        f" ±{limit} points, of the questions asked often enough; the same if votes choose the galaxies; the"
        " greatest deviation of each mass and of the votes in any training, in points; the mean size of the"
        " deviations; and the test loss in nats. Where there are several trainings, or ensembles formed of"
        " them, a number is their mean ± their standard deviation. Ensembles that share members are not"
        " independent. Maps of the probability integral transform correct the intervals of single answers, so"
        " they have no loss; those fitted to the true probabilities of the validation galaxies show what"
        " could be reached.",
        "",
        "![Coverage before and after](calibration.png)",
    ]
    for survey in SURVEYS.values():
        some = [row for row in rows if row["survey"] == survey]
        if some:
            lines += ["", f"On {survey}:", "", f"| {' | '.join(headings.get(c, c) for c in columns)} |"]
            lines.append(f"| --- | --- |{' ---: |' * (len(columns) - 2)}")
            lines += [f"| {' | '.join(str(row[column]) for column in columns)} |" for row in some]
    return lines


def keep(results, name, rows):
    """Keep the rows of a study in a file of the results."""
    folder = results / "study"
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)


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


def draw_coverages(tables, picture="calibration.png", measures=tuple(PANELS)):
    """Draw the coverage of truth and votes, a column for each posterior.

    Args:
        tables: {title: the tables of `coverage`}.
        picture: to write, in docs/.
        measures: of `PANELS`, a row for each.
    """
    size = (5.5 * len(tables) + 3, 6.5 * len(measures) + 2)
    with drawing([REPO / "docs" / picture], figsize=size, layout="constrained") as figure:
        panels = figure.subplots(len(measures), len(tables), squeeze=False)
        for column, (title, (covered, _)) in enumerate(tables.items()):
            covered = calibration.judged(covered)
            for panel, measure in zip(panels[:, column], measures, strict=True):
                what, band = PANELS[measure]
                deviations(panel, covered[covered["measure"] == measure], what, band)
                if column:
                    panel.set_yticklabels([])
            heading = "\n".join(textwrap.wrap(title, 24))
            panels[0, column].set_title(f"{heading}\n\n{PANELS[measures[0]][0]}")
        name_marks(figure, panels[0, 0])


def study_heads(results):
    """Compare the heads by test loss and calibration; write the section and the figure."""
    rows, nats, pooled = [], {}, {}
    for head in HEADS:
        test = load(results / f"study_{head}", "test")
        trainings = members(test)
        # (trainings, questions)
        nats[head] = np.stack([losses(posteriors).mean(axis=0) for posteriors in trainings])
        pooled[head] = losses(test).sum(axis=1).mean() if len(trainings) > 1 else None
        found = judge([coverage(posteriors)[0] for posteriors in trainings])
        total = "–" if pooled[head] is None else f"{pooled[head]:.3f}"
        rows.append(
            f"| {head} | {len(trainings)} | {spread(found['right'], 1)} of {found['of']} |"
            f" {spread(found['mean'], 1)} | {found['votes']:+.1f} | {spread(nats[head].sum(axis=1), 3)} |"
            f" {total} |"
        )
        print(rows[-1], flush=True)
    ends = baselines(results, test)
    names = [question.name for question in test.tree.questions]
    keep(results, "heads", [
        {"head": head, "training": number, **dict(zip(names, of_training, strict=True))}
        for head, of_head in nats.items()
        for number, of_training in enumerate(of_head)
    ])  # fmt: skip
    section = [
        about(results, "study-heads"),
        "",
        f"Mean test loss of {len(test.votes):,} galaxies and one member, nats; lower is better: the mean of"
        f" the trainings ± their standard deviation. In brackets: the difference from {HEADS[0]}, with its"
        " standard error over trainings.",
        "",
        *loss_table(nats, ends, names),
        "",
        "Calibration of one member as trained, as [calibration.md](calibration.md) measures it: pairs of"
        " question and mass of which the credible intervals hold the true probability within ±5 points, the"
        " mean size of the deviations, and the greatest deviation of the votes. Then the loss of one member"
        " and of all trainings as an ensemble.",
        "",
        "| head | trainings | within ±5 | mean deviation | votes, greatest deviation | loss | ensemble |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        "![Test loss of each head](heads.png)",
    ]
    write_section("heads.md", "Results", section)
    draw_losses(nats, names)


def baselines(results, test):
    """(questions,) test losses of a constant predictor and of the truth."""
    train = pd.read_parquet(results / f"study_{HEADS[0]}" / "catalog" / "train.parquet")
    constant = constant_concentrations(test.tree, votes_of(train, test.tree, "train"))
    constant = np.broadcast_to(constant[None, :, None], (*test.votes.shape, 1))
    ends = {"concentrations": constant, "probabilities": test.true[:, :, None]}
    return [
        losses(replace(test, values=values, weights=None, kind=kind)).mean(axis=0)
        for kind, values in ends.items()
    ]


def difference(one, other):
    """Mean difference of trainings' numbers, and its standard error; NaN with a single training."""
    errors = [np.var(numbers, axis=0, ddof=1) / len(numbers) for numbers in (one, other) if len(numbers) > 1]
    error = np.sqrt(sum(errors)) if len(errors) == 2 else np.full(np.shape(one)[1:], np.nan)
    return one.mean(axis=0) - other.mean(axis=0), error


def loss_table(nats, ends, names):
    """Lines of a table of losses, a row for each question.

    Args:
        nats: {head: (trainings, questions)}.
        ends: (questions,) of the constant predictor, and of the truth.
        names: of the questions.
    """
    lines = [
        f"| question | constant | {' | '.join(HEADS)} | truth |",
        f"| --- | ---: |{' ---: |' * (len(HEADS) + 1)}",
    ]
    for name, columns in [*((name, [number]) for number, name in enumerate(names)), ("total", slice(None))]:
        of_heads = {head: table[:, columns].sum(axis=1) for head, table in nats.items()}
        cells = [spread(of_heads[HEADS[0]], 3)]
        for head in HEADS[1:]:
            points, error = difference(of_heads[head], of_heads[HEADS[0]])
            sure = f" ± {error:.3f}" if np.isfinite(error) else ""
            cells.append(f"{spread(of_heads[head], 3)} ({points:+.3f}{sure})")
        constant, truth = (end[columns].sum() for end in ends)
        lines.append(f"| {name} | {constant:.3f} | {' | '.join(cells)} | {truth:.3f} |")
    return lines


def draw_losses(nats, names):
    """Draw docs/heads.png: how much better or worse than the published head, question by question.

    Args:
        nats: {head: (trainings, questions) losses}.
        names: of the questions.
    """
    with drawing([REPO / "docs" / "heads.png"], figsize=(10, 7), layout="constrained") as figure:
        panel = figure.subplots()
        for number, head in enumerate(HEADS[1:], start=1):
            points, error = difference(nats[head], nats[HEADS[0]])
            height = np.arange(len(names)) + 0.2 * (number - 2)
            style = {"color": COLORS[number], "ms": 9, "lw": 2, "label": head}
            panel.errorbar(points, height, xerr=np.nan_to_num(error), fmt="osD"[number - 1], **style)
        panel.axvline(0, color=FAINT, lw=1)
        panel.set_yticks(range(len(names)), [in_words(name) for name in names])
        panel.invert_yaxis()
        panel.grid(axis="x")
        label = f"test loss − that of {HEADS[0]} (nats a galaxy, standard error over trainings; better: left)"
        panel.set_xlabel(label)
        panel.legend()


def about(results, target):
    """One paragraph: the command, the date, the machine, the time that all jobs took."""
    runs = [f"study_{survey}{head}" for survey in SURVEYS for head in HEADS]
    seconds = seconds_of(results, runs)
    training = [time for job, time in seconds.items() if job.parent.name == "train_member"]
    return (
        f"{machine(target)} The jobs of all runs took {sum(seconds.values()) / 60:.0f} minutes,"
        f" {sum(training) / 60:.0f} of them to train {len(training)} members."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=["heads", "calibration"])
    parser.add_argument("--results", type=Path, default=REPO / "results")
    arguments = parser.parse_args()
    {"heads": study_heads, "calibration": study_calibration}[arguments.study](arguments.results)
