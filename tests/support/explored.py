"""A page of `explore` over a small catalogue that is made by hand, and what its scripts hold."""

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
from drawn import SMALL, some_concentrations
from PIL import Image
from zoolib.explore.page import write_explorer
from zoolib.posteriors.files import describe_posteriors
from zoolib.posteriors.ranking import rank_galaxies

REPO = Path(__file__).resolve().parents[2]
PROGRAM = [str(path) for kind in ("*.*", "vendor/*.*") for path in (REPO / "workflow/explore").glob(kind)]
GALAXIES = 60
# A name that is no good text for HTML or CSV.
STRANGE = 'J<b>"7", &amp;'


def write_survey(folder, tree=SMALL, galaxies=GALAXIES, samples=4):
    """Galaxies with images, of which one is damaged and one is nowhere, with votes and with predictions.

    Returns:
        Attributes values (the concentrations), table (the catalogue), and parts and others that a page needs.
    """
    random = np.random.default_rng(3)
    names = [f"J{number:04d}" for number in range(galaxies)]
    names[7] = STRANGE
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.png" for number in range(galaxies)]
    for path in files:
        shade = random.uniform(20, 220, 3) + random.normal(0, 9, (32, 32, 3))
        Image.fromarray(shade.clip(0, 255).astype(np.uint8)).save(path)
    files[5].write_bytes(b"no image")
    table = pd.DataFrame({"id_str": names, "archive": "", "member": "", "file_loc": list(map(str, files))})
    for column in tree.columns:
        table[column] = random.integers(0, 9, galaxies).astype("int32")
    # Nobody has classified this galaxy.
    table.loc[3, tree.columns] = 0
    table.drop(index=9).to_parquet(folder / "catalog.parquet", index=False)
    values = some_concentrations(galaxies, tree, samples)
    with h5py.File(folder / "part.hdf5", "w") as file:
        file["predictions"] = values.astype("float32")
        file.create_dataset("id_str", data=names, dtype=h5py.string_dtype())
        file.create_dataset("label_cols", data=tree.columns, dtype=h5py.string_dtype())
        file.attrs.update(kind="concentrations", tree=json.dumps(tree.to_dict()))
    return SimpleNamespace(values=values, table=table, tree=tree, **predicted(folder, tree.cuts))


def predicted(folder, cuts=()):
    """Describe and rank `part.hdf5` of a folder; returns what `write_explorer` takes of predictions."""
    part, flat, ranked = folder / "part.hdf5", folder / "flat.parquet", folder / "label_next.csv"
    describe_posteriors(part, flat, 0.9, cuts)
    rank_galaxies([part], ranked)
    return {"catalog": [flat], "chunks": [part], "recalibrations": [], "ranked": ranked}


def write_page(survey, folder, images, votes=(), cuts=()):
    """Write the page of a survey; returns the page."""
    about = SimpleNamespace(run="run", target="sky", cuts=cuts)
    write_explorer(PROGRAM, survey, images, votes, about, folder / "index.html", 2)
    return folder / "index.html"


class Data:
    """What the scripts of a page hold."""

    def __init__(self, page):
        self.folder = page.parent / "files"
        self.about = self.read("about")
        self.names = self.read("names")
        self.columns = [column["name"] for column in self.about["columns"]]

    def read(self, name):
        """The content of a script."""
        text = (self.folder / "data" / f"{name}.js").read_text()
        head, content = re.fullmatch(r"zoo\.received\((\".*?\"), (.*)\);\n", text, re.S).groups()
        assert json.loads(head) == name
        return json.loads(content)

    def column(self, name):
        """(galaxies,) the values of a column."""
        return unpacked(self.read(f"columns/{self.columns.index(name)}"), "<f4")

    def galaxy(self, number):
        """(the values of all columns, (outputs, bins) the densities) of a galaxy."""
        sizes, outputs = self.about["sizes"], sum(len(panel["columns"]) for panel in self.about["panels"])
        numbers, masses = self.read(f"galaxies/{number // sizes['group']}")
        place = number % sizes["group"]
        row = unpacked(numbers, "<f4").reshape(-1, len(self.columns))[place]
        return row, unpacked(masses, "u1").reshape(-1, outputs, sizes["bins"])[place]


def unpacked(text, kind):
    """An array that a script holds as text."""
    return np.frombuffer(base64.b64decode(text), kind)
