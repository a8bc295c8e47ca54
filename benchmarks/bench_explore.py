"""How long a page of `snakemake explore` takes to write and to use; writes a section of docs/explore.md.

The galaxies have simulated concentrations and the images of a hundred drawn ones. The page is then opened in
a real Chromium.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from bench_posteriors import write_part
from pages import REPO, machine, write_section
from PIL import Image
from zoolib.config.trees import DecisionTree
from zoolib.explore.page import write_explorer
from zoolib.posteriors.files import describe_posteriors
from zoolib.posteriors.ranking import rank_galaxies

sys.path.insert(0, str(REPO / "tests" / "support"))
from browser import chromium  # noqa: E402

IMAGES, EDGE = 100, 64
# Positions of a slider that is moved, and the column that it filters.
MOVES, COLUMN = 60, "smooth-or-featured_smooth_fraction"
# A move of the slider, from the event to the next frame; the browser's own clock.
MOVED = """(async (steps, name) => {
  const filter = zoo.page.state.filters.find((one) => one.column.name === name);
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const found = { filtering: [], frames: [] };
  for (let step = 0; step < steps; step++) {
    await frame();
    const start = performance.now();
    filter.low = 0.8 * step / steps + 0.01;
    await frame();
    found.frames.push(performance.now() - start);
    found.filtering.push(zoo.milliseconds);
  }
  filter.low = 0.01;
  await frame();
  return found;
})"""


def write_images(folder):
    """Draw some galaxies with noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:EDGE, :EDGE] / EDGE - 0.5
    for number in range(IMAGES):
        ratio, size = random.uniform(0.3, 1), random.uniform(0.05, 0.15)
        light = 200 * np.exp(-np.hypot(x, y / ratio) / size)[..., None] * random.uniform(0.6, 1, 3)
        pixels = light + random.normal(20, 8, (EDGE, EDGE, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def write_page(folder, galaxies):
    """Write the files of a prediction, and its page; returns seconds, bytes and the page."""
    tree = DecisionTree.load(REPO / "config/trees/gz_decals_5.yaml")
    write_images(folder)
    (folder / "chunks").mkdir()
    write_part(tree, folder, "part", 0, galaxies)
    part, flat, ranked = folder / "chunks/part.hdf5", folder / "flat.parquet", folder / "label_next.csv"
    describe_posteriors(part, flat, 0.9, tree.cuts, threads=2)
    rank_galaxies([part], ranked, threads=2)
    table = pd.DataFrame(
        {"id_str": pd.read_parquet(flat, columns=["id_str"])["id_str"], "archive": "", "member": ""}
    )
    table["file_loc"] = [str(folder / f"{number % IMAGES}.png") for number in range(galaxies)]
    table.to_parquet(folder / "galaxies.parquet")
    predicted = SimpleNamespace(catalog=[flat], chunks=[part], recalibrations=[], ranked=ranked)
    about = SimpleNamespace(run="bench", target="sky", cuts=tree.cuts)
    program = [path for kind in ("*.*", "vendor/*.*") for path in (REPO / "workflow/explore").glob(kind)]
    page, start = folder / "page" / "index.html", time.perf_counter()
    write_explorer(program, predicted, [folder / "galaxies.parquet"], [], about, page, threads=2)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    return seconds, size, page


def use_page(page, folder):
    """Open a page and use it; returns milliseconds and bytes."""
    with chromium(folder) as browser:
        browser.size(1440, 900)
        start = time.perf_counter()
        browser.open(page.as_uri())
        browser.wait(f"zoo.page.state.filters.some((one) => one.column.name === '{COLUMN}')")
        opened = 1000 * (time.perf_counter() - start)
        moved = browser.do(f"{MOVED}({MOVES}, '{COLUMN}')")
        times = {}
        # The first time a column is read and sorted, and by another column after that.
        for name in ("information", "bar_strong_fraction"):
            waited = f"(async () => {{ const start = performance.now(); zoo.page.state.sort = '{name}';"
            waited += " const last = zoo.page.shown.value; while (zoo.page.shown.value === last)"
            waited += " await new Promise((done) => setTimeout(done)); return performance.now() - start; })()"
            times[name] = browser.do(waited)
        searched = browser.do(
            "(async () => { zoo.page.state.search = '-9'; await Vue.nextTick(); return zoo.milliseconds; })()"
        )
        browser.do("zoo.page.state.search = ''")
        view = browser.do(
            "(async () => { const start = performance.now(); await zoo.page.open(100);"
            " return performance.now() - start; })()"
        )
        browser.call("HeapProfiler.collectGarbage")
        kept = browser.call("Runtime.getHeapUsage")
        # Arrays of numbers are beside the heap.
        heap = kept["usedSize"] + kept["backingStorageSize"]
        memory = browser.memory()
        tiles = browser.do("document.querySelectorAll('.tile').length")
        assert not browser.errors, browser.errors
    return {
        "opened": opened,
        **moved,
        "sorted": max(times.values()),
        "searched": searched,
        "view": view,
        "heap": heap,
        "memory": memory,
        "tiles": tiles,
    }


def main():
    """Write and use a page, and tell it in docs/explore.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, nargs="+", default=[5000, 50_000])
    chosen = parser.parse_args()
    rows = []
    for galaxies in chosen.galaxies:
        with tempfile.TemporaryDirectory() as folder:
            seconds, size, page = write_page(Path(folder), galaxies)
            used = use_page(page, Path(folder) / "browser")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        middle = {name: np.median(used[name]) for name in ("filtering", "frames")}
        most = {name: max(used[name]) for name in middle}
        cells = [f"{galaxies:,}", f"{seconds:.0f}", f"{memory:.1f}", f"{size / 1e6:.0f}"]
        cells += [f"{used['opened']:.0f}"]
        cells += [f"{found['filtering']:.1f}" for found in (middle, most)]
        cells += [f"{found['frames']:.0f}" for found in (middle, most)]
        cells += [f"{used[name]:.0f}" for name in ("sorted", "searched", "view")]
        cells += [f"{used[name] / 1e6:.0f}" for name in ("heap", "memory")]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    names = ["galaxies", "write (s)", "its memory (GB)", "folder (MB)", "open (ms)", "filter (ms)", "slowest"]
    names += [
        "frame (ms)",
        "slowest",
        "sort (ms)",
        "search (ms)",
        "a galaxy (ms)",
        "heap (MB)",
        "process (MB)",
    ]
    section = [
        machine("bench-explore", ("pillow",)),
        "",
        "Other programs ran, too. 34 answers of 25 samples; images of 64 pixels. *filter* is the time to"
        f" find the galaxies that pass, median of {MOVES} moves of a slider; *frame* is from the move until"
        " the page is drawn again; *sort* is by a column that was not read before; *a galaxy* is from the key"
        " until its view is there. The heap is what the page's JavaScript keeps then; the process is all"
        " memory of the browser's process for the page, decoded images too.",
        "",
        f"| {' | '.join(names)} |",
        f"| {' | '.join(['---:'] * len(names))} |",
        *rows,
    ]
    write_section("explore.md", "Time and memory", section)


if __name__ == "__main__":
    main()
