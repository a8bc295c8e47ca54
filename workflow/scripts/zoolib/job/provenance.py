"""Where a result comes from: fingerprints of code and data, versions of software."""

import ast
import hashlib
import importlib.metadata
import io
import json
import platform
import tokenize
from functools import cache
from pathlib import Path

ZOOLIB = Path(__file__).parents[1]
SCRIPTS = ZOOLIB.parent
# They change the log of a job, never its result.
LEFT_OUT = {"job.attempts", "job.gpus", "job.logs", "job.provenance"}
PACKAGES = (
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "h5py",
    "snakemake",
)


# Most rules share most modules, and each job reads all rules again.
@cache
def code_tokens(source):
    """Python source without comments, docstrings and blank lines, which cannot change a result.

    Args:
        source: text of a Python file.

    Returns:
        The text of the remaining tokens, joined by spaces.
    """
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            docstrings.add((node.body[0].lineno, node.body[0].col_offset))
    tokens = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL):
            continue
        if token.type == tokenize.STRING and token.start in docstrings:
            continue
        is_layout = token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE)
        tokens.append(tokenize.tok_name[token.type] if is_layout else token.string)
    return " ".join(tokens)


@cache
def imported_modules(source):
    """Names of the zoolib modules that a Python file imports, at its top or in a function.

    Args:
        source: text of a Python file.

    Returns:
        A frozenset of names such as `shards` or `figures.gallery`.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    inside = {name.removeprefix("zoolib.") for name in names if name.startswith("zoolib.")}
    return frozenset(name for name in inside if _module_file(name))


def _module_file(name):
    stem = ZOOLIB.joinpath(*name.split("."))
    files = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def fingerprint(script, *modules):
    """A hash of the code that makes a result: a script, its modules, and every module that these import.

    Comments and docstrings do not count, so that a rule reruns only for a change that can change its result.

    Args:
        script: name of the rule's script, without `.py`.
        modules: names of the zoolib modules it calls.

    Returns:
        12 hexadecimal digits.
    """
    sources = [(SCRIPTS / f"{script}.py").read_text()]
    pending = set(modules) | imported_modules(sources[0])
    seen = set(LEFT_OUT)
    found = {}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        found[name] = _module_file(name).read_text()
        pending |= imported_modules(found[name])
    sources = [sources[0]] + [found[name] for name in sorted(found)]
    return hashlib.sha256("\0".join(map(code_tokens, sources)).encode()).hexdigest()[:12]


def hash_of(value):
    """A hash of plain values (dicts, lists, numbers, strings); the order of keys does not matter.

    Args:
        value: anything that JSON can hold.

    Returns:
        12 hexadecimal digits.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def hash_of_file(path, algorithm="sha256"):
    """The checksum of a file, read in pieces.

    Args:
        path: the file.
        algorithm: any name that `hashlib` knows.

    Returns:
        The hexadecimal digest.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def versions():
    """Versions of Python and of the packages that results depend on.

    Returns:
        {name: version}.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
