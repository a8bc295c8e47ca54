"""Stage predict: posteriors for galaxies, from MC dropout, augmented views and several models.

Python users: `zoolib.api.load("results/demo/train/metrics/0").predict("one.jpg")`.
"""

import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd

from zoolib.config.labels import Label
from zoolib.config.starts import models_in
from zoolib.data import given, layout
from zoolib.data.decoders import BadImage
from zoolib.job.gpus import check_gpus
from zoolib.job.logs import UserError, log, progress, whole
from zoolib.job.provenance import hash_of
from zoolib.learning import datasets, models
from zoolib.learning.augment import augmentation_of
from zoolib.learning.chunks import open_galaxies
from zoolib.learning.familiar import Familiar
from zoolib.learning.features import features_of
from zoolib.posteriors import label_calibration, recalibration
from zoolib.posteriors.summary import describe
from zoolib.posteriors.unfamiliar import count_unlike, keeping_distances, message, together, unfamiliar
from zoolib.posteriors.unseen import marking_learned
from zoolib.posteriors.writer import predictions_file

# What a model that does not say it has: `interpolation` and `grey` of its images.
USUAL = {"interpolation": "lanczos", "grey": "mean"}


def load_members(folders):
    """Load the models of an ensemble, ready to predict.

    Args:
        folders: model folders, one per member.

    Returns:
        A list of `GalaxyModel`.

    Raises:
        UserError: no folder is given, one is not a model folder, or the models differ in answers, input or
            kind of head.
    """
    if not folders:
        raise UserError("No model folder is given, expected at least one; give a folder with model.keras.")
    members = [models.load_model(folder) for folder in folders]
    headless = next(
        (path for path, one in zip(folders, members, strict=True) if one.kind == "features"), None
    )
    if headless:
        raise UserError(
            f"{headless}: is a pretrained backbone without a head, so it cannot predict answers; finetune it"
            " first (finetune.tasks[].pretrained), and predict with the finetuned model."
        )
    for folder, member in zip(folders, members, strict=True):
        if _use(member) != _use(members[0]):
            raise UserError(
                f"{folder}: has other answers or another input than {folders[0]}, expected the same for all"
                " models of an ensemble; predict with each of them on its own."
            )
        if (member.kind, member.components) != (members[0].kind, members[0].components):
            found, first = (f"{one.kind} ({one.components} a sample)" for one in (member, members[0]))
            raise UserError(
                f"{folder}: predicts {found} and {folders[0]} {first}, expected the same train.head and"
                " train.components for all models of an ensemble; predict with each of them on its own."
            )
        # XLA is several times slower on a CPU.
        member.backbone.compile(jit_compile=False)
    return members


def _use(member):
    """What all models of an ensemble have in common: the answers, and how they see an image."""
    # How pixels are scaled is a layer of each network, so the members may differ in it.
    image = {key: value for key, value in member.about["image"].items() if key != "normalise"}
    return member.columns, {**USUAL, **image}, augmentation_of(member.about)["steps"]


def identity_of(members):
    """A hash of an ensemble: of all weights, and of how they see an image.

    Args:
        members: a list of `GalaxyModel`.

    Returns:
        32 hexadecimal digits; the same for a model that was trained again to the same weights.
    """
    first = members[0]
    use = first.columns, first.about["image"], augmentation_of(first.about)["steps"]
    found = hashlib.sha256(json.dumps(use).encode())
    for member in members:
        if member.about["image"] != first.about["image"]:
            found.update(json.dumps(member.about["image"]).encode())
        for weights in member.network.get_weights():
            found.update(np.ascontiguousarray(weights))
    return found.hexdigest()[:32]


