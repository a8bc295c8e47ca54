"""Augmentations: the same galaxies as they are stored, and as training sees them with each list of steps."""

from collections import Counter

import tensorflow as tf

from zoolib.data.tfrecords import read_sidecar
from zoolib.figures.style import FAINT, drawing
from zoolib.job.words import in_words
from zoolib.learning import datasets
from zoolib.learning.augment import augment, draw_numbers

DOTS_AN_INCH = 100
# In pixels of the figure.
TILE, GAP, BETWEEN, MARGIN, HEADER = 150, 8, 22, 210, 84


def draw_augmentations(shards, sidecars, image, augmentations, seed, output, galaxies=6, draws=2):
    """Draw the first galaxies of some shards as they are stored and, below, with each augmentation.

    Args:
        shards: `.tfrecord` files, or the `.parquet` lists that are used in their place.
        sidecars: their JSON sidecars.
        image: the `image` section of the configuration.
        augmentations: a list of {"name", "steps"}; the run trains with the first one.
        seed: whole number.
        output: PNG to write.
        galaxies: number of galaxies side by side; fewer if the shards have fewer.
        draws: number of rows for each augmentation.

    Raises:
        UserError: the shards have another size, or an image cannot be read.
    """
    abouts = [read_sidecar(path, None, image) for path in sidecars]
    store = datasets.from_shards(shards, abouts, image)
    with datasets.images_read(store):
        names, pixels, _ = next(iter(datasets.stored_batches(store, galaxies, stop=galaxies)))
    groups = [("As stored", "the complete image", [pixels.numpy()])]
    for augmentation in augmentations:
        rows = []
        for number in range(draws):
            numbers = [
                draw_numbers(augmentation, seed, tf.constant(number, tf.int64), name) for name in names
            ]
            rows.append(augment(augmentation, pixels, tf.stack(numbers), image).numpy())
        groups.append((in_words(augmentation["name"]), _steps(augmentation), rows))
    subtitle = (
        f"{draws} random views for each list of steps; this run trains with the first list,"
        f" {augmentations[0]['name']}"
    )
    _draw(groups, subtitle, output)


def _steps(augmentation):
    """The names of the steps, one on each line."""
    counts = Counter(name for step in augmentation["steps"] for name in step)
    return "\n".join(
        f"{in_words(name)}{f' × {count}' if count > 1 else ''}" for name, count in counts.items()
    )


def _draw(groups, subtitle, output):
    """Draw groups of rows of images: (name, explanation, [(galaxies, edge, edge, channels)])."""
    across = len(groups[0][2][0])
    width = MARGIN + across * (TILE + GAP) + GAP
    height = HEADER + sum(len(rows) * (TILE + GAP) + BETWEEN for _, _, rows in groups)
    size = (width / DOTS_AN_INCH, height / DOTS_AN_INCH)
    with drawing([output], figsize=size, dpi=DOTS_AN_INCH) as figure:

        def write(x, y, text, **settings):
            figure.text(x / width, 1 - y / height, text, va="top", **settings)

        write(20, 22, "The same galaxies as training sees them", fontsize=19)
        write(20, 54, subtitle, fontsize=12, color=FAINT)
        top = HEADER
        for name, explanation, rows in groups:
            write(20, top + 4, name, fontsize=15)
            write(20, top + 30, explanation, fontsize=11, color=FAINT, linespacing=1.35)
            for images in rows:
                for position, pixels in enumerate(images):
                    left = MARGIN + position * (TILE + GAP)
                    panel = figure.add_axes(
                        (left / width, 1 - (top + TILE) / height, TILE / width, TILE / height)
                    )
                    panel.set_axis_off()
                    panel.imshow(pixels.clip(0, 255) / 255, cmap="gray", vmin=0, vmax=1)
                top += TILE + GAP
            top += BETWEEN
