"""Decision trees: the questions of a Galaxy Zoo campaign, their answers, and what leads to what."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from zoolib.logs import UserError


@dataclass(frozen=True)
class Question:
    """One question of a tree.

    Attributes:
        name: e.g. `bar`.
        answers: e.g. `("strong", "weak", "no")`.
        after: columns of the answers that lead here, e.g. `("disk-edge-on_no",)`; empty when
            every volunteer is asked.
        start: index of the first answer among all answers of the tree.
    """

    name: str
    answers: tuple
    after: tuple
    start: int

    @property
    def columns(self):
        """Catalogue columns of the answers, `{question}_{answer}`."""
        return [f"{self.name}_{answer}" for answer in self.answers]

    @property
    def slice(self):
        """Where the answers lie among all answers of the tree."""
        return slice(self.start, self.start + len(self.answers))


@dataclass(frozen=True)
class DecisionTree:
    """The questions of a campaign, in an order in which every question follows its parents.

    Attributes:
        name: e.g. `gz_decals_5`.
        title: how a figure calls it.
        source: where the tree is published.
        questions: a tuple of `Question`.
        published: {name of a table's naming: {our column: the table's column}}.
    """

    name: str
    title: str
    source: str
    questions: tuple
    published: dict = field(default_factory=dict, compare=False)

    @classmethod
    def load(cls, path):
        """Read a tree from YAML.

        Args:
            path: a file such as `config/trees/gz_decals_5.yaml`.

        Returns:
            The tree.

        Raises:
            UserError: the file is missing or no YAML, or the tree is not one.
        """
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            near = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
            raise UserError(
                f"{path}: there is no such decision tree; the trees in this folder are: {near}."
            ) from None
        except yaml.YAMLError as error:
            where = getattr(error, "problem_mark", None)
            line = f" in line {where.line + 1}" if where else ""
            raise UserError(f"{path}: is not valid YAML{line}; mend the file.") from None
        return cls.from_dict({"name": path.stem, **content} if isinstance(content, dict) else content, path)

    @classmethod
    def from_dict(cls, content, origin="the tree"):
        """Build a tree from plain values, as YAML and `model.json` hold them.

        Args:
            content: {"name", "title", "source", "questions": {name: {"answers", "after"}},
                "published"}.
            origin: what an error message calls it.

        Returns:
            The tree.

        Raises:
            UserError: an unknown parent, a cycle, a repeated answer, fewer than two answers.
        """
        if not isinstance(content, dict) or not isinstance(content.get("questions"), dict):
            raise UserError(f"{origin}: expected a mapping with the key 'questions'; see config/trees/.")
        unknown = set(content) - {"name", "title", "source", "questions", "published"}
        if unknown:
            raise UserError(
                f"{origin}: unknown key '{min(unknown)}'; a tree has name, title, source, questions, published."
            )
        questions, start = [], 0
        for name, entry in content["questions"].items():
            questions.append(_question(str(name), entry, start, origin))
            start += len(questions[-1].answers)
        if not questions:
            raise UserError(f"{origin}: a tree needs at least one question, found none.")
        _check_parents(questions, origin)
        tree = cls(
            name=str(content.get("name", "tree")),
            title=str(content.get("title", content.get("name", "tree"))),
            source=str(content.get("source", "")),
            questions=tuple(questions),
            published=content.get("published") or {},
        )
        for naming, columns in tree.published.items():
            strange = sorted(set(columns) - set(tree.columns))
            if strange:
                raise UserError(
                    f"{origin}: published.{naming} maps '{strange[0]}', which is no answer of this tree;"
                    f" its columns are named question_answer, e.g. '{tree.columns[0]}'."
                )
        return tree

    def to_dict(self):
        """The tree as plain values; `from_dict` reads them back."""
        questions = {}
        for question in self.questions:
            questions[question.name] = {"answers": list(question.answers), "after": list(question.after)}
        return {"name": self.name, "title": self.title, "source": self.source, "questions": questions}

    @property
    def columns(self):
        """Catalogue columns of all answers, in the order of the model's outputs."""
        return [column for question in self.questions for column in question.columns]

    def parents(self, question):
        """Indices of the answers that lead to a question; empty for one that everybody is asked."""
        return [self.columns.index(column) for column in question.after]

    def vote_columns(self, available, origin):
        """Find the votes of this tree in a table, by our names or by a published naming.

        Args:
            available: the table's column names.
            origin: the table's name, for the error message.

        Returns:
            {our column: the table's column}.

        Raises:
            UserError: no naming fits; the sentence says which columns miss from the best one.
        """
        available = set(available)
        namings = {"question_answer": {column: column for column in self.columns}}
        for naming, columns in self.published.items():
            namings[naming] = {column: columns.get(column, column) for column in self.columns}
        missing = {naming: sorted(set(columns.values()) - available) for naming, columns in namings.items()}
        best = min(namings, key=lambda naming: len(missing[naming]))
        if missing[best]:
            shown = ", ".join(missing[best][:4]) + (", …" if len(missing[best]) > 4 else "")
            raise UserError(
                f"{origin}: {len(missing[best])} of the {len(self.columns)} vote columns of the tree"
                f" '{self.name}' are missing ({shown}); choose the tree of this table in catalogs[].tree,"
                " or add the table's column names under 'published' in the tree's file."
            )
        return namings[best]


def _question(name, entry, start, origin):
    if not isinstance(entry, dict) or not isinstance(entry.get("answers"), list):
        raise UserError(f"{origin}: question '{name}' needs a list 'answers', found {entry!r}.")
    if set(entry) - {"answers", "after"}:
        key = min(set(entry) - {"answers", "after"})
        raise UserError(
            f"{origin}: question '{name}' has the unknown key '{key}'; it may have answers, after."
        )
    # YAML reads a bare yes or no as true or false; an answer is a word.
    words = {True: "yes", False: "no"}
    answers = tuple(words[a] if isinstance(a, bool) else str(a) for a in entry["answers"])
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise UserError(
            f"{origin}: question '{name}' needs two or more different answers, found {', '.join(answers) or 'none'}."
        )
    after = entry.get("after") or []
    after = (after,) if isinstance(after, str) else tuple(after)
    return Question(name, answers, after, start)


def _check_parents(questions, origin):
    owner = {column: question.name for question in questions for column in question.columns}
    if len(owner) < sum(len(question.answers) for question in questions):
        raise UserError(f"{origin}: two answers share a column name; rename a question or an answer.")
    for question in questions:
        for column in question.after:
            if column not in owner:
                raise UserError(
                    f"{origin}: question '{question.name}' follows the answer '{column}', which no question"
                    f" has; the answers are named question_answer, e.g. '{next(iter(owner))}'."
                )
    placed, waiting = set(), list(questions)
    while waiting:
        ready = [q for q in waiting if {owner[column] for column in q.after} <= placed]
        if not ready:
            names = ", ".join(q.name for q in waiting)
            raise UserError(
                f"{origin}: the questions {names} wait for each other in a cycle; mend their 'after'."
            )
        placed |= {q.name for q in ready}
        waiting = [q for q in waiting if q not in ready]
