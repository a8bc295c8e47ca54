"""The speed of training and prediction on the accelerator of this machine, beside timm on the same card.

Writes the section "On a GPU" of docs/speed.md. `KERAS_BACKEND=jax` measures where TensorFlow cannot use the
card. timm and torch are measured where they are installed. Each configuration runs in a process of its own,
so that one that does not fit into the memory of the card does not stop the others.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from pages import REPO, machine, write_section

sys.path.insert(0, str(REPO / "tests" / "support"))

BACKBONES = ("efficientnet_b0", "convnext_nano")
BATCHES, EDGE = (64, 256, 1024), 224
SAMPLES = 30
TREE = REPO / "config" / "trees" / "gz_decals_5.yaml"
# Turns that do not count, and seconds that the others take together at least.
WARM, SECONDS, TURNS = 3, 3.0, 5
# How the same network is trained: {name: (arithmetic, compiled)}. JAX is always compiled.
OURS = {
    "float32": ("float32", False),
    "float32, compiled": ("float32", True),
    "mixed": ("mixed", False),
    "mixed, compiled": ("mixed", True),
}
TIMM = {
    "float32": ("float32", False),
    "autocast": ("autocast", False),
    "autocast, compiled": ("autocast", True),
}


def seconds_of(call):
    """The median time of a call that waits for its result."""
    for _ in range(WARM):
        call()
    taken, end = [], time.perf_counter() + SECONDS
    while len(taken) < TURNS or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def accelerator():
    """The name of the card that Keras uses; empty without one."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        found = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
    else:
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
        found = [tf.config.experimental.get_device_details(card).get("device_name", "GPU") for card in cards]
    return found[0] if found else ""


def _examples(batch, edge):
    """Images and votes that no survey has, in the shapes of GZ DECaLS."""
    from zoolib.config.trees import DecisionTree

    rng, tree = np.random.default_rng(0), DecisionTree.load(TREE)
    images = rng.uniform(0, 255, (batch, edge, edge, 1)).astype(np.float32)
    return images, rng.integers(0, 10, (batch, len(tree.columns))).astype(np.float32), tree


def ours(backbone, edge, batch, way):
    """Seconds of a training step, a forward pass, 30 draws and the likelihood of our model."""
    import keras
    from keras import ops
    from zoolib.learning import models
    from zoolib.learning.backbones import build_backbone
    from zoolib.learning.likelihood import TreeLoss

    policy, compiled = OURS[way]
    if policy == "mixed":
        keras.mixed_precision.set_global_policy("mixed_float16" if accelerator() else "mixed_bfloat16")
    images, votes, tree = _examples(batch, edge)
    network = build_backbone(backbone, edge, 1)
    head = models.tree_head(network.output_shape[-1], tree, 0.2)
    model = models.join(network, head)
    loss = TreeLoss(tree)
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=compiled)
    images, votes = ops.convert_to_tensor(images), ops.convert_to_tensor(votes)
    network.compile(jit_compile=compiled)
    features = np.asarray(ops.cast(network.predict_on_batch(images), "float32"))
    tiled = ops.convert_to_tensor(np.repeat(features, SAMPLES, axis=0))
    answers = keras.Input((len(tree.columns),))
    # The gradient of the likelihood, by a layer that changes nothing: a training with almost no network.
    alone = keras.Model(answers, keras.layers.Dense(len(tree.columns), activation="softplus")(answers))
    alone.compile(keras.optimizers.SGD(0.0), loss, jit_compile=compiled)
    return {
        "step": seconds_of(lambda: model.train_on_batch(images, votes)),
        "forward": seconds_of(lambda: network.predict_on_batch(images)),
        "draws": seconds_of(lambda: ops.convert_to_numpy(head(tiled, training=True))),
        "likelihood": seconds_of(lambda: alone.train_on_batch(votes, votes)),
    }


def timm(backbone, edge, batch, way):
    """Seconds of a training step and a forward pass of timm's model, channels last, with a plain loss."""
    import timm_models

    library, torch = timm_models.load_timm()
    kind, compiled = TIMM[way]
    card = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, votes, tree = _examples(batch, edge)
    model = library.create_model(backbone, in_chans=1, num_classes=len(tree.columns))
    model = model.to(card, memory_format=torch.channels_last)
    images = torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).to(card, memory_format=torch.channels_last)
    votes = torch.from_numpy(votes).to(card)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    half = torch.float16 if card.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(card.type, enabled=kind == "autocast" and half == torch.float16)
    run = torch.compile(model) if compiled else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(card.type, half, enabled=kind == "autocast"):
            loss = torch.nn.functional.mse_loss(run(images).float(), votes)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    def forward():
        with torch.inference_mode(), torch.autocast(card.type, half, enabled=kind == "autocast"):
            run(images).float().cpu()

    model.train()
    found = {"step": seconds_of(step)}
    model.eval()
    return found | {"forward": seconds_of(forward)}


