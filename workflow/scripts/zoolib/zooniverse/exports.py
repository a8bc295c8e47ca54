"""Exports of a Zooniverse project: classifications as they are, or reduced by panoptes_aggregation.

As they are: https://help.zooniverse.org/next-steps/data-exports, reduced: `panoptes_aggregation reduce`,
https://aggregation-caesar.zooniverse.org/docs.
"""

import json
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path

from zoolib.config.workflows import Workflow, plain_text
from zoolib.data.tables import IDS, LOCATIONS, read_batches
from zoolib.job.logs import UserError, log
from zoolib.zooniverse.tally import SHOWN, Given

RAW = ("classification_id", "user_name", "workflow_id", "workflow_version", "created_at", "gold_standard")
RAW += ("annotations", "subject_data", "subject_ids")
# Caesar calls the task of a reduction its reducer_key.
TASKS = ("task", "reducer_key")
# Rows in memory at a time: an export has up to 4 KB a row.
ROWS = 50_000
ANSWERED = "with a galaxy and an answer"
# What SQLite takes for a number.
NUMBER = re.compile("[0-9]{1,18}")
# Marks of metadata that volunteers do not see, or not before they have answered.
MARKS = "#!/% "


class BadClassification(Exception):
    """A row of an export that cannot be used; its message is the reason."""


def read_given(source, tree, workflow, tally):
    """Read the answers in an export, one piece of the file after the other.

    Args:
        source: {"table": the export, CSV (.csv, .csv.gz); "workflow": its number; "versions": [lowest,
            highest] major version or None; "subjects": a subject export or None; "id", "location": fields of
            the subjects' metadata or None}.
        tree: a `DecisionTree`.
        workflow: its `Workflow`; None if the tree has none.
        tally: a `Tally`; it counts and collects what is not yielded.

    Yields:
        `Given`.

    Raises:
        UserError: the file is neither kind of export, or has no row of this workflow, or the tree does not
            say how the workflow asks its questions; then the message lists the tasks.
    """
    path, known = source["table"], _names_of(source) if source["subjects"] else None
    places = {column: number for number, column in enumerate(tree.columns)}
    origin, read, reader = Path(path).name, 0, None
    for table in read_batches(path, _chosen(path), (*RAW, "subject_id", *TASKS), ROWS, literal=RAW):
        if reader is None:
            kind = _Raw if "annotations" in table else _Reduced
            reader = kind(source, workflow or Workflow({}, {}, {}), places, known, tally)
        for row in table.to_dict("records"):
            read += 1
            tally.steps[f"rows of {origin}"] += 1
            yield from reader.given(row, read)
        if workflow is None and tally.tasks:
            raise UserError(
                f"{path}: the tree '{tree.name}' has no key zooniverse, which says how the workflow asks its"
                f" questions; the tasks here are {tally.described()}; add to the tree's file e.g. zooniverse:"
                f" {{tasks: {{{tree.questions[0].name}: T0}}}}, with each question of the tree."
            )
        if read % (4 * ROWS) == 0:
            log.info("%s: %s rows read", origin, f"{read:,}")
    if not reader.of_workflow:
        others = ", ".join(sorted(reader.others)[:SHOWN]) or "none"
        raise UserError(
            f"{path}: has no row of the workflow {source['workflow']}, it has those of {others}; fix"
            " catalogs[].zooniverse.workflow, or export the classifications again."
        )


def _chosen(path):
    def choose(columns):
        if "annotations" in columns:
            missing = [name for name in RAW if name not in columns]
            if not missing:
                return list(RAW)
            raise UserError(
                f"{path}: is an export of classifications without the column '{missing[0]}'; export the"
                " classifications of the workflow again."
            )
        task = next((name for name in TASKS if name in columns), None)
        data = [name for name in columns if name.startswith("data.")]
        if not (task and data and {"subject_id", "workflow_id"} <= set(columns)):
            raise UserError(
                f"{path}: has the columns {', '.join(columns[:SHOWN])}, expected an export of classifications"
                " (annotations, subject_data …) or reductions (subject_id, workflow_id, task, data.…);"
                " for a table of votes remove catalogs[].zooniverse."
            )
        return ["subject_id", "workflow_id", task, *data]

    return choose


