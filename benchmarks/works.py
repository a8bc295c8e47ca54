"""The works that `bench.py` measures: ours, the bare limit of each, and what a user would type instead.

Each call runs in a process of its own and prints one number: images a second.
"""

import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pages import REPO

sys.path.insert(0, str(REPO / "tests" / "support"))

RUN, MATERIAL = REPO / "results" / "bench", REPO / "results" / "bench_material"
IMAGES, SMALL, MODEL = MATERIAL / "images", MATERIAL / "small", MATERIAL / "model"
IMAGE = {"size": 300, "crop": 0.75, "final_size": 224, "color": False, "encoding": "png"}
BACKBONE, BATCH, STEPS = "EfficientNetB0", 32, 3
CORES = len(os.sched_getaffinity(0))
# Galaxies of a small job, images in memory, labels of a finetuning, and galaxies of a large job.
FEW, SOME, LABELS, MANY = 50, 128, 168, 100_000
# The large job has small images and a small network, so that everything else shows.
TINY_IMAGE = {"size": 64, "crop": 0.75, "final_size": 48, "color": False, "encoding": "png"}
CROWD, TINY = MATERIAL / "crowd", MATERIAL / "tiny"


def make_material():
    """Unpack the images of the simulated survey, and save an untrained model. What is there is left alone."""
    for folder, count in ((IMAGES, None), (SMALL, FEW)):
        folder.mkdir(parents=True, exist_ok=True)
        for data, name in _members()[:count]:
            if not (folder / name).exists():
                (folder / name).write_bytes(data)
    for folder, image, backbone in ((MODEL, IMAGE, BACKBONE), (TINY, TINY_IMAGE, "tiny")):
        if not (folder / "model.json").exists():
            _save_model(folder, image, backbone)
    rings = (RUN / "download" / "rings.csv").read_text().splitlines(keepends=True)
    (MATERIAL / "rings.csv").write_text("".join(rings[: LABELS + 1]))


def _make_crowd():
    """Many names for a few small images."""
    from PIL import Image

    CROWD.mkdir(exist_ok=True)
    some = sorted(IMAGES.iterdir())[:FEW]
    for number in range(MANY):
        path = CROWD / f"{number}.png"
        if path.exists():
            continue
        if number < FEW:
            Image.open(some[number]).resize((TINY_IMAGE["size"],) * 2).save(path)
        else:
            os.link(CROWD / f"{number % FEW}.png", path)


def _members():
    """(bytes, file name) of each image of the simulated record."""
    found = []
    for path in sorted((RUN / "download").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".png"))
            found += [(archive.read(name), Path(name).name) for name in names]
    return found


def _tree():
    from zoolib.config.trees import DecisionTree

    return DecisionTree.load(REPO / "config" / "trees" / "gz_decals_5.yaml")


def _settings():
    from zoolib.config.augmentations import load_augmentation

    augmentation = load_augmentation("paper", REPO / "config" / "augmentations")
    settings = {"backbone": BACKBONE, "pretrained": None, "start_from": None, "mixed_precision": False}
    return settings | {"head": "dirichlet", "dropout": 0.2, "augmentation": augmentation}


def _save_model(folder, image, backbone):
    from zoolib.job.provenance import versions
    from zoolib.learning import models
    from zoolib.train import build_network

    tree, settings = _tree(), {**_settings(), "backbone": backbone}
    network = build_network(tree, image, settings)
    about = {"kind": "concentrations", "tree": tree.to_dict(), "columns": tree.columns, "image": image}
    about |= {"training": settings, "seed": 0, "data": {}, "versions": versions(), "scores": {}}
    folder.mkdir(parents=True, exist_ok=True)
    models.save_model(network, about, folder / "model.keras", folder / "model.json")


def _rate(work, images, turns=1):
    """Images a second of a function that sees so many in each call, after a call that does not count."""
    work()
    begin = time.perf_counter()
    for _ in range(turns):
        work()
    return turns * images / (time.perf_counter() - begin)


