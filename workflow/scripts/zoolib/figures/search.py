"""The first galaxies of a ranking, and a map of a catalogue by what its galaxies look like."""

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from zoolib.data.images import BadImage, load_row
from zoolib.data.locations import rows_of
from zoolib.figures.gallery import draw_tiles
from zoolib.figures.style import FAINT, drawing
from zoolib.job.logs import log, whole
from zoolib.likeness.representations import read_representations

ACROSS, DOWN = 8, 4
SUBTITLES = {
    "similar": "Left: the given galaxy. Then those that look most like it, with their likeness (1: the same)",
    "more": "To look at next: the galaxies that look most like the wanted ones, and their scores",
    "odd": "To look at next: the galaxies that look least like others, and their scores",
}
# Galaxies on a map, and pixels of an image on it.
POINTS, THUMBNAIL = 2000, 48
# Cells of a map in each direction: one image in each cell that has a galaxy.
CELLS = 24


def draw_search(ranked, following, places, how, title, output):
    """Draw the nearest neighbours of each example, or the galaxies to look at next.

    Args:
        ranked: CSV of the stage search, drawn where `how` is `similar`.
        following: its CSV of the galaxies to look at next, drawn otherwise.
        places: tables (Parquet) that say where the images are.
        how: `similar`, `more` or `odd`.
        title: of the figure.
        output: PNG to write.
    """
    if how == "similar":
        table = pd.read_csv(ranked, dtype={"id_str": str, "of": str})
        groups = [(name, some.head(ACROSS - 1)) for name, some in table.groupby("of", sort=False)][:DOWN]
    else:
        table = pd.read_csv(following, dtype={"id_str": str}).head(ACROSS * DOWN)
        parts = [table.iloc[start : start + ACROSS] for start in range(0, len(table), ACROSS)]
        groups = [(f"{some.index[0] + 1} to {some.index[-1] + 1}", some) for some in parts]
    given = [name for name, _ in groups] if how == "similar" else []
    images = rows_of(places, [*given, *(name for _, some in groups for name in some["id_str"])])
    shown = []
    for name, some in groups:
        tiles = [(images[name], name, "given")] if how == "similar" else []
        tiles += [
            (images[galaxy], galaxy, f"{score:.2f}")
            for galaxy, score in zip(some["id_str"], some["score"], strict=True)
        ]
        shown.append(("" if how == "similar" else name, tiles))
    draw_tiles(shown, title, SUBTITLES[how], output, ACROSS)


def draw_map(representations, places, seed, title, outputs):
    """Draw a map of a catalogue: galaxies that look alike are near to each other.

    The positions are those of t-SNE, of at most 2,000 galaxies. The map is divided into cells, and the galaxy
    nearest to the middle of a cell is drawn there.

    Args:
        representations: HDF5 of a target.
        places: tables (Parquet) that say where the images are.
        seed: of the run.
        title: of the figure.
        outputs: attributes figure (PNG) and positions (CSV: id_str, x, y, from 0 to 1).
    """
    known = read_representations(representations)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(known.id_str))[:POINTS])
    found = positions(known.directions[rows], seed)
    table = pd.DataFrame({"id_str": known.id_str[rows], "x": found[:, 0], "y": found[:, 1]})
    with whole(outputs.positions) as partial:
        table.to_csv(partial, index=False, float_format="%.4f")
    cells = np.minimum((found * CELLS).astype(int), CELLS - 1)
    away = np.hypot(*(found * CELLS - cells - 0.5).T)
    first = table.assign(cell=cells[:, 0] * CELLS + cells[:, 1], away=away).sort_values("away")
    first = first.groupby("cell").head(1)
    images = rows_of(places, first["id_str"])
    size = CELLS * THUMBNAIL
    canvas = np.full((size, size, 3), 255, np.uint8)
    for cell, name in zip(first["cell"], first["id_str"], strict=True):
        across, up = divmod(cell, CELLS)
        top, left = (CELLS - 1 - up) * THUMBNAIL, across * THUMBNAIL
        try:
            pixels = load_row(images[name], THUMBNAIL, color=True)
        except BadImage as error:
            log.warning("%s", error)
            continue
        canvas[top : top + THUMBNAIL, left : left + THUMBNAIL] = pixels
    subtitle = (
        f"{len(rows):,} of {len(known.id_str):,} galaxies; galaxies that look alike are near to each other"
    )
    with drawing([outputs.figure], figsize=(12, 12.6), dpi=100) as figure:
        figure.text(0.02, 0.985, title, fontsize=19, va="top")
        figure.text(0.02, 0.96, subtitle, fontsize=12, va="top", color=FAINT)
        panel = figure.add_axes((0.01, 0.005, 0.98, 0.935))
        panel.set_axis_off()
        panel.imshow(canvas)


def positions(found, seed):
    """Places of galaxies on a map.

    Args:
        found: (galaxies, numbers) directions.
        seed: whole number.

    Returns:
        (galaxies, 2) from 0 to 1. Fewer than three galaxies, and galaxies that all look the same, lie side by
        side: t-SNE cannot place them.
    """
    if len(found) < 3 or not np.ptp(found, axis=0).any():
        return np.column_stack([np.linspace(0, 1, len(found)), np.full(len(found), 0.5)])
    perplexity = min(30, max(2, (len(found) - 1) // 3))
    with threadpool_limits(1):
        placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(found)
    low, high = placed.min(axis=0), placed.max(axis=0)
    return (placed - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