def predict_chunk(galaxies, folders, part, samples, views, seed, output, kept="none"):
    """Posteriors for one chunk of a target.

    N dropout samples cost one pass through the backbone and one through the small head; each view costs
    another such pass. Samples are sorted by member, then by view, then by draw.

    Args:
        galaxies: a list of catalogues or lists of galaxies, or of the sidecars of shards.
        folders: model folders, one per member.
        part: (number of this chunk, number of chunks).
        samples: dropout draws per view.
        views: number of augmented views; 0 means only the upright, central view.
        seed: the run's seed.
        output: attributes predictions (HDF5), rejected (CSV): the files to write.
        kept: what the file keeps of how the first model sees each galaxy (see `Familiar.represent`).

    Raises:
        MachineError: the file system does not answer, or an image is gone since it was listed.
        UserError: the models do not fit together, there is no galaxy, or TensorFlow cannot use the GPU.
    """
    check_gpus()
    members = load_members(folders)
    about = members[0].about
    rejected, bad_rows, written, done = {}, [], 0, 0

    def on_bad(row, reason):
        rejected[row["id_str"]] = reason

    batches, begin, end, count = open_galaxies(galaxies, about["image"], *part, on_bad)
    log.info("Chunk %d: %s galaxies", part[0], f"{end - begin:,}")
    # A recalibration belongs to one member.
    each = json.dumps([identity_of([member]) for member in members])
    of = {"models": identity_of(members), "first": begin, "last": end, "of": count, "each_model": each}
    abouts = [(folder, member.about) for folder, member in zip(folders, members, strict=True)]
    known = [Familiar(member.about) for member in members]
    with (
        whole(output.predictions) as partial,
        # These write after the file below has been closed.
        marking_learned(partial, abouts) as mark,
        keeping_distances(partial, [one.validation for one in known]) as (keep, strange),
        predictions_file(partial, end - begin, about, len(members), samples, views, seed, of) as append,
        progress(None, "predicting", total=end - begin) as meter,
    ):
        for names, pixels, _ in batches:
            drawn = _draw_block(members, known, names, pixels, (begin + done, samples, views, seed), kept)
            ids = [name.decode() for name in names.numpy()]
            # All images of the block have been read by now, so its rejected ones are known.
            good = [name not in rejected for name in ids]
            # In the order of the galaxies, not in the order in which threads have read them.
            bad_rows += [(name, rejected[name]) for name in ids if name in rejected]
            values, weights, away, seen = (found if found is None else found[good] for found in drawn)
            written += append(itertools.compress(ids, good), values, weights, seen)
            mark(list(itertools.compress(ids, good)))
            keep(away)
            done += len(ids)
            meter.update(len(ids))
    with whole(output.rejected) as partial:
        pd.DataFrame(bad_rows, columns=["id_str", "reason"]).to_csv(partial, index=False)
    log.info("%s galaxies predicted, %s images could not be read", f"{written:,}", f"{len(bad_rows):,}")
    log.info(message(*count_unlike(strange())))


def _draw_block(members, known, names, pixels, drawing, kept="none"):
    """Concentrations of one block, (galaxies, answers, members * views * samples * components), and weights.

    The weights of mixtures are (galaxies, questions, as many), and sum to 1; None if all are equal. The third
    result is how far the galaxies are from those of the training (galaxies, members), the fourth how the
    first member sees them (see `Familiar.represent`), both the mean of the views.
    """
    start, samples, views, seed = drawing
    count = len(names)
    sight = augmentation_of(members[0].about), members[0].about["image"]
    views = [datasets.cut_views(pixels, names, *sight, seed, view) for view in range(views) or [None]]
    drawn, away, seen = [], np.zeros((len(views), count, len(members)), np.float32), []
    for number, member in enumerate(members):
        for view, batch in enumerate(views):
            features = features_of(member.backbone, batch)
            away[view, :, number] = known[number].distances(features)
            if number == 0:
                seen.append(known[0].represent(features, kept))
            reseed(member.head, hash_of([seed, number, view, start]))
            # Fill up a smaller last block, because dropout's masks have the shape of the block.
            features = np.pad(features, [(0, layout.BLOCK - count), (0, 0)])
            tiled = np.repeat(features[None], samples, axis=0).reshape(samples * layout.BLOCK, -1)
            draws = keras.ops.convert_to_numpy(member.head(tiled, training=True))
            drawn.append(_components(draws, member, samples, count))
    values, weights = zip(*drawn, strict=True)
    mixed = None if weights[0] is None else np.concatenate(weights, axis=2) / len(weights)
    seen = None if seen[0] is None else np.mean(seen, axis=0)
    return np.concatenate(values, axis=2), mixed, away.mean(axis=0), seen


def _components(draws, member, samples, count):
    """Concentrations and weights of one view; the components of a sample are neighbours.

    Args:
        draws: (samples * layout.BLOCK, outputs).
        member: a `GalaxyModel`.
        samples: dropout draws.
        count: galaxies of the block.

    Returns:
        ((galaxies, answers, samples * components), (galaxies, questions, the same); None without mixtures).
    """

    def of_galaxies(found):
        found = found.reshape(samples, layout.BLOCK, -1, member.components)[:, :count]
        return found.transpose(1, 2, 0, 3).reshape(count, found.shape[2], -1)

    if member.kind != "mixtures":
        return of_galaxies(draws), None
    values, weights = models.split_mixtures(draws, member.tree, member.components)
    return of_galaxies(values), of_galaxies(weights) / samples


