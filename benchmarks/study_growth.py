"""How time and memory grow with galaxies, members, samples, views, shards and chunks.

Writes the section "How cost grows" of docs/scale.md. The galaxies are a few small images that differ in their
corner, the network is tiny, and each measurement runs in a process of its own, as in `study_scale.py`.
"""

import argparse
import math
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

from pages import REPO, machine, write_section
from study_scale import EDGE, IMAGE, IMAGES, SAMPLES, load_tree, measured, name_of

GALAXIES = (1_000, 10_000, 100_000)
# The galaxies of the other measurements.
FIXED = 2_000
# {axis: its values}; every other axis has the first value meanwhile.
AXES = {"members": (1, 2, 4, 8), "views": (1, 2, 4, 8), "samples": (SAMPLES, 100, 400)}
SHARDS, CHUNKS = (1, 4, 16, 64), (10, 100, 1_000)
THREADS, LEVEL = 2, 0.9


def make_galaxies(folder, galaxies):
    """Write a zip of small images, and a table of votes for them."""
    import numpy as np
    import pandas as pd
    from zoolib.data.images import encode, load_image
    from zoolib.simulation.galaxies import draw_galaxies, render_all

    columns, random = load_tree().columns, np.random.default_rng(1)
    pictures = [load_image(one, EDGE, False) for one in render_all(draw_galaxies(IMAGES, random), EDGE, 1)]
    names = [name_of(number) for number in range(galaxies)]
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, name in enumerate(names):
            pixels = pictures[number % IMAGES].copy()
            # Galaxies with equal pixels would share a split, so the corner has the number.
            pixels[0, :4, 0] = list(number.to_bytes(4, "big"))
            archive.writestr(f"{name}.png", encode(pixels, "png"))
    votes = pd.DataFrame(random.integers(0, 10, (galaxies, len(columns))), columns=columns)
    table = pd.DataFrame({"iauname": names, "png_loc": [f"{name}.png" for name in names]})
    table.join(votes).to_parquet(folder / "votes.parquet", index=False)


def catalog(folder):
    """`build_catalog`: 90 % of the galaxies are there to learn from."""
    from zoolib.catalog import build_catalog

    entry = {"name": "record", "tree": load_tree().to_dict(published=True), "min_votes": 0}
    entry |= {"table": str(folder / "votes.parquet"), "archives": [str(folder / "images.zip")]}
    entry |= dict.fromkeys(("images", "id", "location", "query"))
    output = {name: folder / f"{name}.parquet" for name in ("train", "val", "test")}
    output |= {name: folder / f"{name}.csv" for name in ("rejected", "summary")}
    build_catalog([entry], {"train": 0.9, "val": 0.05, "test": 0.05}, 42, SimpleNamespace(**output))


def _stems(folder, count, split):
    return [folder / f"{count} shards" / split / str(number) for number in range(count)]


def write_shards(folder, count, split="train"):
    """All shards of a split."""
    from zoolib.shards import write_shard

    for number, stem in enumerate(_stems(folder, count, split)):
        stem.parent.mkdir(parents=True, exist_ok=True)
        suffixes = {"shard": ".tfrecord", "about": ".json", "rejected": ".rejected.csv"}
        output = SimpleNamespace(**{name: f"{stem}{suffix}" for name, suffix in suffixes.items()})
        write_shard(folder / f"{split}.parquet", number, count, IMAGE, output, threads=THREADS)


def train(folder, count):
    """One epoch on so many shards; the validation galaxies are in one."""
    import yaml
    from zoolib.config.run import read_run
    from zoolib.learning.fitting import Job
    from zoolib.train import Member, train_member

    config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
    config["train"] |= {"backbone": "tiny", "epochs": 1, "batch_size": 64}
    shards = {
        name: [[f"{stem}{suffix}" for stem in stems] for suffix in (".tfrecord", ".json")]
        for name, stems in (("train", _stems(folder, count, "train")), ("val", _stems(folder, 1, "val")))
    }
    output = {"model": "model.keras", "about": "model.json", "history": "history.csv"}
    output = SimpleNamespace(**{key: folder / f"{count} shards" / name for key, name in output.items()})
    member = Member(load_tree(), IMAGE, read_run(config, REPO).training, "growth", 0, 1)
    train_member(member, shards["train"], shards["val"], Job(output))


def predict(folder, members=1, views=0, samples=SAMPLES):
    """List the galaxies of the zip, and predict them as one chunk."""
    from zoolib.data.listing import list_galaxies
    from zoolib.predict import predict_chunk

    list_galaxies("archives", [str(folder / "images.zip")], folder / "galaxies.parquet")
    output = SimpleNamespace(predictions=folder / "predictions.hdf5", rejected=folder / "rejected.csv")
    models = [folder / "1 shards"] * members
    predict_chunk([folder / "galaxies.parquet"], models, (0, 1), samples, views, 1, output)


