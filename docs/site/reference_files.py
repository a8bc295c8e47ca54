"""The pages of all files and of all columns: what each rule writes, and what is in its tables."""

import re

import reference_rules
import yaml
from zoolib.posteriors.columns import meanings

FILES = """# Every file

What the rules write, from `rules/*.smk`. What is in braces is replaced: `{run}` is the name of the run.
[outputs.md](../docs/outputs.md) explains the files, [columns](columns.md) lists what is in the tables.
"""
COLUMNS = """# Every column

The tables of a run, with the unit of each column. Shares, fractions and probabilities go from 0 to 1 and
have no unit, like numbers of galaxies or volunteers. What is in braces is replaced: `{answer}` is
`{question}_{answer}` of the [tree](../docs/campaigns.md#1-the-questions-a-tree), such as `bar_strong`.
[outputs.md](../docs/outputs.md) explains the files.
"""
FLAT = "predict/{target}/catalog/{chunk}.parquet"
# What a target of the trained models has in its flat catalogue, and after these what a task has.
ENDINGS = ("fraction", "low", "high", "hd_low", "hd_high")
WITH_VOTES = ("fraction_with_votes", "fraction_with_votes_low", "fraction_with_votes_high")
FLAT_COLUMNS = [
    "id_str",
    *(f"{{answer}}_{ending}" for ending in (*ENDINGS, *WITH_VOTES)),
    *("{question}_asked", "{question}_entropy", "unfamiliar", "cut_{name}"),
    *("{label}", *(f"{{label}}_{ending}" for ending in ENDINGS[1:])),
]


def tables(repo):
    """The columns of all tables of a run.

    Args:
        repo: the root of the repository.

    Returns:
        {pattern of a path below `results/{run}/`: {column: (what, unit, UCD)}}.
    """
    content = yaml.safe_load((repo / "docs/site/columns.yaml").read_text())
    found = {
        path: {name: _column(told) for name, told in columns.items()} for path, columns in content.items()
    }
    found[FLAT] = {name: tuple(column) for name, column in meanings(FLAT_COLUMNS, 0.9).items()}
    return found


def _column(told):
    what, unit = [told, ""] if isinstance(told, str) else [*told, ""][:2]
    return what, unit, ""


def page_of_columns(repo):
    """The page of columns as Markdown: a table for each table of a run."""
    lines = [COLUMNS]
    for path, columns in sorted(tables(repo).items()):
        with_ucd = any(ucd for _, _, ucd in columns.values())
        lines += ["", f"## `{path}`", ""]
        lines += (
            ["| column | what | unit | UCD |", "| --- | --- | --- | --- |"]
            if with_ucd
            else [
                "| column | what | unit |",
                "| --- | --- | --- |",
            ]
        )
        for name, (what, unit, ucd) in columns.items():
            lines.append(f"| `{name}` | {what} | {unit} |" + (f" {ucd} |" if with_ucd else ""))
    return "\n".join(lines) + "\n"


def page_of_files(repo):
    """The page of files as Markdown: a table for each stage."""
    lines, stage, known = [FILES], None, tables(repo)
    for rule in reference_rules.read_rules(repo):
        if not rule.outputs:
            continue
        if rule.stage != stage:
            stage = rule.stage
            lines += ["", f"## {stage}", "", "| file | rule | what the rule does |", "| --- | --- | --- |"]
        for path in rule.outputs:
            shown = reference_rules.in_braces(path)
            table = table_of(known, shown.removeprefix("results/{run}/"))
            link = f" ([columns](columns.md#{anchor(table)}))" if table else ""
            lines.append(f"| `{shown}`{link} | [{rule.name}](rules.md#{rule.name}) | {rule.does} |")
    return "\n".join(lines) + "\n"


def table_of(known, path):
    """The pattern of `tables` that a path below `results/{run}/` fits, or None.

    Args:
        known: the patterns.
        path: of a file, or a pattern itself.
    """
    return next((pattern for pattern in known if in_regex(pattern).fullmatch(path)), None)


def in_regex(pattern):
    """A pattern with names in braces as a regular expression: each name stands for any text."""
    return re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(pattern)))


def anchor(heading):
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
