"""Checkpoints: what an interrupted training needs to continue as if nothing had happened."""

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from zoolib.job.attempts import Budget, Unfinished, this_job
from zoolib.job.logs import UserError, check_machine, log, whole
from zoolib.job.provenance import hash_of

NAME = "checkpoint.npz"
REMEMBERED = ".found.json"
# Bytes of the checksum before the npz.
DIGEST = 32
# The states of early stopping and of a plateau. The learning rate is a variable of the optimiser.
STOPPING_STATE = ("best", "wait", "best_epoch", "stopped_epoch")
PLATEAU_STATE = ("best", "wait")


@dataclass(frozen=True)
class Progress:
    """Where a training saves how far it got, and how long it may take.

    Attributes:
        folder: for the checkpoint and TensorBoard's log. The checkpoint is not an output of a rule:
            Snakemake deletes the outputs of failed jobs.
        fingerprint: of everything that the training depends on; a checkpoint with another one is ignored.
        budget: the `attempts.Budget` of the job.
    """

    folder: Path
    fingerprint: str
    budget: Budget

    def of_stage(self, number):
        """The progress of one stage of a training that has several stages.

        Args:
            number: of the stage.

        Returns:
            A `Progress` with a folder and a fingerprint of its own.
        """
        return Progress(self.folder / f"stage{number}", hash_of([self.fingerprint, number]), self.budget)

    def remembered(self, name, find):
        """What was found before the training itself; an interrupted training does not search again.

        Args:
            name: of the file, without its suffix.
            find: called if no earlier attempt of the same training has found it; returns plain values.

        Returns:
            What `find` returned, here or in an earlier attempt.
        """
        path = self.folder / f"{name}{REMEMBERED}"
        try:
            kept = json.loads(path.read_text())
            if kept["fingerprint"] == self.fingerprint:
                return kept["found"]
        # Whatever is wrong with the file, it can be found again.
        except (OSError, ValueError, TypeError, KeyError):
            pass
        found = find()
        with whole(path) as partial:
            partial.write_text(json.dumps({"fingerprint": self.fingerprint, "found": found}))
        return found

    def delete(self):
        """Delete the checkpoints of the training and of its stages, and what it has remembered."""
        # Not in all folders below: other trainings may have theirs there.
        others = [*self.folder.glob(f"stage*/{NAME}"), *self.folder.glob(f"*{REMEMBERED}")]
        for path in [self.folder / NAME, *others]:
            path.unlink(missing_ok=True)


