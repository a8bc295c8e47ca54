"""The loop that training and finetuning share: early stopping, checkpoints, resuming."""

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from zoolib.job.attempts import Budget, Unfinished, this_job
from zoolib.job.logs import UserError, log, whole
from zoolib.learning.blocks import nested_layers
from zoolib.learning.optimizers import build_optimizer

# What early stopping must remember to go on as if nothing had happened.
STOPPING_STATE = ("best", "wait", "best_epoch", "stopped_epoch")
# The files that a training leaves behind.
OUTPUT = ("model", "about", "history")


class Checkpoint(keras.callbacks.Callback):
    """Saves after each epoch all that a bit-equal continuation needs, and restores it.

    Keras saves neither the states of dropout's random generators nor early stopping's counters; a
    training continued without them is another training.

    Args:
        folder: of the checkpoint; it is no output of a rule, so that Snakemake leaves it alone.
        fingerprint: of the settings and data that the training belongs to.
        stopping: the EarlyStopping callback, listed before this one.
        budget: the `attempts.Budget` of the job; what does not fit into it is left to the next attempt.
    """

    def __init__(self, folder, fingerprint, stopping, budget):
        super().__init__()
        self.budget = budget
        self.path = Path(folder) / "checkpoint.npz"
        self.fingerprint = fingerprint
        self.stopping = stopping
        self.history = []
        self.finished = False
        self.last = None
        self._state = self._read()
        self._started = time.monotonic()
        self._longest = 0

    def _read(self):
        if not self.path.is_file():
            return None
        try:
            with np.load(self.path) as stored:
                about = json.loads(str(stored["about"]))
                arrays = {name: stored[name] for name in stored.files if name != "about"}
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s): training starts afresh", self.path, error)
            return None
        if about["fingerprint"] != self.fingerprint:
            log.info("The checkpoint belongs to other settings or data: training starts afresh")
            return None
        self.history = about["history"]
        self.finished = about["finished"]
        return about, arrays

    @property
    def first_epoch(self):
        """The epoch at which to go on."""
        return len(self.history)

    def on_train_begin(self, logs=None):
        """Put everything back, after the other callbacks have reset themselves."""
        if self._state is None:
            return
        about, arrays = self._state
        for name, variables in self._variables().items():
            for number, variable in enumerate(variables):
                variable.assign(arrays[f"{name}{number}"])
        for name in STOPPING_STATE:
            setattr(self.stopping, name, about["stopping"][name])
        best = [arrays[f"best{number}"] for number in range(about["best"])]
        self.stopping.best_weights = best or None
        self._state = None

    def _variables(self):
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return {"model": self.model.variables, "optimizer": optimizer.variables}

    def on_epoch_begin(self, epoch, logs=None):
        """Note when the epoch began."""
        self._started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Stop in the middle of an epoch that the wall time is too short for."""
        if self.budget.left() > 0:
            return
        done = len(self.history)
        if self.budget.was_whole and not self.budget.was_used:
            raise UserError(
                f"A wall time of {self.budget.minutes:.0f} minutes is too short for one epoch, here epoch"
                f" {done + 1}: raise this rule's `runtime` in the profile's set-resources."
            )
        raise Unfinished(
            f"The wall time is over in the middle of epoch {done + 1}: training goes on after epoch {done}"
            " in the next attempt."
        )

    # Validation is a part of the epoch too.
    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch, logs=None):
        """Write the checkpoint, say how the epoch went, and stop where the next one would be cut."""
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), "val_loss": float(logs["val_loss"])}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(time.monotonic() - self._started, 2)
        row.update({name: float(value) for name, value in logs.items() if name not in row})
        if not np.isfinite([row["loss"], row["val_loss"]]).all():
            raise UserError(
                f"The loss became {row['loss']} in training and {row['val_loss']} in validation in epoch"
                f" {epoch + 1}; lower the learning rate."
            )
        self.history.append(row)
        self.finished = self.stopping.wait >= self.stopping.patience or self.model.stop_training
        arrays = {}
        for name, variables in self._variables().items():
            for number, variable in enumerate(variables):
                arrays[f"{name}{number}"] = keras.ops.convert_to_numpy(variable)
        self.last = self.model.get_weights()
        best = self.stopping.best_weights or []
        arrays.update({f"best{number}": weights for number, weights in enumerate(best)})
        about = {
            "fingerprint": self.fingerprint,
            "history": self.history,
            "finished": self.finished,
            "stopping": {name: _plain(getattr(self.stopping, name)) for name in STOPPING_STATE},
            "best": len(best),
            "job": this_job(),
        }
        began = time.monotonic()
        with whole(self.path) as partial:
            np.savez(partial, about=json.dumps(about), **arrays)
        self.budget.was_used, saving = True, time.monotonic() - began
        log.info(
            "epoch %d: loss %.4f, validation loss %.4f (best %.4f in epoch %d), %.0f s",
            *(row["epoch"], row["loss"], row["val_loss"]),
            *(self.stopping.best, self.stopping.best_epoch + 1, row["seconds"]),
        )
        # Of this attempt: an epoch that once hung says nothing of the next.
        self._longest = max(self._longest, row["seconds"])
        left, needed = self.budget.left(), self._longest + 2 * saving
        if not self.finished and epoch + 1 < self.params["epochs"] and left < needed:
            raise Unfinished(
                f"Saved after epoch {epoch + 1}: the wall time has {max(left, 0):.0f} s left and another"
                f" epoch may take {needed:.0f} s; training goes on in the next attempt."
            )

    def restore_best(self):
        """Give the model its best weights, when training had ended before it was interrupted."""
        if self._state is not None:
            about, arrays = self._state
            for number, variable in enumerate(self.model.variables):
                variable.assign(arrays[f"model{number}"])
            self.last = self.model.get_weights()
            self.model.set_weights([arrays[f"best{number}"] for number in range(about["best"])])


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def keep(output, folder, fingerprint):
    """Keep what a training has made under other names too.

    Snakemake deletes the files of a job that it does not know to have ended, as when it was killed on
    the login node and the job ended without it. Elsewhere than under SLURM nothing is kept.

    Args:
        output: attributes model, about, history: the files.
        folder: of the model.
        fingerprint: of everything that the training depends on.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return
    kept = Path(folder) / "kept"
    kept.mkdir(exist_ok=True)
    for path in [kept / "fingerprint", *kept.iterdir()]:
        path.unlink(missing_ok=True)
    for name in OUTPUT:
        try:
            # The same bytes under a second name: no disk is taken while both are there.
            os.link(getattr(output, name), kept / name)
        except OSError:
            shutil.copyfile(getattr(output, name), kept / name)
    with whole(kept / "fingerprint") as partial:
        partial.write_text(fingerprint)


