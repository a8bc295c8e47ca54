"""Stage train: one member of an ensemble, from shards of votes to a model folder."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from zoolib.config.sources import origin_of
from zoolib.config.trees import DecisionTree
from zoolib.data.learned import learned_from
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.gpus import check_gpus, mixed_policy
from zoolib.job.logs import UserError, log
from zoolib.job.provenance import hash_of, hash_of_file
from zoolib.learning import datasets, fitting, models
from zoolib.learning.backbones import build_backbone
from zoolib.learning.blocks import nested_layers
from zoolib.learning.familiar import FAMILIAR, familiar_galaxies
from zoolib.learning.likelihood import QuestionLosses, TreeLoss
from zoolib.learning.normalise import normalise_pixels
from zoolib.learning.pretext import AnswersLosses, ViewsLoss, validation_views, views_loss, with_projections


@dataclass(frozen=True)
class Member:
    """One member of an ensemble, before it has seen a galaxy.

    Attributes:
        tree: the `DecisionTree` that it answers.
        image: the `image` section of the configuration.
        settings: the `train` section of the configuration.
        ensemble: name of the ensemble.
        number: of the member in the ensemble.
        run_seed: the seed of the run.
    """

    tree: DecisionTree
    image: dict
    settings: dict
    ensemble: str
    number: int
    run_seed: int

    @property
    def seed(self):
        """The seed of this member, below 2**31: all members differ, and all follow from the run's seed."""
        return int(hash_of([self.run_seed, self.ensemble, self.number]), 16) % 2**31

    @property
    def start(self):
        """The model folder that it starts from; None for a backbone without any training."""
        return self.settings["start_from"] or self.settings["pretrained"]

    @property
    def backbone(self):
        """Name of the backbone that trains; that of `start` counts more than `train.backbone`."""
        if not self.start:
            return self.settings["backbone"]
        return self.started["training"].get("backbone")

    @property
    def pretext(self):
        """`vicreg` if it learns from pairs of views too, None if it learns from votes alone."""
        return self.settings.get("pretext")

    @property
    def started(self):
        """The content of `model.json` of `start`; None where there is none."""
        return json.loads((Path(self.start) / "model.json").read_text()) if self.start else None

    def learned_from(self, sidecars):
        """What `model.json` says of the galaxies in some shards (see `learned.learned_from`)."""
        ids = [name for path in sidecars for name in read_sidecar(path)["ids"]]
        return learned_from(ids, self.started, goes_on=bool(self.settings["start_from"]))


def open_store(files, sidecars, tree, image):
    """The galaxies of some shards, or of the lists that replace shards where `shards.enabled` is false.

    Args:
        files: `.tfrecord` shards or `.parquet` lists.
        sidecars: their JSON sidecars.
        tree: the `DecisionTree`; the shards must have votes for it.
        image: the `image` section of the configuration.

    Returns:
        (`datasets.Store`, hash of the data).

    Raises:
        UserError: shards of another tree or size, or damaged ones.
    """
    abouts = [read_sidecar(path, tree.columns, image) for path in sidecars]
    # Everything that is known of the galaxies, their pixels too. Which programs wrote them does not count.
    others = ("versions", "checksum")
    data = hash_of([{key: about[key] for key in about if key not in others} for about in abouts])
    return datasets.from_shards(files, abouts, image), data


