"""The shape of zoolib: a picture of its layers, and its figures beside their limits.

    python tests/tools/architecture.py

prints both. docs/architecture.md shows them, and tests/test_architecture.py asserts them.
"""

import ast
import graphlib
from importlib.util import resolve_name
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

ZOOLIB = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "zoolib"
STAGES = ("download", "catalog", "shards", "pretrained", "train", "recalibrate", "predict", "finetune")
STAGES += ("represent", "search", "explore", "evaluate", "paper", "report", "export", "check_record")
# Packages, and modules of the top level, from the ground up. A module imports from the layers below its own;
# modules of one package import each other too.
LAYERS = (
    ("job",),
    ("config", "zenodo"),
    ("data",),
    ("posteriors", "learning", "zooniverse"),
    ("scores", "weights", "likeness"),
    ("figures", "simulation"),
    STAGES,
    ("api", "quick"),
)
LIMITS = {
    "layers": 8,
    "imports that do not go down": 0,
    "circles of imports": 0,
    "modules in no place": 0,
    "modules at the top level": 16,
    "lines of the longest module": 400,
    "lines of the longest function": 60,
    "parameters of a function": 8,
}


class Module(NamedTuple):
    """A module: its entry in `LAYERS`, its number of lines, and its syntax tree."""

    place: str
    lines: int
    tree: ast.Module


def modules(root=ZOOLIB):
    """Every module of zoolib: {name, such as `data.tables`: `Module`}. A package has its own name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        text = path.read_text()
        found[name] = Module(name.partition(".")[0], len(text.splitlines()), ast.parse(text, path))
    return found


def imports(found):
    """The imports between modules, those inside functions too.

    Args:
        found: from `modules`.

    Returns:
        {name: the set of names that it imports}.
    """
    packages = {name.rpartition(".")[0] for name in found}
    arrows = {}
    for name, module in found.items():
        package = name if name in packages else name.rpartition(".")[0]
        named = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), f"zoolib.{package}".rstrip("."))
                # `from zoolib.data import tables` names a module, `from zoolib.data.tables import read` none.
                named |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        inside = {other.removeprefix("zoolib.") for other in named if other.startswith("zoolib.")}
        arrows[name] = (inside & set(found)) - {name}
    return arrows


def not_down(found):
    """Each import that does not go down, as "a -> b"; modules without a place are left out."""
    layers = {entry: number for number, entries in enumerate(LAYERS) for entry in entries}
    # zoolib/__init__.py runs before everything else, so it lies below the ground.
    layers[""] = -1
    return [
        f"{name} -> {other}"
        for name, others in imports(found).items()
        for other in sorted(others)
        if {found[name].place, found[other].place} <= set(layers)
        and found[name].place != found[other].place
        and layers[found[name].place] <= layers[found[other].place]
    ]


def circle(found):
    """The first circle of imports as a list of modules; empty where there is none."""
    try:
        graphlib.TopologicalSorter(imports(found)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def functions(found):
    """(module.function, lines with the docstring, parameters) of every function and method."""
    for name, module in found.items():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                given += [more for more in (node.args.vararg, node.args.kwarg) if more]
                own = [one for one in given if one.arg not in ("self", "cls")]
                yield f"{name}.{node.name}", node.end_lineno - node.lineno + 1, len(own)


def largest(sizes, limit):
    """(the largest size, the names of all that are over the limit, or else of the largest)."""
    names = [name for name, size in sizes if size > limit]
    name, size = max(sizes, key=lambda one: one[1])
    return size, ", ".join(names or [name])


def figures(root=ZOOLIB):
    """What `LIMITS` limits: {what: (found, which)}."""
    found = modules(root)
    places = {"", *(entry for layer in LAYERS for entry in layer)}
    loop = " -> ".join(circle(found))
    lists = {
        "imports that do not go down": not_down(found),
        "circles of imports": [loop] if loop else [],
        "modules in no place": [name for name, module in found.items() if module.place not in places],
        "modules at the top level": [path.stem for path in sorted(root.glob("[!_]*.py"))],
    }
    sizes = {
        "lines of the longest module": [(name, module.lines) for name, module in found.items()],
        "lines of the longest function": [(name, lines) for name, lines, _ in functions(found)],
        "parameters of a function": [(name, count) for name, _, count in functions(found)],
    }
    return (
        {"layers": (len(LAYERS), "")}
        | {what: (len(names), ", ".join(names)) for what, names in lists.items()}
        | {what: largest(pairs, LIMITS[what]) for what, pairs in sizes.items()}
    )


def picture(width=78):
    """The layers as text, the highest first; packages end in a slash."""
    line = f"+{'-' * width}+"
    text = [line]
    for layer in reversed(LAYERS):
        names = [f"{name}/" if (ZOOLIB / name).is_dir() else name for name in layer]
        # The stages do not fit side by side.
        rows = [names] if len(names) < 3 else [[row] for row in wrap(", ".join(names), width - 16)]
        for row in rows:
            share = (width - len(row) + 1) // len(row)
            text.append("|" + "|".join(f"{name:^{share}}" for name in row).ljust(width) + "|")
        text.append(line)
    return "\n".join(text)


def table():
    """The figures as a table in Markdown."""
    rows = [f"| {what} | {found} | {LIMITS[what]} | {which} |" for what, (found, which) in figures().items()]
    return "\n".join(["| what | found | at most | which |", "| --- | ---: | ---: | --- |", *rows])


if __name__ == "__main__":
    print(picture(), table(), sep="\n\n")
