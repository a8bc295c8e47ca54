"""The speed and memory of what describes posteriors; writes the last section of docs/posteriors.md.

Simulated concentrations are written as prediction jobs write them, and read as the pipeline reads
them. Each measurement runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from pages import REPO, machine, write_section
from zoolib.config.trees import DecisionTree
from zoolib.posteriors import information, intervals, summary
from zoolib.posteriors.collect import collect_predictions
from zoolib.posteriors.files import describe_posteriors, open_predictions
from zoolib.posteriors.writer import predictions_file

SAMPLES, PARTS, THREADS, LEVEL = 25, 40, 2, 0.9
# Each sample of a mixture has this many Dirichlets a question.
COMPONENTS = 3


def write_part(tree, folder, name, number, galaxies):
    """Write one file of predictions, as `predict_chunk` does.

    Args:
        tree: the `DecisionTree` whose questions are answered.
        folder: where the file goes.
        name: of the file; `wide` has concentrations from 0.01 to 1000 instead of from 1 to 101, and each
            sample of `three` is a mixture.
        number: of the part; it is also the seed.
        galaxies: how many galaxies the part has.
    """
    random = np.random.default_rng(number)
    shape = (galaxies, len(tree.columns))
    components = SAMPLES * COMPONENTS if name == "three" else SAMPLES
    logits = random.normal(-2, 1.5, (*shape, 1)) + random.normal(0, 0.5, (*shape, components))
    wide = name == "wide"
    values = np.clip(np.exp(2 * logits + 4), 0.01, 1000) if wide else 1 + 100 / (1 + np.exp(-logits))
    weights = None
    about = {"kind": "concentrations", "tree": tree.to_dict(), "columns": tree.columns}
    if name == "three":
        about |= {"kind": "mixtures", "training": {"components": COMPONENTS}}
        shape = (galaxies, len(tree.questions), SAMPLES, COMPONENTS)
        weights = random.dirichlet(np.ones(COMPONENTS), shape[:3]).reshape(*shape[:2], -1) / SAMPLES
        weights = weights.astype(np.float32)
    ids = [f"galaxy {number}-{index}" for index in range(galaxies)]
    path = Path(folder) / "chunks" / f"{name}.hdf5"
    with predictions_file(path, len(ids), about, SAMPLES, 1, 1, 1) as append:
        append(ids, values.astype(np.float32), *([] if weights is None else [weights]))


def summarise(opened):
    """Mean fractions, probability asked and entropy of all galaxies."""

    def of_block(rows, values, weights):
        fractions = summary.mean_fractions(values, opened.tree)
        asked = summary.probability_asked(fractions, opened.tree)
        return fractions.sum(), asked.sum(), summary.entropies(fractions, opened.tree).sum()

    return [sum(sums) for sums in zip(*opened.map(of_block, THREADS), strict=True)]


def both_intervals(opened):
    """Central and highest-density intervals."""

    def of_block(rows, values, weights):
        intervals.both_intervals(values, opened.tree, LEVEL, opened.kind, weights)

    for _ in opened.map(of_block, THREADS):
        pass


def informed(opened):
    """Mutual information between votes and model, for `label_next.csv`."""

    def measure(rows, values, weights):
        posterior = {"weights": weights, "per_sample": opened.per_sample}
        return information.joint_information(values, opened.tree, opened.id_str[rows], **posterior)

    for _ in opened.map(measure, THREADS):
        pass


def catalogue(opened):
    """The flat catalogue, as the rule `describe_posteriors` writes it."""
    describe_posteriors(opened.path, f"{opened.path}.parquet", LEVEL, threads=THREADS)


def measure(function, path):
    """Run a function on a file of predictions.

    Args:
        function: takes `Predictions`.
        path: the file.

    Returns:
        (galaxies, seconds, seconds of processor time on all cores, peak memory of the process in bytes).
    """
    # Compiled once for all jobs of a machine.
    intervals.beta_mixture_intervals(*np.full((3, 1, 1), 1.0), LEVEL)
    start, start_of_work = time.perf_counter(), time.process_time()
    with open_predictions(path) as opened:
        galaxies = len(opened.id_str)
        function(opened)
    seconds, work = time.perf_counter() - start, time.process_time() - start_of_work
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return galaxies, seconds, work, int(peak) * 1024


def write_survey(tree, folder, galaxies):
    """Write the predictions of all galaxies, in parts, and two parts of other kinds.

    Args:
        tree: the `DecisionTree` whose questions are answered.
        folder: where the files go.
        galaxies: how many; a multiple of the number of parts.

    Returns:
        The file of all predictions.
    """
    chunks, every = folder / "chunks", folder / "predictions.hdf5"
    chunks.mkdir()
    of_part = galaxies // PARTS
    with ProcessPoolExecutor(THREADS, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = enumerate([*range(PARTS), "wide", "three"])
        jobs = [pool.submit(write_part, tree, folder, name, number, of_part) for number, name in parts]
        for job in jobs:
            job.result()
    rejected = chunks / "rejected.csv"
    pd.DataFrame(columns=["id_str", "reason"]).to_csv(rejected, index=False)
    output = SimpleNamespace(
        predictions=every, rejected=folder / "rejected.csv", unfamiliar=folder / "unfamiliar.json"
    )
    collect_predictions([chunks / f"{n}.hdf5" for n in range(PARTS)], [rejected], 0, output)
    size = sum(path.stat().st_size for path in chunks.glob("*.hdf5"))
    print(f"{galaxies:,} galaxies written, {size / 1e9:.1f} GB", flush=True)
    return every


def main(galaxies, print_only):
    """Measure and write the section.

    Args:
        galaxies: how many are summarised; a multiple of the number of parts.
        print_only: leave the page as it is.
    """
    tree = DecisionTree.load(REPO / "config" / "trees" / "gz_decals_5.yaml")
    spawn, rows = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as folder:
        every, chunks = write_survey(tree, Path(folder), galaxies), Path(folder) / "chunks"
        for title, function, path in (
            ("mean fractions, probability asked, entropy", summarise, every),
            ("both kinds of intervals, one level", both_intervals, chunks / "0.hdf5"),
            ("the same, concentrations from 0.01 to 1000", both_intervals, chunks / "wide.hdf5"),
            ("the same, each sample a mixture of three", both_intervals, chunks / "three.hdf5"),
            ("the complete flat catalogue", catalogue, chunks / "0.hdf5"),
            ("the same, each sample a mixture of three", catalogue, chunks / "three.hdf5"),
            ("information for `label_next.csv`", informed, chunks / "0.hdf5"),
        ):
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                count, seconds, work, peak = pool.submit(measure, function, path).result()
            speeds = f"{seconds:,.1f} | {count / seconds:,.0f} | {count / work:,.0f}"
            rows.append(f"| {title} | {count:,} | {speeds} | {peak / 1e9:.2f} |")
            print(rows[-1], flush=True)
    details = [f"{os.cpu_count()} cores", f"{THREADS} threads", f"Python {platform.python_version()}"]
    section = [
        machine("bench-posteriors", ("numpy", "scipy", "numba", "h5py"), details),
        f"{len(tree.columns)} answers × {SAMPLES} samples a galaxy, simulated concentrations from 1 to 101",
        "unless stated otherwise. The times include reading blocks of galaxies from compressed HDF5.",
        "",
        "| what | galaxies | seconds | galaxies/s | galaxies per second of one core | peak memory (GB) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    if not print_only:
        write_section("posteriors.md", "Speed", section)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, default=1_000_000)
    parser.add_argument("--print-only", action="store_true", help="leave the page as it is")
    main(**vars(parser.parse_args()))