def put_back(output, folder, fingerprint):
    """Put back what the same training has made before, if Snakemake has deleted it since.

    Args:
        output: attributes model, about, history: the files to write.
        folder: of the model.
        fingerprint: of everything that the training depends on.

    Returns:
        Whether it had ended before.
    """
    kept = Path(folder) / "kept"
    files = [kept / name for name in ("fingerprint", *OUTPUT)]
    if "SLURM_JOB_ID" not in os.environ or not all(file.is_file() for file in files):
        return False
    if (kept / "fingerprint").read_text() != fingerprint:
        return False
    for name in OUTPUT:
        with whole(getattr(output, name)) as partial:
            shutil.copyfile(kept / name, partial)
    log.info("This training had ended before: its model is taken from %s (delete it to train anew)", kept)
    return True


def fit(
    network,
    loss,
    training,
    validation,
    settings,
    folder,
    fingerprint,
    seed,
    metrics=(),
    rates=None,
    budget=None,
):
    """Train until the validation loss no longer improves; keep the best weights.

    Interrupted at any moment and called again, it goes on after the last whole epoch, and on a CPU
    ends with the very weights of a training that was never interrupted.

    Args:
        network: keras.Model; it is trained in place.
        loss: a Keras loss.
        training: first_epoch -> (dataset of batches, steps an epoch), see `datasets`.
        validation: a dataset of batches, walked once an epoch.
        settings: learning_rate, epochs, patience (None trains all epochs), and what
            `optimizers.build_optimizer` knows.
        folder: for the checkpoint and TensorBoard's log.
        fingerprint: of everything that the training depends on.
        seed: whole number.
        metrics: Keras metrics to log.
        rates: {variable's path: its learning rate as a share of the others'}.
        budget: the `attempts.Budget` of the job; none by default.

    Returns:
        (history: pandas.DataFrame with a row an epoch: epoch, loss, val_loss, learning_rate, seconds,
        and the metrics in training and, as `val_…`, in validation; the weights of the last epoch, where
        the network has those of the best).

    Raises:
        UserError: the loss is no longer a number, or an epoch takes longer than the wall time.
        Unfinished: the wall time is nearly over.
    """
    folder = Path(folder)
    keras.utils.set_random_seed(seed)
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=settings["patience"] or settings["epochs"],
        restore_best_weights=True,
    )
    checkpoint = Checkpoint(folder, fingerprint, stopping, budget or Budget())
    batches, steps = training(checkpoint.first_epoch)
    optimizer = build_optimizer(settings, steps, rates)
    if any(layer.compute_dtype == "float16" for layer in nested_layers(network)):
        # Keras does it by itself for a new model, and not for a loaded one.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # Compiled by XLA a training step is ten times slower on a CPU, and starts slowly on a GPU.
    network.compile(
        optimizer=optimizer,
        loss=loss,
        metrics=list(metrics),
        jit_compile=False,
        auto_scale_loss=False,
    )
    if checkpoint.first_epoch:
        log.info("Training goes on after epoch %d", checkpoint.first_epoch)
    if checkpoint.finished or checkpoint.first_epoch >= settings["epochs"]:
        checkpoint.set_model(network)
        checkpoint.restore_best()
    else:
        if not checkpoint.first_epoch:
            # What another training wrote there would be drawn into the same curves.
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        network.fit(
            batches,
            validation_data=validation,
            initial_epoch=checkpoint.first_epoch,
            epochs=settings["epochs"],
            steps_per_epoch=steps,
            callbacks=[stopping, checkpoint, keras.callbacks.TensorBoard(folder / "tensorboard")],
            shuffle=False,
            verbose=0,
        )
    return pd.DataFrame(checkpoint.history), checkpoint.last