class Checkpoint(keras.callbacks.Callback):
    """Saves after each epoch everything that a bit-equal continuation needs, and restores it.

    Keras saves neither the states of dropout's random generators nor the counters of early stopping;
    a training that continues without them is another training.

    Args:
        progress: a `Progress`: where to save. What does not fit into its budget is left to the next attempt.
        stopping: the EarlyStopping callback; it comes before this one in the list of callbacks.
        plateau: the `optimizers.Plateau`, which comes before this one too; None for other schedules.
    """

    def __init__(self, progress, stopping, plateau=None):
        super().__init__()
        self.path = progress.folder / NAME
        self.fingerprint = progress.fingerprint
        self.budget = progress.budget
        self.stopping = stopping
        self.plateau = plateau
        self.history = []
        self.finished = False
        self.last = None
        self._state = self._read()
        self._started = time.monotonic()
        self._longest = 0

    def _read(self):
        try:
            about, arrays = _read_checked(self.path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if not isinstance(error, PermissionError):
                check_machine(error, self.path)
            log.warning("%s cannot be read (%s): training starts from scratch", self.path, error)
            if self.path.is_dir():
                # No file could take its place.
                shutil.rmtree(self.path)
            return None
        if about["fingerprint"] != self.fingerprint:
            log.info("The checkpoint belongs to other settings or data: training starts from scratch")
            return None
        self.history = about["history"]
        self.finished = about["finished"]
        return about, arrays

    @property
    def first_epoch(self):
        """The epoch to continue with, counted from 0."""
        return len(self.history)

    def on_train_begin(self, logs=None):
        """Restore everything, after the other callbacks have reset themselves."""
        if self._state is None:
            return
        about, arrays = self._state
        for name, variables in self._variables().items():
            for number, variable in enumerate(variables):
                variable.assign(arrays[f"{name}{number}"])
        for name in STOPPING_STATE:
            setattr(self.stopping, name, about["stopping"][name])
        for name, value in about["plateau"].items():
            setattr(self.plateau, name, value)
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
        """Stop in the middle of an epoch if the wall time is over."""
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

    # Validation is part of the epoch too.
    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch, logs=None):
        """Write the checkpoint and log the epoch; stop if the wall time is too short for another one."""
        row = self._row(epoch, logs)
        self.history.append(row)
        self.finished = self.stopping.wait >= self.stopping.patience or self.model.stop_training
        began = time.monotonic()
        self._write()
        self.budget.was_used, saving = True, time.monotonic() - began
        log.info(
            "epoch %d: loss %.4f, validation loss %.4f (best %.4f in epoch %d), %.0f s",
            *(row["epoch"], row["loss"], row["val_loss"]),
            *(self.stopping.best, self.stopping.best_epoch + 1, row["seconds"]),
        )
        # Only epochs of this attempt count: an epoch that once hung says nothing about the next ones.
        self._longest = max(self._longest, row["seconds"])
        left, needed = self.budget.left(), self._longest + 2 * saving
        if not self.finished and epoch + 1 < self.params["epochs"] and left < needed:
            raise Unfinished(
                f"Saved after epoch {epoch + 1}: the wall time has {max(left, 0):.0f} s left and another"
                f" epoch may take {needed:.0f} s; training goes on in the next attempt."
            )

    def _row(self, epoch, logs):
        """The row of the history for an epoch that has just ended."""
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), "val_loss": float(logs["val_loss"])}
        # A plateau may have changed it since the epoch, and has logged it before.
        rate = logs.get("learning_rate", self.model.optimizer.learning_rate)
        row["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        row["seconds"] = round(time.monotonic() - self._started, 2)
        row.update({name: float(value) for name, value in logs.items() if name not in row})
        if not np.isfinite([row["loss"], row["val_loss"]]).all():
            raise UserError(
                f"The loss became {row['loss']} in training and {row['val_loss']} in validation in epoch"
                f" {epoch + 1}; lower the learning rate."
            )
        return row

    def _write(self):
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
            "plateau": {name: _plain(getattr(self.plateau, name)) for name in PLATEAU_STATE if self.plateau},
            "best": len(best),
            "job": this_job(),
        }
        with whole(self.path) as partial:
            _write_checked(partial, about, arrays)

    def restore_best(self):
        """Give the model its best weights, if training had ended before it was interrupted."""
        if self._state is not None:
            about, arrays = self._state
            for number, variable in enumerate(self.model.variables):
                variable.assign(arrays[f"model{number}"])
            self.last = self.model.get_weights()
            self.model.set_weights([arrays[f"best{number}"] for number in range(about["best"])])


def _write_checked(path, about, arrays):
    """Write a checkpoint: the SHA-256 of all that follows, then an npz file."""
    with open(path, "w+b") as file:
        file.write(bytes(DIGEST))
        np.savez(file, about=json.dumps(about), **arrays)
        file.seek(DIGEST)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        file.write(digest)


def _read_checked(path):
    """Read what `_write_checked` wrote.

    The checksum comes first: zip files, numpy and JSON each fail in their own ways at damaged bytes, and some
    they do not notice.

    Raises:
        ValueError: another checksum.
    """
    with open(path, "rb") as file:
        expected = file.read(DIGEST)
        if hashlib.file_digest(file, "sha256").digest() != expected:
            raise ValueError("its checksum is wrong")
        file.seek(DIGEST)
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
    return json.loads(str(arrays.pop("about"))), arrays


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