def _names_of(source):
    """{subject: (name of its galaxy, its image file, what is wrong with them)}, from a subject export."""
    found = {}

    def choose(columns):
        if {"subject_id", "metadata"} <= set(columns):
            return ["subject_id", "metadata"]
        raise UserError(
            f"{source['subjects']}: has the columns {', '.join(columns[:SHOWN])}, expected a subject export"
            " with subject_id and metadata; fix catalogs[].zooniverse.subjects."
        )

    for table in read_batches(source["subjects"], choose, ("subject_id", "metadata"), ROWS):
        for subject, text in zip(table["subject_id"], table["metadata"], strict=True):
            try:
                found[subject] = (*_galaxy(_parsed(text, "metadata", dict), source), "")
            except BadClassification as error:
                found[subject] = ("", "", str(error))
    return found


def _galaxy(metadata, source):
    """(name, image file) of a subject."""
    fields = {str(key).strip(MARKS): value for key, value in metadata.items()}
    wanted = [source["id"]] if source["id"] else IDS
    name = next((_text(fields[key]) for key in wanted if key in fields), "")
    if not name:
        raise BadClassification(
            f"the subject's metadata have no galaxy's name in {' or '.join(wanted)}, they have"
            f" {', '.join(key for key in fields if key != 'retired') or 'nothing'}"
        )
    wanted = [source["location"]] if source["location"] else LOCATIONS
    return name, next((_text(fields[key]) for key in wanted if key in fields), "")


def _text(value):
    plain = "" if value is None or isinstance(value, bool | float | dict | list) else str(value).strip()
    # JSON may have halves of letters, which no file takes.
    return plain.encode(errors="replace").decode()


def _parsed(text, what, kind):
    try:
        found = json.loads(text)
    # A blank cell is no text.
    except (ValueError, TypeError, RecursionError):
        found = None
    if not isinstance(found, kind):
        raise BadClassification(f"its {what} cannot be read (found {str(text)[:40]!r})")
    return found


class _Reader:
    """What both kinds of export have in common."""

    def __init__(self, source, workflow, places, known, tally):
        self.source, self.workflow, self.places = source, workflow, places
        self.known, self.tally, self.of_workflow, self.others = known, tally, 0, set()
        # Millions of rows have the same few answers.
        self.column = cache(workflow.column)

    def is_of_workflow(self, row):
        """Whether a row is of the workflow that is counted."""
        found = str(row["workflow_id"]).removesuffix(".0")
        if found != str(self.source["workflow"]):
            self.others.add(found)
            return False
        self.of_workflow += 1
        self.tally.steps[f"of the workflow {found}"] += 1
        return True

    def answer(self, task, text, votes=1):
        """The place of an answer in the tree."""
        column = self.column(task, text)
        if column is None:
            self.tally.unknown[task, text] += votes
            raise BadClassification(
                f"the answer '{plain_text(text)}' to task {task} ({self.workflow.questions[task]}) is not in"
                " the tree, so it is not counted"
            )
        self.tally.known[task] += votes
        return self.places[column]

    def galaxy_of(self, subject):
        """(name, image file) of a subject, from the subject export."""
        name, place, wrong = self.known.get(subject, ("", "", "it is not in the subject export"))
        if wrong:
            raise BadClassification(f"subject {subject}: {wrong}")
        return name, place


