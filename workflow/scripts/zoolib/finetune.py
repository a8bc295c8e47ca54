"""Stage finetune: a trained backbone learns a new label from a few hundred galaxies."""

from pathlib import Path

import keras
import pandas as pd

from zoolib import datasets, fitting, models
from zoolib.logs import UserError, log, whole
from zoolib.provenance import hash_of, hash_of_file, versions


def finetune_task(train, validation, model, task, seed, output, folder, code=""):
    """Train a new head on a frozen backbone and then, if the task says so, the backbone too.

    BatchNorm never trains here: its statistics are those of the galaxies that the backbone knows.

    Args:
        train: Parquet catalogue to learn from, with the task's label as a column.
        validation: Parquet catalogue that decides when to stop.
        model: folder of the trained model.
        task: an entry of `finetune.tasks` in the configuration.
        seed: of the run.
        output: attributes model, about, history: the files to write.
        folder: for checkpoints and TensorBoard's log.
        code: fingerprint of the code; a checkpoint of other code is not gone on from.

    Raises:
        UserError: a label with one value, or with values other than 0 and 1.
    """
    label = task["label"]
    tables = {name: pd.read_parquet(path) for name, path in (("train", train), ("validation", validation))}
    for name, table in tables.items():
        check_binary(table, label, f"finetune.tasks, {task['name']}, {name}")
    start = models.load_model(model)
    image = start.about["image"]
    seed = int(hash_of([seed, task["name"]]), 16) % 2**31
    keras.utils.set_random_seed(seed)
    head = models.label_head(
        start.backbone.output_shape[-1], 1, task["head"]["units"], task["head"]["dropout"], "sigmoid"
    )
    network = models.join(start.backbone, head)
    stores = {
        name: datasets.from_catalog([table], [label], image, in_memory=True) for name, table in tables.items()
    }
    identity = {
        "code": code,
        "task": task,
        "seed": seed,
        "start": hash_of_file(Path(model) / "model.keras"),
        "data": [hash_of_file(train), hash_of_file(validation)],
    }
    log.info("%s: %d galaxies to learn from, %d to validate on", task["name"], *map(len, tables.values()))
    histories = []
    for stage in stages(task):
        log.info(
            "Training the head %s", "and the backbone" if stage["backbone"] else "on the frozen backbone"
        )
        before = network.get_weights()
        set_trainable(start.backbone, stage["backbone"])
        with datasets.images_read(*stores.values()):
            history, _ = fit_stage(network, stores, stage, task, seed, hash_of([identity, stage]), folder)
        if histories and history["val_loss"].min() >= histories[-1]["val_loss"].min():
            log.info("No epoch was better than the best one before: the weights from there are kept")
            network.set_weights(before)
        histories.append(history.assign(stage=stage["name"]))
    history = pd.concat(histories, ignore_index=True)
    history["epoch"] = range(1, len(history) + 1)
    about = {
        "kind": "probabilities",
        "tree": None,
        "columns": [label],
        "image": image,
        "training": {**task, "galaxies": len(tables["train"]), "model": str(model)},
        "seed": seed,
        "data": dict(
            zip(("model", "train", "validation"), [identity["start"], *identity["data"]], strict=True)
        ),
        "versions": versions(),
        "scores": {"epochs": len(history), "val_loss": float(history["val_loss"].min())},
    }
    # Whoever trains it next decides anew what moves.
    set_trainable(start.backbone, True, batchnorm=True)
    with whole(output.history) as partial:
        history.to_csv(partial, index=False)
    models.save_model(network, about, output.model, output.about)
    for stage in stages(task):
        (Path(folder) / stage["name"] / "checkpoint.npz").unlink(missing_ok=True)


def stages(task):
    """The trainings that a task consists of: the head, and then perhaps everything.

    Args:
        task: an entry of `finetune.tasks` in the configuration.

    Returns:
        A list of {"name", "backbone": trains too?, "learning_rate", "epochs", "patience"}.
    """
    head = {key: task[key] for key in ("learning_rate", "epochs", "patience")}
    found = [{"name": "head", "backbone": False, **head}]
    if task["unfreeze"]:
        found.append({"name": "unfrozen", "backbone": True, **task["unfreeze"]})
    return found


def fit_stage(network, stores, stage, task, seed, fingerprint, folder):
    """Train one stage.

    Args:
        network: the model, with what trains set.
        stores: {"train", "validation"}: `datasets.Store`.
        stage: from `stages`.
        task: an entry of `finetune.tasks` in the configuration.
        seed: of the task.
        fingerprint: of all that the stage depends on.
        folder: for checkpoints.

    Returns:
        What `fitting.fit` returns.
    """
    batch = task["batch_size"]

    def batches(first_epoch):
        return datasets.training_batches(
            stores["train"], batch, seed, stage["epochs"], first_epoch, keep_last=True
        )

    return fitting.fit(
        network,
        keras.losses.BinaryCrossentropy(),
        batches,
        datasets.central_batches(stores["validation"], batch),
        stage,
        folder=Path(folder) / stage["name"],
        fingerprint=fingerprint,
        seed=seed,
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy")],
    )


def set_trainable(backbone, trainable, batchnorm=False):
    """Freeze or unfreeze a backbone.

    Args:
        backbone: keras.Model.
        trainable: whether its weights may move.
        batchnorm: whether BatchNorm may move with them; it stays frozen when a backbone is finetuned.
    """
    backbone.trainable = trainable
    # Layer by layer: Keras passes the value on only where the model's own changes.
    for layer in nested_layers(backbone):
        is_batchnorm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = trainable and (batchnorm or not is_batchnorm)


def nested_layers(model):
    """All layers of a model, those of the models nested in it included.

    Args:
        model: keras.Model.

    Yields:
        keras.Layer.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from nested_layers(layer)
        else:
            yield layer


def check_binary(table, label, where):
    """Stop unless a label has both its values, 0 and 1.

    Args:
        table: catalogue with the columns id_str and the label.
        label: name of the label.
        where: what the message calls it.

    Raises:
        UserError: other values than 0 and 1, or one of them only.
    """
    values = table[label]
    strange = ~values.isin([0, 1])
    if strange.any():
        raise UserError(
            f"{where}: the label '{label}' of galaxy '{table['id_str'][strange].iloc[0]}' is"
            f" {values[strange].iloc[0]:g}, expected 0 or 1; mend the table, or leave such rows out by query."
        )
    if values.nunique() < 2:
        raise UserError(
            f"{where}: all {len(values)} galaxies have {label} = {values.iloc[0]:g}; both 0 and 1 are needed:"
            " label more galaxies, or change the task's split."
        )
