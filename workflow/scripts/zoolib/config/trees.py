"""Decision trees: the questions of a Galaxy Zoo campaign, their answers, and which answer leads where."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from zoolib.config.questions import read_cuts, read_questions
from zoolib.config.workflows import read_workflow
from zoolib.job.logs import UserError


@dataclass(frozen=True)
class DecisionTree:
    """The questions of a campaign, in an order in which every question follows its parents.

    Attributes:
        name: e.g. `gz_decals_5`.
        title: its name in figures.
        source: where the tree is published.
        questions: a tuple of `Question`.
        published: column names of published tables, {name of a naming: {our column: the table's column}}.
        suffix: what tables of several campaigns append to a question, `{question}-{suffix}_{answer}`.
        cuts: a tuple of `Cut`.
        zooniverse: how a workflow asks the questions, as `workflows.read_workflow` reads it.
    """

    name: str
    title: str
    source: str
    questions: tuple
    published: dict = field(default_factory=dict, compare=False)
    suffix: str = field(default="", compare=False)
    cuts: tuple = field(default=(), compare=False)
    zooniverse: dict = field(default_factory=dict, compare=False)

    @classmethod
    def load(cls, path):
        """Read a tree from YAML.

        Args:
            path: a file such as `config/trees/gz_decals_5.yaml`.

        Returns:
            The tree.

        Raises:
            UserError: the file is missing or not valid YAML, or the tree in it is wrong.
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
            raise UserError(f"{path}: is not valid YAML{line}{why}; fix the file.") from None
        return cls.from_dict({"name": path.stem, **content} if isinstance(content, dict) else content, path)

    @classmethod
    def from_dict(cls, content, origin="the tree"):
        """Build a tree from plain values, as YAML and `model.json` hold them.

        Questions that are listed before their parents are moved behind them.

        Args:
            content: {"name", "title", "source", "suffix", "questions": {name: {"answers", "after",
                "campaign"}}, "cuts": {name: {"answers", "above" or "below", "votes"}}, "published",
                "zooniverse"}.
            origin: the tree's name in error messages.

        Returns:
            The tree.

        Raises:
            UserError: an unknown parent, a cycle, a repeated answer, fewer than two answers, a wrong cut.
        """
        _check_keys(content, origin)
        name, suffix = str(content.get("name", "tree")), str(content.get("suffix") or "")
        _check_words(name, suffix, origin)
        questions = read_questions(content["questions"], name, origin)
        tree = cls(
            name=name,
            title=str(content.get("title", name)),
            source=str(content.get("source", "")),
            questions=questions,
            published=content.get("published") or {},
            suffix=suffix,
            cuts=read_cuts(content.get("cuts") or {}, questions, origin),
            zooniverse=content.get("zooniverse") or {},
        )
        _check_published(tree, origin)
        if tree.zooniverse:
            read_workflow(tree.zooniverse, questions, origin)
        return tree

    def without_title(self, published=False):
        """The tree as plain values without its title and its source, on which no result depends.

        Args:
            published: as for `to_dict`.

        Returns:
            A dict.
        """
        content = self.to_dict(published)
        return {key: value for key, value in content.items() if key not in ("title", "source")}

    def to_dict(self, published=False):
        """The tree as plain values; `from_dict` reads them back.

        Args:
            published: whether to add the namings of published tables and the suggested cuts; training
                does not use them, so a change in them needs no new training.

        Returns:
            A dict that can be written as JSON.
        """
        questions = {}
        for question in self.questions:
            questions[question.name] = {"answers": list(question.answers), "after": list(question.after)}
            if question.campaign != self.name:
                questions[question.name]["campaign"] = question.campaign
        content = {"name": self.name, "title": self.title, "source": self.source, "questions": questions}
        if self.suffix:
            content["suffix"] = self.suffix
        if not published:
            return content
        cuts = {}
        for cut in self.cuts:
            limit = {"below": cut.below} if cut.above is None else {"above": cut.above}
            cuts[cut.name] = {"answers": list(cut.answers), **limit, "votes": cut.votes}
        return {**content, "cuts": cuts, "published": self.published}

    @classmethod
    def union(cls, trees):
        """One tree of the questions of several campaigns, for one model of them all.

        A question has the name `{question}-{suffix}`, as in tables of several campaigns. A tree without a
        suffix uses its name; if two suffixes are equal, all trees use their names. A single tree, even if it
        is listed several times, is returned as it is.

        Args:
            trees: a list of `DecisionTree`.

        Returns:
            The tree; a question's `campaign` names the tree it came from, and `first` gives the first
            question of that tree.

        Raises:
            UserError: two different trees have the same name.
        """
        distinct = [tree for number, tree in enumerate(trees) if tree not in trees[:number]]
        names = [tree.name for tree in distinct]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UserError(f"two different trees are called '{twice}'; give one of them another 'name'.")
        if len(distinct) == 1:
            return distinct[0]
        suffixes = [tree.suffix or tree.name for tree in distinct]
        if len(set(suffixes)) < len(suffixes):
            suffixes = names
        questions, cuts = {}, {}
        for tree, suffix in zip(distinct, suffixes, strict=True):
            called = {}
            for question in tree.questions:
                name = f"{question.name}-{suffix}"
                called |= dict(zip(question.columns, question.columns_with(suffix), strict=True))
                after = [called[column] for column in question.after]
                questions[name] = {"answers": list(question.answers), "after": after, "campaign": tree.name}
            for name, cut in tree.to_dict(published=True)["cuts"].items():
                cuts[f"{name}-{suffix}"] = {**cut, "answers": [called[column] for column in cut["answers"]]}
        return cls.from_dict(
            {
                "name": "+".join(names),
                "title": " and ".join(tree.title for tree in distinct),
                "source": "; ".join(tree.source for tree in distinct if tree.source),
                "questions": questions,
                "cuts": cuts,
            }
        )

    @property
    def columns(self):
        """Catalogue columns of all answers, in the order of the model's outputs."""
        return [column for question in self.questions for column in question.columns]

    def parents(self, question):
        """Indices of the answers that lead to a question; empty if everybody is asked this question."""
        return [self.columns.index(column) for column in question.after]

    def __str__(self):
        """The tree as indented text: each question, its answers, and what each answer leads to."""
        plural = "s" if len(self.questions) > 1 else ""
        lines = [f"{self.title}: {len(self.questions)} question{plural}, {len(self.columns)} answers"]
        shown = set()

        def write(question, indent):
            following = [[q for q in self.questions if column in q.after] for column in question.columns]
            if question in shown:
                lines.append(f"{indent}{question.name}, as above")
            elif not any(following):
                lines.append(f"{indent}{question.name}: {', '.join(question.answers)}")
            else:
                lines.append(f"{indent}{question.name}")
                for answer, questions in zip(question.answers, following, strict=True):
                    lines.append(f"{indent}  = {answer}")
                    for inner in questions:
                        write(inner, indent + "      ")
            shown.add(question)

        for question in self.questions:
            if not question.after:
                write(question, "  ")
        return "\n".join(lines)

    def first(self, question):
        """The first question of the same campaign: its votes add up to the number of volunteers."""
        return next(other for other in self.questions if other.campaign == question.campaign)

    @property
    def first_columns(self):
        """Columns of the answers to each campaign's first question."""
        firsts = [question for question in self.questions if question == self.first(question)]
        return [column for question in firsts for column in question.columns]

    def columns_of(self, campaign):
        """Columns of one campaign's answers, in the order of its own tree."""
        questions = [question for question in self.questions if question.campaign == campaign]
        return [column for question in questions for column in question.columns]

    def vote_columns(self, available, origin):
        """Find the votes of this tree in a table, by our column names or by a published naming.

        Args:
            available: the table's column names.
            origin: the table's name in error messages.

        Returns:
            {our column: the table's column}.

        Raises:
            UserError: no naming fits; the message says which columns of the best one are missing.
        """
        available = set(available)
        namings = {"question_answer": {column: column for column in self.columns}}
        if self.suffix:
            suffixed = [column for q in self.questions for column in q.columns_with(self.suffix)]
            namings["suffix"] = dict(zip(self.columns, suffixed, strict=True))
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


def _check_keys(content, origin):
    if not isinstance(content, dict) or not isinstance(content.get("questions"), dict):
        raise UserError(f"{origin}: expected a mapping with the key 'questions'; see config/trees/.")
    known = ("name", "title", "source", "suffix", "questions", "cuts", "published", "zooniverse")
    unknown = set(content) - set(known)
    if unknown:
        raise UserError(
            f"{origin}: unknown key '{min(map(str, unknown))}', expected one of {', '.join(known)}; fix or"
            " remove it."
        )


def _check_words(name, suffix, origin):
    if not re.fullmatch(r"[A-Za-z0-9-]*", suffix):
        raise UserError(
            f"{origin}: the suffix '{suffix}' may have only letters, digits and -, because it is a part of"
            " column names; choose one such as dr5."
        )
    if not re.fullmatch(r"[A-Za-z0-9_+-]+", name):
        raise UserError(
            f"{origin}: the name '{name}' may have only letters, digits, - and _, because files are named"
            " after it; give the tree a short 'name', and write the full name as its 'title'."
        )


def _check_published(tree, origin):
    """Check that the published namings are mappings from columns of the tree to columns of tables."""
    if not isinstance(tree.published, dict) or not all(isinstance(c, dict) for c in tree.published.values()):
        raise UserError(
            f"{origin}: 'published' must map the name of each naming to a mapping from our column names to"
            " those of the table; see config/trees/gz2.yaml."
        )
    for naming, columns in tree.published.items():
        strange = sorted(set(columns) - set(tree.columns))
        if strange:
            raise UserError(
                f"{origin}: published.{naming} has '{strange[0]}', which is not an answer of this tree; write"
                f" answers as question_answer, e.g. '{tree.columns[0]}'."
            )
        _check_naming({column: columns.get(column, column) for column in tree.columns}, naming, origin)


def _check_naming(naming, name, origin):
    """Check that a naming has a text for each answer, and a different column for each."""
    for column, found in naming.items():
        if not isinstance(found, str):
            raise UserError(
                f"{origin}: published.{name} maps '{column}' to {found!r}, expected the name of a column; put"
                " it in quotes."
            )
    columns = list(naming.values())
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice:
        answers = " and ".join(f"'{column}'" for column, found in naming.items() if found == twice)
        raise UserError(
            f"{origin}: published.{name} maps the answers {answers} to the same column '{twice}'; fix one of"
            " them."
        )


class _EachKeyOnce(yaml.SafeLoader):
    """A YAML loader for which a duplicate key is an error; PyYAML drops the first one without a message."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is a duplicate key", mark)
        return super().construct_mapping(node, deep)


if __name__ == "__main__":
    # PYTHONPATH=workflow/scripts python -m zoolib.config.trees gz_hubble my_survey/tree.yaml
    trees = Path(__file__).parents[4] / "config" / "trees"
    try:
        for path in sys.argv[1:]:
            print(DecisionTree.load(path if path.endswith(".yaml") else trees / f"{path}.yaml"))
    except UserError as error:
        sys.exit(str(error))
