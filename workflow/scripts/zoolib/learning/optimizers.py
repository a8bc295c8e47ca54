"""Optimisers: by name, with a schedule, and with a different learning rate for each layer."""

import re

import keras
import tensorflow as tf

from zoolib.job.logs import UserError

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}

# The keys of a task of the configuration for the optimiser, besides the learning rate.
OPTIMIZER_KEYS = ("optimizer", "schedule", "warmup_epochs", "weight_decay", "clip_norm")
# Keras's default for AdamW.
ADAMW_DECAY = 0.004
# timm's names of tables of places, and of what computes them.
TABLES = re.compile(r"(?:^|[./])(?:cls_token|pos_embed|relative_position_bias_table|rel_pos\.mlp\.\w+)/")
# What a plateau leaves of the learning rate: Keras's default.
PLATEAU_FACTOR = 0.1


def build_optimizer(settings, steps, rates=None):
    """The optimiser of a training.

    Args:
        settings: learning_rate and epochs. Optional: optimizer (a name in `OPTIMIZERS`), schedule
            (`constant`, `cosine` or `plateau`, which also needs `Plateau`), warmup_epochs, weight_decay and
            clip_norm (of the full gradient), and decay_all: False leaves what `is_spared` without weight
            decay.
        steps: batches an epoch.
        rates: {path of a variable: its learning rate as a share of the others'}.

    Returns:
        A keras.optimizers.Optimizer.

    Raises:
        UserError: a warm-up that is as long as the training.
    """
    rate, epochs = settings["learning_rate"], settings["epochs"]
    warmup = settings.get("warmup_epochs") or 0
    if warmup >= epochs:
        raise UserError(
            f"warmup_epochs is {warmup}, but the training has only {epochs} epochs; lower it or raise epochs."
        )
    if settings.get("schedule") == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            # Keras warms up from the initial rate to the target; the steps of the decay come after that.
            initial_learning_rate=0.0 if warmup else rate,
            decay_steps=(epochs - warmup) * steps,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup * steps,
        )
    elif warmup and settings.get("schedule") != "plateau":
        rate = keras.optimizers.schedules.PolynomialDecay(0.0, warmup * steps, end_learning_rate=rate)
    base = OPTIMIZERS[settings.get("optimizer") or "adam"]
    decay = settings.get("weight_decay")
    if decay is None:
        decay = ADAMW_DECAY if base is keras.optimizers.AdamW else 0.0
    clip = settings.get("clip_norm")
    if clip and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        base = _clipped_together(base)
    decay_all = settings.get("decay_all", True)
    if rates or not decay_all:
        layerwise = _layerwise(base, rates or {}, decay, decay_all)
        return layerwise(rate, weight_decay=0.0, global_clipnorm=clip)
    return base(rate, weight_decay=decay, global_clipnorm=clip)


def is_spared(variable):
    """Whether timm's optimisers have no weight decay for a variable.

    Args:
        variable: its `path` and its `shape`.

    Returns:
        True for biases, the gains of normalisations, and tables that say where something is.
    """
    return len(variable.shape) < 2 or TABLES.search(variable.path) is not None


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Divides the learning rate by 10 whenever the validation loss has not improved for some epochs.

    These epochs are half of those after which early stopping ends the training. So a lower rate has its
    chance before the training ends.

    Args:
        settings: learning_rate, epochs, patience (None trains all epochs), and optionally warmup_epochs: the
            rate rises from 0 in these epochs, and is not reduced.
    """

    def __init__(self, settings):
        patience = max(1, (settings["patience"] or settings["epochs"]) // 2)
        super().__init__("val_loss", PLATEAU_FACTOR, patience, mode="min", min_delta=0)
        self.rate = settings["learning_rate"]
        self.warmup = settings.get("warmup_epochs") or 0
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note which epoch begins."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Raise the learning rate during the warm-up. Keras cannot reduce the rate of a schedule."""
        steps = self.params["steps"]
        step, needed = self.epoch * steps + batch, self.warmup * steps
        if needed and step <= needed:
            self.model.optimizer.learning_rate = self.rate * step / needed

    def on_epoch_end(self, epoch, logs=None):
        """Reduce the learning rate, if the loss has not improved for long enough."""
        if epoch >= self.warmup:
            super().on_epoch_end(epoch, logs)


def _clipped_together(base):
    class Together(base):
        """Clips the gradient of the complete batch; Keras clips that of each device's share."""

        def _clip_gradients(self, grads):
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, grads)
            # Keras adds up what the devices return.
            return [gradient / context.num_replicas_in_sync for gradient in super()._clip_gradients(total)]

    return Together


def _layerwise(base, rates, decay, decay_all):
    class Layerwise(base):
        """Scales steps and decay; Adam would undo a scaling of the gradients."""

        def build(self, variables):
            super().build(variables)
            self.rates = [rates.get(variable.path, 1.0) for variable in variables]
            self.decays = [0.0 if is_spared(one) and not decay_all else decay for one in variables]

        def update_step(self, gradient, variable, learning_rate):
            index = self._get_variable_index(variable)
            own = learning_rate * self.rates[index]
            if self.decays[index]:
                self.assign_sub(variable, variable * (self.decays[index] * own))
            super().update_step(gradient, variable, own)

    return Layerwise
