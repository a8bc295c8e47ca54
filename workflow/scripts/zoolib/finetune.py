"""Stage finetune: a trained backbone learns new labels from a few hundred galaxies."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from zoolib.config.labels import Label, check_learnable, kind_of_outputs
from zoolib.config.normalise import PROBE
from zoolib.config.recipes import complete_batch
from zoolib.config.sources import origin_of
from zoolib.config.strategies import find_strategy
from zoolib.data.fits import read_fit, repeated, warn_of_grey
from zoolib.data.learned import learned_from
from zoolib.data.partition import CLASSIFICATIONS
from zoolib.job.gpus import check_gpus
from zoolib.job.logs import UserError, log
from zoolib.job.provenance import hash_of, hash_of_file
from zoolib.learning import datasets, fitting, models
from zoolib.learning.augment import augmentation_of
from zoolib.learning.blocks import blocks_of, nested_layers, set_trainable
from zoolib.learning.familiar import FAMILIAR, familiar_galaxies, summarize
from zoolib.learning.features import features_of_store
from zoolib.learning.label_heads import Accuracy, LabelsLoss, labels_head
from zoolib.learning.normalise import normalise_pixels
from zoolib.learning.optimizers import OPTIMIZER_KEYS
from zoolib.scores.linear_probe import MOST, fit_probe
from zoolib.scores.normalise_probe import probe_normalise


def finetune_task(galaxies, model, task, seed, job, scratch=False):
    """Train a new head, and as much of the backbone as the task's strategy says, stage after stage.

    The model has the weights of the epoch with the best validation loss of all stages. In a stage in which
    nothing of the backbone trains, the features of the galaxies are computed once and the head learns from
    them, unless the task asks for augmented views there too; the model has the same form.

    Args:
        galaxies: `galaxies.parquet` of the task; the finetuning learns from train, and val decides when to
            stop.
        model: folder of the trained model.
        task: `config.run.Run.training_of` the finetuning; its name, such as `ring/fold0`, says which it is.
        seed: of the run. With it, the galaxies and their labels seed the training, and not the task's name.
        job: a `fitting.Job`.
        scratch: forget the weights of the backbone first and train everything, BatchNorm too. The result
            shows what the labels alone can teach.

    Raises:
        UserError: nothing to learn, no such strategy or layer, a model that cannot be read.
        Unfinished: the wall time is nearly over; the next call continues.
    """
    check_gpus()
    splits = read_fit(galaxies, task["name"].partition("/")[2])
    catalogs = {"train": splits["train"], "validation": splits["val"]}
    labels, task = _learnable_labels(catalogs, task), complete_batch(task, len(catalogs["train"].table))
    start = models.load_model(model)
    warn_of_grey(catalogs["train"].table, start.about["image"], f"finetune.tasks, {task['name']}")
    identity = {
        "task": task,
        "augmentation": augmentation_of(start.about),
        "scratch": scratch,
        "seed": _seed(seed, task["name"], catalogs, labels),
        "image": start.about["image"],
        "start": hash_of_file(Path(model) / "model.keras"),
        "data": _hash_of_galaxies(catalogs),
    }
    keras.utils.set_random_seed(identity["seed"])
    backbone = keras.models.clone_model(start.backbone) if scratch else start.backbone
    statistics = _statistics(labels, catalogs["train"].table)
    strategy = find_strategy("no_freeze" if scratch else task["strategy"])
    blocks = blocks_of(backbone)
    stages = strategy.stages(blocks, task)
    _check_layers(stages, blocks, task["name"])
    # A strategy of one's own can be edited without another name or argument.
    identity["stages"] = [vars(stage) for stage in stages]

    def learn(progress):
        stores = _open_stores(catalogs, labels, start.about["image"], task["name"], job.folder)
        loss = LabelsLoss(labels, statistics, task["smoothing"], _class_weights(labels, catalogs["train"]))
        with datasets.images_read(*stores.values()):
            pixels = _choose_pixels(start, backbone, identity, labels, stores, progress)
            run = _Stages(backbone, loss, labels, stores, identity)
            history, known = run.run(stages, progress), run.familiar(stages)
        about = _describe(identity, labels, start, model, catalogs)
        about["scores"] = {"epochs": len(history), "val_loss": run.reached}
        about["image"], about["training"]["normalise_losses"] = pixels
        about[FAMILIAR] = known
        return run.network, history, about

    fitting.run_training(job, identity, learn)


def _check_layers(stages, blocks, task):
    """A strategy of one's own may name a layer that the backbone does not have."""
    known = [name for block in blocks for name in block]
    for stage in stages:
        strange = next((name for name in [*stage.layers, *stage.rates] if name not in known), None)
        if strange:
            raise UserError(
                f"finetune.tasks, {task}: the strategy's stage '{stage.name}' names the layer '{strange}',"
                f" expected layers that the backbone has, such as {known[0]} and {known[-1]}; fix the"
                " strategy's 'stages'."
            )