def describe(folder):
    """The flat catalogue of the last prediction."""
    from zoolib.posteriors.files import describe_posteriors

    arguments = folder / "predictions.hdf5", folder / "flat.parquet", LEVEL, load_tree().cuts, THREADS
    describe_posteriors(*arguments)


def rank(folder):
    """`label_next.csv` of the last prediction."""
    from zoolib.posteriors.ranking import rank_galaxies

    rank_galaxies([folder / "predictions.hdf5"], folder / "next.csv", threads=THREADS)


class Growth:
    """What was measured: {(step, axis): {value: (seconds of processor time, bytes)}}."""

    def __init__(self):
        self.found = {}

    def measure(self, axis, value, step, function, *arguments, **settings):
        """Measure one function of this module at one value of an axis."""
        seconds, peak, result = measured("study_growth", function, *arguments, **settings)
        self.add(axis, value, step, seconds, peak)
        return result

    def add(self, axis, value, step, seconds, peak):
        """Keep and print one measurement."""
        self.found.setdefault((step, axis), {})[value] = (seconds, peak)
        print(f"{step:<40} {axis:>8} {value:>9,} {seconds:8.1f} s {peak / 1e6:7.0f} MB", flush=True)

    def lines(self):
        """The table: the time and memory of each step at both ends of an axis, and the exponent."""
        head = "| step | grows with | from, to | seconds | MB | exponent |"
        table = [head, "| --- | --- | ---: | ---: | ---: | ---: |"]
        for (step, axis), values in self.found.items():
            sizes = sorted(values)
            times, peaks = ([values[size][part] for size in sizes] for part in (0, 1))
            shown = [f"{sizes[0]:,}, {sizes[-1]:,}", f"{times[0]:.1f}, {times[-1]:.1f}"]
            shown.append(f"{peaks[0] / 1e6:.0f}, {peaks[-1] / 1e6:.0f}")
            table.append(f"| {step} | {axis} | {' | '.join(shown)} | {exponent(sizes, times):.2f} |")
        return table

    def largest(self):
        """The largest exponent of all steps and axes."""
        each = [
            sorted((size, seconds) for size, (seconds, _) in found.items()) for found in self.found.values()
        ]
        return max(exponent(*zip(*one, strict=True)) for one in each)


def exponent(sizes, seconds):
    """The power of the size by which the time grows, between the two largest sizes."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def grow_with_galaxies(growth, folder, galaxies):
    """Every step of a run at one number of galaxies."""
    measured("study_growth", "make_galaxies", folder, galaxies)
    growth.measure("galaxies", galaxies, "build_catalog", "catalog", folder)
    growth.measure("galaxies", galaxies, "write_shard", "write_shards", folder, 1)
    measured("study_growth", "write_shards", folder, 1, "val")
    growth.measure("galaxies", galaxies, "train_member, one epoch", "train", folder, 1)
    growth.measure("galaxies", galaxies, "list_galaxies and predict_chunk", "predict", folder)
    growth.measure("galaxies", galaxies, "describe_posteriors", "describe", folder)
    growth.measure("galaxies", galaxies, "rank_galaxies", "rank", folder)


def grow_with_others(growth, folder, work):
    """The other axes, at a fixed number of galaxies, and the plans of Snakemake."""
    grow_with_galaxies(Growth(), folder, FIXED)
    for axis, values in AXES.items():
        for value in values:
            growth.measure(axis, value, "predict_chunk", "predict", folder, **{axis: value})
            if axis != "views":
                growth.measure(axis, value, "describe_posteriors", "describe", folder)
    for count in SHARDS:
        growth.measure("shards", count, "write_shard, all of them", "write_shards", folder, count)
        growth.measure("shards", count, "train_member, one epoch", "train", folder, count)
    for chunks in CHUNKS:
        target = {"models": [str(folder / "1 shards")], "name": "sky", "images": str(folder)}
        survey = {"run": "sky", "evaluate": {"target": None, "published": None}}
        survey["predict"] = {"samples": 30, "views": 0, "chunks": chunks, "targets": [target]}
        _, _, (_, seconds, peak) = measured("study_scale", "plan", work / f"plan {chunks}", survey)
        growth.add("chunks", chunks, "snakemake -n", seconds, peak)


def main(sizes):
    """Measure, and write the section."""
    growth = Growth()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        for galaxies in sizes:
            grow_with_galaxies(growth, work / str(galaxies), galaxies)
            shutil.rmtree(work / str(galaxies))
        grow_with_others(growth, work / "fixed", work)
    section = [
        f"{machine('study-growth')} Seconds are processor times, of all cores together, without the imports."
        " The exponent is the power of the size by which the time grows between the two largest sizes: 1 is"
        f" linear. The largest is {growth.largest():.2f}. Where galaxies do not vary there are {FIXED:,}.",
        "",
        *growth.lines(),
    ]
    write_section("scale.md", "How cost grows", section)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, nargs="*", default=GALAXIES)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(parser.parse_args().galaxies)
