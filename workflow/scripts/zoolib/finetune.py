"""Stage finetune: a trained backbone learns new labels from a few hundred galaxies."""

from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

from zoolib.config.labels import Label, check_learnable
from zoolib.config.sources import origin_of
from zoolib.config.strategies import find_strategy
from zoolib.data.catalogs import read_catalog
from zoolib.data.partition import CLASSIFICATIONS
from zoolib.data.tasks import repeated, warn_of_grey
from zoolib.job.attempts import Budget
from zoolib.job.gpus import check_gpus
from zoolib.job.logs import log, whole
from zoolib.job.provenance import hash_of, hash_of_file, versions
from zoolib.learning import datasets, fitting, models
from zoolib.learning.augment import augmentation_of
from zoolib.learning.blocks import blocks_of, nested_layers, set_trainable
from zoolib.learning.label_heads import Accuracy, LabelsLoss, labels_head
from zoolib.learning.optimizers import OPTIMIZER_KEYS

# Galaxies that go through the backbone at once when its features are computed beforehand.
BLOCK = 128


def finetune_task(train, validation, model, task, seed, output, folder, code="", scratch=False, budget=None):
    """Train a new head, and of the backbone what the task's strategy says, stage after stage.

    The weights that are kept are those of the epoch with the best validation loss of all stages.
    Where nothing of the backbone trains and nothing is augmented, its features are computed once and
    the head learns from them; the model has the same form.

    Args:
        train: Parquet catalogue to learn from, with the labels' target columns.
        validation: Parquet catalogue that decides when to stop.
        model: folder of the trained model.
        task: an entry of `finetune.tasks` in the configuration.
        seed: of the run.
        output: attributes model, about, history: the files to write.
        folder: for checkpoints and TensorBoard's log.
        code: fingerprint of the code; a checkpoint of other code is not gone on from.
        scratch: forget the backbone's weights first and train everything, BatchNorm too: what the
            labels alone can teach.
        budget: the `attempts.Budget` of the job; none by default.

    Raises:
        UserError: nothing to learn, no such strategy, a model that cannot be read.
        Unfinished: the wall time is nearly over; called again, it goes on.
    """
    check_gpus()
    catalogs = {"train": read_catalog(train), "validation": read_catalog(validation)}
    known = catalogs["train"].about
    labels = [Label.from_dict(label) for label in known["labels"]]
    for name, catalog in catalogs.items():
        check_learnable(labels, catalog.table, f"finetune.tasks, {task['name']}, {name}")
    start = models.load_model(model)
    image, augmentation = start.about["image"], augmentation_of(start.about)
    warn_of_grey(catalogs["train"].table, image, f"finetune.tasks, {task['name']}")
    seed = int(hash_of([seed, task["name"]]), 16) % 2**31
    keras.utils.set_random_seed(seed)
    backbone = keras.models.clone_model(start.backbone) if scratch else start.backbone
    statistics = _statistics(labels, catalogs["train"].table)
    head = labels_head(backbone.output_shape[-1], labels, statistics=statistics, **task["head"])
    network = models.join(backbone, head)
    strategy = find_strategy("no_freeze" if scratch else task["strategy"])
    stages = strategy.stages(blocks_of(backbone), task)
    identity = {
        "code": code,
        "versions": versions(),
        "task": task,
        "augmentation": augmentation,
        "scratch": scratch,
        "seed": seed,
        "start": hash_of_file(Path(model) / "model.keras"),
        "data": [hash_of_file(train), hash_of_file(validation)],
    }
    if fitting.put_back(output, folder, hash_of(identity)):
        return
    targets = [column for label in labels for column in label.targets]
    tables = {"train": repeated(catalogs["train"].table), "validation": catalogs["validation"].table}
    stores = {
        name: datasets.from_catalog([table], targets, image, in_memory=True) for name, table in tables.items()
    }
    log.info("%s: %d galaxies to learn from, %d to validate on", task["name"], *map(len, tables.values()))
    weights = {labels[0].name: known["class_weights"]} if "class_weights" in known else {}
    fit = _Finetuning(
        network,
        LabelsLoss(labels, statistics, task["smoothing"], weights),
        [Accuracy(labels)] if any(label.kind in CLASSIFICATIONS for label in labels) else [],
        stores,
        augmentation,
        {**task, "train_bn": scratch or task["train_bn"]},
        seed,
        budget or Budget(),
    )
    with datasets.images_read(*stores.values()):
        history = fit.run(stages, Path(folder), identity)
    about = {
        "kind": _kind(labels),
        "tree": labels[0].tree.to_dict() if labels[0].tree else None,
        "labels": [label.to_dict() for label in labels],
        "columns": [column for label in labels for column in label.outputs],
        "image": image,
        "training": {
            **task,
            "augmentation": augmentation,
            "scratch": scratch,
            "galaxies": len(catalogs["train"].table),
            "backbone": start.about["training"].get("backbone"),
            "pretrained": str(model),
            "origin": None if scratch else origin_of(model),
        },
        "seed": seed,
        "data": dict(
            zip(("model", "train", "validation"), [identity["start"], *identity["data"]], strict=True)
        ),
        "versions": versions(),
        "scores": {"epochs": len(history), "val_loss": float(history["val_loss"].min())},
    }
    # Whoever trains it next decides anew what moves.
    set_trainable(backbone, {layer.name for layer in nested_layers(backbone)}, batchnorm=True)
    with whole(output.history) as partial:
        history.to_csv(partial, index=False)
    models.save_model(network, about, output.model, output.about)
    fitting.keep(output, folder, hash_of(identity))
    for number in range(len(stages)):
        (_stage_folder(folder, number) / "checkpoint.npz").unlink(missing_ok=True)