def in_own_process(*words):
    """What this script finds with these words; None where it fails, with the last line of why."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        print(f"{' '.join(map(str, words))}: {reason}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure(backbones, batches, edge):
    """A list of rows: who, network, batch, way, and the seconds of each work (None: it failed)."""
    jax = os.environ.get("KERAS_BACKEND") == "jax"
    peers = {"ours": {way: about for way, about in OURS.items() if about[1] or not jax}}
    if all(importlib.util.find_spec(name) for name in ("torch", "timm")):
        peers["timm"] = TIMM
    else:
        print("torch and timm are not installed, so there is nothing to compare with.")
    rows = []
    for backbone in backbones:
        for batch in batches:
            for who, ways in peers.items():
                for way in ways:
                    found = in_own_process(who, backbone, edge, batch, way)
                    rows.append(
                        {"who": who, "backbone": backbone, "batch": batch, "way": way, "found": found}
                    )
                    print(rows[-1], flush=True)
    return rows


def _rate(row, work):
    return f"{row['batch'] / row['found'][work]:,.0f}" if row["found"] and work in row["found"] else ""


def lines(rows, card, edge):
    """The section: images a second, and what the likelihood and 30 draws cost."""
    packages = [
        name for name in ("keras", "jax", "tensorflow", "tensorflow-cpu", "torch", "timm") if _installed(name)
    ]
    table = []
    for row in rows:
        cells = [row["backbone"], row["who"], row["way"], f"{row['batch']:,}"]
        cells += [_rate(row, "step"), _rate(row, "forward")]
        cells += [_share(row, "likelihood", "step"), _share(row, "draws", "forward")]
        table.append(f"| {' | '.join(cells)} |")
    return [
        machine("bench-gpu", packages, [card or f"no accelerator, {os.cpu_count()} cores"]),
        "",
        f"Random grey images of {edge} px that are on the card before the clock starts; the median of the"
        f" steps of {SECONDS:.0f} seconds. Ours is the model of GZ DECaLS with its likelihood; timm's has one"
        " layer and a squared loss, channels last. *Mixed* is float16. *Likelihood* is its loss and gradient,"
        f" as a share of the step; *draws* are {SAMPLES} dropout samples of the head, as a share of the"
        " forward pass. An empty cell: it did not run, for lack of memory in most cases.",
        "",
        "| network | who | arithmetic | batch | training (images/s) | forward (images/s) | likelihood |"
        " draws |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *table,
    ]


def _share(row, part, of):
    found = row["found"]
    return f"{100 * found[part] / found[of]:.1f} %" if found and part in found else ""


def _installed(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def keep_rates(rows, card, edge):
    """Write the best rates of EfficientNetB0 on this card for `make estimate`."""
    rows = [row for row in rows if (row["who"], row["backbone"]) == ("ours", BACKBONES[0]) and row["found"]]
    exact = [row for row in rows if row["way"].startswith("float32")]
    if not card or edge != EDGE or not exact or len(rows) == len(exact):
        return

    def best(some, work):
        return round(max(row["batch"] / row["found"][work] for row in some))

    mixed = [row for row in rows if row not in exact]
    rates = {"machine": card, "train": best(exact, "step"), "train_mixed": best(mixed, "step")}
    path = REPO / "results" / "bench" / "gpu.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**rates, "forward": best(exact, "forward")}))


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--edge", type=int, default=EDGE)
    parser.add_argument("--rows", type=Path, help="also write the numbers as JSON")
    parser.add_argument("--print", action="store_true", help="print the section instead of writing the page")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        who, backbone, edge, batch, way = given.one
        print(json.dumps({"ours": ours, "timm": timm}[who](backbone, int(edge), int(batch), way)))
        return
    rows = measure(given.backbones, given.batches, given.edge)
    if given.rows:
        given.rows.write_text(json.dumps(rows, indent=1))
    keep_rates(rows, accelerator(), given.edge)
    write_section("speed.md", "On a GPU", lines(rows, accelerator(), given.edge), not given.print)


if __name__ == "__main__":
    main()
