"""The parts of a decision tree, read from plain values: questions with their answers, and cuts."""

import re
from dataclasses import dataclass, replace

from zoolib.job.logs import UserError

# Questions and answers are parts of the names of columns and of files.
WORD = re.compile(r"[A-Za-z0-9_+-]+")
# Columns of catalogues, and words that mean something else in tables of scores.
TAKEN_COLUMNS = {"id_str", "file_loc"}
TAKEN_WORDS = {"total", "all"}
# Answers with one of these words say that there is no galaxy to describe.
ARTIFACTS = ("artifact", "problem")
# Likelihoods count smaller probabilities of an answer as this one. Its logarithm, and votes divided by it,
# are finite in float32 even when a loss is scaled up.
SMALLEST_PROBABILITY = 1e-25


@dataclass(frozen=True)
class Question:
    """One question of a tree.

    Attributes:
        name: e.g. `bar`.
        answers: e.g. `("strong", "weak", "no")`.
        after: columns of the answers that lead here, e.g. `("disk-edge-on_no",)`; empty when
            every volunteer is asked.
        start: index of the first answer among all answers of the tree.
        campaign: name of the tree that the question came from; in a union of trees, not the union's name.
    """

    name: str
    answers: tuple
    after: tuple
    start: int
    campaign: str = ""

    @property
    def columns(self):
        """Catalogue columns of the answers, `{question}_{answer}`."""
        return [f"{self.name}_{answer}" for answer in self.answers]

    def columns_with(self, suffix):
        """Columns of the answers in tables of several campaigns, `{question}-{suffix}_{answer}`."""
        return [f"{self.name}-{suffix}_{answer}" for answer in self.answers]

    @property
    def slice(self):
        """The places of the answers among all answers of the tree."""
        return slice(self.start, self.start + len(self.answers))


@dataclass(frozen=True)
class Cut:
    """A suggested cut for a sample (Walmsley et al. 2022, table 2).

    Attributes:
        name: of the sample, e.g. `strong-bar`.
        answers: columns of answers to one question; their vote fractions are added up.
        above: the sum is larger than this; None if `below` is given.
        below: the sum is smaller than this; None if `above` is given.
        votes: the question should have at least this number of votes.
    """

    name: str
    answers: tuple
    above: float | None
    below: float | None
    votes: int


def read_questions(entries, campaign, origin):
    """Read the questions of a tree; those that are listed before their parents are moved behind them.

    Args:
        entries: {name: {"answers", "after", "campaign"}}, as YAML and `model.json` hold them.
        campaign: the name of the tree.
        origin: the tree's name in error messages.

    Returns:
        A tuple of `Question`.

    Raises:
        UserError: an unknown parent, a cycle, a repeated answer, fewer than two answers, no question.
    """
    if not entries:
        raise UserError(f"{origin}: a tree needs at least one question, found none; add one.")
    questions = [_question(str(name), entry, campaign, origin) for name, entry in entries.items()]
    return tuple(_parents_first(questions, origin))


def read_cuts(entries, questions, origin):
    """Read the suggested cuts of a tree.

    Args:
        entries: {name: {"answers", "above" or "below", "votes"}}.
        questions: the tree's.
        origin: the tree's name in error messages.

    Returns:
        A tuple of `Cut`.

    Raises:
        UserError: the answers are not those of one question, or there is not exactly one limit from 0 to 1.
    """
    if not isinstance(entries, dict):
        raise UserError(f"{origin}: 'cuts' must map names of samples to cuts, found {entries!r}.")
    return tuple(_cut(str(name), entry, questions, origin) for name, entry in entries.items())


def featured_answers(question):
    """The answer "featured" of a question, and its other answers except those for artifacts.

    Args:
        question: the first of a tree.

    Returns:
        (place of the answer among all answers of the tree, list of the others' places).

    Raises:
        UserError: the question has no such answer, or only artifacts beside it.
    """
    places = dict(enumerate(question.answers, start=question.start))
    featured = [place for place, answer in places.items() if answer.startswith("feature")]
    others = [
        place
        for place, answer in places.items()
        if place not in featured and not any(word in answer for word in ARTIFACTS)
    ]
    if len(featured) != 1 or not others:
        raise UserError(
            "predict.acquisition is paper, which is about votes for 'featured' in the first question, but the"
            f" tree '{question.campaign}' begins with '{question.name}' ({', '.join(question.answers)});"
            " choose joint."
        )
    return featured[0], others