class _Finetuning:
    """The stages of one finetuning, trained one after the other."""

    def __init__(self, network, loss, metrics, stores, augmentation, task, seed, budget):
        self.network, self.loss, self.metrics = network, loss, metrics
        self.stores, self.augmentation = stores, augmentation
        self.task, self.seed, self.budget = task, seed, budget
        self.backbone = network.get_layer("backbone")
        self.features = None

    def run(self, stages, folder, identity):
        """Train all stages; the network then has the best weights.

        Returns:
            pandas.DataFrame with a row an epoch, as `fitting.fit` gives it, and the name of the stage.
        """
        histories, best = [], (float("inf"), None)
        for number, stage in enumerate(stages):
            log.info("Stage %s: the head and %d layers of the backbone train", stage.name, len(stage.layers))
            if number and (stages[number - 1].layers or self.task["train_bn"]):
                # They were another backbone's.
                self.features = None
            if number and stage.from_best:
                self.network.set_weights(best[1])
            trained, history, last = self._train(
                stage, _stage_folder(folder, number), hash_of([identity, number])
            )
            reached = history["val_loss"].min()
            if reached < best[0]:
                best = reached, self.network.get_weights()
            elif number:
                log.info("No epoch was better than the best one before")
            if number + 1 < len(stages) and not stages[number + 1].from_best:
                trained.set_weights(last)
            histories.append(history.assign(stage=stage.name))
        self.network.set_weights(best[1])
        history = pd.concat(histories, ignore_index=True)
        history["epoch"] = range(1, len(history) + 1)
        return history

    def _train(self, stage, folder, fingerprint):
        batchnorm = self.task["train_bn"]
        set_trainable(self.backbone, stage.layers, batchnorm)
        settings = {key: self.task[key] for key in OPTIMIZER_KEYS}
        settings |= {"learning_rate": stage.learning_rate, "epochs": stage.epochs, "patience": stage.patience}
        network, batches, judged = self.network, *self._of_images(stage)
        if not stage.layers and not batchnorm and not self.task["augment"]:
            head = self.network.get_layer("head")
            # Another model of the same layers: what was compiled itself would be saved with its loss.
            network, batches, judged = keras.Model(head.inputs, head.outputs), *self._of_features(stage)
        history, last = fitting.fit(
            network,
            self.loss,
            batches,
            judged,
            settings,
            folder=folder,
            fingerprint=fingerprint,
            seed=self.seed,
            metrics=self.metrics,
            rates=self._rates_of_variables(stage.rates),
            budget=self.budget,
        )
        return network, history, last

    def _rates_of_variables(self, rates):
        return {
            variable.path: rates[layer.name]
            for layer in nested_layers(self.backbone)
            if layer.name in rates
            for variable in layer.variables
        }

    def _of_images(self, stage):
        batch = self.task["batch_size"]

        def batches(first_epoch):
            return datasets.training_batches(
                self.stores["train"],
                self.augmentation,
                batch,
                self.seed,
                stage.epochs,
                first_epoch,
                keep_last=True,
                central=not self.task["augment"],
            )

        return batches, datasets.central_batches(self.stores["validation"], self.augmentation, batch)

    def _of_features(self, stage):
        """What a frozen backbone makes of images that are never changed: computed once."""
        if self.features is None:
            backbone = keras.Model(self.backbone.inputs, self.backbone.outputs)
            backbone.compile(jit_compile=False)
            self.features = {
                name: datasets.features(backbone, store, self.augmentation, BLOCK)
                for name, store in self.stores.items()
            }
        batch = self.task["batch_size"]

        def batches(first_epoch):
            return datasets.array_batches(
                *self.features["train"], batch, self.seed, stage.epochs, first_epoch
            )

        return batches, tf.data.Dataset.from_tensor_slices(self.features["validation"]).batch(batch)


def _stage_folder(folder, number):
    return Path(folder) / f"stage{number}"


def _statistics(labels, table):
    """Mean and standard deviation of each number that is to be learned."""
    numbers = {label.name: table[label.name] for label in labels if label.kind == "regression"}
    return {name: (float(values.mean()), float(values.std(ddof=0))) for name, values in numbers.items()}


def _kind(labels):
    """What the numbers of a model for these labels are."""
    kinds = {label.kind for label in labels}
    if kinds == {"votes"}:
        return "concentrations"
    return "probabilities" if kinds <= set(CLASSIFICATIONS) else "values"
