"""Stage train: one member of an ensemble, from shards of votes to a model folder."""

import hashlib
import json
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

from zoolib.config.sources import origin_of
from zoolib.config.trees import DecisionTree
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.gpus import check_gpus
from zoolib.job.logs import UserError, log, whole
from zoolib.job.provenance import hash_of, versions
from zoolib.learning import datasets, fitting, models
from zoolib.learning.backbones import build_backbone
from zoolib.learning.blocks import nested_layers
from zoolib.learning.likelihood import QuestionLosses, TreeLoss


def member_seed(seed, ensemble, member):
    """The seed of one member: all members differ, and all follow from the run's seed.

    Args:
        seed: the run's.
        ensemble: name of the ensemble.
        member: number of the member.

    Returns:
        A whole number below 2**31.
    """
    return int(hash_of([seed, ensemble, member]), 16) % 2**31


def open_store(files, sidecars, tree, image):
    """The galaxies of some shards, or of the lists that stand in for them without shards.

    Args:
        files: `.tfrecord` shards, or `.parquet` lists where `shards.enabled` is false.
        sidecars: their JSON sidecars.
        tree: the `DecisionTree` that they must have votes for.
        image: the `image` section of the configuration.

    Returns:
        (`datasets.Store`, hash of the data).

    Raises:
        UserError: shards of another tree or size.
    """
    abouts = [read_sidecar(path, tree.columns, image) for path in sidecars]
    data = hash_of([about["source"] for about in abouts])
    if str(files[0]).endswith(".parquet"):
        frames = [pd.read_parquet(file) for file in files]
        return datasets.from_catalog(frames, tree.columns, image), data
    return datasets.from_shards(files, [about["count"] for about in abouts], image, len(tree.columns)), data


def build_network(tree, image, settings):
    """The model of a run: an untrained one, a new head on a pretrained backbone, or a model to go on with.

    Args:
        tree: the `DecisionTree`.
        image: the `image` section of the configuration.
        settings: the `train` section of the configuration, its `pretrained` a model folder.

    Returns:
        keras.Model.

    Raises:
        UserError: `start_from` is a model for another tree or other images, or has another head; `pretrained`
            sees other images.
    """
    if settings["start_from"]:
        start = models.load_model(settings["start_from"])
        models.check_same_use(start.about, tree, image, settings["start_from"])
        for key in ("mixed_precision", "head"):
            found = start.about["training"].get(key, "dirichlet")
            if found != settings[key]:
                raise UserError(
                    f"train.{key} is {settings[key]}, but the model in train.start_from"
                    f" ({settings['start_from']}) has {found}; set train.{key} to the model's value."
                )
        return start.network
    keras.config.set_dtype_policy("mixed_float16" if settings["mixed_precision"] else "float32")
    if settings["pretrained"]:
        backbone = _pretrained_backbone(image, settings)
    else:
        channels = datasets.image_shape(image)[2]
        backbone = build_backbone(settings["backbone"], image["final_size"], channels)
    head = models.tree_head(backbone.output_shape[-1], tree, settings["dropout"], settings["head"])
    return models.join(backbone, head)


def _pretrained_backbone(image, settings):
    start = models.load_model(settings["pretrained"])
    for key in ("final_size", "color"):
        found = start.about["image"][key]
        if found != image[key]:
            raise UserError(
                f"train.pretrained: the backbone of {settings['pretrained']} sees images of image.{key}:"
                f" {str(found).lower()}, this run has {str(image[key]).lower()}; set image.{key} to that, or"
                " choose another backbone."
            )
    for layer in nested_layers(start.backbone):
        layer.dtype_policy = keras.config.dtype_policy()
    return start.backbone


def devices():
    """Where a member trains: on all GPUs of the job, each with its share of every batch, or on one device.

    Returns:
        tf.distribute.Strategy.
    """
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def normalize_together(network, together):
    """Whether BatchNorm takes its statistics over the whole batch, or over each device's share of it.

    Args:
        network: keras.Model.
        together: True for the whole batch.
    """
    for layer in nested_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = together


