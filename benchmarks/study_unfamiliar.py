"""The study of galaxies unlike the training set: which description of features finds them, by the area under
the curve against test galaxies of the demo. Writes the last section of docs/unfamiliar.md.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from pages import REPO, machine, write_section
from PIL import Image, ImageDraw, ImageFilter
from scipy.cluster.vq import kmeans2
from scipy.stats import rankdata
from zoolib.data.images import load_row
from zoolib.data.tfrecords import read_sidecar
from zoolib.learning import datasets, models
from zoolib.learning.augment import augmentation_of
from zoolib.learning.familiar import FAMILIAR, LENGTH, Familiar, summarize
from zoolib.posteriors.unfamiliar import UNLIKE

BLOCK, MOST = 128, 400
WORDS = [
    "Galaxy",
    "Zoo",
    "asks",
    "volunteers",
    "whether",
    "it",
    "is",
    "smooth",
    "featured",
    "or",
    "an",
    "artifact",
]


def shown(image, change):
    """Change each image of (galaxies, size, size, 1) by a function of a PIL image."""
    return np.stack([np.asarray(change(Image.fromarray(one[:, :, 0])))[:, :, None] for one in image])


def sky_of(one, shape, rng):
    """Pixels like the sky at the edge of an image, without the galaxy."""
    edge = np.concatenate([one[:3].ravel(), one[-3:].ravel(), one[:, :3].ravel(), one[:, -3:].ravel()])
    middle = np.median(edge)
    spread = np.median(np.abs(edge - middle)) + 0.5
    return rng.choice(edge[np.abs(edge - middle) < 4.5 * spread], shape).astype("uint8")


def zoomed_out(images, scale, rng):
    """Galaxies that are smaller than those of the training, with more sky around them."""
    size, found = images.shape[1], []
    inner = int(size / scale)
    first = (size - inner) // 2
    for one in images:
        sky = sky_of(one, (size, size), rng)
        small = Image.fromarray(one[:, :, 0]).resize((inner, inner), Image.LANCZOS)
        sky[first : first + inner, first : first + inner] = np.asarray(small)
        found.append(sky[:, :, None])
    return np.stack(found)


def zoomed_in(images, scale):
    """Galaxies that are larger than those of the training."""
    size = images.shape[1]
    half = int(size / scale / 2)
    box = (size // 2 - half, size // 2 - half, size // 2 + half, size // 2 + half)
    return shown(images, lambda one: one.crop(box).resize((size, size), Image.LANCZOS))


def stars(images, rng):
    """Point sources of different brightness on the sky of these images."""
    size = images.shape[1]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    found = []
    for one in images:
        width = rng.uniform(1, 2) * size / 64
        light = 10 ** rng.uniform(1.7, 3) * np.exp(-(x**2 + y**2) / 2 / width**2)
        found.append(np.clip(sky_of(one, (size, size), rng) + light, 0, 255).astype("uint8")[:, :, None])
    return np.stack(found)


def text(images, rng):
    """Lines of text, black on white or white on black."""
    size, found = images.shape[1], []
    for _ in images:
        ground = int(rng.choice([0, 255]))
        page = Image.new("L", (size, size), ground)
        for line in range(0, size, 11):
            ImageDraw.Draw(page).text((1, line), " ".join(rng.choice(WORDS, 4)), fill=255 - ground)
        found.append(np.asarray(page)[:, :, None])
    return np.stack(found)


def strange_images(images):
    """{what: (galaxies, size, size, 1)}, what is made of some test galaxies."""
    rng = np.random.default_rng(0)
    widths = {f"blurred, {width} px": ImageFilter.GaussianBlur(width) for width in (1, 2, 4)}
    blurred = {name: shown(images, lambda one, by=by: one.filter(by)) for name, by in widths.items()}
    return blurred | {
        "zoomed in, 1.5 times": zoomed_in(images, 1.5),
        "zoomed in, 2 times": zoomed_in(images, 2),
        "zoomed out, 1.5 times": zoomed_out(images, 1.5, rng),
        "zoomed out, 2 times": zoomed_out(images, 2, rng),
        "empty sky": np.stack([sky_of(one, one.shape, rng) for one in images]),
        "a star": stars(images, rng),
        "text": text(images, rng),
        "half as bright": images // 2,
    }


def direction(features):
    """Features without their length."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def direction_and_length(features):
    """As `learning.familiar` describes a galaxy."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.concatenate([features / length, LENGTH * np.log(length)], axis=1)


def gaussian(train, shrunk=0.01):
    """Mahalanobis distance, the covariance shrunk to its mean variance; `shrunk` of 1 is the diagonal."""
    center, covariance = train.mean(axis=0), np.cov(train.T)
    small = np.eye(len(center)) * np.trace(covariance) / len(center)
    if shrunk == 1:
        covariance, shrunk = np.diag(np.diag(covariance)), 1e-6
    inverse = np.linalg.inv((1 - shrunk) * covariance + shrunk * small)
    return lambda x: np.sqrt(np.einsum("ij,jk,ik->i", x - center, inverse, x - center))


def apart(one, other):
    """Distances between the rows of two arrays."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0))