def build_network(tree, image, settings):
    """The network that will be trained: an untrained one, a new head on a pretrained backbone, or a model.

    Args:
        tree: the `DecisionTree`.
        image: the `image` section of the configuration.
        settings: the `train` section of the configuration; its `pretrained` is a model folder or None.

    Returns:
        keras.Model.

    Raises:
        UserError: `start_from` is a model for another tree or other images, or has another head or number of
            components; `pretrained` sees other images.
    """
    if settings["start_from"]:
        start = models.load_model(settings["start_from"])
        models.check_same_use(start.about, tree, image, settings["start_from"])
        keys = ("mixed_precision", "head")
        keys += ("components",) if settings["head"] == "dirichlet_mixture" else ()
        for key in keys:
            found = start.about["training"].get(key, "dirichlet")
            if found != settings[key]:
                raise UserError(
                    f"train.{key} is {settings[key]}, but the model in train.start_from"
                    f" ({settings['start_from']}) has {found}; set train.{key} to the model's value."
                )
        return start.network
    keras.config.set_dtype_policy(mixed_policy() if settings["mixed_precision"] else "float32")
    if settings["pretrained"]:
        backbone = _pretrained_backbone(image, settings)
    else:
        channels = datasets.image_shape(image)[2]
        backbone = build_backbone(settings["backbone"], image["final_size"], channels)
    kind = settings["head"], settings.get("components", 1)
    return models.join(
        backbone, models.tree_head(backbone.output_shape[-1], tree, settings["dropout"], *kind)
    )


def _pretrained_backbone(image, settings):
    start = models.load_model(settings["pretrained"])
    for key in ("final_size", "color", "grey"):
        found, here = (about.get(key, "mean") for about in (start.about["image"], image))
        if found != here:
            raise UserError(
                f"train.pretrained: the backbone of {settings['pretrained']} sees images of image.{key}:"
                f" {str(found).lower()}, this run has {str(here).lower()}; set image.{key} to that, or"
                " choose another backbone."
            )
    for layer in nested_layers(start.backbone):
        layer.dtype_policy = keras.config.dtype_policy()
    return start.backbone


def seen_pixels(member, network):
    """Let the backbone of a new network see the pixels that the settings ask for.

    Args:
        member: a `Member`.
        network: from `build_network`; the first layer of a pretrained backbone is changed.

    Returns:
        The `image` section of the new model, with what its network does to pixels if that is known.

    Raises:
        UserError: the backbone cannot be changed, or has another number of channels.
    """
    if not member.start:
        return member.image
    about = member.started
    if member.settings["pretrained"]:
        backbone, wanted = network.get_layer("backbone"), member.settings["normalise"]
        about = {**about, "image": normalise_pixels(backbone, wanted, about, "train.normalise")}
    return member.image | {key: about["image"][key] for key in ("normalise",) if key in about["image"]}


def devices():
    """The devices that a member trains on: all GPUs of the job, each with a share of every batch, or one.

    Returns:
        tf.distribute.Strategy.
    """
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def normalize_together(network, together):
    """Set whether BatchNorm takes its statistics over the complete batch or over each device's share of it.

    Args:
        network: keras.Model.
        together: True for the complete batch.
    """
    for layer in nested_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = together


