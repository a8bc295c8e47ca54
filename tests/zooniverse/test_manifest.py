"""Subject manifests: what they have, which images, and that their galaxies come back with votes."""

import csv
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image
from zoolib.catalog import build_catalog
from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import SPLITS, read_catalog
from zoolib.zooniverse.manifest import LARGEST, write_manifest
from zoolib.zooniverse.votes import count_votes

TREE = DecisionTree.from_dict(
    {
        "name": "tides",
        "questions": {"shape": {"answers": ["smooth", "featured"]}},
        "zooniverse": {"tasks": {"shape": "T0"}},
    }
)
# The order of label_next.csv.
RANKED = ["noisy", "g1", "voted", "zipped", "sky", "broken", "north/a", "south/a", "g,2"]


def noise(size):
    return np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Images of all kinds: PNG, JPEG, in a zip, FITS, one that is too large, and one that is damaged."""
    folder = tmp_path_factory.mktemp("survey")
    for name in ("g1.png", "north/a.png", "south/a.png", "g,2.jpeg", "voted.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("L", (20, 20), len(name)).save(folder / name)
    (folder / "broken.fits").write_bytes(b"SIMPLE")
    Image.fromarray(noise(1100)).save(folder / "noisy.png")
    flux = np.zeros((3, 30, 40), np.float32)
    flux[:, 10:20, 10:30] = 1
    fits.PrimaryHDU(flux).writeto(folder / "sky.fits")
    with zipfile.ZipFile(folder / "part1.zip", "w") as packed:
        packed.write(folder / "g1.png", "part1/J0/zipped.png")
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.*")}
    places = [(name, "", "", str(files[name])) for name in RANKED if name != "zipped"]
    places.append(("zipped", str(folder / "part1.zip"), "part1/J0/zipped.png", ""))
    pd.DataFrame(places, columns=["id_str", "archive", "member", "file_loc"]).to_parquet(
        folder / "list.parquet"
    )
    pd.DataFrame({"id_str": ["voted", "other"]}).to_parquet(folder / "train.parquet")
    rows = [(n, name, f"{1 / n:.6g}" if name != "sky" else "") for n, name in enumerate(RANKED, start=1)]
    pd.DataFrame(rows, columns=["rank", "id_str", "information"]).to_csv(
        folder / "label_next.csv", index=False
    )
    return folder


@pytest.fixture
def written(survey, tmp_path):
    """Write a manifest of some galaxies; returns its rows and what was rejected."""
    output = SimpleNamespace(manifest=tmp_path / "up/manifest.csv", rejected=tmp_path / "rejected.csv")

    def write(count):
        voted, places = [survey / "train.parquet"], [survey / "list.parquet"]
        write_manifest(survey / "label_next.csv", places, voted, count, 16_000_000, output)
        return list(csv.reader(output.manifest.open())), pd.read_csv(output.rejected), output.manifest.parent

    return write


def test_the_first_galaxies_without_votes_are_written_with_their_images(written):
    (head, *rows), rejected, folder = written(4)
    assert head == ["id_str", "#file_loc", "#rank", "#information"]
    assert rows == [
        ["noisy", "noisy.jpg", "1", "1"],
        ["g1", "g1.png", "2", "0.5"],
        ["zipped", "zipped.png", "4", "0.25"],
        ["sky", "sky.png", "5", "unknown"],
    ]
    assert rejected.empty
    assert {path.name for path in folder.iterdir()} == {"manifest.csv", *(row[1] for row in rows)}


def test_small_pictures_are_copied_and_others_become_small_pictures(written, survey):
    _, _, folder = written(4)
    original = (survey / "g1.png").read_bytes()
    assert (folder / "g1.png").read_bytes() == original == (folder / "zipped.png").read_bytes()
    assert (survey / "noisy.png").stat().st_size > LARGEST
    assert all(path.stat().st_size <= LARGEST for path in folder.iterdir())
    # Noise does not fit with all its pixels, so it has a quarter of them: the means of four.
    small = np.asarray(Image.open(folder / "noisy.jpg"), float)
    means = noise(1100).reshape(550, 2, 550, 2, 3).mean(axis=(1, 3))
    assert small.shape == means.shape and np.abs(small - means).mean() < 10
    sky = Image.open(folder / "sky.png")
    assert sky.size == (40, 30)
    # FITS begins with the lowest row.
    bright = np.asarray(sky)[..., 0] > 100
    assert bright[10:20, 10:30].all() and bright.sum() == 200


def test_a_damaged_image_is_rejected_and_the_next_galaxy_takes_its_place(written):
    (_, *rows), rejected, _ = written(6)
    assert [row[0] for row in rows] == ["noisy", "g1", "zipped", "sky", "north/a", "south/a"]
    # Two files of one name are told apart, and names are those that Zooniverse takes.
    assert [row[1] for row in rows[4:]] == ["a.png", "a_8.png"]
    assert rejected["id_str"].tolist() == ["broken"] and "broken.fits" in rejected["reason"][0]


def test_a_shorter_manifest_leaves_no_old_image(written):
    written(6)
    (_, *rows), _, folder = written(2)
    assert {path.name for path in folder.iterdir()} == {"manifest.csv", "noisy.jpg", "g1.png"}
    (_, *rows), _, _ = written(50)
    assert len(rows) == 7 and rows[-1][:2] == ["g,2", "g_2.jpg"]


def test_what_zooniverse_s_program_takes_for_a_file_is_one(written):
    """Panoptes CLI 1.2.1 uploads each cell that is a path beside the manifest; a blank is the folder."""
    rows, _, folder = written(50)
    for row in rows[1:]:
        assert [bool(cell) and (folder / cell).is_file() for cell in row] == [False, True, False, False]
        assert not any((folder / cell).exists() for cell in row[:1] + row[2:]) and all(row)


def test_galaxies_come_back_from_the_volunteers(written, survey, tmp_path):
    """The manifest becomes the metadata of subjects; three volunteers classify each of them."""
    (head, *rows), _, _ = written(5)
    header = (
        "classification_id,user_name,user_id,user_ip,workflow_id,workflow_name,workflow_version,created_at,"
    )
    header += "gold_standard,expert,metadata,annotations,subject_data,subject_ids"
    with open(tmp_path / "export.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for subject, row in enumerate(rows):
            for number, text in enumerate(["Smooth", "Featured", "Featured"]):
                annotations = json.dumps([{"task": "T0", "task_label": "Which shape?", "value": text}])
                about = json.dumps({subject: {"retired": None, **dict(zip(head, row, strict=True))}})
                start = [
                    3 * subject + number,
                    f"user{number}",
                    number,
                    "f0",
                    12,
                    "Tides",
                    "1.1",
                    f"2026-01-0{number + 1}",
                ]
                writer.writerow([*start, "", "", "{}", annotations, about, subject])
    output = SimpleNamespace(**{name: tmp_path / f"{name}.csv" for name in ("votes", "rejected", "summary")})
    source = {"workflow": 12, "versions": None, "subjects": None, "id": None, "location": None}
    count_votes(
        {**source, "table": tmp_path / "export.csv"},
        {**TREE.without_title(), "zooniverse": TREE.zooniverse},
        output,
    )
    votes = pd.read_csv(output.votes).sort_values("id_str")
    assert votes["id_str"].tolist() == sorted(row[0] for row in rows)
    assert (votes[["shape_smooth", "shape_featured"]] == [1, 2]).all(axis=None)
    # The images of the survey are found again, by the names of the files or of the galaxies.
    entry = {
        "name": "a",
        "table": str(output.votes),
        "tree": TREE.to_dict(published=True),
        "images": str(survey),
    }
    files = {**{split: tmp_path / f"{split}.parquet" for split in SPLITS}}
    files |= {name: tmp_path / f"catalog_{name}.csv" for name in ("rejected", "summary")}
    build_catalog([entry], {"train": 0.4, "val": 0.3, "test": 0.3}, 1, SimpleNamespace(**files))
    found = pd.concat([read_catalog(files[split]).table for split in SPLITS])
    assert dict(zip(found["id_str"], found["shape_featured"], strict=True)) == {"noisy": 2, "g1": 2, "sky": 2}