def neighbours(train, nearest=5, most=2000):
    """Distance from the fifth nearest of 2,000 training galaxies."""
    some = train[np.random.default_rng(0).permutation(len(train))[:most]]
    return lambda x: np.sort(apart(x, some), axis=1)[:, nearest - 1]


def clusters(train, count=32):
    """Distance from the nearest of 32 centers, in units of the mean distance of its galaxies."""
    centers, owners = kmeans2(train, count, minit="++", seed=0)
    away = apart(train, centers)[np.arange(len(train)), owners]
    own = [away[owners == one] for one in range(count)]
    sizes = np.array([np.sqrt((found**2).mean()) if len(found) else 0 for found in own])
    return lambda x: (apart(x, centers) / np.maximum(sizes, 0.3 * np.median(sizes))).min(axis=1)


def whitened(train, axes=64):
    """Features along their first principal axes, each with variance 1."""
    center = train.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(train.T))
    vectors = vectors[:, ::-1][:, :axes] / np.sqrt(variances[::-1][:axes] + 1e-6 * variances[-1])
    return lambda x: (x - center) @ vectors


def after(prepare, measure):
    """A candidate that prepares the features first: training features -> function of features."""

    def of(train):
        found = measure(prepare(train))
        return lambda x: found(prepare(x))

    return of


def of_whitened(train):
    """Neighbours among whitened directions."""
    white = whitened(train)
    found = neighbours(white(train))
    return lambda x: found(white(x))


def chosen(train):
    """The description that model folders keep."""
    return Familiar({FAMILIAR: summarize(train, train[:100])}).distances


CANDIDATES = {
    "**Gaussian: direction and length, 64 axes** (chosen)": chosen,
    "Gaussian: direction and length, shrunk by 1 %": after(direction_and_length, gaussian),
    "Gaussian: direction, shrunk by 1 %": after(direction, gaussian),
    "Gaussian: features, shrunk by 1 %": gaussian,
    "Gaussian: features, diagonal": lambda train: gaussian(train, 1),
    "5th of 2,000 neighbours: features": neighbours,
    "5th of 2,000 neighbours: direction": after(direction, neighbours),
    "5th of 2,000 neighbours: direction, 64 whitened axes": after(direction, of_whitened),
    "32 centers of k-means: features": clusters,
    "32 centers of k-means: direction": after(direction, clusters),
}


def area(usual, strange):
    """The area under the curve: how often a strange galaxy is farther than a usual one."""
    ranks = rankdata(np.concatenate([usual, strange]))[len(usual) :]
    return (ranks.sum() - len(strange) * (len(strange) + 1) / 2) / len(usual) / len(strange)


