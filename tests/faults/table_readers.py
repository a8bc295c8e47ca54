"""Tables, predictions and YAML: valid files, how the pipeline reads them, and what is a wrong answer."""

import functools
import io
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from damage import write
from image_readers import GALAXIES, picture

REPO = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------- tables


def votes():
    """A small table of votes and labels."""
    import pandas as pd

    chance = np.random.default_rng(1)
    table = pd.DataFrame({"id_str": GALAXIES, "file_loc": [f"images/{name}.png" for name in GALAXIES]})
    for column in ("ring_yes", "ring_no"):
        table[column] = chance.integers(0, 40, len(table))
    return table.assign(kind=["S", "E", "Irr"] * 8, size=chance.uniform(1, 9, len(table)).round(3))


def csv_of():
    """The table as CSV."""
    return votes().to_csv(index=False).encode()


def parquet_of():
    """The table as Parquet."""
    buffer = io.BytesIO()
    votes().to_parquet(buffer, index=False)
    return buffer.getvalue()


def with_images(content, suffix):
    """A table and its images."""
    images = {f"images/{name}.png": picture(number) for number, name in enumerate(GALAXIES)}
    return {f"table.{suffix}": content, **images}


TREE = {"name": "rings", "questions": {"ring": {"answers": ["yes", "no"]}}}


def read_user_table(folder, cell):
    """A table as a catalogue of votes, as the labels of a task, or as a target.

    Returns:
        ({id_str: values}, rejected names).
    """
    import pandas as pd
    from zoolib.catalog import build_catalog
    from zoolib.config.labels import Label
    from zoolib.data.locations import read_places
    from zoolib.data.tasks import build_task

    path = next(
        str(folder / f"table.{suffix}")
        for suffix in ("csv", "parquet")
        if (folder / f"table.{suffix}").is_file()
    )
    names = ("train", "val", "test", "galaxies", "rejected", "summary")
    out = SimpleNamespace(
        **{name: folder / f"{name}.{'csv' if name in names[4:] else 'parquet'}" for name in names}
    )
    if "target" in cell:
        rows = pd.concat(read_places(path, 7))
        return {row[0]: (os.path.basename(row[3]),) for row in rows.itertuples(index=False)}, set()
    if "votes" in cell:
        entry = {"name": "a", "table": path, "tree": TREE, "images": str(folder), "min_votes": 0}
        build_catalog([entry], {"train": 0.4, "val": 0.3, "test": 0.3}, 1, out)
        found, columns = (
            pd.concat(map(pd.read_parquet, (out.train, out.val, out.test))),
            ["ring_yes", "ring_no"],
        )
    else:
        labels = [Label("kind", "multiclass", ("S", "E", "Irr")), Label("size", "regression")]
        task = {
            "name": "t",
            "labels": [label.to_dict() for label in labels],
            "table": path,
            "images": str(folder),
        }
        task |= dict.fromkeys(("folders", "id", "location", "query", "split", "group", "folds", "test"))
        task |= {"archives": [], "missing": "drop", "balance": "none"}
        build_task(task, [""], 1, out, 0.5)
        found, columns = pd.read_parquet(out.galaxies), ["kind", "size"]
    rejected = pd.read_csv(out.rejected, dtype=str, keep_default_na=False)
    return found.set_index("id_str")[columns].apply(tuple, axis=1).to_dict(), set(rejected["id_str"])


def untouched_rows(answer, right, folder, cell):
    """Rows of a CSV file that the damage left as they were are there with their values, or are rejected."""
    found, rejected = answer
    path = folder / "table.csv"
    if not path.is_file():
        return None
    before = csv_of().decode().splitlines()
    after = path.read_bytes().decode(errors="replace").split("\n")
    if after[0].strip("\r") != before[0]:
        return None
    for line in set(before[1:]) & set(after):
        name = line.split(",")[0]
        same = [other for other in after if other.startswith(name + ",")]
        if name not in rejected and len(same) == 1 and found.get(name) != right[0].get(name):
            values = f"{found.get(name)}, expected {right[0].get(name)}"
            return f"the row of '{name}' was not touched and has {values}"
    return None


# ---------------------------------------------------------------- our own Parquet


