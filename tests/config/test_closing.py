"""The last lines of a call of Snakemake."""

from pathlib import Path

import pytest
from zoolib.config.closing import closing_lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("results/a")


def add(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_a_run_says_where_things_are(folder, tmp_path):
    for number in range(5):
        add(folder / f"train/metrics/{number}/model.keras")
        add(folder / f"train/metrics/{number}/kept/model.keras")
        add(folder / f"export/train/metrics/{number}/model.keras")
    add(folder / "predict/test/catalog/0.parquet")
    add(folder / "predict/ring/fold0/catalog/0.parquet")
    add(folder / "catalog/rejected.csv", 'id_str,reason\nJ1,"two\nlines"\nJ2,x\n')
    add(folder / "shards/rejected.csv", "id_str,reason\n")
    metrics = "results/a/train/metrics"
    add(folder / "predict/ring/fold0/rejected.csv", "id_str,reason\nJ3,x\n")
    typed = [tmp_path / "mine/a.yaml", "/elsewhere/my b.yaml"], {"run": "a", "seed": 3}
    assert closing_lines("a", *typed) == [
        "Results of the run 'a': results/a/ (docs/outputs.md lists all files), logs: logs/a/",
        f"Models: {metrics}/0, {metrics}/1, {metrics}/2 and 2 more",
        "Posteriors: results/a/predict/ring/fold0/catalog, results/a/predict/test/catalog",
        "Rejected rows and images, with reasons: results/a/catalog/rejected.csv (2),"
        " results/a/predict/ring/fold0/rejected.csv (1)",
        "A page with everything: snakemake --configfile mine/a.yaml '/elsewhere/my b.yaml' --config run=a"
        " seed=3 --report results/a/report.html",
    ]


def test_what_there_is_not_is_left_out(folder):
    assert closing_lines("a", [])[1:] == [
        "Rejected rows and images: none",
        "A page with everything: snakemake --report results/a/report.html",
    ]
