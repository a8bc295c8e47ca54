"""Time, memory and disk of each step of `predict` for 10⁴, 10⁵ and 10⁶ galaxies, and estimates for 10⁷.

Writes the last section of docs/scale.md. The galaxies are a few small images under many names, for a tiny
untrained model, because the study measures the pipeline. Each step runs in a process of its own, so that its
peak memory is its own.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from pages import REPO, machine, write_section

SIZES = (10_000, 100_000, 1_000_000)
AIM = 10_000_000
# Galaxies in a chunk, in a shard and in a folder.
PART = 10_000
# How many different images there are, and their edge in pixels.
IMAGES, EDGE = 32, 32
SAMPLES = 25
TREE = REPO / "config" / "trees" / "gz_decals_5.yaml"
IMAGE = {"size": EDGE, "crop": 0.75, "final_size": 24, "color": False, "encoding": "png"}
# Rows of the record's table, and the number of its zips.
RECORD, ZIPS = 314_000, 4


def name_of(number):
    """A galaxy's name, as long as the names in the record."""
    return f"J{number:08d}.0+000000.0"


def load_tree():
    """The tree of GZ DECaLS 5."""
    from zoolib.config.trees import DecisionTree

    return DecisionTree.load(TREE)


def make_model(folder):
    """Write a tiny untrained model."""
    from zoolib.learning import models
    from zoolib.learning.augment import PAPER
    from zoolib.learning.backbones import build_backbone

    tree = load_tree()
    backbone = build_backbone("tiny", IMAGE["final_size"], 1)
    network = models.join(backbone, models.tree_head(backbone.output_shape[-1], tree, 0.2))
    about = {"kind": "concentrations", "tree": tree.to_dict(), "columns": tree.columns, "image": IMAGE}
    about["training"] = {"augmentation": PAPER}
    folder.mkdir(parents=True)
    models.save_model(network, about, folder / "model.keras", folder / "model.json")