def shards(threads=CORES):
    """Shards of 300 px in grey, from PNGs of 424 px in a zip."""
    import tensorflow  # noqa: F401 (its import is not what is measured)
    from zoolib.shards import write_shard

    with tempfile.TemporaryDirectory() as folder:
        names = {"shard": "0.tfrecord", "about": "0.json", "rejected": "0.rejected.csv"}
        output = SimpleNamespace(**{key: f"{folder}/{name}" for key, name in names.items()})
        begin = time.perf_counter()
        write_shard(RUN / "catalog" / "train.parquet", 0, 1, IMAGE, output, threads=int(threads))
        return json.loads(Path(output.about).read_text())["count"] / (time.perf_counter() - begin)


def _by_pillow(data):
    from PIL import Image

    buffer = io.BytesIO()
    grey = Image.open(io.BytesIO(data)).convert("L")
    grey.resize((IMAGE["size"],) * 2, Image.Resampling.LANCZOS).save(buffer, "png")
    return len(buffer.getvalue())


def pillow_loop():
    """The same by a loop over Pillow, in one process a core."""
    images = [data for data, _ in _members()]
    with multiprocessing.Pool(CORES) as pool:
        pool.map(_by_pillow, images[: 4 * CORES])
        begin = time.perf_counter()
        pool.map(_by_pillow, images, chunksize=16)
        return len(images) / (time.perf_counter() - begin)


def _decoded(folder, channels):
    """(number of images, a dataset of them), read and decoded by TensorFlow alone on all cores."""
    import tensorflow as tf

    def read(path):
        return tf.io.decode_png(tf.io.read_file(path), channels)

    paths = [str(path) for path in sorted(folder.iterdir())]
    return len(paths), tf.data.Dataset.from_tensor_slices(paths).map(read, num_parallel_calls=CORES)


def bare_decoding():
    """Only the decoding of these PNGs, by TensorFlow on all cores."""
    count, images = _decoded(IMAGES, 3)
    begin = time.perf_counter()
    for _ in images:
        pass
    return count / (time.perf_counter() - begin)


def _network(image=IMAGE, backbone=BACKBONE):
    import keras
    from zoolib.learning.likelihood import TreeLoss
    from zoolib.train import build_network

    network = build_network(_tree(), image, {**_settings(), "backbone": backbone})
    network.compile(keras.optimizers.Adam(1e-4), TreeLoss(_tree()), jit_compile=False)
    return network


def _batches(epochs):
    """Batches of the training, as it reads them."""
    from zoolib.learning import datasets
    from zoolib.train import open_store

    stem = RUN / "shards" / "train" / "0"
    store, _ = open_store([f"{stem}.tfrecord"], [f"{stem}.json"], _tree(), IMAGE)
    augmentation = _settings()["augmentation"]
    return datasets.training_batches(store, augmentation, BATCH, 1, range(epochs))[0]


def step():
    """Training steps through the input pipeline."""
    network, batches = _network(), iter(_batches(10))
    return _rate(lambda: network.train_on_batch(*next(batches)), BATCH, STEPS)


def step_in_memory():
    """The same steps on a tensor that is in memory."""
    network, batch = _network(), next(iter(_batches(1)))
    return _rate(lambda: network.train_on_batch(*batch), BATCH, STEPS)


def tiny_step():
    """Training steps of the network of the demo on a tensor in memory."""
    network, random = _network(TINY_IMAGE, "tiny"), np.random.default_rng(0)
    edge, answers = TINY_IMAGE["final_size"], len(_tree().columns)
    images = random.uniform(0, 255, (BATCH, edge, edge, 1)).astype(np.float32)
    votes = random.integers(0, 10, (BATCH, answers)).astype(np.float32)
    return _rate(lambda: network.train_on_batch(images, votes), BATCH, 100)


