"""Stage train: one member of an ensemble, from shards of votes to a model folder."""

import hashlib
from pathlib import Path

import keras
import pandas as pd

from zoolib import datasets, fitting, models
from zoolib.likelihood import TreeLoss
from zoolib.logs import UserError, log, whole
from zoolib.provenance import hash_of, versions
from zoolib.tfrecords import read_sidecar
from zoolib.trees import DecisionTree


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
    """The model of a run: an untrained one, or the one that `train.start_from` names.

    Args:
        tree: the `DecisionTree`.
        image: the `image` section of the configuration.
        settings: the `train` section of the configuration.

    Returns:
        keras.Model.

    Raises:
        UserError: `start_from` is a model for another tree or other images.
    """
    if settings["start_from"]:
        start = models.load_model(settings["start_from"])
        models.check_same_use(start.about, tree, image, settings["start_from"])
        half = start.about["training"]["mixed_precision"]
        if half != settings["mixed_precision"]:
            raise UserError(
                f"train.mixed_precision is {settings['mixed_precision']}, but the model in train.start_from"
                f" ({settings['start_from']}) has {half}; set train.mixed_precision to the model's value."
            )
        return start.network
    keras.config.set_dtype_policy("mixed_float16" if settings["mixed_precision"] else "float32")
    channels = datasets.image_shape(image)[2]
    backbone = models.build_backbone(settings["backbone"], image["final_size"], channels)
    head = models.tree_head(backbone.output_shape[-1], tree, settings["dropout"])
    return models.join(backbone, head)


def train_member(train, validation, tree, image, settings, seed, ensemble, member, output, folder, code=""):
    """Train one member of an ensemble with the Dirichlet-multinomial loss over the whole tree.

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

    Raises:
        UserError: shards that do not fit, fewer galaxies than a batch, no galaxies to validate on.
    """
    tree = DecisionTree.from_dict(tree)
    learn, learn_hash = open_store(*train, tree, image)
    check, check_hash = open_store(*validation, tree, image)
    if check.count == 0:
        raise UserError("split.val: there is no galaxy to validate on; raise split.val or select more.")
    own_seed = member_seed(seed, ensemble, member)
    keras.utils.set_random_seed(own_seed)
    network = build_network(tree, image, settings)
    log.info(
        "%s, member %s: %s with %s parameters, %s galaxies to learn from, %s to validate on",
        *(ensemble, member, settings["backbone"], f"{network.count_params():,}"),
        *(f"{learn.count:,}", f"{check.count:,}"),
    )
    identity = {
        "code": code,
        "settings": settings,
        "image": image,
        "tree": tree.to_dict(),
        "seed": own_seed,
        "data": [learn_hash, check_hash],
        "start": _hash_of_start(settings["start_from"]),
    }

    def batches(first_epoch):
        return datasets.training_batches(
            learn,
            settings["batch_size"],
            own_seed,
            epochs=settings["epochs"],
            first_epoch=first_epoch,
            shuffle=settings["shuffle"],
        )

    with datasets.images_read(learn, check):
        history, best = fitting.fit(
            network,
            TreeLoss(tree),
            batches,
            datasets.central_batches(check, settings["batch_size"]),
            settings,
            folder=folder,
            fingerprint=hash_of(identity),
            seed=own_seed,
        )
    about = {
        "kind": "concentrations",
        "tree": tree.to_dict(),
        "columns": tree.columns,
        "image": image,
        "training": {**settings, "ensemble": ensemble, "member": member, "galaxies": learn.count},
        "seed": own_seed,
        "data": {"train": learn_hash, "validation": check_hash},
        "versions": versions(),
        "scores": {"epochs": len(history), "best_epoch": best, "val_loss": float(history["val_loss"].min())},
    }
    with whole(output.history) as partial:
        history.to_csv(partial, index=False)
    models.save_model(network, about, output.model, output.about)
    (Path(folder) / "checkpoint.npz").unlink(missing_ok=True)
    log.info("Best validation loss %.4f in epoch %d of %d", about["scores"]["val_loss"], best, len(history))


def _hash_of_start(folder):
    if not folder:
        return None
    return hashlib.sha256((Path(folder) / "model.keras").read_bytes()).hexdigest()
