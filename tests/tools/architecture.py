"""The shape of zoolib in figures: its floors, imports that go up, circles, and what is too long.

python tests/tools/architecture.py prints them; tests/test_architecture.py asserts them.
"""

import ast
import graphlib
import sys
from pathlib import Path

ZOOLIB = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "zoolib"
# From the ground up; a package imports from floors below its own. "" is the top level: the stages.
FLOORS = (
    ("job",),
    ("config", "zenodo"),
    ("data",),
    ("posteriors", "learning"),
    ("scores", "weights"),
    ("figures", "simulation"),
    ("",),
    ("api", "quick_finetune"),
)
# What Python users and `make finetune` call; they call the stages.
ENTRANCES = FLOORS[-1]
LIMITS = {
    "floors": 8,
    "imports that go up or sideways": 0,
    "circles": 0,
    "modules in no place": 0,
    "modules at the top level": 16,
    "lines of the longest module": 400,
    "lines of the longest function": 60,
    "parameters of the longest list": 8,
}


def modules(root=ZOOLIB):
    """Every module of zoolib: {name, such as `data.tables`: its syntax tree}; packages by their own name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).with_suffix("").as_posix().replace("/", ".")
        found[name.removesuffix("__init__").removesuffix(".")] = ast.parse(path.read_text())
    return found


def imports(trees):
    """The imports between modules, those inside functions too.

    Args:
        trees: from `modules`.

    Returns:
        {name: the set of names that it imports}.
    """
    found = {}
    for name, tree in trees.items():
        named = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    module = f"{node.module}.{alias.name}"
                    named.add(module if module.removeprefix("zoolib.") in trees else node.module)
        inside = {other.removeprefix("zoolib.") for other in named if other.startswith("zoolib.")}
        found[name] = (inside & set(trees)) - {name}
    return found


def going_up(trees):
    """(module, what it imports) for each import that does not go down, and the modules in no place."""
    packages = {name.partition(".")[0] for name in trees if "." in name}

    def place(name):
        first = name.partition(".")[0]
        return first if first in packages or name in ENTRANCES else ""

    floors = {entry: number for number, entries in enumerate(FLOORS) for entry in entries}
    lost = [name for name in trees if place(name) not in floors]
    up = [
        (name, other)
        for name, others in imports(trees).items()
        for other in others
        # Inside a package modules import each other, in no circle; stages never do.
        if not (place(name) == place(other) and place(name) in packages)
        and not {name, other} & set(lost)
        and floors[place(other)] >= floors[place(name)]
    ]
    return up, lost


def circle(trees):
    """The first circle of imports as a list of modules; empty where there is none."""
    try:
        tuple(graphlib.TopologicalSorter(imports(trees)).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def functions(trees):
    """(module.function, lines, parameters) of every function and method."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                own = [argument for argument in given if argument.arg not in ("self", "cls")]
                many = len(own) + bool(node.args.vararg) + bool(node.args.kwarg)
                lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node):
                    lines -= node.body[0].end_lineno - node.body[0].lineno + 1
                yield f"{name}.{node.name}", lines, many


def figures(root=ZOOLIB):
    """What `LIMITS` limits: {what: (found, an example)}."""
    trees = modules(root)
    up, lost = going_up(trees)
    lengths = {
        name: len((root / f"{name.replace('.', '/')}.py").read_text().splitlines())
        for name in trees
        if (root / f"{name.replace('.', '/')}.py").is_file()
    }
    longest = max(lengths, key=lengths.get)
    longest_function = max(functions(trees), key=lambda one: one[1])
    most = max(functions(trees), key=lambda one: one[2])
    top = [name for name in lengths if "." not in name]
    loop = circle(trees)
    return {
        "floors": (len(FLOORS), ""),
        "imports that go up or sideways": (len(up), ", ".join(f"{a} -> {b}" for a, b in up)),
        "circles": (int(bool(loop)), " -> ".join(loop)),
        "modules in no place": (len(lost), ", ".join(lost)),
        "modules at the top level": (len(top), ", ".join(top)),
        "lines of the longest module": (lengths[longest], longest),
        "lines of the longest function": (longest_function[1], longest_function[0]),
        "parameters of the longest list": (most[2], most[0]),
    }


if __name__ == "__main__":
    print("| what | found | at most | |\n| --- | --- | --- | --- |")
    for what, (found, example) in figures().items():
        print(f"| {what} | {found} | {LIMITS[what]} | {example} |")
    if "--all" in sys.argv:
        for name, lines, many in functions(modules()):
            if lines > 60 or many > 8:
                print(name, lines, many)