def filled_batches(batches, count, batch_size):
    """Batches that several devices can share equally; the mean loss over all of them stays what it was.

    A device that gets no galaxy of the last batch would stop with an error. So that batch is filled up
    with galaxies whose votes, and so whose losses, are 0, and all weigh a little more for it.

    Args:
        batches: dataset of (images, votes), of which the last may be smaller.
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


def train_member(
    train, validation, tree, image, settings, seed, ensemble, member, output, folder, code="", budget=None
):
    """Train one member of an ensemble with the likelihood of the votes over the whole tree.

    Args:
        train: (files, sidecars) of the shards to learn from.
        validation: (files, sidecars) of the shards that decide when to stop.
        tree: the tree as plain values.
        image: the `image` section of the configuration.
        settings: the `train` section of the configuration.
        seed: of the run.
        ensemble: name of the ensemble.
        member: number of the member.
        output: attributes model, about, history: the files to write.
        folder: for the checkpoint and TensorBoard's log.
        code: fingerprint of the code; a checkpoint of other code is not gone on from.
        budget: the `attempts.Budget` of the job; none by default.

    Raises:
        UserError: shards that do not fit, fewer galaxies than a batch, no galaxies to validate on, a batch
            that the GPUs cannot share equally.
        Unfinished: the wall time is nearly over; called again, it goes on.
    """
    check_gpus()
    tree = DecisionTree.from_dict(tree)
    learn, learn_hash = open_store(*train, tree, image)
    check, check_hash = open_store(*validation, tree, image)
    if check.count == 0:
        raise UserError("split.val: there is no galaxy to validate on; raise split.val or select more.")
    own_seed = member_seed(seed, ensemble, member)
    keras.utils.set_random_seed(own_seed)
    kind = models.KINDS[settings["head"]]
    strategy = devices()
    shares = strategy.num_replicas_in_sync
    if settings["batch_size"] % shares:
        # The mean over shares of unequal size is not the mean over the batch.
        raise UserError(
            f"train.batch_size: {settings['batch_size']} galaxies cannot be shared equally by the {shares}"
            f" GPUs of this job; choose a multiple of {shares}, or ask for fewer GPUs."
        )
    with strategy.scope():
        network = build_network(tree, image, settings)
    normalize_together(network, shares > 1)
    log.info(
        "%s, member %s: %s with %s parameters, %s galaxies to learn from, %s to validate on",
        *(ensemble, member, _backbone_name(settings), f"{network.count_params():,}"),
        *(f"{learn.count:,}", f"{check.count:,}"),
    )
    identity = {
        "code": code,
        "versions": versions(),
        "settings": settings,
        "image": image,
        "tree": tree.to_dict(),
        "seed": own_seed,
        "data": [learn_hash, check_hash],
        "start": _hash_of_start(settings["start_from"] or settings["pretrained"]),
    }
    if fitting.put_back(output, folder, hash_of(identity)):
        return

    def batches(first_epoch):
        return datasets.training_batches(
            learn,
            settings["augmentation"],
            settings["batch_size"],
            own_seed,
            epochs=settings["epochs"],
            first_epoch=first_epoch,
            shuffle=settings["shuffle"],
        )

    judged = datasets.central_batches(check, settings["augmentation"], settings["batch_size"])
    if shares > 1:
        judged = filled_batches(judged, check.count, settings["batch_size"])
    with strategy.scope(), datasets.images_read(learn, check):
        history, _ = fitting.fit(
            network,
            TreeLoss(tree, kind),
            batches,
            judged,
            settings,
            folder=folder,
            fingerprint=hash_of(identity),
            seed=own_seed,
            metrics=[QuestionLosses(tree, kind)],
            budget=budget,
        )
    best = int(history["val_loss"].idxmin()) + 1
    # Other Keras backends cannot read a model that says otherwise.
    normalize_together(network, False)
    about = {
        "kind": kind,
        "tree": tree.to_dict(),
        "columns": tree.columns,
        "image": image,
        "training": {
            **settings,
            "backbone": _backbone_name(settings),
            "origin": origin_of(settings["start_from"] or settings["pretrained"]),
            "ensemble": ensemble,
            "member": member,
            "galaxies": learn.count,
        },
        "seed": own_seed,
        "data": {"train": learn_hash, "validation": check_hash},
        "versions": versions(),
        "scores": {"epochs": len(history), "best_epoch": best, "val_loss": float(history["val_loss"].min())},
    }
    with whole(output.history) as partial:
        history.to_csv(partial, index=False)
    models.save_model(network, about, output.model, output.about)
    fitting.keep(output, folder, hash_of(identity))
    (Path(folder) / "checkpoint.npz").unlink(missing_ok=True)
    log.info("Best validation loss %.4f in epoch %d of %d", about["scores"]["val_loss"], best, len(history))


def _backbone_name(settings):
    """That of the backbone which trains, whatever `train.backbone` says of others."""
    folder = settings["start_from"] or settings["pretrained"]
    if not folder:
        return settings["backbone"]
    return json.loads((Path(folder) / "model.json").read_text())["training"].get("backbone")


def _hash_of_start(folder):
    if not folder:
        return None
    return hashlib.sha256((Path(folder) / "model.keras").read_bytes()).hexdigest()
