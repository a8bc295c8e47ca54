"""Time and memory of searches, what representations cost a prediction, and what an index would gain.

Writes the section "Time and memory" of docs/search.md. The model and the galaxies are the demo's. Each
measurement of memory has a process of its own. Indices are measured where they are installed:
`pip install faiss-cpu==1.15.1 usearch==2.26.6 hnswlib==0.8.0`.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pages import REPO, machine, write_section
from zoolib import api
from zoolib.likeness.rankings import directions, nearest
from zoolib.likeness.representations import read_representations, representations_file

DEMO = REPO / "results" / "demo"
SIZES = (10_000, 1_000_000, 10_000_000)
# The largest survey of each index. The graphs of usearch and hnswlib take minutes for a million already.
INDICES = {"exact": SIZES[2], "faiss": SIZES[2], "usearch": SIZES[1], "hnswlib": SIZES[1]}
NEIGHBOURS, QUERIES, ROUNDS = 32, 100, 5
# The most lists of faiss: to find more of them in ten million galaxies takes many minutes.
LISTS = 4096


def seconds(work, *given):
    """(what a function returns, the seconds that it takes)."""
    begin = time.monotonic()
    result = work(*given)
    return result, time.monotonic() - begin


def memory():
    """The largest memory of this process until now, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def in_own_process(*words):
    """What this script finds with these words of its command line."""
    done = subprocess.run([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} has failed; the error is above.")
    return json.loads(done.stdout.splitlines()[-1])


def one_size(count):
    """The numbers of a row: a file of so many galaxies, and what is done with it."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "representations.hdf5"
        with representations_file(path, count, {}) as append:
            for start in range(0, count, 10_000):
                some = min(10_000, count - start)
                append([f"J{start + number:09d}" for number in range(some)], rng.normal(size=(some, 64)))
        found = [path.stat().st_size / 1e6]
        known, took = seconds(api.read_representations, path)
    yes, no = known.id_str[:5].tolist(), known.id_str[5:10].tolist()
    works = [
        lambda: api.similar(yes[0], known),
        lambda: api.similar(yes[1], known),
        lambda: api.find_more(yes, known, no),
        lambda: api.find_odd(known),
    ]
    return [*found, took, *(seconds(work)[1] for work in works), memory()]


def price(run):
    """Seconds to predict the test galaxies of a run: without, with 64 numbers, with all, and these alone.

    Returns:
        {way: list of seconds}, and the number of galaxies. The ways take turns; the first turn is dropped.
    """
    from zoolib.predict import predict_chunk
    from zoolib.represent import represent

    model, shards = run / "train" / "metrics" / "0", run / "shards" / "test"
    sidecars = sorted(str(each) for each in shards.glob("*.json"))
    with tempfile.TemporaryDirectory() as folder:
        output = SimpleNamespace(predictions=f"{folder}/p.hdf5", rejected=f"{folder}/rejected.csv")

        def predict(kept):
            return lambda: predict_chunk(sidecars, [str(model)], (0, 1), 25, 0, 42, output, kept)

        ways = {f"predictions, {kept}": predict(kept) for kept in ("none", "pca", "features")}
        ways["`represent` alone, pca"] = lambda: represent(shards, model, f"{folder}/r.hdf5")
        found = {name: [] for name in ways}
        for turn in range(ROUNDS + 1):
            for name, work in ways.items():
                took = seconds(work)[1]
                if turn:
                    found[name].append(took)
        return found, len(read_representations(f"{folder}/r.hdf5").id_str)


def like_the_demo(count):
    """Random directions whose numbers have the variances of the demo's representations."""
    from zoolib.represent import represent

    with tempfile.TemporaryDirectory() as folder:
        path = represent(DEMO / "shards" / "test", DEMO / "train" / "metrics" / "0", f"{folder}/r.hdf5")
        scale = read_representations(path).values.std(axis=0)
    rng = np.random.default_rng(1)
    values = np.empty((count, len(scale)), np.float32)
    for start in range(0, count, 100_000):
        some = values[start : start + 100_000]
        some[:] = rng.normal(size=some.shape) * scale
    return directions(values)


def exact(found):
    """The function that answers a query, as `similar` does."""
    return lambda row: nearest(found, np.array([row]), NEIGHBOURS)[0][0]


def faiss(found):
    """The same with an inverted file of half-precision numbers."""
    import faiss as library

    lists = min(int(4 * len(found) ** 0.5), LISTS)
    index = library.index_factory(found.shape[1], f"IVF{lists},SQfp16", library.METRIC_INNER_PRODUCT)
    index.train(found[np.random.default_rng(0).permutation(len(found))[: 50 * lists]])
    index.add(found)
    index.nprobe = 32
    return lambda row: index.search(found[row : row + 1], NEIGHBOURS + 1)[1][0]


def usearch(found):
    """The same with a graph, in half precision."""
    from usearch.index import Index

    index = Index(ndim=found.shape[1], metric="ip", dtype="f16", expansion_search=128)
    index.add(np.arange(len(found)), found)
    return lambda row: index.search(found[row], NEIGHBOURS + 1).keys.astype(int)


def hnswlib(found):
    """The same with a graph, in single precision."""
    import hnswlib as library

    index = library.Index(space="ip", dim=found.shape[1])
    index.init_index(max_elements=len(found), ef_construction=200, M=16)
    index.add_items(found)
    index.set_ef(128)
    return lambda row: index.knn_query(found[row : row + 1], NEIGHBOURS + 1)[0][0]


def one_index(name, count):
    """Seconds to build, milliseconds a query, the share of the nearest galaxies found."""
    found = like_the_demo(count)
    query, built = seconds(
        {"exact": exact, "faiss": faiss, "usearch": usearch, "hnswlib": hnswlib}[name], found
    )
    rows = np.random.default_rng(2).permutation(count)[:QUERIES]
    answers, took = seconds(lambda: [query(row) for row in rows])
    right = exact(found)
    shares = [
        len(set(right(row)) & (set(np.asarray(each).tolist()) - {row})) / NEIGHBOURS
        for row, each in zip(rows, answers, strict=True)
    ]
    return [built, 1000 * took / QUERIES, float(np.mean(shares))]


def indices():
    """A line of the table for each index that is installed."""
    lines = []
    for name, largest in INDICES.items():
        if name != "exact" and not importlib.util.find_spec(name):
            print(f"{name} is not installed, so it is left out.")
            continue
        for count in SIZES[1:]:
            if count <= largest:
                built, query, share = in_own_process("index", name, count)
                lines.append(f"| {name} | {count:,} | {built:,.0f} | {query:.1f} | {share:.3f} |")
                print(lines[-1], flush=True)
    return lines


def section():
    """The lines of the section."""
    rows = []
    for count in SIZES:
        size, read, first, following, more, odd, used = in_own_process("size", count)
        cells = (
            f"{size:,.0f} | {read:.1f} | {first:.1f} | {following:.2f} | {more:.1f} | {odd:.1f} | {used:.1f}"
        )
        rows.append(f"| {count:,} | {cells} |")
        print(rows[-1], flush=True)
    took, galaxies = price(DEMO)
    plain = np.array(took["predictions, none"])
    ratios = {way: np.array(times) / plain for way, times in took.items()}
    costs = [
        f"| {way} | {np.median(took[way]):.2f} | {ratio.mean():.3f} ± {ratio.std(ddof=1):.3f} |"
        for way, ratio in ratios.items()
    ]
    print("\n".join(costs), flush=True)
    return [
        machine("bench-search"),
        "",
        "Random representations of 64 numbers, in Python as above: seconds to read the file, for the first"
        " query of 32 near galaxies and for each next one, for a round of 5 `yes` and 5 `no`, and for the odd"
        " ones; and the largest memory of the process.",
        "",
        "| galaxies | file (MB) | read | `similar` | next one | `find_more` | `find_odd` | memory (GB) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"What the numbers cost a prediction: {galaxies:,} galaxies of the demo, 25 samples, {ROUNDS} turns."
        " Seconds (median), and the ratio to a prediction that keeps none of them:",
        "",
        "| what is made | seconds | ratio |",
        "| --- | ---: | ---: |",
        *costs,
        "",
        f"What an index would gain, for {QUERIES} queries of {NEIGHBOURS} neighbours among random galaxies"
        " whose numbers have the variances of the demo's: seconds to build it, milliseconds for a query, and"
        " the share of the nearest galaxies that it finds. faiss is"
        f" `IVF,SQfp16` with 32 of at most {LISTS:,} lists, usearch and hnswlib are graphs (128 candidates"
        " a query); the graphs were measured up to a million.",
        "",
        "| index | galaxies | build (s) | query (ms) | found |",
        "| --- | ---: | ---: | ---: | ---: |",
        *indices(),
    ]


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="nothing, for all; size COUNT; index NAME COUNT")
    what = parser.parse_args().what
    if not what:
        write_section("search.md", "Time and memory", section())
    elif what[0] == "size":
        print(json.dumps(one_size(int(what[1]))))
    else:
        print(json.dumps(one_index(what[1], int(what[2]))))


if __name__ == "__main__":
    main()
