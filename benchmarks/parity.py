"""Our backbones beside timm's: whether the features agree, and the speeds; writes docs/parity.md.

Each architecture runs in a process of its own. timm's model gets random weights and random BatchNorm
statistics, ours gets timm's weights. Both see the same images, in colour and in grey, at two sizes if
the architecture can see more than one.
"""

import argparse
import copy
import itertools
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from pages import REPO, machine, write_section

sys.path.insert(0, str(REPO / "tests" / "support"))

EDGES, BATCH, TURNS, SECONDS, TOLERANCE = (64, 224), 4, 3, 12, 1e-4


def images_a_second(calls, images):
    """The speed of functions, called in turn so that other work on the machine slows all of them.

    Args:
        calls: functions without arguments.
        images: how many images each of them sees.

    Returns:
        Images a second of the best turn of each function.
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
        name: of the architecture in the zoo.

    Returns:
        (parameters, largest relative difference, images/s here, images/s in timm, the same channels last).
    """
    import tensorflow as tf
    import timm_models
    from zoolib.learning.backbones import ZOO, build_backbone
    from zoolib.weights.timm import set_timm_weights

    # One thread each: with several that wait for each other, other work on the machine decides the speed.
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
        for edge in [ZOO[name].edge] if ZOO[name].edge else EDGES:
            mean, std = timm_models.preprocessing(channels)
            pixels = timm_models.images(edge, channels)
            _, theirs = timm_models.settle(model, name, pixels, mean, std)
            tensors = {key: value.numpy() for key, value in model.state_dict().items()}
            backbone = build_backbone(name, edge, channels, mean, std)
            set_timm_weights(backbone, name, tensors)
            worst = max(worst, timm_models.difference(np.asarray(backbone(pixels)), theirs))
    # The last images are grey, in the size for which the encoders were published.
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
    """Measure, and write the last section of the page if all architectures are measured.

    Args:
        names: architectures; if empty, all of the zoo.
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
        write_section("parity.md", "Measured", lines_of(rows))
    if failed:
        sys.exit(f"{', '.join(failed)}: features differ from timm's by more than {TOLERANCE}.")


def lines_of(rows):
    """The lines of the section, around the rows of its table."""
    load = os.getloadavg()[0]
    return [
        machine("parity", ("tensorflow-cpu", "keras", "torch", "timm"), ["one thread each"]),
        f"Images/s: forward, float32, grey, {EDGES[-1]} px, batches of {BATCH}, the three in turn, the best",
        f"of each in {SECONDS} seconds together or in {TURNS} turns, whichever is longer;",
        f"the machine's load average was {load:.1f} with {os.cpu_count()} cores when it ended.",
        "",
        "| architecture | parameters | features | licence of the weights | largest relative difference"
        " | images/s here | timm | timm, channels last | here / timm's best |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="architectures; if none is named, all are measured and the page is written"
    )
    main(parser.parse_args().names)