def _cut(name, entry, questions, origin):
    def wrong(message):
        return UserError(f"{origin}: the cut '{name}' {message}.")

    if not isinstance(entry, dict) or not {"answers"} < set(entry) <= {"answers", "above", "below", "votes"}:
        raise wrong(f"must have the keys answers, above or below, and optionally votes, found {entry!r}")
    answers = entry["answers"]
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list | tuple) or not all(isinstance(answer, str) for answer in answers):
        raise wrong(f"needs a list 'answers' such as [bar_strong, bar_weak], found {answers!r}")
    if len(set(answers)) < max(len(answers), 1) or not any(
        set(answers) <= set(question.columns) for question in questions
    ):
        raise wrong(f"adds up {', '.join(answers) or 'nothing'}, expected different answers of one question")
    above, below = entry.get("above"), entry.get("below")
    limits = [limit for limit in (above, below) if limit is not None]
    if len(limits) != 1 or type(limits[0]) not in (int, float) or not 0 <= limits[0] <= 1:
        raise wrong(f"has above {above} and below {below}, expected only one of them, a fraction from 0 to 1")
    votes = entry.get("votes", 0)
    if type(votes) is not int or votes < 0:
        raise wrong(f"has votes {votes!r}, expected a whole number, 0 or more")
    return Cut(name, tuple(answers), above, below, votes)


def _question(name, entry, campaign, origin):
    if not isinstance(entry, dict) or not isinstance(entry.get("answers"), list):
        raise UserError(f"{origin}: question '{name}' needs a list 'answers', found {entry!r}.")
    unknown = set(entry) - {"answers", "after", "campaign"}
    if unknown:
        raise UserError(
            f"{origin}: question '{name}' has the unknown key '{min(map(str, unknown))}', expected answers or"
            " after; fix or remove it."
        )
    if None in entry["answers"] or name == "None":
        raise UserError(f"{origin}: question '{name}' or one of its answers is blank; give it a name.")
    # YAML reads yes and no without quotes as true and false, but here they are words.
    words = {True: "yes", False: "no"}
    answers = tuple(words[a] if isinstance(a, bool) else str(a) for a in entry["answers"])
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise UserError(
            f"{origin}: question '{name}' needs two or more different answers,"
            f" found {', '.join(answers) or 'none'}."
        )
    strange = next((word for word in (name, *answers) if not WORD.fullmatch(word)), None)
    if strange is not None:
        raise UserError(
            f"{origin}: '{strange}' in question '{name}' may have only letters, digits, - and _, because"
            " columns and files are named after it; choose a name such as 'has-spiral-arms'."
        )
    taken = sorted({name, *answers} & TAKEN_WORDS)
    taken += sorted({f"{name}_{answer}" for answer in answers} & TAKEN_COLUMNS)
    if taken:
        raise UserError(
            f"{origin}: question '{name}' leads to the name '{taken[0]}', which means something else in"
            " tables of this project; rename the question or its answer."
        )
    after = entry.get("after") or []
    after = [after] if isinstance(after, str) else after
    if not isinstance(after, list | tuple) or not all(isinstance(column, str) for column in after):
        raise UserError(
            f"{origin}: the 'after' of question '{name}' must be an answer such as 'bar_yes', or a list of"
            f" answers, found {entry['after']!r}."
        )
    if len(set(after)) < len(after):
        raise UserError(
            f"{origin}: the 'after' of question '{name}' names an answer twice; remove one of them."
        )
    return Question(name, answers, tuple(after), 0, str(entry.get("campaign", campaign)))


def _parents_first(questions, origin):
    owner = {column: question.name for question in questions for column in question.columns}
    if len(owner) < sum(len(question.answers) for question in questions):
        raise UserError(f"{origin}: two answers share a column name; rename a question or an answer.")
    for question in questions:
        for column in question.after:
            if column not in owner:
                raise UserError(
                    f"{origin}: question '{question.name}' is after the answer '{column}', but no question"
                    f" has this answer; write answers as question_answer, e.g. '{next(iter(owner))}'."
                )
    placed, waiting = [], list(questions)
    while waiting:
        names = {question.name for question in placed}
        ready = next((q for q in waiting if {owner[column] for column in q.after} <= names), None)
        if ready is None:
            stuck = ", ".join(question.name for question in waiting)
            raise UserError(
                f"{origin}: the questions {stuck} come after each other in a cycle; fix their 'after'."
            )
        placed.append(replace(ready, start=sum(len(question.answers) for question in placed)))
        waiting.remove(ready)
    return placed
