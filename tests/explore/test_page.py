"""The files of a page: data as in the catalogue, an image of each galaxy, libraries that are known."""

import hashlib
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import SMALL
from explored import GALAXIES, REPO, Data, predicted, write_page, write_survey
from PIL import Image
from stored import TREE, files
from zoolib.config.labels import Label
from zoolib.data.catalogs import Catalog, write_catalog
from zoolib.data.listing import list_galaxies
from zoolib.explore import page, table
from zoolib.explore.densities import as_bytes, of_votes
from zoolib.job.logs import log

PROGRAM = REPO / "workflow/explore"


@pytest.fixture(scope="module")
def data(page):
    """The data of the survey's page."""
    return Data(page)


def test_the_columns_are_those_of_the_catalogue(survey, data):
    flat = pd.read_parquet(survey.catalog[0]).astype({"id_str": str})
    assert data.names == flat["id_str"].tolist()
    for name in flat.columns.drop("id_str"):
        np.testing.assert_array_equal(data.column(name), flat[name].astype("float32"))
    ranked = pd.read_csv(survey.ranked, dtype={"id_str": str}).set_index("id_str").loc[data.names]
    for name in ("information", "bulge_information"):
        assert data.column(name) == pytest.approx(ranked[name].to_numpy())
    said = survey.table["edge_yes"].astype("float32").to_numpy(copy=True)
    # One galaxy has no votes, another is in no table.
    said[[3, 9]] = np.nan
    np.testing.assert_array_equal(data.column("edge_yes_votes"), said)


def test_a_galaxy_has_all_columns_and_its_densities(survey, data):
    expected = as_bytes(of_votes(survey.values.astype("float32"), SMALL))
    for number in (0, 24, 25, GALAXIES - 1):
        row, masses = data.galaxy(number)
        for name, value in zip(data.columns, row, strict=True):
            np.testing.assert_array_equal(value, data.column(name)[number])
        assert np.abs(masses.astype(int) - expected[number]).max() <= 1


def test_columns_are_told_with_their_group_and_range(data):
    told = {column["name"]: column for column in data.about["columns"]}
    assert told["edge_yes_fraction"]["group"] == "Edge" and told["edge_yes_fraction"]["title"].startswith(
        "Yes"
    )
    assert told["bulge_asked"]["title"] == "asked" and told["information"]["group"] == ""
    assert "nats" in told["edge_information"]["about"] and "volunteers" in told["edge_yes_votes"]["about"]
    for name, column in told.items():
        values = data.column(name)
        known = values[np.isfinite(values)]
        assert column["about"] and (known >= column["low"]).all() and (known <= column["high"]).all(), name


def test_cuts_say_what_they_ask_and_how_many_pass(survey, data):
    flat = pd.read_parquet(survey.catalog[0])
    assert [cut["name"] for cut in data.about["cuts"]] == ["disk", "face-on", "no-star"]
    for cut in data.about["cuts"]:
        assert cut["galaxies"] == flat[cut["column"]].sum()
    assert "edge_yes less than 0.25, where at least 50% are asked" in data.about["cuts"][1]["about"]


def tile_of(data, kind, number, edge):
    """The pixels of a galaxy on its sheet."""
    sheet = np.asarray(Image.open(data.folder / kind / f"{number // 25}.webp"))
    down, across = divmod(number % 25, 5)
    return sheet[down * edge : (down + 1) * edge, across * edge : (across + 1) * edge].astype(int)


def test_every_galaxy_has_its_image_or_a_placeholder(survey, data):
    assert data.about["missing"] == [5, 9]
    for kind, edge in (("images", 256), ("thumbs", 120)):
        heights = [Image.open(data.folder / kind / f"{number}.webp").size[1] for number in range(3)]
        assert heights == [5 * edge, 5 * edge, 2 * edge]
        for number in (0, 5, 9, 31, 59):
            tile = tile_of(data, kind, number, edge)
            if number in (5, 9):
                # Not at its edges, where the neighbour's colour begins.
                assert (np.abs(tile[20:-20, 20:-20] - 225) < 3).all()
            else:
                with Image.open(survey.table["file_loc"][number]) as image:
                    expected = np.asarray(image).mean(axis=(0, 1))
                assert tile.mean(axis=(0, 1)) == pytest.approx(expected, abs=4)