class _Raw(_Reader):
    def given(self, row, number):
        """The answers in a row, as a list of one `Given` or none."""
        if not self.is_of_workflow(row) or not self._is_of_versions(row):
            return []
        about = {"classification": row["classification_id"], "subject": row["subject_ids"]}
        try:
            name, place = self._galaxy(row)
            about["name"] = name
            if str(row["gold_standard"]).strip().lower() == "true":
                raise BadClassification("it was made as a gold standard, which is no volunteer's vote")
            if not NUMBER.fullmatch(str(row["classification_id"])):
                raise BadClassification("its classification_id is not a number")
            votes, reasons = self._votes(_parsed(row["annotations"], "annotations", list))
        except BadClassification as error:
            votes, reasons = [], [str(error)]
        if not votes and not reasons:
            reasons = ["it answers no question of the tree"]
        for reason in reasons:
            self.tally.reject(f"{reason}.", **about)
        if not votes:
            return []
        self.tally.steps[ANSWERED] += 1
        self.tally.places |= bool(place)
        number, user = int(row["classification_id"]), row["user_name"]
        # Without a name, nobody knows whether two classifications are of one volunteer.
        user = user if isinstance(user, str) else f"classification {number}"
        text = " ".join(f"{answer}:1" for answer in votes)
        return [Given(name, place, user, str(row["created_at"]), number, row["subject_ids"], text)]

    def _is_of_versions(self, row):
        if not self.source["versions"]:
            return True
        lowest, highest = self.source["versions"]
        major = str(row["workflow_version"]).partition(".")[0]
        if not (major.isdigit() and lowest <= int(major) <= highest):
            return False
        self.tally.steps[f"of the versions {lowest} to {highest}"] += 1
        return True

    def _galaxy(self, row):
        if self.known is not None:
            return self.galaxy_of(row["subject_ids"])
        subjects = _parsed(row["subject_data"], "subject_data", dict)
        if len(subjects) != 1:
            raise BadClassification(f"it is of {len(subjects)} subjects, expected one")
        (metadata,) = subjects.values()
        return _galaxy(metadata if isinstance(metadata, dict) else {}, self.source)

    def _votes(self, annotations):
        """(places of the answers, one a task; why others are not counted)."""
        found, reasons = {}, []
        for task, label, value in _flat(annotations):
            # A task without a value was skipped.
            texts = [text for text in (value if isinstance(value, list) else [value]) if text is not None]
            for text in texts:
                self.tally.saw(task, label, str(text)[:200])
            if task not in self.workflow.questions or not texts:
                continue
            try:
                if len(texts) > 1:
                    raise BadClassification(f"task {task} has {len(texts)} answers, expected one")
                if not isinstance(texts[0], str):
                    raise BadClassification(f"the answer to task {task} is {texts[0]!r}, expected its text")
                place = self.answer(task, texts[0])
                found.setdefault(task, set()).add(place)
            except BadClassification as error:
                reasons.append(str(error))
        twice = [task for task, places in found.items() if len(places) > 1]
        reasons += [f"task {task} is answered twice and differently" for task in twice]
        return [min(places) for task, places in found.items() if task not in twice], reasons


def _flat(annotations):
    """(task, its question, value) of each annotation, also of those inside of a combo task."""
    for one in annotations:
        if isinstance(one, dict) and "value" in one:
            parts = one["value"] if isinstance(one["value"], list) else []
            inner = [part for part in parts if isinstance(part, dict) and "task" in part]
            for part in inner or [one]:
                yield str(part.get("task")), part.get("task_label"), part.get("value")


class _Reduced(_Reader):
    def __init__(self, source, *others):
        super().__init__(source, *others)
        if source["versions"]:
            raise UserError(
                f"{source['table']}: is a table of reductions, which do not have the workflow's version;"
                " remove catalogs[].zooniverse.versions, and choose versions in panoptes_aggregation."
            )
        if self.known is None:
            raise UserError(
                f"{source['table']}: is a table of reductions, which do not name galaxies; give the subject"
                " export of the project in catalogs[].zooniverse.subjects."
            )

    def given(self, row, number):
        """The answers in a row, as a list of one `Given` or none."""
        if not self.is_of_workflow(row):
            return []
        task = str(row.get("task", row.get("reducer_key")))
        subject, votes = row["subject_id"], Counter()
        about = {"subject": subject}
        try:
            name, place = self.galaxy_of(subject)
            about["name"] = name
        except BadClassification as error:
            self.tally.reject(f"{error}.", **about)
            return []
        for column, cell in row.items():
            text = column.removeprefix("data.")
            # `None` counts those who skipped the task; the others are no answers.
            is_answer = column.startswith("data.") and not text.startswith("user_ids_")
            if not is_answer or text in ("aggregation_version", "None") or _is_blank(cell):
                continue
            self.tally.saw(task, "", text)
            if task not in self.workflow.questions:
                continue
            try:
                count = _count(cell, task, text)
                if count:
                    votes[self.answer(task, text, count)] += count
            except BadClassification as error:
                self.tally.reject(f"{error}.", **about)
        if not votes:
            return []
        self.tally.steps[ANSWERED] += 1
        self.tally.places |= bool(place)
        text = " ".join(f"{place}:{count}" for place, count in votes.items())
        return [Given(name, place, f"{subject} {task}", "", number, subject, text)]


def _is_blank(cell):
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _count(cell, task, text):
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = -1.0
    # The remainder of what is infinite is no number.
    if number < 0 or number % 1 != 0:
        raise BadClassification(f"task {task} has {cell!r} votes for '{text}', expected a whole number")
    return int(number)