def catalog_of():
    """A catalogue that the pipeline wrote."""
    from zoolib.config.trees import DecisionTree
    from zoolib.data.catalogs import Catalog, write_catalog

    with tempfile.TemporaryDirectory() as folder:
        tree = DecisionTree.from_dict(TREE)
        table = votes().assign(archive="", member="")
        write_catalog(Catalog(table, tree.columns, tree), Path(folder, "train.parquet"))
        return Path(folder, "train.parquet").read_bytes()


def list_of():
    """A list of galaxies that the pipeline wrote."""
    from zoolib.data.listing import list_galaxies

    with tempfile.TemporaryDirectory() as folder:
        write(with_images(b"", "csv"), Path(folder))
        list_galaxies("images", [f"{folder}/images"], f"{folder}/list.parquet")
        return Path(folder, "list.parquet").read_bytes()


def read_own_table(folder, cell):
    """A catalogue as a stage reads it, or a list of galaxies as a chunk does."""
    from zoolib.data.catalogs import read_catalog
    from zoolib.data.listing import count_images, read_images

    if cell == "catalogue":
        return read_catalog(folder / "train.parquet").table
    path = folder / "list.parquet"
    return read_images([path], 0, count_images([path]))


def same_table(answer, right, *_):
    """All cells are the same."""
    return None if answer.equals(right) else "other cells without a word"


# ---------------------------------------------------------------- predictions


def _write_predictions(path, first, last, part=None):
    """Write the predictions of some of the galaxies."""
    from zoolib.posteriors.writer import predictions_file

    about = {"kind": "concentrations", "tree": TREE, "columns": ["ring_yes", "ring_no"], "labels": None}
    values = np.random.default_rng(2).uniform(1, 100, (len(GALAXIES), 2, 5)).astype("float32")
    with predictions_file(path, last - first, about, 1, 5, 0, 1, part) as append:
        append(GALAXIES[first:last], values[first:last])


@functools.cache
def predictions_of():
    """A file of predictions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "predictions.hdf5")
        _write_predictions(path, 0, len(GALAXIES))
        return {path.name: path.read_bytes()}


@functools.cache
def collected_of():
    """Predictions in two parts, and the virtual file that joins them."""
    from zoolib.posteriors.collect import collect_predictions

    with tempfile.TemporaryDirectory() as folder:
        top, half = Path(folder), len(GALAXIES) // 2
        (top / "chunks").mkdir()
        parts = [top / "chunks" / f"{number}.hdf5" for number in range(2)]
        for part, (first, last) in zip(parts, ((0, half), (half, len(GALAXIES))), strict=True):
            place = {"models": "one", "first": first, "last": last, "of": len(GALAXIES)}
            _write_predictions(part, first, last, place)
            part.with_suffix(".rejected.csv").write_text("id_str,reason\n")
        output = SimpleNamespace(
            predictions=top / "predictions.hdf5",
            rejected=top / "rejected.csv",
            unfamiliar=top / "unfamiliar.csv",
        )
        collect_predictions(parts, [part.with_suffix(".rejected.csv") for part in parts], 0, output)
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*.hdf5")}


def read_predictions(folder, cell):
    """A file of predictions as the flat catalogue reads it."""
    from zoolib.posteriors.files import open_predictions

    with open_predictions(folder / "predictions.hdf5") as opened:
        names = [str(name) for name in opened.id_str]
        return names, np.concatenate([values for _, values, _ in opened.blocks()])


def same_predictions(answer, right, *_):
    """The same galaxies with the same numbers."""
    same = answer[0] == right[0] and np.array_equal(answer[1], right[1])
    return None if same else "other names or numbers without a word"


# ---------------------------------------------------------------- YAML


def read_yaml(folder, cell):
    """A tree, or a configuration as Snakemake merges it with config/config.yaml."""
    import yaml
    from zoolib.config.run import read_run
    from zoolib.config.trees import DecisionTree
    from zoolib.job.logs import UserError

    if cell == "tree":
        return DecisionTree.load(folder / "tree.yaml").to_dict()
    try:
        config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
        over = yaml.safe_load((folder / "config.yaml").read_bytes())
    # Snakemake itself reads the file and reports this.
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("Snakemake: not YAML.") from error
    if not isinstance(over, dict):
        raise UserError("Snakemake: not a mapping.")
    os.chdir(REPO)
    return read_run(_merged(config, over), REPO).name


def _merged(config, over):
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(config.get(key), dict)
        config[key] = _merged(config[key], value) if both else value
    return config


def anything(*_):
    """Every answer is right."""
    return None
