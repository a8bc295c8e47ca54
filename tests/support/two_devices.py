"""Train the same model on one and on two logical CPU devices; a test runs this in a new process.

Writes NPZ: for each number of devices the history and the final weights, without and with BatchNorm; and the
loss of 13 galaxies in batches of 4, where one device gets no galaxy of the last batch.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras  # noqa: E402 (devices are made before anything asks for one)
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from stored import TREE, train_member  # noqa: E402
from zoolib import train  # noqa: E402
from zoolib.job.logs import UserError  # noqa: E402
from zoolib.learning import models  # noqa: E402
from zoolib.learning.blocks import nested_layers  # noqa: E402
from zoolib.learning.likelihood import QuestionLosses, TreeLoss  # noqa: E402

# Each part of it has variables or state of its own.
SCHEDULE = {"optimizer": "adamw", "schedule": "plateau", "clip_norm": 1.0}


def backbone(name, edge, channels):
    """A backbone without BatchNorm."""
    inputs = keras.layers.Input((edge, edge, channels), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="backbone")


def evaluate(strategy):
    """The mean loss of 13 galaxies, and that of each question."""
    rng = np.random.default_rng(3)
    pixels = rng.uniform(0, 255, (13, 18, 18, 1)).astype("float32")
    votes = rng.integers(0, 9, (13, 4)).astype("float32")
    votes[::3, 2:] = 0
    keras.utils.set_random_seed(4)
    with strategy.scope():
        network = models.join(backbone("", 18, 1), models.tree_head(4, TREE, 0.0))
        network.compile(loss=TreeLoss(TREE), metrics=[QuestionLosses(TREE)], jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((pixels, votes)).batch(4)
    if strategy.num_replicas_in_sync > 1:
        batches = train.filled_batches(batches, 13, 4)
    scores = network.evaluate(batches, return_dict=True, verbose=0)
    return [scores[name] for name in sorted(scores)]


def main(stored, output):
    """Train and evaluate on one and on two devices; write the results."""
    written = {}
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with_batchnorm = train.build_backbone
    for name, strategy in (("one", tf.distribute.get_strategy()), ("two", two)):
        train.devices = lambda chosen=strategy: chosen
        written[f"{name}_loss"] = evaluate(strategy)
        for kind, built, epochs in (("plain", backbone, 2), ("batchnorm", with_batchnorm, 1)):
            train.build_backbone = built
            folder = output.parent / f"{kind}_{name}"
            settings = {**SCHEDULE, "dropout": 0.0, "warmup_epochs": epochs - 1}
            model = train_member(stored, folder, epochs=epochs, **settings)
            history = pd.read_csv(folder / "history.csv").drop(columns=["seconds"])
            written[f"{kind}_{name}_columns"] = history.columns.to_numpy(str)
            written[f"{kind}_{name}_history"] = history.to_numpy()
            weights = [weight.ravel() for weight in model.network.get_weights()]
            written[f"{kind}_{name}_weights"] = np.concatenate(weights)
        layers = [vars(layer).get("synchronized") for layer in nested_layers(model.network)]
        written[f"{name}_synchronized"] = [bool(value) for value in layers]
    views = output.parent / "views"
    train_member(stored, views, epochs=1, pretext="vicreg")
    written["views_history"] = pd.read_csv(views / "history.csv")[
        ["loss", "views_loss", "val_loss"]
    ].to_numpy()
    try:
        train_member(stored, output.parent / "few", epochs=1, pretext="vicreg", batch_size=2)
    except UserError as error:
        written["too_few"] = json.dumps(str(error))
    try:
        train_member(stored, output.parent / "odd", epochs=1, batch_size=9)
    except UserError as error:
        written["refused"] = json.dumps(str(error))
    np.savez(output, **written)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
