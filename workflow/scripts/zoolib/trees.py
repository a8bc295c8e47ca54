"""Decision trees: the questions of a Galaxy Zoo campaign, their answers, and what leads to what."""

from dataclasses import dataclass, field, replace
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
            content = yaml.load(path.read_text(), _EachKeyOnce)
        except FileNotFoundError:
            near = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
            raise UserError(
                f"{path}: there is no such decision tree; the trees in this folder are: {near}."
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" in line {where.line + 1}" if where else ""
            why = f" ({error.problem})" if getattr(error, "problem", None) else ""
            raise UserError(f"{path}: is not valid YAML{line}{why}; mend the file.") from None
        return cls.from_dict({"name": path.stem, **content} if isinstance(content, dict) else content, path)

    @classmethod
    def from_dict(cls, content, origin="the tree"):
        """Build a tree from plain values, as YAML and `model.json` hold them.

        Questions that are listed before their parents are moved behind them.

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
                f"{origin}: unknown key '{min(map(str, unknown))}';"
                " a tree has name, title, source, questions, published."
            )
        questions = [_question(str(name), entry, origin) for name, entry in content["questions"].items()]
        if not questions:
            raise UserError(f"{origin}: a tree needs at least one question, found none.")
        questions = _parents_first(questions, origin)
        published = content.get("published") or {}
        if not isinstance(published, dict) or not all(isinstance(c, dict) for c in published.values()):
            raise UserError(
                f"{origin}: 'published' must map the name of a table's naming to a mapping from our columns"
                " to the table's; see config/trees/gz2.yaml."
            )
        tree = cls(
            name=str(content.get("name", "tree")),
            title=str(content.get("title", content.get("name", "tree"))),
            source=str(content.get("source", "")),
            questions=tuple(questions),
            published=published,
        )
        for naming, columns in tree.published.items():
            strange = sorted(set(columns) - set(tree.columns))
            if strange:
                raise UserError(
                    f"{origin}: published.{naming} maps '{strange[0]}', which is no answer of this tree;"
                    f" its columns are named question_answer, e.g. '{tree.columns[0]}'."
                )
        return tree

    def to_dict(self, published=False):
        """The tree as plain values; `from_dict` reads them back.

        Args:
            published: with the namings of published tables, which reading a table needs and a
                trained model does not.

        Returns:
            A dict that JSON can say.
        """
        questions = {}
        for question in self.questions:
            questions[question.name] = {"answers": list(question.answers), "after": list(question.after)}
        content = {"name": self.name, "title": self.title, "source": self.source, "questions": questions}
        return {**content, "published": self.published} if published else content

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


class _EachKeyOnce(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; PyYAML drops the first without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands there twice", mark)
        return super().construct_mapping(node, deep)


def _question(name, entry, origin):
    if not isinstance(entry, dict) or not isinstance(entry.get("answers"), list):
        raise UserError(f"{origin}: question '{name}' needs a list 'answers', found {entry!r}.")
    unknown = set(entry) - {"answers", "after"}
    if unknown:
        raise UserError(
            f"{origin}: question '{name}' has the unknown key '{min(map(str, unknown))}';"
            " it may have answers, after."
        )
    # YAML reads a bare yes or no as true or false; an answer is a word.
    words = {True: "yes", False: "no"}
    answers = tuple(words[a] if isinstance(a, bool) else str(a) for a in entry["answers"])
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise UserError(
            f"{origin}: question '{name}' needs two or more different answers,"
            f" found {', '.join(answers) or 'none'}."
        )
    after = entry.get("after") or []
    after = [after] if isinstance(after, str) else after
    if not isinstance(after, list | tuple) or not all(isinstance(column, str) for column in after):
        raise UserError(
            f"{origin}: the 'after' of question '{name}' must be an answer such as 'bar_yes', or a list of"
            f" answers, found {entry['after']!r}."
        )
    return Question(name, answers, tuple(after), start=0)


def _parents_first(questions, origin):
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
    placed, waiting = [], list(questions)
    while waiting:
        names = {question.name for question in placed}
        ready = next((q for q in waiting if {owner[column] for column in q.after} <= names), None)
        if ready is None:
            stuck = ", ".join(question.name for question in waiting)
            raise UserError(
                f"{origin}: the questions {stuck} wait for each other in a cycle; mend their 'after'."
            )
        placed.append(replace(ready, start=sum(len(question.answers) for question in placed)))
        waiting.remove(ready)
    return placed
