"""The page of the Python API: what users import, by the docstrings, and one line for each other module."""

import ast

HEAD = """# Python

`pip install -e .` makes `import zoolib` work in every folder. Functions raise `zoolib.job.logs.UserError`,
whose message is one sentence for the user, where the pipeline stops with the same message.
[survey.md](../docs/survey.md#in-python), [search.md](../docs/search.md#in-rounds) and
[finetuning.md](../docs/finetuning.md#in-python) have examples.
"""
# Headings, and what Sphinx writes below them.
PARTS = {
    "Finetune and predict": [
        "autofunction:: zoolib.api.finetune",
        "autoclass:: zoolib.api.Finetuned",
        "autofunction:: zoolib.api.load",
        "autoclass:: zoolib.predict.Predictor",
    ],
    "Galaxies that look alike": [
        f"autofunction:: zoolib.api.{name}"
        for name in ("represent", "read_representations", "similar", "find_more", "find_odd")
    ],
    "Files of posteriors": [
        "autofunction:: zoolib.posteriors.files.open_predictions",
        "autofunction:: zoolib.posteriors.columns.meanings",
    ],
    "What follows from concentrations": [
        "automodule:: zoolib.posteriors.mixtures",
        "automodule:: zoolib.posteriors.summary",
        "autofunction:: zoolib.posteriors.information.vote_probabilities",
    ],
    "Trees": ["autoclass:: zoolib.config.trees.DecisionTree"],
    "A strategy of your own": [
        "autoclass:: zoolib.config.strategies.Strategy",
        "autoclass:: zoolib.config.strategies.Stage",
    ],
    "Errors": ["autoexception:: zoolib.job.logs.UserError"],
}


def _members(directive):
    return "   :members:" if directive.startswith(("autoclass", "automodule")) else ""


def modules(repo):
    """{name of a module of zoolib: the first line of its docstring}."""
    folder = repo / "workflow/scripts"
    found = {}
    for path in sorted((folder / "zoolib").rglob("*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        found[name] = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    return found


def page(repo):
    """The page as Markdown."""
    lines = [HEAD]
    for heading, directives in PARTS.items():
        lines += ["", f"## {heading}", "", "```{eval-rst}"]
        for directive in directives:
            lines += [f".. {directive}", _members(directive), ""]
        lines += ["```"]
    lines += [
        "",
        "## All modules",
        "",
        "What they are for; [architecture.md](../docs/architecture.md) has the layers.",
    ]
    lines += ["", "| module | what |", "| --- | --- |"]
    lines += [f"| `{name}` | {what} |" for name, what in modules(repo).items() if what]
    return "\n".join(lines) + "\n"