def filled_batches(batches, count, batch_size):
    """Batches that several devices can share equally; the mean loss over all batches does not change.

    A device without any galaxy of the last batch would stop with an error. So this batch is filled with
    galaxies without votes, whose losses are 0. All galaxies get a slightly higher weight to compensate.

    Args:
        batches: dataset of (images, votes); the last batch may be smaller.
        count: galaxies in all batches.
        batch_size: galaxies in all batches but the last.

    Returns:
        A dataset of (images, votes, weights).
    """
    weight = -(-count // batch_size) * batch_size / count

    def fill(*batch):
        missing = batch_size - tf.shape(batch[0])[0]
        filled = [tf.pad(part, [[0, missing]] + [[0, 0]] * (part.shape.rank - 1)) for part in batch]
        return *filled, tf.fill([batch_size], weight)

    return batches.map(fill)


def train_member(member, train, validation, job):
    """Train one member of an ensemble with the likelihood of the votes over the complete tree.

    Args:
        member: a `Member`.
        train: (files, sidecars) of the shards to learn from.
        validation: (files, sidecars) of the shards that decide when to stop.
        job: a `fitting.Job`.

    Raises:
        UserError: shards of another tree or size, fewer galaxies than a batch, no galaxies to validate on, a
            batch that the GPUs cannot share equally.
        Unfinished: the wall time is nearly over; the next call continues.
    """
    check_gpus()
    learn, learn_hash = open_store(*train, member.tree, member.image)
    check, check_hash = open_store(*validation, member.tree, member.image)
    data = {"train": learn_hash, "validation": check_hash}
    if check.count == 0:
        raise UserError("split.val: there is no galaxy to validate on; raise split.val or select more.")
    fitting.warn_of_few(check.count, "split.val")
    keras.utils.set_random_seed(member.seed)
    strategy = devices()
    shares = strategy.num_replicas_in_sync
    _check_shares(member.settings["batch_size"], shares)
    with strategy.scope():
        network = build_network(member.tree, member.image, member.settings)
        fitted = with_projections(network) if member.pretext else network
    image = seen_pixels(member, network)
    normalize_together(fitted, shares > 1)
    log.info(
        "%s, member %s: %s with %s parameters, %s galaxies to learn from, %s to validate on",
        *(member.ensemble, member.number, member.backbone, f"{network.count_params():,}"),
        *(f"{learn.count:,}", f"{check.count:,}"),
    )
    identity = {
        "settings": member.settings,
        "image": member.image,
        "tree": member.tree.to_dict(),
        "seed": member.seed,
        "data": list(data.values()),
        "start": hash_of_file(Path(member.start) / "model.keras") if member.start else None,
    }

    def fit(progress):
        with strategy.scope(), datasets.images_read(learn, check):
            history = _fit(member, fitted, learn, check, shares, progress)
        # Other Keras backends cannot read a model whose BatchNorm is synchronized.
        normalize_together(network, False)
        about = _describe(member, image, learn.count, data, history)
        with datasets.images_read(learn, check):
            backbone, augmentation = network.get_layer("backbone"), member.settings["augmentation"]
            about[FAMILIAR] = familiar_galaxies(backbone, learn, check, augmentation)
        return network, history, {**about, "learned_from": member.learned_from(train[1] + validation[1])}

    fitting.run_training(job, identity, fit)


def _check_shares(batch_size, shares):
    if batch_size % shares:
        # The mean over shares of unequal size is not the mean over the batch.
        raise UserError(
            f"train.batch_size: {batch_size} galaxies cannot be shared equally by the {shares}"
            f" GPUs of this job; choose a multiple of {shares}, or ask for fewer GPUs."
        )


def _fit(member, network, learn, check, shares, progress):
    """Train on the galaxies of two stores, inside the scope of the devices; returns the history."""
    settings, kind = member.settings, models.KINDS[member.settings["head"]]
    seen = settings["augmentation"], settings["batch_size"]
    training = partial(datasets.training_batches, learn, *seen, member.seed, shuffle=settings["shuffle"])
    loss = TreeLoss(member.tree, kind)
    if member.pretext:
        loss, metrics = ViewsLoss(loss), [AnswersLosses(member.tree, kind), views_loss]
        training = partial(training, views=2)
        validation = validation_views(check, *seen, member.seed, shares)
    else:
        metrics = [QuestionLosses(member.tree, kind)]
        validation = datasets.central_batches(check, *seen)
        if shares > 1:
            validation = filled_batches(validation, check.count, settings["batch_size"])
    history, _ = fitting.fit(
        network, loss, (training, validation), settings, member.seed, progress, metrics=metrics
    )
    return history


def _describe(member, image, galaxies, data, history):
    """The content of `model.json`, without the versions of software."""
    best = int(history["val_loss"].idxmin()) + 1
    scores = {"epochs": len(history), "best_epoch": best, "val_loss": float(history["val_loss"].min())}
    log.info("Best validation loss %.4f in epoch %d of %d", scores["val_loss"], best, len(history))
    return {
        "kind": models.KINDS[member.settings["head"]],
        "tree": member.tree.to_dict(),
        "columns": member.tree.columns,
        "image": image,
        "training": {
            **member.settings,
            "backbone": member.backbone,
            "origin": origin_of(member.start),
            "ensemble": member.ensemble,
            "member": member.number,
            "galaxies": galaxies,
        },
        "seed": member.seed,
        "data": data,
        "scores": scores,
    }
