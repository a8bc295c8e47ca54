"""Files that are damaged at random, one row for each reader of the pipeline.

A try damages one copy of a valid file and calls the function that the pipeline calls. It is survived if the
answer is right, or if the user gets one sentence (`UserError`, of which `BadImage` is one, or
`MachineError`). It is lost if another exception is raised, if the reader dies, needs more than `SECONDS` or
more than `MEMORY`, or if the answer is wrong without a word. What a wrong answer is depends on the format:

- PNG, packed FITS, zip, `.keras`, records of shards, and our own catalogues and lists have checksums: all
  values are the same.
- JPEG, FITS, tables of users, safetensors and HDF5 have none, so a damaged number is another number. Then
  shapes and names must be possible ones, numbers must be finite, and no row of a CSV file that the damage
  did not touch may be missing or different.
- YAML is written by hand: another configuration or tree is an answer.

Every reader runs in a process of its own, which is stopped when it takes too long.
"""

import functools
import io
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import struct
import tempfile
import traceback
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

REPO = Path(__file__).resolve().parents[2]
SECONDS = 20
# Bytes: what the rules of these readers have, and for those with TensorFlow what it needs itself besides.
MEMORY, MEMORY_TENSORFLOW = 2_000_000_000, 4_000_000_000
# Numbers at the ends of what headers can hold.
EXTREMES = [
    struct.pack(form, number)
    for form, number in itertools.product(("<h", ">h", "<i", ">i", "<q", ">q"), (-1, 0, 1, 0x7FFF, -0x8000))
] + [b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"\xff" * 3 + b"\x7f"]
CELLS = [
    "",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "9" * 40,
    "0.5",
    "\x00",
    '"',
    "'",
    "\u2028",
    "é",
    "=1+1",
    ",,,",
]
CELLS += ["!!python/object/apply:os.getcwd []", "&a [*a]", "{", "[", "- ", "\t", "null", "~", ".nan", "true"]