def make_survey(folder, galaxies):
    """Write the galaxies as image files, one of them broken, and the last chunk also as shards."""
    import numpy as np
    from zoolib.data.images import encode, load_image
    from zoolib.data.tfrecords import write_records
    from zoolib.simulation.galaxies import draw_galaxies, render_all

    tree = load_tree()
    pictures = list(render_all(draw_galaxies(IMAGES, np.random.default_rng(1)), EDGE, 1))
    for part in range(galaxies // PART):
        (folder / "images" / str(part)).mkdir(parents=True)
        names = [name_of(number) for number in range(part * PART, (part + 1) * PART)]
        paths = [folder / "images" / str(part) / f"{name}.png" for name in names]
        for number, path in enumerate(paths):
            if number < IMAGES:
                path.write_bytes(pictures[number])
            else:
                os.link(paths[number % IMAGES], path)
        about = {"count": PART, "size": EDGE, "channels": 1, "encoding": "png"}
        about |= {"tree": tree.to_dict(), "columns": tree.columns, "ids": names}
        (folder / "shards").mkdir(exist_ok=True)
        (folder / "shards" / f"{part}.json").write_text(json.dumps(about))
    stored = [encode(load_image(picture, EDGE, False), "png") for picture in pictures]
    votes = np.zeros(len(tree.columns), np.float32)
    # Chunks end between blocks, so the last chunk begins in the last shard but one.
    for shard in {max(part - 1, 0), part}:
        numbers = range(shard * PART, (shard + 1) * PART)
        records = ((name_of(number).encode(), stored[number % IMAGES], votes) for number in numbers)
        write_records(records, folder / "shards" / f"{shard}.tfrecord")
    paths[-1].unlink()
    paths[-1].write_bytes(b"")


def fill_in(folder, done, parts):
    """Write all other chunks, with the numbers of the predicted one under their own names."""
    import h5py
    import numpy as np
    from zoolib.data.layout import bounds_of_chunk
    from zoolib.posteriors.parts import PART as POSITION
    from zoolib.posteriors.parts import attributes
    from zoolib.posteriors.writer import predictions_file

    with h5py.File(folder / "chunks" / f"{done}.hdf5") as file:
        values, about = file["predictions"][:], attributes(file)
        columns = list(file["label_cols"].asstr())
    about |= {"columns": columns, **{name: json.loads(about[name]) for name in ("tree", "labels")}}
    for part in range(parts):
        if part == done:
            continue
        path = folder / "chunks" / f"{part}.hdf5"
        first, last = bounds_of_chunk(parts * PART, part, parts)
        position = {name: about[name] for name in (*POSITION, "each_model")} | {"first": first, "last": last}
        with predictions_file(path, last - first, about, 1, SAMPLES, 0, 1, position) as append:
            some = values[np.arange(last - first) % len(values)]
            append([name_of(number) for number in range(first, last)], some)
        path.with_suffix(".rejected.csv").write_text("id_str,reason\n")


def make_record(folder, data):
    """Write a table as long as the record's, from the miniature's rows, and zips with as many members."""
    import pandas as pd

    rows = pd.read_csv(data / "gz_decals_record" / "gz_decals_volunteers_5.csv", low_memory=False)
    table = pd.concat([rows] * -(-RECORD // len(rows)), ignore_index=True)[:RECORD]
    table["iauname"] = [name_of(number) for number in range(RECORD)]
    table["png_loc"] = [f"dr5/{name[:4]}/{name}.png" for name in table["iauname"]]
    folder.mkdir()
    table.to_parquet(folder / "votes.parquet", index=False)
    for number in range(ZIPS):
        with zipfile.ZipFile(folder / f"{number}.zip", "w") as archive:
            for file in table["png_loc"][number::ZIPS]:
                archive.writestr(file, b"0")


def plan(folder, settings):
    """Let Snakemake plan a run from scratch; returns (jobs, seconds, peak memory in bytes)."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile"), "--dry-run"]
    command += ["--cores", "1", "--quiet", "rules", "--directory", str(folder)]
    command += ["--configfile", str(folder / "plan.yaml"), "--", "predict" if settings else "all"]
    done = subprocess.run(command, cwd=REPO, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    jobs = next(line for line in done.stdout.splitlines() if line.startswith("total"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int(jobs.split()[1]), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def measured(module, function, *arguments, **settings):
    """Call a function in a process of its own.

    Args:
        module: the module that has the function.
        function: its name.
        arguments: its arguments by position.
        settings: its arguments by name.

    Returns:
        (seconds of processor time on all cores, without the import of the module; peak memory of the process
        in bytes; result).
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, module, function, arguments, settings).result()


def _measure(module, function, arguments, settings):
    called = getattr(importlib.import_module(module), function)
    # Processor time, because other work on the machine lengthens the time on a clock.
    start = time.process_time()
    result = called(*arguments, **settings)
    seconds = time.process_time() - start
    # getrusage would start with the memory of the parent process.
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return seconds, int(peak) * 1024, result


def measure_survey(work, galaxies):
    """Run the steps of `predict`.

    Args:
        work: folder with the model.
        galaxies: how many.

    Returns:
        ({step: (galaxies it works on, seconds, bytes of memory)}, {file: bytes a galaxy}).
    """
    folder, parts = work / str(galaxies), galaxies // PART
    measured("study_scale", "make_survey", folder, galaxies)
    found = {}

    def step(title, count, module, function, *arguments, **settings):
        seconds, peak, _ = measured(f"zoolib.{module}", function, *arguments, **settings)
        found[title] = count, seconds, peak
        print(f"{galaxies:>9,} {title:<40} {seconds:8.1f} s {peak / 1e6:8.0f} MB", flush=True)

    list_and_predict(step, folder, parts, [work / "model"])
    chunk, described = folder / "chunks" / f"{parts - 1}.hdf5", folder / "catalog" / f"{parts - 1}.parquet"
    arguments = chunk, described, 0.9, load_tree().cuts, 2
    step("describe one chunk", PART, "posteriors.files", "describe_posteriors", *arguments)
    measured("study_scale", "fill_in", folder, parts - 1, parts)
    collect_and_rank(step, folder, parts)
    sizes = {
        f"`chunks/*.hdf5`, {len(load_tree().columns)} answers × {SAMPLES} samples": (chunk, PART),
        "`catalog/*.parquet`, the flat catalogue": (described, PART),
        "`galaxies.parquet`, the list": (folder / "galaxies.parquet", galaxies),
        "`predictions.hdf5`, names and links": (folder / "predictions.hdf5", galaxies),
        "`label_next.csv`": (folder / "label_next.csv", galaxies),
    }
    sizes = {title: path.stat().st_size / count for title, (path, count) in sizes.items()}
    shutil.rmtree(folder)
    return found, sizes


def list_and_predict(step, folder, parts, models):
    """List the galaxies in three ways, and predict the last chunk from shards and from images.

    Args:
        step: (title, galaxies, module, function, arguments …), measures one step.
        folder: of the survey.
        parts: how many chunks the survey has.
        models: folders of models.
    """
    galaxies, last = parts * PART, parts - 1
    listed, again, of_shards = (folder / f"{name}.parquet" for name in ("galaxies", "again", "shards"))
    sidecars = [folder / "shards" / f"{part}.json" for part in range(parts)]
    lists = {
        "list a folder": ("images", [folder / "images"], listed),
        "list a catalogue": ("catalog", [listed], again),
        "list shards": ("shards", sidecars, of_shards),
    }
    for title, arguments in lists.items():
        step(title, galaxies, "data.listing", "list_galaxies", *arguments)

    def predict(title, source, chunk, of, predictions):
        output = SimpleNamespace(predictions=predictions, rejected=predictions.with_suffix(".rejected.csv"))
        settings = {"samples": SAMPLES, "views": 0, "seed": 1, "output": output}
        step(title, galaxies // of, "predict", "predict_chunk", [source], models, chunk, of, **settings)

    predict("predict one chunk of the shards", of_shards, last, parts, folder / "spare.hdf5")
    if galaxies == SIZES[1]:
        predict("predict all as one chunk, from images", listed, 0, 1, folder / "spare.hdf5")
    predict("predict one chunk of the images", listed, last, parts, folder / "chunks" / f"{last}.hdf5")


def collect_and_rank(step, folder, parts):
    """Collect all chunks and rank all galaxies.

    Args:
        step: (title, galaxies, module, function, arguments …), measures one step.
        folder: of the survey.
        parts: how many chunks the survey has.

    Raises:
        RuntimeError: not exactly the broken image was rejected.
    """
    chunks = [folder / "chunks" / f"{part}.hdf5" for part in range(parts)]
    rejected = [chunk.with_suffix(".rejected.csv") for chunk in chunks]
    names = {"predictions": "predictions.hdf5", "rejected": "rejected.csv", "unfamiliar": "unfamiliar.csv"}
    output = SimpleNamespace(**{name: folder / file for name, file in names.items()})
    arguments = chunks, rejected, 0.01, output
    step("collect all chunks", parts * PART, "posteriors.collect", "collect_predictions", *arguments)
    arguments = chunks, folder / "label_next.csv"
    step("rank all galaxies", parts * PART, "posteriors.ranking", "rank_galaxies", *arguments, threads=2)
    rows = len(output.rejected.read_text().splitlines()) - 1
    if rows != 1:
        raise RuntimeError(f"{output.rejected}: {rows} images were rejected; expected the one broken image.")


def measure_plans(work, data):
    """Build the record's catalogue and plan runs; returns the lines of a table."""
    tree, folder = load_tree(), work / "record"
    measured("study_scale", "make_record", folder, data)
    zips = [str(folder / f"{number}.zip") for number in range(ZIPS)]
    entry = {"name": "record", "tree": tree.to_dict(published=True), "table": str(folder / "votes.parquet")}
    entry |= {"archives": zips, "min_votes": 3, **dict.fromkeys(("images", "id", "location", "query"))}
    names = ("train", "val", "test")
    output = {name: folder / f"{name}.parquet" for name in names}
    output |= {name: folder / f"{name}.csv" for name in ("rejected", "summary")}
    shares = dict(zip(names, (0.7, 0.1, 0.2), strict=True))
    target = {"models": [str(work / "model")], "name": "sky", "images": str(folder)}
    survey = {"run": "sky", "evaluate": {"target": None, "published": None}}
    survey["predict"] = {"samples": 30, "views": 0, "chunks": 1000, "targets": [target]}
    steps = {
        f"`build_catalog`: a table of {RECORD:,} rows, {ZIPS} zips of as many members": (
            *("zoolib.catalog", "build_catalog", [entry], shares, 42, SimpleNamespace(**output)),
        ),
        f"`list_galaxies`: the {RECORD:,} members of the zips": (
            *("zoolib.data.listing", "list_galaxies", "archives", zips, folder / "list.parquet"),
        ),
        "`snakemake -n` of the paper's run": ("study_scale", "plan", work / "paper", {}),
        "`snakemake -n predict` of a folder, `predict.chunks: 1000`": (
            *("study_scale", "plan", work / "sky", survey),
        ),
    }
    lines = []
    for title, arguments in steps.items():
        seconds, peak, result = measured(*arguments)
        if result:
            jobs, seconds, peak = result
            title = f"{title}, {jobs:,} jobs"
        lines.append(f"| {title} | {seconds:.1f} | {peak / 1e6:.0f} |")
        print(lines[-1], flush=True)
    return lines


def step_lines(surveys):
    """Lines of a table: time and memory of each step, and hours for ten million galaxies."""
    sizes = list(surveys)
    heading = " | ".join(f"{size:,}: ms a galaxy | MB" for size in sizes)
    lines = [
        f"| step | {heading} | {AIM:,}: hours of one core |",
        f"| --- |{' ---: |' * (2 * len(sizes) + 1)}",
    ]
    steps = dict.fromkeys(title for found, _ in surveys.values() for title in found)
    for title in steps:
        cells, hours = [], ""
        for found, _ in surveys.values():
            if title not in found:
                cells += ["", ""]
                continue
            count, seconds, peak = found[title]
            cells += [f"{1000 * seconds / count:.3f}", f"{peak / 1e6:.0f}"]
            hours = f"{AIM * seconds / count / 3600:.2f}"
        lines.append(f"| {title} | {' | '.join(cells)} | {hours} |")
    return lines


def disk_lines(surveys):
    """Lines of a table: bytes a galaxy, and gigabytes for ten million galaxies."""
    _, sizes = surveys[max(surveys)]
    lines = [f"| file | bytes a galaxy | GB for {AIM:,} |", "| --- | ---: | ---: |"]
    sizes = {**sizes, "together": sum(sizes.values())}
    return lines + [f"| {file} | {size:,.0f} | {AIM * size / 1e9:.1f} |" for file, size in sizes.items()]


def main(sizes, data, keep):
    """Measure, and write the section.

    Args:
        sizes: numbers of galaxies.
        data: folder of the real galaxies, None if there is none.
        keep: JSON file with the measurements of earlier calls; those of this call are added.
    """
    found = json.loads(keep.read_text()) if keep.is_file() else {}
    with tempfile.TemporaryDirectory(dir=keep.parent) as work:
        work = Path(work)
        measured("study_scale", "make_model", work / "model")
        for size in sizes:
            found[str(size)] = measure_survey(work, size)
            keep.write_text(json.dumps(found))
        if data:
            found["plans"] = measure_plans(work, data)
            keep.write_text(json.dumps(found))
    surveys = {int(size): steps for size, steps in found.items() if size != "plans"}
    surveys = dict(sorted(surveys.items()))
    section = [
        f"{machine('study-scale')} Times are processor times, of all cores together.",
        "",
        *step_lines(surveys),
        "",
        *disk_lines(surveys),
        "",
        "| catalogue and DAG | seconds | MB |",
        "| --- | ---: | ---: |",
        *found.get("plans", []),
    ]
    write_section("scale.md", "Results", section)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, nargs="*", default=SIZES)
    parser.add_argument("--data", type=Path, help="folder of the real galaxies; without it no run is planned")
    parser.add_argument("--keep", type=Path, default=REPO / "results" / "study_scale" / "measured.json")
    options = parser.parse_args()
    options.keep.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(options.galaxies, options.data, options.keep)
