"""The life of a training, which both stages share: continue or start, fit, write its files, clean up."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import keras
import pandas as pd

from zoolib.job.attempts import Budget
from zoolib.job.logs import log, whole
from zoolib.job.provenance import hash_of, hash_of_file, versions
from zoolib.learning import models
from zoolib.learning.blocks import nested_layers
from zoolib.learning.checkpoints import Checkpoint, Progress
from zoolib.learning.optimizers import Plateau, build_optimizer

# With fewer validation galaxies, the moment of stopping says little.
FEW = 20
# The files that a training writes.
OUTPUT = ("model", "about", "history")


@dataclass(frozen=True)
class Job:
    """What the job of a training says besides what to train.

    Attributes:
        output: attributes model, about, history: the files to write. Checkpoints and TensorBoard's log go to
            the folder of the model.
        code: fingerprint of the code; a training does not continue from a checkpoint of other code.
        budget: the `attempts.Budget` of the job; no limit by default.
    """

    output: object
    code: str = ""
    budget: Budget = field(default_factory=Budget)

    @property
    def folder(self):
        """The folder of the model."""
        return Path(self.output.model).parent


def warn_of_few(count, key):
    """Warn if few galaxies decide when a training stops.

    Args:
        count: their number.
        key: of the configuration that sets their share.
    """
    if count < FEW:
        log.warning(
            "Only %d galaxies decide when the training stops, so it may stop too early or too late, and"
            " another training may end differently: %d or more are a good beginning (%s)",
            *(count, FEW, key),
        )


def run_training(job, identity, learn):
    """Run a training from wherever earlier attempts got to, and write its files.

    Args:
        job: a `Job`.
        identity: everything that the training depends on besides code and software, as plain values.
            Only an attempt with the same identity is continued.
        learn: trains. It is called with a `checkpoints.Progress`, and returns the trained network, its
            history (pandas.DataFrame) and the content of `model.json` without the versions of software.

    Raises:
        Unfinished: the wall time is nearly over; the next call continues.
    """
    fingerprint = hash_of({"code": job.code, "versions": versions(), **identity})
    if _put_back(job, fingerprint):
        return
    progress = Progress(job.folder, fingerprint, job.budget)
    network, history, about = learn(progress)
    with whole(job.output.history) as partial:
        history.to_csv(partial, index=False)
    models.save_model(network, {**about, "versions": versions()}, job.output.model, job.output.about)
    _keep(job, fingerprint)
    progress.delete()


def _keep(job, fingerprint):
    """Keep the files of a training under other names too.

    Snakemake may not know that a job has ended: when it was killed on the login node, for example. Started
    again, it deletes the files of this job. Outside SLURM nothing is kept.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return
    kept = job.folder / "kept"
    try:
        kept.mkdir(exist_ok=True)
        # The fingerprint goes first: without it the other files count for nothing.
        for path in [kept / "fingerprint", *kept.iterdir()]:
            path.unlink(missing_ok=True)
        for name in OUTPUT:
            try:
                # The same bytes under a second name take no space as long as both are there.
                os.link(getattr(job.output, name), kept / name)
            except OSError:
                shutil.copyfile(getattr(job.output, name), kept / name)
        with whole(kept / "fingerprint") as partial:
            partial.write_text(_mark(kept, fingerprint))
    except OSError as error:
        # The training itself is complete.
        log.warning("%s: the model cannot be kept there as well (%s)", kept, error)


def _put_back(job, fingerprint):
    """Put back the files of the same training, if it has ended before and Snakemake has deleted them.

    Returns:
        Whether it has ended before.
    """
    kept = job.folder / "kept"
    files = [kept / name for name in ("fingerprint", *OUTPUT)]
    if "SLURM_JOB_ID" not in os.environ or not all(file.is_file() for file in files):
        return False
    mark = (kept / "fingerprint").read_text(errors="replace")
    if mark != _mark(kept, fingerprint):
        if mark.startswith(fingerprint):
            log.warning("%s is damaged (its checksums are wrong): training starts from scratch", kept)
        return False
    for name in OUTPUT:
        with whole(getattr(job.output, name)) as partial:
            shutil.copyfile(kept / name, partial)
    log.info("This training has ended before: its model is taken from %s (delete it to train again)", kept)
    return True


def _mark(kept, fingerprint):
    """What `kept/fingerprint` says: of which training the files are, and their checksums."""
    return "\n".join([fingerprint, *(hash_of_file(kept / name) for name in OUTPUT)]) + "\n"


def fit(network, loss, batches, settings, seed, progress, metrics=(), rates=None):
    """Train until the validation loss no longer improves; keep the best weights.

    A call that was interrupted at any moment is repeated: training continues after the last complete epoch.
    On a CPU it ends with exactly the weights of a training without interruptions.

    Args:
        network: keras.Model; it is trained in place.
        loss: a Keras loss.
        batches: (training, validation). Training is a function of a range of epochs, which gives (dataset of
            batches, steps an epoch), see `datasets`; validation is a dataset of batches, read once an epoch.
        settings: learning_rate, epochs, patience (None trains all epochs), and the optional keys of
            `optimizers.build_optimizer`.
        seed: whole number.
        progress: a `checkpoints.Progress`.
        metrics: Keras metrics to log.
        rates: {path of a variable: its learning rate as a share of the others'}.

    Returns:
        (history: pandas.DataFrame with one row an epoch: epoch, loss, val_loss, learning_rate, seconds,
        and the metrics in training and, as `val_…`, in validation; the weights of the last epoch. The
        network has the weights of the best epoch).

    Raises:
        UserError: the loss is no longer a number, or an epoch takes longer than the wall time.
        Unfinished: the wall time is nearly over.
    """
    keras.utils.set_random_seed(seed)
    stopping = _early_stopping(settings)
    plateau = Plateau(settings) if settings.get("schedule") == "plateau" else None
    checkpoint = Checkpoint(progress, stopping, plateau)
    epochs = range(checkpoint.first_epoch, settings["epochs"])
    training, validation = batches
    shown, steps = training(epochs)
    _compile(network, loss, metrics, build_optimizer(settings, steps, rates))
    if epochs.start:
        log.info("Training goes on after epoch %d", epochs.start)
    if checkpoint.finished or not epochs:
        checkpoint.set_model(network)
        checkpoint.restore_best()
        return pd.DataFrame(checkpoint.history), checkpoint.last
    tensorboard = progress.folder / "tensorboard"
    if not epochs.start:
        # The log of another training would be drawn into the same curves.
        shutil.rmtree(tensorboard, ignore_errors=True)
    network.fit(
        shown,
        validation_data=validation,
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        steps_per_epoch=steps,
        callbacks=[*filter(None, [stopping, plateau, checkpoint]), keras.callbacks.TensorBoard(tensorboard)],
        shuffle=False,
        verbose=0,
    )
    return pd.DataFrame(checkpoint.history), checkpoint.last


def _early_stopping(settings):
    return keras.callbacks.EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=settings["patience"] or settings["epochs"],
        restore_best_weights=True,
    )


def _compile(network, loss, metrics, optimizer):
    if any(layer.compute_dtype == "float16" for layer in nested_layers(network)):
        # Keras does this itself for a new model, but not for a loaded one.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # Compiled by XLA, a training step takes ten times as long on a CPU, and starts slowly on a GPU.
    network.compile(
        optimizer=optimizer,
        loss=loss,
        metrics=list(metrics),
        jit_compile=False,
        auto_scale_loss=False,
    )
    # If Keras made these variables while TensorFlow traces a training step, the step would be traced twice.
    network.optimizer.build(network.trainable_variables)