def test_places_are_right_in_every_folder(survey, tmp_path, monkeypatch):
    folder = tmp_path / "here"
    small = write_survey(folder, galaxies=10)
    monkeypatch.chdir(tmp_path)
    rows = small.table.iloc[[0, 1]].assign(file_loc=["here/0.png", ""], archive=["", "here/a.zip"])
    rows.assign(member=["", "b.png"]).to_parquet("rows.parquet")
    found = table.read_rows(["rows.parquet"], np.array(["J0001", "J0000", "J0002"]))
    places = page._places(found)
    assert places["file_loc"] == ["", str(folder / "0.png"), ""]
    assert [places["archives"][number] for number in places["archive"]] == [str(folder / "a.zip"), "", ""]


def test_a_page_of_too_many_galaxies_says_so(survey, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    images = [survey.catalog[0].with_name("catalog.parquet")]
    monkeypatch.setattr(table.choose, "__defaults__", (40,))
    with caplog.at_level(logging.WARNING, "zoolib"):
        some = Data(write_page(survey, tmp_path / "page", images))
    assert (some.about["galaxies"], some.about["of"], len(some.names)) == (40, 60, 40)
    assert "has 40 of 60 galaxies, a random choice" in caplog.text
    # The same galaxies as long as there are no others, in the order of the catalogue.
    assert [name for name in survey.table["id_str"] if name in set(some.names)] == some.names
    place = survey.table["id_str"].tolist().index(some.names[30])
    expected = as_bytes(of_votes(survey.values[[place]].astype("float32"), SMALL))[0]
    assert np.abs(some.galaxy(30)[1].astype(int) - expected).max() <= 1
    fewer, count = table.choose(survey.catalog, 20)
    assert len(fewer[0]) == 20 and count == 60
    assert set(survey.table["id_str"][fewer[0]]) < set(some.names)


def test_labels_have_panels_of_their_kind(tmp_path):
    shapes, random = Label("shape", "multiclass", ("disk", "ball")), np.random.default_rng(2)
    labels = [Label("ring", "binary"), shapes, Label("mass", "regression")]
    values = random.dirichlet([2, 1], (30, 8)).transpose(0, 2, 1)
    rings, masses = random.uniform(0, 1, (30, 1, 8)), random.normal(9, 1, (30, 1, 8))
    values = np.concatenate([rings, values, masses], axis=1)
    names = [f"g{number}" for number in range(30)]
    with h5py.File(tmp_path / "part.hdf5", "w") as file:
        file["predictions"] = values.astype("float32")
        file.create_dataset("id_str", data=names, dtype=h5py.string_dtype())
        outputs = [output for label in labels for output in label.outputs]
        file.create_dataset("label_cols", data=outputs, dtype=h5py.string_dtype())
        told = json.dumps([label.to_dict() for label in labels])
        file.attrs.update(kind="values", tree="null", labels=told)
    galaxies = pd.DataFrame({"id_str": names, "archive": "", "member": "", "file_loc": "nowhere.png"})
    galaxies = galaxies.assign(ring=1.0, shape=0.0, mass=random.normal(9, 1, 30), seen="nothing")
    tables = [tmp_path / "galaxies.parquet"]
    write_catalog(Catalog(galaxies, ["ring", "shape", "mass"], None), tables[0])
    galaxies[["id_str", "archive", "member", "file_loc", "seen"]].to_parquet(tmp_path / "list.parquet")
    of_labels = SimpleNamespace(**predicted(tmp_path))
    found = Data(write_page(of_labels, tmp_path / "page", [tmp_path / "list.parquet"], tables))
    kinds = [(one["name"], one["kind"], one["answers"]) for one in found.about["panels"]]
    assert kinds == [
        ("ring", "classes", ["yes"]),
        ("shape", "classes", ["disk", "ball"]),
        ("mass", "number", [""]),
    ]
    np.testing.assert_array_equal(found.column("mass_label"), galaxies["mass"].astype("float32"))
    assert len(found.about["missing"]) == 30
    mass = found.about["panels"][2]
    assert ((values[:, 3] > mass["low"]) & (values[:, 3] < mass["high"])).mean() > 0.99
    peak = mass["low"] + (found.galaxy(4)[1][3].argmax() + 0.5) * (mass["high"] - mass["low"]) / 40
    assert abs(peak - np.median(values[4, 3])) < 2
    assert found.about["cuts"] == []


def test_images_come_from_shards(stored, tmp_path):
    _, sidecars = files(stored, "val")
    list_galaxies("shards", sidecars, tmp_path / "galaxies.parquet")
    names = [name for path in sidecars for name in json.loads(Path(path).read_text())["ids"]]
    assert len(names) == 12
    with h5py.File(tmp_path / "part.hdf5", "w") as file:
        values = np.random.default_rng(0).uniform(1, 50, (13, 4, 3))
        file["predictions"] = values.astype("float32")
        file.create_dataset("id_str", data=[*reversed(names), "gone"], dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=TREE.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind="concentrations", tree=json.dumps(TREE.to_dict()))
    of_shards = SimpleNamespace(**predicted(tmp_path))
    found = Data(write_page(of_shards, tmp_path / "page", [tmp_path / "galaxies.parquet"]))
    assert found.about["missing"] == [12]
    for place, name in enumerate(reversed(names)):
        with Image.open(stored / f"{name.removeprefix('J')}.png") as image:
            expected = np.asarray(image).mean()
        assert tile_of(found, "thumbs", place, 120).mean() == pytest.approx(expected, abs=4)


def test_a_second_page_replaces_the_first(survey, tmp_path):
    images = [survey.catalog[0].with_name("catalog.parquet")]
    first = write_page(survey, tmp_path, images)
    (first.parent / "files" / "old.js").write_text("")
    (tmp_path / ".123.files").mkdir()
    write_page(survey, tmp_path, images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "index.html"]
    assert not (tmp_path / "files" / "old.js").exists()


def test_the_libraries_are_those_that_are_told():
    vendor, known = PROGRAM / "vendor", set()
    for library in json.loads((vendor / "vendored.json").read_text()):
        assert library["license"] == "MIT" and re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
        assert any(name.endswith("LICENSE.txt") for name in library["files"])
        for name, about in library["files"].items():
            assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == about["sha256"], name
            known.add(name)
    assert {path.name for path in vendor.iterdir()} == known | {"vendored.json"}


def test_the_page_names_no_address():
    for path in PROGRAM.glob("*.*"):
        assert "://" not in path.read_text(), path
    for path in (PROGRAM / "vendor").glob("*.js"):
        # Names of XML, and a page that an error message of Vue names.
        addresses = re.findall(r"https?://[\w./]+", path.read_text())
        assert {address.split("/")[2] for address in addresses} <= {"www.w3.org", "vuejs.org"}, path


def colours(dark):
    """{name: (red, green, blue)} of the page's colours."""
    text = (PROGRAM / "style.css").read_text()
    of_dark = text[text.index("prefers-color-scheme: dark") :].partition("* {")[0]
    rules = of_dark if dark else text.partition("@media")[0]
    found = re.findall(r"--([\w-]+): #(\w{6})", rules)
    return {name: tuple(int(code[place : place + 2], 16) for place in (0, 2, 4)) for name, code in found}


def contrast(one, other):
    """WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""

    def light(colour):
        shares = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_enough_contrast(dark):
    found = colours(dark)
    pairs = [(text, ground) for text in ("ink", "faint", "main", "warn") for ground in ("ground", "panel")]
    pairs += [("on-main", "main"), ("ground", "yes"), ("ground", "no")]
    for text, ground in pairs:
        assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    # What is no text, such as the ring of the focus.
    for colour in ("focus", "main", "no"):
        assert contrast(found[colour], found["ground"]) >= 3, colour
