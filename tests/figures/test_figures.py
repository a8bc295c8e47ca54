"""Confusion matrices, learning curves, galleries and the contact sheet: what they show, from little data."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from zoolib.config.trees import DecisionTree
from zoolib.figures import gallery
from zoolib.figures.confusion import draw_confusion
from zoolib.figures.contact_sheet import draw_contact_sheet
from zoolib.figures.learning_curves import draw_learning_curves
from zoolib.figures.search import positions
from zoolib.figures.survey import draw_survey
from zoolib.job.logs import UserError
from zoolib.job.words import in_words
from zoolib.likeness.rankings import directions
from zoolib.posteriors.files import describe_posteriors
from zoolib.posteriors.summary import describe

TREE = DecisionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": {"answers": ["smooth", "disk"]},
            "edge-on": {"answers": ["yes", "no"], "after": "shape_disk"},
        },
    }
)


def svg_text(path):
    """Matplotlib writes each text as a comment beside its outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(), flags=re.DOTALL)


@pytest.fixture
def confusion(tmp_path):
    rows = [("bar", "all", "yes", "yes", 7), ("bar", "all", "yes", "no", 2)]
    rows += [("bar", "all", "no", "yes", 0), ("bar", "all", "no", "no", 1234)]
    rows += [("bar", "confident", true, said, 0) for true in ("yes", "no") for said in ("yes", "no")]
    table = pd.DataFrame(rows, columns=["question", "subset", "true", "predicted", "count"])
    table.to_csv(tmp_path / "confusion.csv", index=False)
    return tmp_path / "confusion.csv"


def test_confusion_says_counts_and_agreement(tmp_path, confusion):
    draw_confusion(confusion, "all", [tmp_path / "a.svg", tmp_path / "a.png"])
    texts = svg_text(tmp_path / "a.svg")
    assert {"7", "2", "0", "1,234", "Yes", "No", "Bar", "99.8% of 1,243 agree"} <= set(texts)
    assert "Colour: share of the galaxies of its row" in texts
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 400


def test_confusion_without_a_galaxy(tmp_path, confusion):
    draw_confusion(confusion, "confident", [tmp_path / "a.svg"])
    assert "no galaxies" in svg_text(tmp_path / "a.svg")


def test_equal_figures_are_equal_files(tmp_path, confusion):
    draw_confusion(confusion, "all", [tmp_path / "a.svg"])
    draw_confusion(confusion, "all", [tmp_path / "b.svg"])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_learning_curves_name_the_best_epoch_of_the_last_stage(tmp_path):
    history = {"epoch": [1, 2, 3, 4], "loss": [4.0, 3, 2, 1], "val_loss": [4.0, 1.5, 2.25, 3.0]}
    pd.DataFrame(history).to_csv(tmp_path / "plain.csv", index=False)
    staged = pd.DataFrame(history).assign(stage=["head", "head", "unfrozen", "unfrozen"])
    staged.to_csv(tmp_path / "staged.csv", index=False)
    staged.head(1).to_csv(tmp_path / "short.csv", index=False)
    files = [tmp_path / f"{name}.csv" for name in ("plain", "staged", "short")]
    draw_learning_curves(files, ["one", "two", "three"], [tmp_path / "a.svg"], "Losses")
    texts = svg_text(tmp_path / "a.svg")
    assert {"one, best 1.500", "two, best 2.250", "three, best 4.000", "Losses", "Unfrozen"} <= set(texts)


def test_learning_curves_show_every_question(tmp_path):
    history = pd.DataFrame({"epoch": [1, 2, 3], "loss": [4.0, 3, 2], "val_loss": [4.0, 3, 2]})
    for question in ("bar", "bulge-size", "disk", "merging", "ring", "winding"):
        history[f"loss_{question}"] = history[f"val_loss_{question}"] = history["loss"] / 6
    # A question that nobody was asked has no loss.
    history["loss_ring"] = history["val_loss_ring"] = np.nan
    history.to_csv(tmp_path / "history.csv", index=False)
    draw_learning_curves([tmp_path / "history.csv"] * 2, ["one", "two"], [tmp_path / "a.svg"], "Losses")
    texts = svg_text(tmp_path / "a.svg")
    assert {"Bar", "Bulge size", "Disk", "Merging", "Ring", "Winding", "two, best 2.000"} <= set(texts)


