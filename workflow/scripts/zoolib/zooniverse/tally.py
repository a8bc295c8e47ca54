"""What is read from an export, and what becomes of its rows."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from zoolib.config.workflows import plain_text

# Tasks and texts that a message shows.
SHOWN = 6


class Given(NamedTuple):
    """Answers about one galaxy: of one volunteer, or of all together.

    Attributes:
        name: the galaxy's.
        place: its image file; "" if the metadata do not say it.
        user: who gave the answers, or which row of a reduced export it was.
        time: when, as text that can be sorted; "" in a reduced export.
        classification: its number; the row's in a reduced export.
        subject: of the project.
        votes: text such as "3:1 5:1", place of an answer in the tree and votes for it.
    """

    name: str
    place: str
    user: str
    time: str
    classification: int
    subject: str
    votes: str


@dataclass
class Tally:
    """What became of the rows of an export.

    Attributes:
        write: writes a row of what cannot be used: classification, subject, galaxy, reason.
        steps: {step: rows that are left}.
        tasks: {task: (its question as volunteers see it, {text of an answer: how often})}.
        unknown: {(task, text): how often}, answers that the tree does not know.
        known: {task: answers that it does}.
        places: whether an image file was named.
        rejected: rows that were written.
        first: the reason in the first of them.
    """

    write: callable
    steps: Counter = field(default_factory=Counter)
    tasks: dict = field(default_factory=dict)
    unknown: Counter = field(default_factory=Counter)
    known: Counter = field(default_factory=Counter)
    places: bool = False
    rejected: int = 0
    first: str = ""

    def reject(self, reason, classification="", subject="", name=""):
        """Write why something is not counted."""
        self.rejected += 1
        self.first = self.first or reason
        self.write([classification, subject, name, reason])

    def saw(self, task, label, text):
        """Remember a task of the workflow and one of its answers, for messages."""
        if task not in self.tasks:
            self.tasks[task] = plain_text(label or ""), Counter()
        _, texts = self.tasks[task]
        if text in texts or len(texts) < 2 * SHOWN:
            texts[text] += 1

    def described(self):
        """The tasks of the export, as a part of a sentence."""
        told = []
        for task, (label, texts) in sorted(self.tasks.items()):
            distinct = dict.fromkeys(plain_text(text) for text, _ in texts.most_common())
            shown = ", ".join(f"'{text}'" for text in list(distinct)[:SHOWN])
            told.append(f"{task} {label!r} ({shown})" if label else f"{task} ({shown})")
        return "; ".join(told) or "none"
