"""The layers of zoolib: imports go down, nothing is too long, modules have places, and the page is right."""

import re

import architecture
import pytest


@pytest.fixture(scope="module")
def page(repo):
    return (repo / "docs/architecture.md").read_text()


@pytest.fixture(scope="module")
def figures():
    return architecture.figures()


@pytest.mark.parametrize("what", architecture.LIMITS)
def test_no_figure_is_over_its_limit(figures, what):
    found, which = figures[what]
    assert found <= architecture.LIMITS[what], which


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("job/logs.py", "from zoolib.data import tables", "imports that do not go down"),
        ("job/logs.py", "from ..data import tables", "imports that do not go down"),
        ("job/logs.py", "def late():\n    import zoolib.data.tables", "imports that do not go down"),
        ("catalog.py", "from zoolib.shards import write_shard", "imports that do not go down"),
        ("zenodo/records.py", "from zoolib.config import trees", "imports that do not go down"),
        ("__init__.py", "from zoolib.job.logs import log", "imports that do not go down"),
        ("data/tables.py", "import zoolib.data.images", "circles of imports"),
        ("helpers/more.py", "", "modules in no place"),
        ("helpers.py", "", "modules in no place"),
    ],
)
def test_what_leaves_the_layout_is_seen(tmp_path, file, text, what):
    texts = {
        "__init__.py": "",
        "api.py": "from zoolib.catalog import build",
        "catalog.py": "from zoolib.data.tables import read",
        "shards.py": "from zoolib.data.tables import read",
        "data/images.py": "from zoolib.data import tables",
        "data/tables.py": "from zoolib.job.logs import log",
        "config/trees.py": "",
        "job/logs.py": "",
    }
    for number, changed in enumerate((texts, {**texts, file: text})):
        root = tmp_path / str(number)
        for name, content in changed.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content + "\ndef first():\n    pass\n")
        found = {key: value[0] for key, value in architecture.figures(root).items()}
        assert bool(found[what]) == bool(number)


def test_lengths_and_parameters_are_counted(tmp_path):
    documented = '    """Documented.\n\n    In three lines.\n    """\n'
    method = "class Long:\n    def method(self, a):\n        return a\n"
    (tmp_path / "train.py").write_text(f"def train(a, /, b, *c, d, **e):\n{documented}\n\n{method}")
    found = architecture.figures(tmp_path)
    assert found["lines of the longest module"] == (10, "train")
    assert found["lines of the longest function"] == (5, "train.train")
    assert found["parameters of a function"] == (5, "train.train")


def test_the_page_shows_what_the_command_prints(page):
    told = "docs/architecture.md is out of date: put there what `python tests/tools/architecture.py` prints"
    assert f"```\n{architecture.picture()}\n```" in page, told
    assert architecture.table() in page, told


def test_the_page_says_of_every_package_and_stage_what_it_is_for(page):
    folders = {path.parent.name for path in architecture.ZOOLIB.glob("*/__init__.py")}
    stages = {path.stem for path in architecture.ZOOLIB.glob("[!_]*.py")}
    first_cells = " ".join(re.findall(r"^\| (`.*?) \|", page, re.M))
    assert folders and set(re.findall(r"`(\w+)/`", first_cells)) == folders
    assert stages and set(re.findall(r"`(\w+)`", first_cells)) == stages