def damage(content, chance, others=()):
    """Damage bytes in one of many ways.

    Args:
        content: bytes of a valid file.
        chance: random.Random.
        others: bytes of files of other formats.
    """
    data, size = bytearray(content), len(content)
    begin, end = sorted(chance.randrange(size + 1) for _ in range(2))
    # The beginnings and ends of files have their headers.
    place = chance.choice(
        (
            chance.randrange(size),
            chance.randrange(min(size, 200)),
            size - 1 - chance.randrange(min(size, 200)),
        )
    )
    kind = chance.randrange(12)
    if kind == 0:
        data[place] ^= 1 << chance.randrange(8)
    elif kind == 1:
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(size)] = chance.randrange(256)
    elif kind == 2:
        data[place] = chance.choice((0, 1, 127, 128, 255))
    elif kind == 3:
        del data[begin:]
    elif kind == 4:
        del data[place : place + chance.choice((1, 2, 4, 100, 4096))]
    elif kind == 5:
        data[begin:begin] = data[begin : min(end, begin + 65536)]
    elif kind == 6:
        data[place:place] = chance.randbytes(chance.randrange(1, 60))
    elif kind == 7:
        length = min((end - begin) // 2, 5000)
        first, second = bytes(data[begin : begin + length]), bytes(data[end - length : end])
        data[begin : begin + length], data[end - length : end] = second, first
    elif kind == 8:
        data[begin : min(end, begin + 5000)] = bytes(min(end, begin + 5000) - begin)
    elif kind == 9 and others:
        return chance.choice(others)
    elif kind == 10:
        extreme = chance.choice(EXTREMES)
        data[place : place + len(extreme)] = extreme
    else:
        data[begin:] = bytes(data[:begin])
    return bytes(data)


def damage_text(content, chance, others=()):
    """Damage a text: as bytes, or by its lines, cells, quotes and encoding."""
    if chance.random() < 0.3:
        return damage(content, chance, others)
    lines = content.decode().split("\n")
    row = chance.randrange(len(lines))
    cells = lines[row].split(",")
    kind = chance.randrange(10)
    if kind == 0:
        del lines[row : row + chance.randrange(1, 4)]
    elif kind == 1:
        cells[chance.randrange(len(cells))] = chance.choice(CELLS)
        lines[row] = ",".join(cells)
    elif kind == 2:
        middle = chance.randrange(len(lines[row]) + 1)
        lines[row] = lines[row][:middle] + chance.choice(CELLS) + lines[row][middle:]
    elif kind == 3:
        lines.insert(row, lines[chance.randrange(len(lines))])
    elif kind == 4:
        lines[row] = ",".join(cells[:-1]) if len(cells) > 1 else lines[row] + ","
    elif kind == 5:
        return "\n".join(lines).encode(chance.choice(("utf-16", "utf-8-sig", "utf-32", "cp037")))
    elif kind == 6:
        return "\n".join(lines).replace("\n", chance.choice(("\r", "\r\n", "\x0b", ""))).encode()
    elif kind == 7:
        lines[row] = lines[row][: len(lines[row]) // 2]
    elif kind == 8:
        head, mark, rest = lines[row].partition(":")
        lines[row] = f"{head}{mark} {chance.choice(CELLS)}" if mark else "  " + lines[row]
    else:
        chance.shuffle(lines)
    return "\n".join(lines).encode(errors="surrogatepass")


class Reader:
    """One reader.

    Args:
        name: what the table prints.
        cells: {variant: (function without arguments that returns {file: bytes}, the file to damage)}.
        read: function(folder, variant) that returns an answer.
        wrong: function(answer, right answer, folder, variant) that says what is wrong, or returns None.
        text: whether files are text.
        tensorflow: whether it needs TensorFlow.
    """

    def __init__(self, name, cells, read, wrong, text=False, tensorflow=False):
        self.name, self.variants, self.read, self.wrong = f"mutated {name}", cells, read, wrong
        self.cells, self.text, self.tensorflow, self.known = tuple(cells), text, tensorflow, {}

    def valid(self, cell):
        """The valid files of a variant, and the right answer; they are made once."""
        if cell not in self.known:
            files = self.variants[cell][0]()
            with tempfile.TemporaryDirectory(prefix="valid-") as folder:
                write(files, Path(folder))
                self.known[cell] = files, self.read(Path(folder), cell)
        return self.known[cell]

    def attempt(self, cell, seed, place):
        """Damage one file, in the process of this kind of readers; returns None or what was lost."""
        return Worker.of(self.tensorflow).ask(self.name, cell, seed, place)

    def attempt_here(self, cell, seed, place):
        """`attempt` in this process."""
        from zoolib.job.logs import MachineError, UserError

        chance = random.Random(seed)
        files, right = self.valid(cell)
        file = self.variants[cell][1]
        damaged = (damage_text if self.text else damage)(files[file], chance, other_formats())
        write({**files, file: damaged}, place)
        try:
            answer = self.read(place, cell)
        except (UserError, MachineError) as error:
            message = str(error)
            if "\n" in message or not message.strip():
                return f"{cell}, seed '{seed}': the message is not one sentence: {message[:200]!r}"
            message.encode()
            return None
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            own = [step for step in where if "zoolib" in step.filename] or where
            at = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
            said = " ".join(str(error).split())[:150]
            return f"{cell}: {type(error).__name__} in {at} ({said}); seed '{seed}'"
        # Another valid file under the same name is right.
        same = damaged == files[file] or damaged in other_formats()
        wrong = None if same else self.wrong(answer, right, place, cell)
        return wrong and f"{cell}: {wrong}; seed '{seed}'"


def write(files, folder):
    """Write files, {path: bytes}, into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@functools.cache
def other_formats():
    """Files of several formats, as bytes."""
    found = [
        b"",
        b"\x00" * 100,
        b"<html><body>504 Gateway Time-out</body></html>",
        b"{}",
        b"[]",
        b"a: 1\n",
        b"a,b\n1,2\n",
    ]
    return [*found, png_of("L"), fits_of("three bands"), zip_of("record"), csv_of()]


# ---------------------------------------------------------------- images


def noise(edge=24, bands=3, kind=np.uint8):
    """Random pixels, always the same."""
    high = np.iinfo(kind).max
    return np.random.default_rng(5).integers(0, high, (edge, edge, bands), dtype=kind, endpoint=True)


def png_of(mode, form="png", **options):
    """A small picture of one of Pillow's modes."""
    from PIL import Image

    if mode == "I;16":
        image = Image.fromarray(noise(bands=1, kind=np.uint16)[..., 0])
    else:
        image = Image.fromarray(noise(bands=4), "RGBA").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned():
    """EXIF data with an orientation."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def fits_of(kind):
    """A small FITS file: one band, three bands, or bands in extensions; plain or packed."""
    import gzip

    from astropy.io import fits

    bands = np.random.default_rng(6).normal(0.05, 0.05, (3, 16, 16)).astype(">f4")
    units = [fits.PrimaryHDU(bands if kind in ("three bands", "packed") else bands[0])]
    if kind in ("extensions", "tiles"):
        make = fits.ImageHDU if kind == "extensions" else fits.CompImageHDU
        units = [fits.PrimaryHDU(), *(make(band, name=name) for band, name in zip(bands, "grz", strict=True))]
    buffer = io.BytesIO()
    fits.HDUList(units).writeto(buffer)
    return gzip.compress(buffer.getvalue(), mtime=0) if kind == "packed" else buffer.getvalue()


def read_picture(folder, cell):
    """As a shard reads it, and its digest as a task's catalogue does."""
    from zoolib.data import decoders
    from zoolib.data.images import digest, load_row

    decoders.limit_pixels(16_000_000)
    row = {"archive": "", "member": "", "file_loc": str(folder / "image")}
    digest(row)
    return load_row(row, 24, color=True, raw=True)


def same_array(answer, right, *_):
    """All values are the same."""
    return None if np.array_equal(answer, right) else "other pixels without a word"


def possible_picture(answer, right, *_):
    """It has the shape that was asked for, and finite numbers."""
    if answer.shape != right.shape or answer.dtype != right.dtype or not np.isfinite(answer).all():
        return f"pixels of the shape {answer.shape}, finite: {np.isfinite(answer).all()}"
    return None


def possible_fits(answer, right, folder, cell):
    """Only gzip has a checksum."""
    return (same_array if cell == "packed" else possible_picture)(answer, right)


# ---------------------------------------------------------------- zip

GALAXIES = [f"J{number:03d}" for number in range(24)]


def picture(number):
    """A picture of its own for each number."""
    from PIL import Image

    image = Image.new("L", (16, 16), 8 * number)
    image.paste(255 - 8 * number, (8, 0, 16, 16))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def zip_of(kind):
    """A zip of the record's layout, or of class folders."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED if kind == "record" else zipfile.ZIP_STORED
    ) as packed:
        for number, name in enumerate(GALAXIES):
            folder = name[:3] if kind == "record" else ("spiral", "smooth")[number % 2]
            packed.writestr(f"top/{folder}/{name}.png", picture(number))
    return buffer.getvalue()


def read_zip(folder, cell):
    """The members as a catalogue or a task finds them, and their bytes; a bad member is a rejected galaxy."""
    import pandas as pd
    from zoolib.data.class_folders import list_labelled
    from zoolib.data.images import BadImage, read
    from zoolib.data.locations import in_archives

    path = str(folder / "images.zip")
    if cell == "class folders":
        rows = list_labelled(path, "label").to_dict("records")
    else:
        names = pd.Series(GALAXIES)
        places, messages = in_archives(names, pd.Series("", names.index), [path])
        rows = places.assign(id_str=names, label=messages)[messages == ""].to_dict("records")
    found = {}
    for row in rows:
        try:
            found[row["id_str"]] = row["label"], read(row)
        except BadImage:
            found[row["id_str"]] = row["label"], None
    return found


def same_members(answer, right, folder, cell):
    """No galaxy has another one's bytes or class; galaxies without an image are rejected with a message."""
    for name, (label, content) in answer.items():
        if name in right and content is not None and (label, content) != right[name]:
            return f"'{name}' has another image or class without a word"
    if cell == "class folders" and set(right) - set(answer):
        return f"{len(set(right) - set(answer))} galaxies are missing without a word"
    return None


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
        task |= dict.fromkeys(("folders", "id", "location", "query", "split", "group", "folds"))
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


# ---------------------------------------------------------------- shards, predictions, models

IMAGE = {"size": 16, "crop": 0.75, "final_size": 12, "color": False, "encoding": "png"}


@functools.cache
def shard_of():
    """A shard and its sidecar."""
    from zoolib.shards import write_shard

    with tempfile.TemporaryDirectory() as folder:
        write({"train.parquet": catalog_of(), **with_images(b"", "csv")}, Path(folder))
        here = os.getcwd()
        os.chdir(folder)
        try:
            output = SimpleNamespace(shard="0.tfrecord", about="0.json", rejected="0.csv")
            write_shard("train.parquet", 0, 1, IMAGE, output)
        finally:
            os.chdir(here)
        return {name: Path(folder, name).read_bytes() for name in ("0.tfrecord", "0.json")}


def read_shard(folder, cell):
    """A shard as prediction and training read it."""
    from zoolib.data.tfrecords import read_sidecar
    from zoolib.learning import datasets

    about = read_sidecar(folder / "0.json", None, IMAGE)
    store = datasets.from_shards([folder / "0.tfrecord"], [about], {**IMAGE, "encoding": about["encoding"]})
    with datasets.images_read(store):
        return [tuple(part.numpy() for part in batch) for batch in datasets.stored_batches(store, 64)]


def same_records(answer, right, *_):
    """All galaxies have the same names, pixels and votes."""
    pairs = itertools.zip_longest(answer, right, fillvalue=())
    same = all(len(one) == len(other) and all(map(np.array_equal, one, other)) for one, other in pairs)
    return None if same else "other galaxies, pixels or votes without a word"


@functools.cache
def predictions_of():
    """A file of predictions."""
    from zoolib.posteriors.files import predictions_file

    about = {"kind": "concentrations", "tree": TREE, "columns": ["ring_yes", "ring_no"], "labels": None}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.hdf5")
        values = np.random.default_rng(2).uniform(1, 100, (len(GALAXIES), 2, 5)).astype("float32")
        with predictions_file(path, len(GALAXIES), about, 1, 5, 0, 1) as append:
            append(GALAXIES, values)
        return {"p.hdf5": path.read_bytes()}


def read_predictions(folder, cell):
    """A file of predictions as the flat catalogue reads it."""
    from zoolib.posteriors.files import open_predictions

    with open_predictions(folder / "p.hdf5") as opened:
        return [str(name) for name in opened.id_str], [values for _, values in opened.blocks()]


def possible_predictions(answer, right, *_):
    """As many galaxies, each with a name of its own and as many samples."""
    names, values = answer
    if len(names) != len(right[0]) or len(set(names)) != len(names):
        return f"{len(names)} galaxies with {len(set(names))} names, expected {len(right[0])}"
    if [block.shape for block in values] != [block.shape for block in right[1]]:
        return "numbers of another shape"
    return None


@functools.cache
def model_of():
    """A model folder."""
    import keras
    from zoolib.config.trees import DecisionTree
    from zoolib.learning import models
    from zoolib.learning.backbones import build_backbone

    keras.utils.set_random_seed(1)
    tree = DecisionTree.from_dict(TREE)
    backbone = build_backbone("tiny", IMAGE["final_size"], 1)
    network = models.join(backbone, models.tree_head(backbone.output.shape[-1], tree, 0.2))
    about = {
        "kind": "concentrations",
        "tree": tree.to_dict(),
        "columns": tree.columns,
        "image": IMAGE,
        "training": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("model.keras", "model.json")]
        models.save_model(network, about, *paths)
        return {path.name: path.read_bytes() for path in paths}


def older_model():
    """A model folder as older versions wrote it, without checksums."""
    files = model_of()
    about = json.loads(files["model.json"])
    return {
        **files,
        "model.json": json.dumps({key: about[key] for key in about if key != "checksums"}).encode(),
    }


def read_model(folder, cell):
    """A model as prediction loads it: its weights and what model.json says."""
    from zoolib.learning.models import load_model

    model = load_model(folder)
    about = {key: model.about[key] for key in ("kind", "tree", "columns", "image")}
    return [np.array(weight) for weight in model.network.weights], about


def same_model(answer, right, folder, cell):
    """The same weights and meaning; without checksums the same shapes."""
    if cell.startswith("older"):
        return (
            None if [w.shape for w in answer[0]] == [w.shape for w in right[0]] else "weights of other shapes"
        )
    same = len(answer[0]) == len(right[0]) and all(map(np.array_equal, answer[0], right[0]))
    return None if same and answer[1] == right[1] else "other weights or another meaning without a word"


@functools.cache
def encoder_of():
    """An encoder as timm saves it."""
    from encoders import config, resnet18
    from safetensors.numpy import save

    return {"config.json": json.dumps(config()).encode(), "model.safetensors": save(resnet18())}


@functools.cache
def empty_network(channels):
    """The network that the tensors go into; it is built once."""
    from zoolib.learning.backbones import build_backbone

    return build_backbone("resnet18", 48, channels)


def read_encoder(folder, cell):
    """An encoder as it is imported, until its weights are in a network."""
    from zoolib.job.logs import UserError
    from zoolib.learning.backbones import ZOO
    from zoolib.pretrained import read_tensors, read_timm_config, timm_preprocessing
    from zoolib.weights.timm import set_timm_weights

    settings = read_timm_config(folder / "config.json", "mine")
    if settings["architecture"] not in ZOO:
        raise UserError("mine: its architecture is not supported.")
    tensors = read_tensors(folder / "model.safetensors", "mine")
    own, channels = timm_preprocessing(settings, tensors)
    if settings["architecture"] != "resnet18":
        raise UserError("mine: another architecture.")
    network = empty_network(channels)
    set_timm_weights(network, "resnet18", tensors)
    return own, [np.array(weight) for weight in network.weights]


def possible_weights(answer, right, *_):
    """Weights of the same shapes, and all finite."""
    if [weight.shape for weight in answer[1]] != [weight.shape for weight in right[1]]:
        return "weights of other shapes"
    return None if all(np.isfinite(weight).all() for weight in answer[1]) else "weights that are not finite"


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
    """Every answer is one."""
    return None


def one(name, make):
    """A variant with one file."""
    return lambda: {name: make()}, name


PNG = {"grey": "L", "colour": "RGB", "palette": "P", "transparent": "RGBA", "16 bits": "I;16"}
FITS = ("one band", "three bands", "extensions", "tiles", "packed")
TABLES = ("votes", "labels", "a target")
ROWS = [
    Reader(
        "PNG",
        {cell: one("image", functools.partial(png_of, mode)) for cell, mode in PNG.items()},
        read_picture,
        same_array,
    ),
    Reader(
        "JPEG",
        {
            "grey": one("image", lambda: png_of("L", "jpeg")),
            "colour": one("image", lambda: png_of("RGB", "jpeg")),
            "EXIF": one("image", lambda: png_of("RGB", "jpeg", exif=turned())),
            "progressive": one("image", lambda: png_of("RGB", "jpeg", progressive=True)),
        },
        read_picture,
        possible_picture,
    ),
    Reader(
        "FITS",
        {cell: one("image", functools.partial(fits_of, cell)) for cell in FITS},
        read_picture,
        possible_fits,
    ),
    Reader(
        "zip",
        {cell: one("images.zip", functools.partial(zip_of, cell)) for cell in ("record", "class folders")},
        read_zip,
        same_members,
    ),
    Reader(
        "CSV",
        {cell: (lambda: with_images(csv_of(), "csv"), "table.csv") for cell in TABLES},
        read_user_table,
        untouched_rows,
        text=True,
    ),
    Reader(
        "Parquet",
        {cell: (lambda: with_images(parquet_of(), "parquet"), "table.parquet") for cell in TABLES},
        read_user_table,
        untouched_rows,
    ),
    Reader(
        "catalogue",
        {"catalogue": one("train.parquet", catalog_of), "list": one("list.parquet", list_of)},
        read_own_table,
        same_table,
    ),
    Reader("HDF5", {"predictions": (predictions_of, "p.hdf5")}, read_predictions, possible_predictions),
    Reader(
        "YAML",
        {
            "configuration": one("config.yaml", (REPO / "config" / "test.yaml").read_bytes),
            "tree": one("tree.yaml", (REPO / "config" / "trees" / "gz_decals_5.yaml").read_bytes),
        },
        read_yaml,
        anything,
        text=True,
    ),
    Reader(
        "TFRecord",
        {"records": (shard_of, "0.tfrecord"), "sidecar": (shard_of, "0.json")},
        read_shard,
        same_records,
        tensorflow=True,
    ),
    Reader(
        ".keras",
        {
            "weights": (model_of, "model.keras"),
            "model.json": (model_of, "model.json"),
            "older, weights": (older_model, "model.keras"),
            "older, model.json": (older_model, "model.json"),
        },
        read_model,
        same_model,
        tensorflow=True,
    ),
    Reader(
        "safetensors",
        {"config.json": (encoder_of, "config.json"), "weights": (encoder_of, "model.safetensors")},
        read_encoder,
        possible_weights,
        tensorflow=True,
    ),
]


# ---------------------------------------------------------------- processes


class Worker:
    """A process that makes tries one after the other, and is replaced when it dies or hangs.

    Args:
        tensorflow: whether its readers need TensorFlow, whose address space cannot be limited.
    """

    def __init__(self, tensorflow):
        self.tensorflow, self.process = tensorflow, None

    @staticmethod
    @functools.cache
    def of(tensorflow):
        """The only one of its kind."""
        return Worker(tensorflow)

    def ask(self, row, cell, seed, place):
        """Make one try; returns None or what was lost."""
        if self.process is None:
            self._start()
        # The first try of a reader imports what it needs and makes the valid files.
        self.pipe.send((row, cell, None, str(place)))
        if self._answer(row, 300):
            return f"{cell}: the valid files cannot be read; {self.last}"
        self.pipe.send((row, cell, seed, str(place)))
        if self._answer(row, SECONDS) and self.process is None:
            return f"{cell}: {self.last}; seed '{seed}'"
        return self.last

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.tensorflow), daemon=True)
        self.process.start()
        other.close()

    def _answer(self, row, seconds):
        """Wait for what was lost, and keep it in `last`."""
        try:
            if self.pipe.poll(seconds):
                self.last = self.pipe.recv()
                return self.last
            self.last = f"no answer after {seconds} s"
        except EOFError:
            self.process.join(10)
            self.last = f"the process has died ({self.process.exitcode})"
        self.process.kill()
        self.process.join()
        self.process = None
        return self.last


def _serve(pipe, tensorflow):
    import sys

    sys.path[:0] = [str(REPO / "tests" / "support"), str(REPO / "workflow" / "scripts")]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if not tensorflow:
        # Address space that is not used counts, too, so each library's own share is allowed for.
        resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY))
    most = MEMORY_TENSORFLOW if tensorflow else MEMORY
    rows, over = {row.name: row for row in ROWS}, False
    while True:
        try:
            name, cell, seed, place = pipe.recv()
        except EOFError:
            return
        if seed is None:
            try:
                rows[name].valid(cell)
                pipe.send(None)
            except Exception as error:
                pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
            continue
        folder = Path(place)
        lost = rows[name].attempt_here(cell, seed, folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > most and not over:
            over, lost = True, lost or f"{cell}: {peak / 1e9:.1f} GB of memory; seed '{seed}'"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pipe.send(lost)
