"""Where a result comes from: fingerprints of code and data, versions of software."""

import ast
import atexit
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import sys
import tokenize
import uuid
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


# What earlier calls found out about sources: every job reads all rules, which would take 2 seconds of it.
KEPT = SCRIPTS / "__pycache__" / f"fingerprints.{sys.implementation.cache_tag}.json"
# With more sources than this, those of earlier calls are forgotten.
MOST_KEPT = 1000


@cache
def code_tokens(source):
    """Python source without comments, docstrings and blank lines, which cannot change a result.

    Args:
        source: text of a Python file.

    Returns:
        The text of the remaining tokens, joined by spaces.
    """
    return _facts(source)[0]


@cache
def imported_modules(source):
    """Names of the zoolib modules that a Python file imports, at its top or in a function.

    Args:
        source: text of a Python file.

    Returns:
        A frozenset of names such as `shards` or `figures.gallery`.
    """
    return frozenset(name for name in _facts(source)[1] if _module_file(name))


@cache
def _facts(source):
    """The tokens of a source, and the names in zoolib that it imports, which need not be modules."""
    kept, key = _kept(), hashlib.sha256(source.encode()).hexdigest()
    if key not in kept:
        tree = ast.parse(source)
        kept[key] = [_tokens(source, tree), _names(tree)]
    return kept[key]


@cache
def _kept():
    """{hash of a source: its facts}: those of `KEPT`, to which those that are new are added at the end."""
    try:
        check, _, text = KEPT.read_text().partition("\n")
        kept = json.loads(text) if check == _check(text) else {}
    except (OSError, ValueError):
        kept = {}
    atexit.register(_keep, kept, len(kept))
    return kept


def _check(text):
    """The first line of `KEPT`: another one means damage, other code, or another Python."""
    return hash_of([text, Path(__file__).read_text(), platform.python_version()])


def _keep(kept, before):
    if len(kept) == before:
        return
    if len(kept) > MOST_KEPT:
        kept = dict(list(kept.items())[before:])
    text = json.dumps(kept)
    # Several calls may write at the same time, and the folder may be read-only: the next call does without.
    partial = KEPT.with_suffix(f".{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        KEPT.parent.mkdir(exist_ok=True)
        try:
            partial.write_text(f"{_check(text)}\n{text}")
            os.replace(partial, KEPT)
        finally:
            partial.unlink(missing_ok=True)


def _tokens(source, tree):
    docstrings = set()
    for node in ast.walk(tree):
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


def _names(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return sorted(name.removeprefix("zoolib.") for name in names if name.startswith("zoolib."))


@cache
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