def reseed(head, text):
    """Seed the random generators of a head's dropout layers, so that the draws of a block can be repeated.

    Args:
        head: keras.Model.
        text: hexadecimal digits.
    """
    for number, layer in enumerate(layer for layer in head.layers if hasattr(layer, "seed_generator")):
        layer.seed_generator.state.assign(np.array([int(text[:8], 16), number], "uint32"))


class Predictor:
    """A loaded ensemble, for use in Python.

    Args:
        folders: model folders.
    """

    def __init__(self, folders):
        self.members = load_members(folders)
        self.about = self.members[0].about
        self.known = [Familiar(member.about) for member in self.members]
        models = [identity_of([member]) for member in self.members]
        self.labels = [Label.from_dict(label) for label in self.about.get("labels") or ()]
        self.recalibrations = recalibration.of_members(
            recalibration.beside(folders, models, self.members[0].tree, self.labels),
            models,
            self.members[0].tree,
            " and ".join(map(str, folders)),
            self.labels,
        )

    def predict(self, images, samples=30, views=0, seed=42, credible_level=0.9, strict=False):
        """Posteriors of some galaxies.

        Args:
            images: a path, a folder, a PIL image, an array of 0 to 255, or a list of these; see
                `data.given.rows_of`. Files are PNG, JPEG or FITS.
            samples: dropout draws per view.
            views: number of augmented views; 0 means only the upright, central view.
            seed: whole number.
            credible_level: probability within the credible intervals.
            strict: True raises for an image that cannot be read; else its row has no numbers.

        Returns:
            pandas.DataFrame with one row per image, the columns of the flat catalogue, and `reason`: why an
            image could not be read, else None.

        Raises:
            BadImage: an image is missing or cannot be read, if `strict`.
            UserError: no image is given, one is of another kind, or the file system does not answer.
        """
        with tempfile.TemporaryDirectory() as folder:
            table, reasons = given.rows_of(images, folder), {}

            def on_bad(row, reason):
                reasons[row["file_loc"]] = reason

            store = datasets.from_catalog([table], [], self.about["image"], on_bad=on_bad)
            drawing, block = (samples, views, seed), layout.BLOCK
            with datasets.images_read(store):
                blocks = [
                    _draw_block(self.members, self.known, names, pixels, (number * block, *drawing))
                    for number, (names, pixels, _) in enumerate(datasets.stored_batches(store, block))
                ]
        bad = table["file_loc"].map(reasons)
        if strict and reasons:
            raise BadImage(bad.dropna().iloc[0])
        described = self._described(table["id_str"], blocks, credible_level)
        described.loc[bad.notna(), described.columns != "id_str"] = np.nan
        return described.assign(reason=bad.astype(object).where(bad.notna(), None))

    def _described(self, ids, blocks, credible_level):
        values, weights, away, _ = zip(*blocks, strict=True)
        values, weights = np.concatenate(values), None if weights[0] is None else np.concatenate(weights)
        first, bounds = self.members[0], None
        if self.recalibrations and not first.tree:
            values = label_calibration.apply(self.recalibrations, values, self.labels)
            bounds = label_calibration.bounds_of(self.recalibrations, self.labels)
        elif self.recalibrations:
            values, weights, _ = recalibration.apply(
                self.recalibrations, values, weights, first.tree, first.components
            )
        # The numbers of a mixture are concentrations and weights, as in files of predictions.
        kind = "concentrations" if first.kind == "mixtures" else first.kind
        about = {"kind": kind, "tree": first.tree, "columns": first.columns, "bounds": bounds}
        about = SimpleNamespace(**about, labels=first.about.get("labels"))
        strange = unfamiliar(np.concatenate(away), together([one.validation for one in self.known]))
        described = describe(ids, values, about, credible_level, weights=weights)
        return described.assign(unfamiliar=strange)


def load(*folders):
    """Load a model folder, or several as one ensemble.

    Args:
        folders: each holds `model.keras` and `model.json`, or the folders of folds (`fold0`) or members (`0`)
            that do; also as one list. A `recalibration.json` beside a model is applied.

    Returns:
        A `Predictor`.

    Raises:
        UserError: no folder is given, one is not a model folder, or the models do not fit together.
    """
    each = [[one] if isinstance(one, (str, Path)) else one for one in folders]
    return Predictor(
        [model for one in itertools.chain(*each) for model in models_in(Path(one)) or [Path(one)]]
    )