def input_pipeline():
    """The input pipeline alone."""
    batches = iter(_batches(20))

    def read():
        for _ in range(30):
            next(batches)

    return _rate(read, 30 * BATCH)


def _timm(layout):
    import timm_models

    timm, torch = timm_models.load_timm()
    form = getattr(torch, layout)
    model = timm.create_model("efficientnet_b0", in_chans=1, num_classes=34).to(memory_format=form)
    images = torch.rand(BATCH, 1, IMAGE["final_size"], IMAGE["final_size"]).to(memory_format=form)
    return torch, model, images


def timm_step(layout):
    """Training steps of timm's network on a tensor in memory, with a squared loss."""
    torch, model, images = _timm(layout)
    votes, optimizer = torch.rand(BATCH, 34), torch.optim.Adam(model.parameters(), 1e-4)

    def train():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(images), votes).backward()
        optimizer.step()

    return _rate(train, BATCH, STEPS)


def timm_forward(layout):
    """Forward passes of timm's network."""
    torch, model, images = _timm(layout)
    model.eval()

    def see():
        with torch.inference_mode():
            model(images)

    return _rate(see, BATCH, SOME // BATCH)


def forward():
    """The features of images in memory, as every prediction computes them."""
    from zoolib.learning import models
    from zoolib.learning.features import features_of

    backbone = models.load_model(MODEL).backbone
    backbone.compile(jit_compile=False)
    images = np.random.default_rng(0).uniform(0, 255, (SOME, 224, 224, 1)).astype(np.float32)
    return _rate(partial(features_of, backbone, images), SOME, 2)


def forward_at_once():
    """The same, all images at once."""
    from zoolib.learning import models

    backbone = models.load_model(MODEL).backbone
    backbone.compile(jit_compile=False)
    images = np.random.default_rng(0).uniform(0, 255, (SOME, 224, 224, 1)).astype(np.float32)
    return _rate(partial(backbone.predict_on_batch, images), SOME, 2)


def predict(draws):
    """Predict a folder, everything included but the start of Python."""
    return _predicted(IMAGES, MODEL, int(draws))


def many():
    """Predict many small images."""
    _make_crowd()
    return _predicted(CROWD, TINY, 1)


def _predicted(images, model, draws):
    begin = time.perf_counter()
    from zoolib.data.listing import list_galaxies
    from zoolib.predict import predict_chunk

    with tempfile.TemporaryDirectory() as folder:
        output = SimpleNamespace(predictions=f"{folder}/p.hdf5", rejected=f"{folder}/rejected.csv")
        list_galaxies("images", [str(images)], f"{folder}/galaxies.parquet")
        predict_chunk([f"{folder}/galaxies.parquet"], [model], (0, 1), draws, 0, 1, output)
    return len(os.listdir(images)) / (time.perf_counter() - begin)


def bare_prediction():
    """Only decoding and features, on all cores, without anything before the first image."""
    return _bare(IMAGES, MODEL, 224)


def bare_many():
    """The same for many small images."""
    _make_crowd()
    return _bare(CROWD, TINY, TINY_IMAGE["final_size"])


def _bare(folder, model, edge):
    import tensorflow as tf
    from zoolib.learning import models
    from zoolib.learning.features import features_of

    backbone = models.load_model(model).backbone
    backbone.compile(jit_compile=False)
    count, images = _decoded(folder, 1)

    def small(pixels):
        return tf.image.resize(pixels, (edge, edge))

    features_of(backbone, np.zeros((SOME, edge, edge, 1), np.float32))
    begin = time.perf_counter()
    for batch in images.map(small, num_parallel_calls=CORES).batch(SOME).prefetch(2):
        features_of(backbone, batch.numpy())
    return count / (time.perf_counter() - begin)


def small():
    """Predict 50 galaxies in Python."""
    from zoolib import api

    files = sorted(SMALL.iterdir())
    return len(api.load(MODEL).predict(files))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