@pytest.fixture
def survey(tmp_path):
    """Forty galaxies, each in one colour of its own."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"id_str": [f"g{index}" for index in range(40)], "archive": "", "member": ""})
    table["file_loc"] = [str(tmp_path / "images" / f"g{index}.png") for index in range(40)]
    (tmp_path / "images").mkdir()
    for index, path in enumerate(table["file_loc"]):
        Image.new("RGB", (32, 32), (6 * index, 255 - 6 * index, 40)).save(path)
    for column in TREE.columns:
        table[column] = random.integers(0, 20, 40)
    table.to_parquet(tmp_path / "test.parquet")
    values = random.uniform(1, 50, (40, 4, 3))
    described = describe(table["id_str"], values, concentrations(), 0.9)
    write_flat(tmp_path, table["id_str"], values, concentrations())
    return SimpleNamespace(folder=tmp_path, table=table, described=described)


def concentrations():
    return SimpleNamespace(kind="concentrations", tree=TREE.to_dict(), columns=TREE.columns)


def write_flat(folder, ids, values, about):
    with h5py.File(folder / "p.hdf5", "w") as file:
        file["predictions"] = values
        file.create_dataset("id_str", data=list(ids), dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=about.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind=about.kind, tree=json.dumps(about.tree))
    describe_posteriors(folder / "p.hdf5", folder / "flat.parquet", 0.9)


def colors_of_tiles(path, rows, across):
    """The colour in the middle of each tile of a gallery."""
    with Image.open(path) as image:
        down, right = gallery.TILE + gallery.CAPTION + gallery.GAP, gallery.TILE + gallery.GAP
        top, left = gallery.HEADER + gallery.TILE // 2, gallery.MARGIN + gallery.TILE // 2
        pixels = image.convert("RGB")
        return [
            [pixels.getpixel((left + column * right, top + row * down)) for column in range(across)]
            for row in range(rows)
        ]


def color(name):
    index = int(name.removeprefix("g"))
    return 6 * index, 255 - 6 * index, 40


def test_galleries_show_the_highest_fractions_among_those_likely_asked(survey):
    outputs = [survey.folder / "gallery" / f"{name}.png" for name in ("shape", "edge-on")]
    gallery.draw_galleries(
        [survey.folder / "flat.parquet"], survey.folder / "test.parquet", outputs, across=4
    )
    for output, question in zip(outputs, TREE.questions, strict=True):
        found = colors_of_tiles(output, 2, 4)
        likely = survey.described[survey.described[f"{question.name}_asked"] >= 0.5]
        assert (len(likely) < 40) == (question.name == "edge-on")
        for row, column in zip(found, question.columns, strict=True):
            best = likely.sort_values(f"{column}_fraction", ascending=False)["id_str"].head(4)
            assert row == [color(name) for name in best]


def test_rows_of_the_surest_count_those_likely_asked(survey, monkeypatch):
    drawn = []
    monkeypatch.setattr(gallery, "draw_tiles", lambda rows, *about: drawn.extend(name for name, _ in rows))
    answers = {"Smooth and round": "shape_smooth", "Edge\non": "edge-on_yes"}
    files = [survey.folder / "flat.parquet"], survey.folder / "test.parquet"
    gallery.draw_surest(*files, answers, "The surest", survey.folder / "surest.png")
    likely = [int((survey.described[f"{name}_asked"] >= 0.5).sum()) for name in ("shape", "edge-on")]
    assert likely[0] == 40 > likely[1] > 0
    assert drawn == [f"Smooth\nand round\n({likely[0]})", f"Edge\non\n({likely[1]})"]


def test_a_gallery_shows_grey_for_an_image_that_cannot_be_read(survey):
    best = survey.described.nlargest(1, "shape_smooth_fraction")["id_str"].iloc[0]
    (survey.folder / "images" / f"{best}.png").write_bytes(b"no image")
    output = survey.folder / "shape.png"
    gallery.draw_galleries(
        [survey.folder / "flat.parquet"], survey.folder / "test.parquet", [output], across=2
    )
    assert colors_of_tiles(output, 1, 1) == [[(225, 225, 225)]]


def test_a_gallery_of_no_question(survey):
    output = survey.folder / "colour.png"
    with pytest.raises(UserError, match="'colour' is no question .* shape, edge-on"):
        gallery.draw_galleries([survey.folder / "flat.parquet"], survey.folder / "test.parquet", [output])


def test_a_survey_shows_the_highest_values_of_all_its_parts(survey):
    parts = [survey.folder / f"part{number}.parquet" for number in range(2)]
    flat = pq.read_table(survey.folder / "flat.parquet")
    unfamiliar = np.linspace(0.5, 0.999, 40).astype("float32")
    flat = flat.set_column(flat.schema.get_field_index("unfamiliar"), "unfamiliar", pa.array(unfamiliar))
    for number, part in enumerate(parts):
        pq.write_table(flat.slice(20 * number, 20), part)
    output = survey.folder / "survey.png"
    draw_survey(parts, [survey.folder / "test.parquet"], "mine", output, across=3)
    found = colors_of_tiles(output, 3, 3)
    for row, column in zip(found, TREE.questions[0].columns, strict=False):
        best = survey.described.nlargest(3, f"{column}_fraction")["id_str"]
        assert row == [color(name) for name in best]
    # Of the last row only one galaxy is above 0.99; the other places are empty.
    assert found[2] == [color("g39"), (255, 255, 255), (255, 255, 255)]


def test_contact_sheet_holds_every_figure(survey, confusion):
    draw_confusion(confusion, "all", [survey.folder / "run" / "a.png", survey.folder / "run" / "b" / "c.png"])
    sheet = survey.folder / "run" / "sheet.png"
    assert draw_contact_sheet(survey.folder / "run", sheet) == 2
    assert draw_contact_sheet(survey.folder / "run", sheet) == 2
    with pytest.raises(UserError, match="holds no figure"):
        draw_contact_sheet(survey.folder / "nowhere", sheet)


def test_contact_sheet_as_a_command(repo, tmp_path):
    command = [
        sys.executable,
        "-m",
        "zoolib.figures.contact_sheet",
        str(tmp_path),
        str(tmp_path / "sheet.png"),
    ]
    done = subprocess.run(command, cwd=repo / "workflow" / "scripts", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("run `snakemake evaluate` first.")


def test_names_in_words():
    assert in_words("disk-edge-on") == "Disk edge on"
    assert in_words("cant-tell") == "Can't tell"
    assert in_words("more-than-4") == "More than 4"


def test_a_map_of_few_galaxies_and_of_the_same_ones():
    """t-SNE fails on both."""
    random = np.random.default_rng(0)
    for found in (*(random.normal(size=(count, 8)) for count in (1, 2, 3, 5)), np.zeros((40, 8))):
        placed = positions(directions(found), 42)
        assert placed.shape == (len(found), 2)
        assert np.isfinite(placed).all() and placed.min() >= 0 and placed.max() <= 1
