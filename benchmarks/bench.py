"""How fast the pipeline is, beside what a user would take instead and beside the bare limit of each work.

Writes the section "On a processor" of docs/speed.md and its figure, and the rates that `make estimate` counts
with (results/bench/processor.yaml). Each measurement runs in a process of its own. The ways to do a work take
turns, so that other things on the machine slow all of them: their ratios are what counts. timm is measured
where it is installed (`make env-parity`), Zoobot in an environment that is made here.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import yaml
from pages import REPO, machine, processor, write_section
from works import CORES, FEW, IMAGES, LABELS, MANY, MATERIAL, MODEL, make_material
from zoolib.figures.style import COLORS, drawing

ROUNDS = 5
PREDICT = "snakemake --configfile benchmarks/bench.yaml benchmarks/bench_small.yaml -- predict"
FINETUNE = f"make -s finetune LABELS={MATERIAL}/rings.csv IMAGES={IMAGES} MODEL={MODEL} NAME=bench_rings"
# Zoobot as the package index has it. A torch for processors comes from pip's own folders if they have one.
ZOOBOT, PEER = "zoobot[pytorch]==2.9.0", REPO / "results" / "bench_zoobot"
TORCH = ("torch==2.13.0", "torchvision==0.28.0")


@dataclass(frozen=True)
class Work:
    """One work, and the ways to do it.

    Attributes:
        title: what is done.
        ours: what the pipeline does: words for works.py, a command of the shell, or passes by Zoobot.
        others: {name: the same}; timm's and Zoobot's only where they are installed.
        bars: {name of another way: the ratio to it that we want}; under the key `seconds` an absolute time.
    """

    title: str
    ours: str
    others: dict = field(default_factory=dict)
    bars: dict = field(default_factory=dict)


WORKS = {
    "shards": Work(
        "write a shard: PNGs of 424 px in a zip to 300 px in grey",
        "works shards",
        {"a Pillow loop on all cores": "works pillow_loop", "bare decoding": "works bare_decoding"},
        {"a Pillow loop on all cores": 2, "bare decoding": 0.6},
    ),
    "step": Work(
        "a training step of EfficientNetB0 at 224 px, batch 32",
        "works step",
        {
            "on a tensor in memory": "works step_in_memory",
            "timm": "works timm_step contiguous_format",
            "timm, channels last": "works timm_step channels_last",
        },
        {"on a tensor in memory": 0.95, "timm": 1.3, "timm, channels last": 1.3},
    ),
    "tiny": Work("a training step of `tiny` at 48 px, batch 32, in memory", "works tiny_step"),
    "input": Work(
        "the input pipeline alone",
        "works input_pipeline",
        {"a training step": "works step"},
        {"a training step": 20},
    ),
    "forward": Work(
        "the features of EfficientNetB0 at 224 px",
        "works forward",
        {
            "128 images at once": "works forward_at_once",
            "timm": "works timm_forward contiguous_format",
            "timm, channels last": "works timm_forward channels_last",
        },
    ),
    "predict": Work(
        "predict a folder of 1,500 PNGs of 424 px, 1 draw, everything included",
        "works predict 1",
        {"bare decoding and features": "works bare_prediction", "Zoobot": "zoobot 1"},
        {"bare decoding and features": 0.8, "Zoobot": 2},
    ),
    "draws": Work(
        "the same with 30 draws",
        "works predict 30",
        {"1 draw": "works predict 1", "Zoobot called 30 times": "zoobot 30"},
        {"1 draw": 0.91, "Zoobot called 30 times": 50},
    ),
    "many": Work(
        f"predict {MANY:,} PNGs of 64 px with a tiny network, everything included",
        "works many",
        {"bare decoding and features": "works bare_many"},
        {"bare decoding and features": 0.8},
    ),
    "small": Work(
        f"predict {FEW} galaxies in Python, in a new process",
        "seconds python benchmarks/works.py small",
        bars={"seconds": 10},
    ),
    "small_snakemake": Work(
        f"predict {FEW} galaxies by `snakemake predict`",
        f"seconds rm -rf results/bench/predict/small && {PREDICT}",
        bars={"seconds": 25},
    ),
    "finetune": Work(
        f"make finetune with {LABELS} labels, from the command to the scores",
        f"seconds rm -rf results/bench_rings && {FINETUNE}",
        bars={"seconds": 30},
    ),
    "again": Work(
        "the same command once more, with nothing to do", f"seconds {PREDICT}", bars={"seconds": 4}
    ),
}


def make_zoobot():
    """Make an environment with Zoobot, if that can be; what is there is left alone."""
    done = PEER / "made"
    if done.is_file():
        return
    pip = [str(PEER / "bin" / "pip"), "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEER)], check=True)
    subprocess.run([*pip, "--no-index", "--no-deps", TORCH[0]], capture_output=True)
    made = subprocess.run([*pip, ZOOBOT, *TORCH], capture_output=True, text=True)
    if made.returncode:
        print(f"Zoobot could not be installed: {(made.stderr.strip().splitlines() or ['?'])[-1]}")
        return
    done.touch()


@cache
def call_zoobot(turn):
    """(galaxies, seconds of everything, seconds of the call of `predict` in it)."""
    count = len(list(IMAGES.iterdir()))
    script = [str(PEER / "bin" / "python"), "benchmarks/peer_zoobot.py", str(IMAGES), str(count), str(CORES)]
    return count, *json.loads(_run(script, False).splitlines()[-1])


@cache
def measure(command, turn=0):
    """What one way gives: images a second, or the seconds of a command; the same way once in each turn."""
    kind, _, rest = command.partition(" ")
    if kind == "zoobot":
        # More passes are more calls of one process; the one call that is measured stands for all of them.
        count, together, call = call_zoobot(turn)
        return count / (together + (int(rest) - 1) * call)
    if kind == "works":
        words = [sys.executable, str(REPO / "benchmarks" / "works.py"), *rest.split()]
        return float(json.loads(_run(words, False).splitlines()[-1]))
    begin = time.perf_counter()
    _run(rest, True)
    return time.perf_counter() - begin


def _run(command, shell):
    done = subprocess.run(command, shell=shell, cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} has failed:\n{done.stderr[-2000:]}")
    return done.stdout


def ways_of(work):
    """{name: command} of a work, ours first, without those whose packages are missing."""
    timm = importlib.util.find_spec("timm") and importlib.util.find_spec("torch")
    missing = [
        peer for peer, there in {"timm": timm, "zoobot": (PEER / "made").is_file()}.items() if not there
    ]
    others = {name: way for name, way in work.others.items() if not any(peer in way for peer in missing)}
    return {"ours": work.ours, **others}


def rounds(names, count):
    """{work: {way: numbers of all rounds}}; the ways of a work take turns."""
    found = {}
    for name in names:
        found[name] = {way: [] for way in ways_of(WORKS[name])}
        for turn in range(count):
            for way, command in ways_of(WORKS[name]).items():
                found[name][way].append(measure(command, turn))
        print(name, json.dumps(found[name]), flush=True)
    return found


def ratios(numbers):
    """{other way: (mean, standard deviation) of ours over it}, from the rounds."""
    ours = np.array(numbers["ours"])
    each = {way: ours / np.array(values) for way, values in numbers.items() if way != "ours"}
    return {way: (ratio.mean(), ratio.std(ddof=1) if len(ratio) > 1 else 0) for way, ratio in each.items()}


def lines(found):
    """The tables: rates with their ratios, and times."""
    rates, times = [], []
    for name, numbers in found.items():
        work, middle = WORKS[name], {way: np.median(values) for way, values in numbers.items()}
        if "seconds" in work.bars:
            spread = f"{min(numbers['ours']):.1f} to {max(numbers['ours']):.1f}"
            times.append(f"| {work.title} | {middle['ours']:.1f} | {spread} | {work.bars['seconds']} |")
            continue
        rates.append(f"| **{work.title}** | {middle['ours']:,.1f} | | |")
        for way, (mean, spread) in ratios(numbers).items():
            bar = f"{work.bars[way]:g}" if way in work.bars else ""
            rates.append(f"| {way} | {middle[way]:,.1f} | {mean:.2f} ± {spread:.2f} | {bar} |")
    head = ["", "| work, and other ways to do it | images/s | ours over it | at least |"]
    table = [*head, "| --- | ---: | ---: | ---: |", *rates] if rates else []
    if times:
        table += ["", "| work | seconds | from, to | at most |", "| --- | ---: | ---: | ---: |", *times]
    return table


def draw(found, output):
    """A point for each ratio, with its spread, and a line where it should be at least."""
    rows = [(name, way, *ratio) for name, numbers in found.items() for way, ratio in ratios(numbers).items()]
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    with drawing([output], figsize=(11, 0.5 * len(rows) + 1.5), layout="constrained") as figure:
        axes = figure.add_subplot()
        for row, (name, way, mean, spread) in enumerate(rows):
            axes.errorbar(mean, row, xerr=spread, fmt="o", color=COLORS[0], capsize=4, ms=8)
            if bar := WORKS[name].bars.get(way):
                axes.plot([bar, bar], [row - 0.3, row + 0.3], color=COLORS[1], lw=3)
        axes.set_yticks(range(len(rows)), [f"{name}: {way}" for name, way, *_ in rows])
        axes.set(xscale="log", xlabel="our rate over that of the other way (orange line: at least)")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(axis="x", alpha=0.3)
        axes.axvline(1, color="black", lw=1)
        axes.invert_yaxis()


def keep_rates(found):
    """Write the rates of this machine for `make estimate`; what was not measured keeps its value."""
    path = REPO / "results" / "bench" / "processor.yaml"
    known = yaml.safe_load((REPO / "benchmarks" / "rates.yaml").read_text())["processor"]
    if path.is_file():
        known = yaml.safe_load(path.read_text())
    works = {"shards": "shard", "input": "read", "step": "train", "forward": "forward"}
    rates = {
        key: float(np.median(found[work]["ours"])) / CORES for work, key in works.items() if work in found
    }
    path.write_text(yaml.safe_dump({**known, "machine": f"{processor()}, {CORES} cores", **rates}))


def section_of(found, count):
    """The lines of the section.

    Args:
        found: from `rounds`.
        count: number of rounds.
    """
    feed = ""
    if "input" in found:
        core = np.median(found["input"]["ours"]) / CORES
        feed = " To feed 1,000 images a second to a GPU takes {} such cores, 4,000 take {}.".format(
            *(int(np.ceil(rate / core)) for rate in (1_000, 4_000))
        )
    return [
        machine("bench"),
        "",
        f"1,500 simulated PNGs of 424 px, {CORES} cores, an untrained EfficientNetB0. Images a second, the"
        f" median of {count} rounds in which the ways take turns; the ratio is the mean and standard"
        " deviation over the rounds. *At least* and *at most* is what we want. Zoobot is version 2.9.0 of the"
        " package index with torch 2.13.0: its `predict_on_catalog`, random weights of `efficientnet_b0`, its"
        " minimal view in grey. Where torchvision misses CUDA, two of its operators are declared, which no"
        f" prediction calls.{feed}",
        *lines(found),
    ]


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--print", action="store_true", help="print the section instead of writing the page")
    given = parser.parse_args()
    make_material()
    if any("zoobot" in way for name in given.works for way in WORKS[name].others.values()):
        make_zoobot()
    found = rounds(given.works, given.rounds)
    keep_rates(found)
    section = section_of(found, given.rounds)
    if not given.print:
        draw(found, REPO / "docs" / "speed.png")
        section += ["", "![Our rates over those of other ways](speed.png)"]
    write_section("speed.md", "On a processor", section, not given.print)


if __name__ == "__main__":
    main()
