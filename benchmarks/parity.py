"""Our backbones beside timm's: the same features, and how fast; writes docs/parity.md.

Each architecture is a process of its own: timm's model gets random weights and random BatchNorm
statistics, ours gets timm's weights, and both see the same images, in colour and in grey, at two sizes.
"""

import argparse
import copy
import datetime
import importlib.metadata
import itertools
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "workflow" / "scripts"), str(REPO / "tests" / "support")]

PAGE, SECTION = REPO / "docs" / "parity.md", "## Measured\n"
EDGES, BATCH, TURNS, SECONDS, TOLERANCE = (64, 224), 4, 3, 12, 1e-4


def images_a_second(calls, images):
    """Images a second of functions that see them all: in turn, so that what else the machine does meets each.

    Args:
        calls: functions without arguments.
        images: how many each of them sees.

    Returns:
        A number for each, of its best turn.
    """
    for call in calls:
        call()
    best, end = [np.inf] * len(calls), time.perf_counter() + SECONDS
    for turn in itertools.count():
        if turn >= TURNS and time.perf_counter() > end:
            return [images / seconds for seconds in best]
        for number, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - start)


def measure(name):
    """Compare one architecture with timm's.

    Args:
        name: in the zoo.

    Returns:
        (parameters, largest relative difference, images/s here, images/s in timm, the same channels last).
    """
    import tensorflow as tf
    import timm_models
    from zoolib.learning.backbones import ZOO, build_backbone
    from zoolib.weights.timm import set_timm_weights

    # One thread each: where threads wait for each other, whatever else the machine does decides.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _, torch = timm_models.load_timm()
    torch.set_num_threads(1)
    worst = 0.0
    for channels in (3, 1):
        model = timm_models.random_model(name, channels)
        parameters = sum(value.numel() for value in model.parameters())
        if channels == 3 and parameters != ZOO[name].parameters:
            sys.exit(f"{name}: the zoo states {ZOO[name].parameters:,} parameters, timm has {parameters:,}")
        for edge in EDGES:
            mean, std = timm_models.preprocessing(channels)
            pixels = timm_models.images(edge, channels)
            _, theirs = timm_models.settle(model, name, pixels, mean, std)
            tensors = {key: value.numpy() for key, value in model.state_dict().items()}
            backbone = build_backbone(name, edge, channels, mean, std)
            set_timm_weights(backbone, name, tensors)
            worst = max(worst, timm_models.difference(np.asarray(backbone(pixels)), theirs))
    # The last is grey and of the size that the encoders were published for.
    pixels = np.resize(pixels, (BATCH, edge, edge, channels))
    compiled = tf.function(lambda images: backbone(images, training=False))
    calls = [lambda: compiled(tf.constant(pixels)).numpy()]
    for layout in (torch.contiguous_format, torch.channels_last):
        placed = copy.deepcopy(model).to(memory_format=layout)
        images = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255).contiguous(memory_format=layout)
        calls.append(partial(placed, images))
    with torch.inference_mode():
        return ZOO[name].parameters, worst, *images_a_second(calls, BATCH)


def main(names):
    """Measure and write the page's last section.

    Args:
        names: architectures; all of the zoo where there are none.
    """
    from zoolib.learning.backbones import ZOO

    rows, failed, spawn = [], [], multiprocessing.get_context("spawn")
    for name in names or ZOO:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            parameters, worst, here, there, last = pool.submit(measure, name).result()
        speeds = f"{here:.1f} | {there:.1f} | {last:.1f} | {here / max(there, last):.2f}"
        licence = ZOO[name].licence
        rows.append(
            f"| {name} | {parameters:,} | {ZOO[name].features:,} | {licence} | {worst:.1e} | {speeds} |"
        )
        print(rows[-1], flush=True)
        if not worst < TOLERANCE:
            failed.append(name)
    if not names:
        write_section(rows)
    if failed:
        sys.exit(f"{', '.join(failed)}: features differ from timm's by more than {TOLERANCE}.")


def write_section(rows):
    """Replace the last section of the page.

    Args:
        rows: lines of the table.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    packages = ("tensorflow-cpu", "keras", "torch", "timm")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    load = os.getloadavg()[0]
    section = [
        SECTION,
        f"`make parity`, {datetime.date.today():%d %B %Y}: {processor or platform.machine()},",
        f"one thread each, {versions}.",
        f"Images/s: forward, float32, grey, {EDGES[-1]} px, batches of {BATCH}, the three in turn, the best",
        f"of each in {SECONDS} seconds together or in {TURNS} turns, whichever is longer;",
        f"the machine's load average was {load:.1f} with {os.cpu_count()} cores when it ended.",
        "",
        "| architecture | parameters | features | licence of the weights | largest relative difference"
        " | images/s here | timm | timm, channels last | here / timm's best |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]
    PAGE.write_text(PAGE.read_text().split(SECTION)[0] + "\n".join(section) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="architectures; without any, all, and the page is written")
    main(parser.parse_args().names)