def stored(run, split, image):
    """The stored images of a split of the run."""
    sidecars = sorted((run / "shards" / split).glob("*.json"))
    abouts = [read_sidecar(path, None, image) for path in sidecars]
    store = datasets.from_shards([path.with_suffix(".tfrecord") for path in sidecars], abouts, image)
    return np.concatenate([pixels.numpy() for _, pixels, _ in datasets.stored_batches(store, BLOCK)])


def real_galaxies(folder, image):
    """Real galaxies as a model of simulated ones sees them."""
    place = {"id_str": "real", "archive": "", "member": ""}
    how = image["size"], image["color"], False, "lanczos"
    found = [load_row({**place, "file_loc": str(path)}, *how) for path in sorted(folder.glob("images/*.png"))]
    return np.stack(found).astype("uint8")


def tables(train, check, test, strange):
    """Two tables: the area of each candidate, and what is unlike by the chosen one."""
    names = list(strange)
    columns = {}
    for candidate, measure in CANDIDATES.items():
        far = measure(train)
        usual = far(test)
        columns[candidate] = [area(usual, far(strange[name])) for name in names]
    areas = pd.DataFrame(columns, index=names).T
    areas["mean"] = areas.mean(axis=1)
    far = chosen(train)
    known = np.sort(far(check))
    shares = {
        name: np.mean(np.searchsorted(known, far(one)) / len(known) > UNLIKE)
        for name, one in {"test galaxies": test, **strange}.items()
    }
    lines = [f"| | {' | '.join(areas.columns)} |", f"| --- |{' ---: |' * len(areas.columns)}"]
    lines += [f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |" for name, row in areas.iterrows()]
    return lines, [f"| {name} | {100 * share:.0f} % |" for name, share in shares.items()]


def study(run, data):
    """Measure, and write the section of the page."""
    model = models.load_model(run / "train" / "metrics" / "0")
    image, augmentation = model.about["image"], augmentation_of(model.about)
    model.backbone.compile(jit_compile=False)

    def features(images):
        blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
        views = [datasets.central_views(tf.constant(block), augmentation, image) for block in blocks]
        return np.concatenate([model.backbone.predict_on_batch(view) for view in views]).astype(float)

    splits = {split: stored(run, split, image) for split in ("train", "val", "test")}
    real = real_galaxies(data, image)
    usual = {split: features(images) for split, images in splits.items()}
    strange = {"real galaxies": features(real)}
    strange |= {name: features(images) for name, images in strange_images(splits["test"][:MOST]).items()}
    section = [f"{machine('study-unfamiliar')}", ""]
    section += [f"The model of the demo: {len(splits['train']):,} simulated galaxies to learn from."]
    areas, shares = tables(usual["train"], usual["val"], usual["test"], strange)
    section += ["", *areas, "", "Unlike by the chosen description (`unfamiliar` above 0.99):", ""]
    section += ["| | unlike |", "| --- | ---: |", *shares]
    order = np.random.default_rng(1).permutation(len(real))
    few, rest = real[order[:160]], real[order[160:]]
    seen = features(few)
    strange = {"simulated galaxies": usual["test"][:MOST]}
    strange |= {name: features(images) for name, images in strange_images(rest).items()}
    areas, shares = tables(seen[:120], seen[120:], features(rest), strange)
    section += [
        "",
        "The same features of real galaxies: 120 as the training set, 40 to validate, 80 to test.",
    ]
    section += ["", *areas, "", "| | unlike |", "| --- | ---: |", *shares]
    write_section("unfamiliar.md", "Results", section)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=REPO / "results" / "demo")
    parser.add_argument("--data", type=Path, default=REPO / os.environ.get("ZOO_REAL_DATA", "../shared/data"))
    given = parser.parse_args()
    if not list(given.data.glob("images/*.png")):
        raise SystemExit(f"{given.data} has no real galaxies in images/: set ZOO_REAL_DATA to their folder.")
    study(given.run, given.data)
