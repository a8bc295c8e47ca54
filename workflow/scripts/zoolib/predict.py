"""Stage predict: posteriors for galaxies, by MC dropout, augmented views and several members.

Python users: `zoolib.predict.load("results/demo/train/metrics/0").predict("one.jpg")`.
"""

from pathlib import Path

import keras
import numpy as np
import pandas as pd

from zoolib import datasets, models
from zoolib.locations import PLACES, stem
from zoolib.logs import UserError, log, progress, whole
from zoolib.posteriors import describe
from zoolib.predictions import write_predictions
from zoolib.provenance import hash_of
from zoolib.shards import read_sidecar

# Dropout is seeded for blocks of this many galaxies, so that the number of chunks changes nothing.
BLOCK = 128


def open_galaxies(galaxies, image, on_bad):
    """Galaxies to predict for, from a catalogue or from shards.

    Args:
        galaxies: [a Parquet catalogue], or a list of `.json` sidecars of shards.
        image: the `image` section that the model was trained with.
        on_bad: called with a row and a sentence for each image that cannot be read.

    Returns:
        (`datasets.Store`, array of id_str).

    Raises:
        UserError: shards of another size than the model's.
    """
    if str(galaxies[0]).endswith(".json"):
        abouts = [read_sidecar(path, None, image) for path in galaxies]
        files = [str(path).removesuffix(".json") + ".tfrecord" for path in galaxies]
        ids = [name for about in abouts for name in about["ids"]]
        stored = {**image, "encoding": abouts[0]["encoding"]}
        labels = len(abouts[0]["columns"])
        counts = [about["count"] for about in abouts]
        return datasets.from_shards(files, counts, stored, labels), np.array(ids)
    table = pd.concat([pd.read_parquet(path, columns=["id_str", *PLACES]) for path in galaxies])
    return datasets.from_catalog([table], [], image, on_bad=on_bad), table["id_str"].to_numpy(str)


def predict_chunk(galaxies, folders, chunk, of, samples, views, seed, output):
    """Posteriors for one chunk of a target.

    N dropout samples cost one pass through the backbone and one through the small head; each view
    costs a pass of its own. Samples are ordered by member, then view, then draw.

    Args:
        galaxies: [a Parquet catalogue], or the sidecars of shards.
        folders: model folders, one a member.
        chunk: number of this chunk.
        of: number of chunks.
        samples: dropout draws a view.
        views: augmented views; 0 is the upright, central one alone.
        seed: of the run.
        output: attributes predictions (HDF5), rejected (CSV): the files to write.

    Raises:
        UserError: models that do not belong together, no galaxy.
    """
    members = [models.load_model(folder) for folder in folders]
    first = members[0]
    for folder, member in zip(folders[1:], members[1:], strict=True):
        if (member.columns, member.about["image"]) != (first.columns, first.about["image"]):
            raise UserError(
                f"{folder}: answers or sees otherwise than {folders[0]}; an ensemble has one tree."
            )
    rejected = []

    def on_bad(row, reason):
        rejected.append({"id_str": row["id_str"], "reason": reason})

    store, ids = open_galaxies(galaxies, first.about["image"], on_bad)
    blocks = -(-len(ids) // BLOCK)
    begin, end = (min(number * blocks // of * BLOCK, len(ids)) for number in (chunk, chunk + 1))
    log.info("Chunk %d of %d: galaxies %s to %s of %s", chunk, of, begin, end, f"{len(ids):,}")
    drawn = np.empty((end - begin, len(first.columns), len(members) * max(views, 1) * samples), np.float32)
    for member in members:
        member.backbone.compile(jit_compile=False)
    done = 0
    with progress(None, "predicting", total=end - begin) as bar:
        for names, pixels, _ in datasets.stored_batches(store, BLOCK, begin, end):
            values = _draw_block(members, names, pixels, begin + done, samples, views, seed)
            drawn[done : done + len(names)] = values
            done += len(names)
            bar.update(len(names))
    bad = {row["id_str"] for row in rejected}
    keep = np.array([name not in bad for name in ids[begin:end]], bool)
    with whole(output.rejected) as partial:
        pd.DataFrame(rejected, columns=["id_str", "reason"]).to_csv(partial, index=False)
    with whole(output.predictions) as partial:
        write_predictions(
            partial, ids[begin:end][keep], drawn[keep], first.about, len(members), samples, views, seed
        )
    log.info("%s galaxies predicted, %s images could not be read", f"{keep.sum():,}", f"{len(rejected):,}")


def _draw_block(members, names, pixels, start, samples, views, seed):
    """Concentrations of one block, (galaxies, answers, members * views * samples)."""
    count = len(names)
    values = []
    for number, member in enumerate(members):
        image = member.about["image"]
        for view in range(max(views, 1)):
            batch = datasets.cut_views(pixels, names, image, seed, view if views else None)
            # A smaller last block is filled up: dropout's masks have the shape of the block.
            batch = np.pad(batch, [(0, BLOCK - count), (0, 0), (0, 0), (0, 0)])
            features = member.backbone.predict_on_batch(batch)
            reseed(member.head, hash_of([seed, number, view, start]))
            tiled = np.repeat(features[None], samples, axis=0).reshape(samples * BLOCK, -1)
            draws = keras.ops.convert_to_numpy(member.head(tiled, training=True))
            values.append(draws.reshape(samples, BLOCK, -1)[:, :count].transpose(1, 2, 0))
    return np.concatenate(values, axis=2)


def reseed(head, text):
    """Set the random generators of a head's dropout layers, so that a block's draws can be repeated.

    Args:
        head: keras.Model.
        text: hexadecimal digits.
    """
    for number, layer in enumerate(layer for layer in head.layers if hasattr(layer, "seed_generator")):
        layer.seed_generator.state.assign(np.array([int(text[:8], 16), number], "uint32"))


class Predictor:
    """A loaded ensemble, for use from Python.

    Args:
        folders: model folders.
    """

    def __init__(self, folders):
        self.members = [models.load_model(folder) for folder in folders]
        self.about = self.members[0].about

    def predict(self, images, samples=30, views=0, seed=42, credible_level=0.9):
        """Posteriors of some galaxies.

        Args:
            images: a path, or a list of paths, of PNG, JPEG or FITS images.
            samples: dropout draws a view.
            views: augmented views; 0 is the upright, central one alone.
            seed: whole number.
            credible_level: mass of the credible intervals.

        Returns:
            pandas.DataFrame with a row an image, the columns of the flat catalogue.

        Raises:
            BadImage: an image that cannot be read.
        """
        images = [images] if isinstance(images, (str, Path)) else list(images)
        table = pd.DataFrame({"id_str": [stem(Path(path).name) for path in images]})
        table = table.assign(archive="", member="", file_loc=[str(path) for path in images])
        store = datasets.from_catalog([table], [], self.about["image"])
        blocks = [
            _draw_block(self.members, names, pixels, number * BLOCK, samples, views, seed)
            for number, (names, pixels, _) in enumerate(datasets.stored_batches(store, BLOCK))
        ]
        return describe(table["id_str"], np.concatenate(blocks), self.members[0], credible_level)


def load(*folders):
    """Load a model folder, or several as one ensemble.

    Args:
        folders: each holds `model.keras` and `model.json`.

    Returns:
        A `Predictor`.

    Raises:
        UserError: not a model folder.
    """
    return Predictor(folders)
