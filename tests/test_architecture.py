"""The floors of zoolib: imports go down, nothing is too long, and every module has its place."""

import architecture
import pytest


@pytest.mark.parametrize("what", architecture.LIMITS)
def test_no_figure_is_over_its_limit(what):
    found, example = architecture.figures()[what]
    assert found <= architecture.LIMITS[what], example


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("job/logs.py", "from zoolib.data import tables", "imports that go up or sideways"),
        ("job/logs.py", "def late():\n    import zoolib.data.tables", "imports that go up or sideways"),
        ("catalog.py", "from zoolib.shards import write_shard", "imports that go up or sideways"),
        ("zenodo/records.py", "from zoolib.config import trees", "imports that go up or sideways"),
        ("data/tables.py", "import zoolib.data.images", "circles"),
        ("helpers/more.py", "", "modules in no place"),
    ],
)
def test_what_leaves_the_layout_is_seen(tmp_path, file, text, what):
    texts = {
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