class _Stages:
    """The stages of one finetuning, trained one after the other.

    Args:
        backbone: keras.Model.
        loss: a `LabelsLoss`.
        labels: a list of `Label`.
        stores: {"train", "validation": `datasets.Store`}.
        identity: what the finetuning depends on: task, augmentation, scratch, seed.
    """

    def __init__(self, backbone, loss, labels, stores, identity):
        self.backbone, self.loss, self.stores = backbone, loss, stores
        self.metrics = [Accuracy(labels)] if any(label.kind in CLASSIFICATIONS for label in labels) else []
        self.task, self.seed = identity["task"], identity["seed"]
        self.augmentation = identity["augmentation"]
        self.train_bn = identity["scratch"] or self.task["train_bn"]
        self.features = self.reached = None
        head, start = identity["task"]["head"], (None, None)
        # An untrained backbone soon has other features.
        if head["probed"] and not identity["scratch"]:
            start = self._probed(labels)
        # Whatever has run before: the first weights follow from the seed.
        keras.utils.set_random_seed(self.seed)
        size, shape = backbone.output_shape[-1], (head["units"], head["dropout"])
        self.network = models.join(backbone, labels_head(size, labels, loss.statistics, *shape, *start))

    def _probed(self, labels):
        """Features of the training galaxies, each once, and what their linear probe says of them."""
        features, values = self._features()["train"]
        # Galaxies of small classes may be shown several times.
        once = np.sort(np.unique(features, axis=0, return_index=True)[1])[:MOST]
        features, values = features[once], values[once]
        targets = pd.DataFrame(values, columns=[column for label in labels for column in label.targets])
        # What lies outside of bounds says more of the features than what is at them.
        free = [replace(label, bounds=None) if label.bounds else label for label in labels]
        return features, fit_probe(features, free, targets, self.task["name"])(features)

    def _first(self):
        """The validation loss before the first epoch, and the weights; none before a head has learned."""
        if self.features is None:
            return float("inf"), None
        features, values = self.features["validation"]
        loss = float(self.loss(values, self.network.get_layer("head")(features)))
        log.info(
            "The linear probe of the training galaxies, where training begins: validation loss %.4f", loss
        )
        return loss, self.network.get_weights()

    def run(self, stages, progress):
        """Train all stages. The network then has the best weights, and all of its layers can train.

        Args:
            stages: a list of `config.strategies.Stage`.
            progress: the `checkpoints.Progress` of the finetuning.

        Returns:
            pandas.DataFrame with one row an epoch, as `fitting.fit` returns it, and the name of the stage.
        """
        histories, best = [], self._first()
        for number, stage in enumerate(stages):
            log.info("Stage %s: the head and %d layers of the backbone train", stage.name, len(stage.layers))
            if number and (stages[number - 1].layers or self.train_bn):
                # The stage before has changed the backbone: its features are other ones now.
                self.features = None
            if number and stage.from_best:
                self.network.set_weights(best[1])
            trained, history, last = self._train(stage, progress.of_stage(number))
            reached = history["val_loss"].min()
            if reached < best[0]:
                best = reached, self.network.get_weights()
            elif number:
                log.info("No epoch was better than the best one before")
            else:
                log.info("No epoch was better than the linear probe that training began with")
            if number + 1 < len(stages) and not stages[number + 1].from_best:
                trained.set_weights(last)
            histories.append(history.assign(stage=stage.name))
        self.reached = float(best[0])
        self.network.set_weights(best[1])
        # The next training of this model decides itself which layers it freezes.
        set_trainable(self.backbone, {layer.name for layer in nested_layers(self.backbone)}, batchnorm=True)
        history = pd.concat(histories, ignore_index=True)
        history["epoch"] = range(1, len(history) + 1)
        return history

    def familiar(self, stages):
        """Describe the galaxies (see `familiar.summarize`); a backbone that never trained has seen them all.

        Args:
            stages: those that have run.
        """
        if self.features is None or self.train_bn or any(stage.layers for stage in stages):
            return familiar_galaxies(self.backbone, *self.stores.values(), self.augmentation)
        return summarize(*(self.features[name][0] for name in ("train", "validation")))

    def _train(self, stage, progress):
        """Train one stage; returns the network that was trained, its history and its last weights."""
        set_trainable(self.backbone, stage.layers, self.train_bn)
        settings = {key: self.task[key] for key in OPTIMIZER_KEYS}
        settings |= stage.settings
        if stage.layers or self.train_bn or self.task["augment"]:
            network, batches = self.network, self._of_images()
        else:
            head = self.network.get_layer("head")
            # A new model of the same layers: the head itself, once compiled, would be saved with its loss.
            network, batches = keras.Model(head.inputs, head.outputs), self._of_features()
        rates = self._rates_of_variables(stage.rates)
        history, last = fitting.fit(
            network, self.loss, batches, settings, self.seed, progress, self.metrics, rates
        )
        return network, history, last

    def _rates_of_variables(self, rates):
        return {
            variable.path: rates[layer.name]
            for layer in nested_layers(self.backbone)
            if layer.name in rates
            for variable in layer.variables
        }

    def _of_images(self):
        """Batches of images, for training and validation."""
        training = partial(
            datasets.training_batches,
            self.stores["train"],
            self.augmentation,
            self.task["batch_size"],
            self.seed,
            keep_last=True,
            # Left open, what trains the backbone is augmented.
            views=0 if self.task["augment"] is False else 1,
        )
        store, batch = self.stores["validation"], self.task["batch_size"]
        return training, datasets.central_batches(store, self.augmentation, batch)

    def _of_features(self):
        """Batches of what a frozen backbone makes of images that never change."""
        features, batch = self._features(), self.task["batch_size"]
        training = partial(datasets.array_batches, *features["train"], batch, self.seed)
        return training, tf.data.Dataset.from_tensor_slices(features["validation"]).batch(batch)

    def _features(self):
        """The features and labels of the central views of train and validation, computed once."""
        if self.features is None:
            self.features = {
                name: features_of_store(self.backbone, store, self.augmentation)
                for name, store in self.stores.items()
            }
        return self.features


