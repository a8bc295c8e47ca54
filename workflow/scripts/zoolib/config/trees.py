"""Decision trees: the questions of a Galaxy Zoo campaign, their answers, and what leads to what."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from zoolib.config.questions import read_cuts, read_questions
from zoolib.job.logs import UserError


@dataclass(frozen=True)
class DecisionTree:
    """The questions of a campaign, in an order in which every question follows its parents.

    Attributes:
        name: e.g. `gz_decals_5`.
        title: how a figure calls it.
        source: where the tree is published.
        questions: a tuple of `Question`.
        published: {name of a table's naming: {our column: the table's column}}.
        suffix: what tables of several campaigns append to a question, `{question}-{suffix}_{answer}`.
        cuts: a tuple of `Cut`.
    """

    name: str
    title: str
    source: str
    questions: tuple
    published: dict = field(default_factory=dict, compare=False)
    suffix: str = field(default="", compare=False)
    cuts: tuple = field(default=(), compare=False)

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
            raise UserError(f"{path}: is not valid YAML{line}{why}; fix the file.") from None
        return cls.from_dict({"name": path.stem, **content} if isinstance(content, dict) else content, path)

    @classmethod
    def from_dict(cls, content, origin="the tree"):
        """Build a tree from plain values, as YAML and `model.json` hold them.

        Questions that are listed before their parents are moved behind them.

        Args:
            content: {"name", "title", "source", "suffix", "questions": {name: {"answers", "after",
                "campaign"}}, "cuts": {name: {"answers", "above" or "below", "votes"}}, "published"}.
            origin: what an error message calls it.

        Returns:
            The tree.

        Raises:
            UserError: an unknown parent, a cycle, a repeated answer, fewer than two answers, a cut that
                is none.
        """
        if not isinstance(content, dict) or not isinstance(content.get("questions"), dict):
            raise UserError(f"{origin}: expected a mapping with the key 'questions'; see config/trees/.")
        known = ("name", "title", "source", "suffix", "questions", "cuts", "published")
        unknown = set(content) - set(known)
        if unknown:
            raise UserError(
                f"{origin}: unknown key '{min(map(str, unknown))}'; a tree has {', '.join(known)}."
            )
        name, suffix = str(content.get("name", "tree")), str(content.get("suffix") or "")
        if not re.fullmatch(r"[A-Za-z0-9-]*", suffix):
            raise UserError(
                f"{origin}: the suffix '{suffix}' should be letters, digits and -, such as dr5, which the"
                " columns of tables append to a question."
            )
        if not re.fullmatch(r"[A-Za-z0-9_+-]+", name):
            raise UserError(
                f"{origin}: the name '{name}' should be letters, digits, - and _ alone, as files are called"
                " by it; give the tree a short 'name', and the words to its 'title'."
            )
        questions = read_questions(content["questions"], name, origin)
        published = content.get("published") or {}
        if not isinstance(published, dict) or not all(isinstance(c, dict) for c in published.values()):
            raise UserError(
                f"{origin}: 'published' must map the name of a table's naming to a mapping from our columns"
                " to the table's; see config/trees/gz2.yaml."
            )
        tree = cls(
            name=name,
            title=str(content.get("title", name)),
            source=str(content.get("source", "")),
            questions=questions,
            published=published,
            suffix=suffix,
            cuts=read_cuts(content.get("cuts") or {}, questions, origin),
        )
        for naming, columns in tree.published.items():
            strange = sorted(set(columns) - set(tree.columns))
            if strange:
                raise UserError(
                    f"{origin}: published.{naming} maps '{strange[0]}', which is no answer of this tree;"
                    f" its columns are named question_answer, e.g. '{tree.columns[0]}'."
                )
            _check_naming({column: columns.get(column, column) for column in tree.columns}, naming, origin)
        return tree

    def to_dict(self, published=False):
        """The tree as plain values; `from_dict` reads them back.

        Args:
            published: with the namings of published tables and the suggested cuts, which a trained
                model knows nothing of: whoever fixes them need not train again.

        Returns:
            A dict that JSON can say.
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

        A question is called `{question}-{suffix}`, as in tables of several campaigns. Trees without
        suffixes of their own have their names as suffixes. A single tree, however often it is listed,
        is returned as it is.

        Args:
            trees: a list of `DecisionTree`.

        Returns:
            The tree; each question's `campaign` tells where it came from, and `first` what its
            volunteers were asked first.

        Raises:
            UserError: two different trees have one name.
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
        """Indices of the answers that lead to a question; empty for one that everybody is asked."""
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
        """The first question of a question's campaign: its votes are the number of volunteers."""
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


def _check_naming(naming, name, origin):
    """Stop where a table's naming is not text, or finds two answers in one column."""
    for column, found in naming.items():
        if not isinstance(found, str):
            raise UserError(
                f"{origin}: published.{name} maps '{column}' to {found!r}, expected the name of a column, in"
                " quotes where it looks like a number."
            )
    columns = list(naming.values())
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice:
        answers = " and ".join(f"'{column}'" for column, found in naming.items() if found == twice)
        raise UserError(
            f"{origin}: published.{name} finds the answers {answers} in the same column '{twice}'; fix one."
        )


class _EachKeyOnce(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; PyYAML drops the first without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands there twice", mark)
        return super().construct_mapping(node, deep)


if __name__ == "__main__":
    # PYTHONPATH=workflow/scripts python -m zoolib.trees gz_hubble my_survey/tree.yaml
    trees = Path(__file__).parents[4] / "config" / "trees"
    try:
        for path in sys.argv[1:]:
            print(DecisionTree.load(path if path.endswith(".yaml") else trees / f"{path}.yaml"))
    except UserError as error:
        sys.exit(str(error))
