"""The tutorials: their commands, Python and YAML are run in order, on a smaller demo."""

import re
import shutil
import sys

import h5py
import pandas as pd
import pytest
from blocks import blocks, run
from PIL import Image
from pipeline import REPO
from table_columns import not_in_the_reference

TUTORIALS = sorted(path.stem for path in (REPO / "docs/tutorials").glob("*.md"))


@pytest.fixture(scope="module")
def clone(completed, tmp_path_factory):
    """A clone after `make demo`: the demo is the run of config/test.yaml here, which takes minutes less."""
    clone = tmp_path_factory.mktemp("tutorials") / "clone"
    shutil.copytree(completed, clone, symlinks=True)
    for part in ("benchmarks", "examples"):
        shutil.copytree(REPO / part, clone / part, dirs_exist_ok=True)
    shutil.copy(REPO / "Makefile", clone)
    shutil.copy(clone / "config/test.yaml", clone / "config/demo.yaml")
    (clone / "results/demo").symlink_to("test")
    (clone / ".venv/bin").mkdir(parents=True)
    for name in ("bin/activate", "made-from-the-lock"):
        (clone / ".venv" / name).touch()
    # The examples of the searches are galaxies of the large demo.
    search = clone / "examples/search.yaml"
    for name, ours in zip(dict.fromkeys(galaxies_in(search.read_text())), rings(clone), strict=False):
        search.write_text(search.read_text().replace(name, ours))
    return clone


def galaxies_in(text):
    return re.findall(r"J\d{6}\.\d\d[+-]\d{6}\.\d", text)


def rings(clone):
    """Names of galaxies with rings."""
    table = pd.read_csv(clone / "results/demo/download/rings.csv")
    return list(table.loc[table["ring"] == 1, "id_str"])


def walk(page, clone, monkeypatch):
    """Run the blocks of a page in order; returns the variables of its Python."""
    monkeypatch.chdir(clone)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = {}
    for block in blocks(page):
        if not block.why_not:
            run(block, clone, names)
    return names


def test_there_are_five_tutorials():
    assert TUTORIALS == ["campaign", "finetune", "predict", "reproduce", "search"]


def test_reproduce(clone, monkeypatch):
    names = walk("docs/tutorials/reproduce.md", clone, monkeypatch)
    assert set(names["scores"]["subset"]) == {"all", "confident"}


def test_finetune(clone, monkeypatch):
    names = walk("docs/tutorials/finetune.md", clone, monkeypatch)
    assert len(names["table"]) == 400 and names["table"]["ring"].between(0, 1).all()
    folds = pd.read_csv(clone / "results/ring_folds/evaluate/ring_folds/scores.csv")
    assert "fold_deviation" in folds
    assert Image.open(clone / "results/ring/evaluate/ring/gallery.png").width > 400


def test_predict(clone, monkeypatch):
    names = walk("docs/tutorials/predict.md", clone, monkeypatch)
    later = pd.read_parquet(clone / "results/cutouts/predict/galaxies/catalog")
    assert 0 < len(names["galaxies"]) < len(later) == 400
    assert (clone / "results/cutouts/predict/galaxies/catalog.fits").stat().st_size > 10_000
    assert Image.open(clone / "results/cutouts/spirals.png").width > 400


def test_campaign(clone, monkeypatch):
    walk("docs/tutorials/campaign.md", clone, monkeypatch)
    scores = pd.read_csv(clone / "results/bars/evaluate/scores.csv")
    assert set(scores["question"]) == {"shape", "edge-on", "bar"}
    assert Image.open(clone / "results/bars/evaluate/gallery/bar.png").width > 400


def test_search(clone, monkeypatch):
    names = walk("docs/tutorials/search.md", clone, monkeypatch)
    following = pd.read_csv(clone / "results/demo/search/rings/next.csv")
    assert not set(following["id_str"]) & set(names["asked"]["id_str"])
    made = {path.name for path in (clone / "results/demo/search").iterdir()}
    assert made == {"like_these", "rings", "strange", "survey_map"}
    assert Image.open(clone / "results/demo/search/survey_map/map.png").width >= 1200
    assert pd.read_csv(clone / "results/demo/search/survey_map/map.csv")[["x", "y"]].to_numpy().max() == 1
    assert not_in_the_reference(clone / "results/test") == []


def test_the_python_of_the_search_page(clone, monkeypatch):
    """It follows the tutorial, which makes the representations that the page reads."""
    monkeypatch.chdir(clone)
    encoder = clone / "results/demo/pretrained/zoobot-encoder"
    encoder.parent.mkdir()
    encoder.symlink_to("../train/metrics/0")
    names, ours = {}, rings(clone)
    for block in blocks("docs/search.md"):
        if block.language == "python":
            text = block.text
            for number, name in enumerate(dict.fromkeys(galaxies_in(text))):
                text = text.replace(name, ours[number])
            run(block._replace(text=text), clone, names)
    assert len(names["near"]) == 10 and len(names["strange"]) == 400
    with h5py.File("encoder.hdf5") as file:
        assert len(file["id_str"]) > 100
