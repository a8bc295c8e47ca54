"""The study of posteriors with votes: a model, some volunteers, and both together, against the truth.

Writes the last section of docs/votes.md from runs of a simulated survey. New volunteers are drawn for each
test galaxy by its true probabilities. Nothing is judged by votes: the truth judges all three.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from pages import REPO, machine, write_section
from remedies import blocks, expected, load, member, recalibrated
from zoolib.posteriors.summary import mean_fractions
from zoolib.posteriors.with_votes import update
from zoolib.scores import calibration

VOLUNTEERS = (3, 5, 10, 40)
SEED = 7


def with_votes(posteriors, votes):
    """`Posteriors` that are updated by some votes."""
    found = [
        update(votes[rows], values, posteriors.tree, weights) for rows, values, weights in blocks(posteriors)
    ]
    values, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return replace(posteriors, values=values, weights=weights)


def draw(posteriors, volunteers):
    """Votes of so many new volunteers on each question, (galaxies, answers)."""
    random, found = np.random.default_rng([SEED, volunteers]), np.empty(posteriors.true.shape)
    for question in posteriors.tree.questions:
        chances = posteriors.true[:, question.slice]
        chances = chances / chances.sum(axis=1, keepdims=True)
        found[:, question.slice] = random.multinomial(volunteers, chances)
    return found


def errors(fractions, posteriors, counts):
    """The root mean square error of fractions, (questions,), over the galaxies that a question counts for."""
    found = []
    for number, question in enumerate(posteriors.tree.questions):
        rows = counts[:, number]
        difference = fractions[rows][:, question.slice] - posteriors.true[rows][:, question.slice]
        found.append(np.sqrt((difference**2).mean()) if rows.any() else np.nan)
    return np.array(found)


def coverages(posteriors, counts):
    """Deviations of the share of truths inside from the stated mass, (questions, levels), in points."""
    inside = np.concatenate(
        [
            calibration.true_inside(values, posteriors.true[rows], posteriors.tree, posteriors.kind, weights)
            for rows, values, weights in blocks(posteriors)
        ]
    )
    found = np.full((len(posteriors.tree.questions), len(calibration.LEVELS)), np.nan)
    for number, question in enumerate(posteriors.tree.questions):
        rows = counts[:, number]
        if rows.sum() >= calibration.ENOUGH:
            found[number] = 100 * (inside[rows][:, question.slice].mean(axis=(0, 1)) - calibration.LEVELS)
    return found


def compare(posteriors):
    """Measure a model, some volunteers and both.

    Args:
        posteriors: `Posteriors` of test galaxies.

    Returns:
        {volunteers, 0 for none: (errors of the votes' fractions, errors of the posterior, coverages of the
        posterior)}, one row for each question.
    """
    # The model alone chooses the galaxies: votes would choose them by their truth.
    fractions, counts = expected(posteriors)
    nothing = np.full(len(posteriors.tree.questions), np.nan)
    found = {0: (nothing, errors(fractions, posteriors, counts), coverages(posteriors, counts))}
    for volunteers in VOLUNTEERS:
        votes = draw(posteriors, volunteers)
        updated = with_votes(posteriors, votes)
        both = np.concatenate(
            [mean_fractions(values, updated.tree, weights) for _, values, weights in blocks(updated)]
        )
        of_votes = errors(votes / volunteers, posteriors, counts)
        found[volunteers] = of_votes, errors(both, posteriors, counts), coverages(updated, counts)
    return found


def rows_of(name, found, tree):
    """Lines of the table of all questions, and of that of each question, for one posterior."""
    alone, lines, of_questions = found[0][1], [], {question.name: [] for question in tree.questions}
    for volunteers, (of_votes, of_both, covered) in found.items():
        judged = np.isfinite(covered[:, 0])
        greatest = [f"{level[np.abs(level).argmax()]:+.1f}" for level in covered[judged].T]
        right = int((np.abs(covered[judged]) <= 5).sum())
        numbers = [np.mean(of_votes[judged]), np.mean(alone[judged]), np.mean(of_both[judged])]
        cells = ["–" if np.isnan(number) else f"{number:.4f}" for number in numbers]
        lines.append(
            f"| {name} | {volunteers or 'none'} | {' | '.join(cells)} | {right} of {covered[judged].size} |"
            f" {' | '.join(greatest)} |"
        )
        for number, question in enumerate(tree.questions):
            if volunteers:
                of_questions[question.name].append(f"{of_votes[number]:.3f}, **{of_both[number]:.3f}**")
    shown = [
        f"| {question} | {alone[number]:.3f} | {' | '.join(cells)} |"
        for number, (question, cells) in enumerate(of_questions.items())
    ]
    return lines, shown


def study(runs, write):
    """Measure the first member of each run, as predicted and recalibrated; write the section."""
    rows, shown = [], []
    for run in runs:
        test, val = member(load(run, "test"), 0), run / "predict" / "val" / "predictions.hdf5"
        versions = {"as predicted": test}
        if val.is_file():
            versions["recalibrated"] = recalibrated(member(load(run, "val"), 0), test)[0]
        for version, posteriors in versions.items():
            name = f"{run.name.removeprefix('study_')}, {version}"
            lines, of_questions = rows_of(name, compare(posteriors), posteriors.tree)
            print("\n".join(lines), flush=True)
            rows += lines
            heading = f"| {name} | model | {' | '.join(f'{count} votes' for count in VOLUNTEERS)} |"
            shown += ["", heading, f"| --- |{' ---: |' * (1 + len(VOLUNTEERS))}", *of_questions]
    levels = " | ".join(f"{level:.0%}" for level in calibration.LEVELS)
    section = [
        machine("study-votes"),
        "",
        "Each test galaxy gets new volunteers on each question, drawn by its true probabilities. Root mean"
        " square errors of the fractions against the truth, means over the questions: of the votes' shares,"
        " of the model's mean, and of the mean with votes. Then the intervals with votes: how many pairs of"
        " question and mass hold the truth within ±5 points of what they should, and the greatest deviation"
        " of each mass, in points. A question counts for a galaxy if the model alone expects half of the"
        " volunteers to be asked it.",
        "",
        f"| posterior | volunteers | votes | model | both | within ±5 | {levels} |",
        f"| --- | ---: | ---: | ---: | ---: | ---: |{' ---: |' * len(calibration.LEVELS)}",
        *rows,
        "",
        "The errors of each question: of the votes, and **of both**.",
        *shown,
    ]
    write_section("votes.md", "Results", section, write)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of results, from the root: results/demo")
    parser.add_argument("--show", action="store_true", help="print the section instead of writing it")
    arguments = parser.parse_args()
    study([(REPO / run).resolve() for run in arguments.runs], not arguments.show)
