"""The votes of volunteers, counted from an export of a Zooniverse project."""

import contextlib
import csv
from itertools import groupby
from operator import itemgetter

from zoolib.config.trees import DecisionTree
from zoolib.config.workflows import plain_text, read_workflow
from zoolib.data.disk_sort import in_order
from zoolib.data.tables import IDS, LOCATIONS
from zoolib.job.logs import UserError, log, whole
from zoolib.zooniverse.exports import read_given
from zoolib.zooniverse.tally import SHOWN, Given, Tally

FIRST = "the first of a volunteer for a galaxy"


def count_votes(source, tree, output):
    """Count the votes on each galaxy in an export of a Zooniverse project.

    A volunteer counts once for a galaxy, with the first classification (the default of
    `panoptes_aggregation reduce --filter`). Those who are not logged in are told apart by their `user_name`,
    which Panoptes makes of their address. Subjects with the same galaxy's name are one galaxy.

    Args:
        source: see `exports.read_given`.
        tree: in the form of `DecisionTree.to_dict`, with the key `zooniverse`.
        output: has the paths `votes` (CSV: the galaxy's name, its image if the metadata say it, and a column
            for each answer), `rejected` (classification_id, subject_id, id_str, reason) and `summary` (step,
            count).

    Raises:
        UserError: the export cannot be read, it does not fit the tree, or nothing in it can be counted.
    """
    tree = DecisionTree.from_dict(tree)
    workflow = read_workflow(tree.zooniverse, tree.questions, tree.name) if tree.zooniverse else None
    with (
        _writer(output.votes) as votes,
        _writer(output.rejected) as rejected,
        _writer(output.summary) as summary,
    ):
        rejected.writerow(["classification_id", "subject_id", "id_str", "reason"])
        tally = Tally(rejected.writerow)
        given = read_given(source, tree, workflow, tally)
        given = in_order(given, Given._fields, "name, user, time, classification")
        for name, place, counts in _galaxies(given, tree, tally, source["table"]):
            if not tally.steps["galaxies"]:
                _check(tally, tree, workflow, source["table"])
                location = [source["location"] or LOCATIONS[0]] if tally.places else []
                votes.writerow([source["id"] or IDS[0], *location, *tree.columns])
            tally.steps["galaxies"] += 1
            votes.writerow([name, *([place] if tally.places else []), *counts])
        if not tally.steps["galaxies"]:
            if tally.tasks:
                _check(tally, tree, workflow, source["table"])
            first = tally.first or f"no vote of the workflow {source['workflow']} and its versions."
            raise UserError(f"{source['table']}: nothing in it can be counted, the first: {first}")
        summary.writerows([["step", "count"], *tally.steps.items()])
    for step, count in tally.steps.items():
        log.info("%s: %s", step, f"{count:,}")
    if tally.rejected:
        log.info("%s: %s rows, the first: %s", output.rejected, f"{tally.rejected:,}", tally.first)
    if tally.unknown:
        log.warning(
            "%s answers are not in the tree and not counted: %s; if they are answers of the tree, add their"
            " texts to zooniverse.answers in its file",
            f"{tally.unknown.total():,}",
            _shown([(*key, count) for key, count in tally.unknown.most_common()]),
        )


@contextlib.contextmanager
def _writer(path):
    """A writer of CSV to a file that is there when it is complete."""
    with whole(path) as partial, open(partial, "w", newline="", errors="backslashreplace") as file:
        yield csv.writer(file, lineterminator="\n")


def _galaxies(given, tree, tally, origin):
    """(name, image file, votes for each answer) of each galaxy, from sorted rows."""
    for name, of_galaxy in groupby(given, itemgetter(0)):
        counts, place = [0] * len(tree.columns), ""
        for _, of_user in groupby(map(Given._make, of_galaxy), itemgetter(2)):
            first, *others = of_user
            if first.time:
                tally.steps[FIRST] += 1
            elif others:
                raise UserError(
                    f"{origin}: subject {first.subject} has two rows of one task (rows {first.classification}"
                    f" and {others[0].classification}), expected one; remove one of them."
                )
            place = place or first.place
            for vote in first.votes.split():
                answer, count = map(int, vote.split(":"))
                counts[answer] += count
            for other in others:
                tally.reject(
                    f"the same volunteer has classified this galaxy already (classification"
                    f" {first.classification}), which is counted.",
                    other.classification,
                    other.subject,
                    name,
                )
        yield name, place, counts


def _check(tally, tree, workflow, origin):
    """Check that the tasks of the export are those of the tree."""
    asked = {name: task for task, name in workflow.questions.items()}
    for question in tree.questions:
        task = asked[question.name]
        if task not in tally.tasks and not question.after:
            raise UserError(
                f"{origin}: nobody has answered task {task}, which asks '{question.name}' by the key"
                f" zooniverse of the tree '{tree.name}'; the tasks of the export are {tally.described()}; fix"
                " zooniverse.tasks."
            )
        unknown = [(*key, count) for key, count in tally.unknown.most_common() if key[0] == task]
        if unknown and not tally.known[task]:
            raise UserError(
                f"{origin}: no answer to task {task} ('{question.name}') is in the tree '{tree.name}', which"
                f" has {', '.join(question.answers)}; found {_shown(unknown)}; add these texts to"
                " zooniverse.answers in the tree's file."
            )


def _shown(unknown):
    """Answers that the tree does not know, as a part of a sentence."""
    told = [f"{task} '{plain_text(text)}' ({count:,})" for task, text, count in unknown[:SHOWN]]
    return ", ".join(told) + (", …" if len(unknown) > SHOWN else "")
