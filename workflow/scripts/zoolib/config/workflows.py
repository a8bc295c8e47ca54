"""How a Zooniverse workflow asks the questions of a tree: its tasks, and the texts of the answers."""

import re
import unicodedata
from dataclasses import dataclass

from zoolib.job.logs import UserError

IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
# What is left of an image when panoptes_aggregation has made a column name of an answer with one.
IMAGE_IN_NAME = re.compile(r"^.*-https?-.*-(?:png|jpe?g|gif|svg)-(?:\d*x\d*-)?(?=.)")
# YAML reads yes and no without quotes as true and false.
WORDS = {True: "yes", False: "no"}


@dataclass(frozen=True)
class Workflow:
    """The tasks of a workflow that ask the questions of a tree.

    Attributes:
        questions: {task, such as T0: name of its question}.
        texts: {task: {text of an answer, as `plain_text` makes it: column of the answer}}.
        letters: {task: {letters and digits of a text: column}}, without those that two answers share.
    """

    questions: dict
    texts: dict
    letters: dict

    def column(self, task, text):
        """The column of an answer, such as `bar_strong`; None for a text that the tree does not know.

        Args:
            task: one of `questions`.
            text: the answer as volunteers see it, or the name that panoptes_aggregation makes of it. Upper
                and lower case, images, spaces and punctuation make no difference.
        """
        plain = plain_text(text)
        found = self.texts[task].get(plain)
        return found or self.letters[task].get(_letters(IMAGE_IN_NAME.sub("", plain)))


def plain_text(text):
    """An answer or a question of a workflow without Markdown, in lower case; of an image alone its title."""
    without = LINK.sub(r"\1", IMAGE.sub("", text)).replace("*", "").strip()
    return " ".join((without or IMAGE.sub(r"\1", text)).casefold().split())


def read_workflow(entry, questions, origin):
    """Read how a workflow asks the questions of a tree.

    Args:
        entry: the key `zooniverse` of a tree: {"tasks": {question: task}, "answers": {column: text, or a
            list of texts}}. An answer without a text here has its own name as its text.
        questions: a tuple of `Question`.
        origin: the tree's name in error messages.

    Returns:
        A `Workflow`.

    Raises:
        UserError: a question has no task or a shared one, an unknown question or answer, or two answers of a
            question with the same text.
    """
    if not isinstance(entry, dict) or not {"tasks"} <= set(entry) <= {"tasks", "answers"}:
        raise UserError(
            f"{origin}: 'zooniverse' needs the key tasks, and may have answers, found {entry!r}; write which"
            f" task asks which question, e.g. tasks: {{{questions[0].name}: T0}}."
        )
    tasks = _tasks(entry["tasks"], questions, origin)
    answers = _answers(entry.get("answers") or {}, questions, origin)
    texts, letters = {}, {}
    for question in questions:
        task, owners = tasks[question.name], {}
        texts[task] = {}
        for column, answer in zip(question.columns, question.answers, strict=True):
            for text in map(plain_text, answers.get(column, [answer])):
                if texts[task].setdefault(text, column) != column:
                    raise UserError(
                        f"{origin}: zooniverse.answers gives '{column}' and '{texts[task][text]}' the same"
                        f" text '{text}'; fix one of them."
                    )
                owners.setdefault(_letters(text), set()).add(column)
        letters[task] = {key: min(columns) for key, columns in owners.items() if key and len(columns) == 1}
    return Workflow({task: name for name, task in tasks.items()}, texts, letters)


def _tasks(entry, questions, origin):
    names = [question.name for question in questions]
    if not isinstance(entry, dict) or set(map(str, entry)) != set(names):
        found = set(map(str, entry)) if isinstance(entry, dict) else set()
        missing, unknown = sorted(set(names) - found), sorted(found - set(names))
        what = f"has no task for '{missing[0]}'" if missing else f"has the unknown question '{unknown[0]}'"
        raise UserError(
            f"{origin}: zooniverse.tasks {what}; give each question of the tree ({', '.join(names)}) the task"
            " that asks it, e.g. T0."
        )
    tasks = {str(name): str(task) for name, task in entry.items()}
    found = list(tasks.values())
    twice = next((task for task in found if found.count(task) > 1), None)
    if twice:
        raise UserError(f"{origin}: zooniverse.tasks has '{twice}' for two questions; fix one of them.")
    return tasks


def _answers(entry, questions, origin):
    known = [column for question in questions for column in question.columns]
    if not isinstance(entry, dict):
        raise UserError(f"{origin}: zooniverse.answers must map answers to texts, found {entry!r}.")
    answers = {}
    for column, texts in entry.items():
        texts = texts if isinstance(texts, list) else [texts]
        texts = [WORDS[text] if isinstance(text, bool) else text for text in texts]
        if column not in known:
            raise UserError(
                f"{origin}: zooniverse.answers has '{column}', which is not an answer of this tree; write"
                f" answers as question_answer, e.g. '{known[0]}'."
            )
        if not texts or not all(isinstance(text, str | int) and str(text).strip() for text in texts):
            raise UserError(
                f"{origin}: zooniverse.answers has {entry[column]!r} for '{column}', expected the text that"
                " volunteers see, or a list of such texts."
            )
        answers[column] = [str(text) for text in texts]
    return answers


def _letters(text):
    return "".join(letter for letter in unicodedata.normalize("NFKD", text.casefold()) if letter.isalnum())