def _learnable_labels(catalogs, task):
    labels = [Label.from_dict(label) for label in catalogs["train"].about["labels"]]
    for name, catalog in catalogs.items():
        check_learnable(labels, catalog.table, f"finetune.tasks, {task['name']}, {name}")
    return labels


def _open_stores(catalogs, labels, image, task, folder):
    """The galaxies as the training reads them, with the targets of the labels."""
    tables = {"train": repeated(catalogs["train"].table), "validation": catalogs["validation"].table}
    log.info("%s: %d galaxies to learn from, %d to validate on", task, *map(len, tables.values()))
    fitting.warn_of_few(len(tables["validation"]), f"split.val of finetune.tasks, {task}")
    targets = [column for label in labels for column in label.targets]
    return {
        name: datasets.from_catalog([table], targets, image, keep_in=folder) for name, table in tables.items()
    }


def _choose_pixels(start, backbone, identity, labels, stores, progress):
    """Let a backbone see the pixels that its task asks for.

    Returns:
        (the `image` section of the new model, {normalisation: loss of its linear probe} or None).
    """
    wanted, losses, why = identity["task"]["normalise"], None, None
    key = f"finetune.tasks, {identity['task']['name']}, normalise"
    if wanted == PROBE:
        augmentation = identity["augmentation"]
        losses = progress.remembered(
            "normalise", lambda: probe_normalise(start.backbone, stores, labels, augmentation, key)
        )
        wanted = min(losses, key=losses.get)
        why = "its linear probe is the best of " + ", ".join(f"{name} {losses[name]:.3f}" for name in losses)
    return normalise_pixels(backbone, wanted, start.about, key, why), losses


def _hash_of_galaxies(catalogs):
    """A hash of all that is known of the galaxies of a finetuning, their pixels and labels too.

    Galaxies that only other finetunings of the task see have no part in it.
    """
    contents = {name: [catalog.table.to_dict("list"), catalog.about] for name, catalog in catalogs.items()}
    return hash_of(contents)


def _seed(seed, name, catalogs, labels):
    """The seed of a finetuning, below 2**31: a task with another name or folder is trained just the same."""
    fit = name.partition("/")[2]
    targets = ["id_str", *(column for label in labels for column in label.targets)]
    seen = [catalog.table[targets].to_numpy().tolist() for catalog in catalogs.values()]
    return int(hash_of([seed, fit, [label.to_dict() for label in labels], seen]), 16) % 2**31


def _class_weights(labels, catalog):
    """{name of the label: the weight of each of its classes}, where classes are balanced by weights."""
    about = catalog.about
    return {labels[0].name: about["class_weights"]} if "class_weights" in about else {}


def _statistics(labels, table):
    """Mean and standard deviation of each number that is to be learned."""
    numbers = {label.name: table[label.name] for label in labels if label.kind == "regression"}
    return {name: (float(values.mean()), float(values.std(ddof=0))) for name, values in numbers.items()}


def _describe(identity, labels, start, model, catalogs):
    """The content of `model.json`, without scores and the versions of software."""
    ids = [name for catalog in catalogs.values() for name in catalog.table["id_str"]]
    return {
        "kind": kind_of_outputs(labels),
        "tree": labels[0].tree.to_dict() if labels[0].tree and len(labels) == 1 else None,
        "labels": [label.to_dict() for label in labels],
        "columns": [column for label in labels for column in label.outputs],
        "training": {
            **identity["task"],
            "augmentation": identity["augmentation"],
            "scratch": identity["scratch"],
            "galaxies": len(catalogs["train"].table),
            "backbone": start.about["training"].get("backbone"),
            "pretrained": str(model),
            "origin": None if identity["scratch"] else origin_of(model),
        },
        "seed": identity["seed"],
        "data": {"model": identity["start"], "galaxies": identity["data"]},
        "learned_from": learned_from(ids, None if identity["scratch"] else start.about),
    }
