"""Optimisers: by name, with a schedule, and with a different learning rate for each layer."""

import keras

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


def build_optimizer(settings, steps, rates=None):
    """The optimiser of a training.

    Args:
        settings: learning_rate and epochs. Optional: optimizer (a name in `OPTIMIZERS`), schedule
            (`constant` or `cosine`), warmup_epochs, weight_decay and clip_norm (of the full gradient).
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
    elif warmup:
        rate = keras.optimizers.schedules.PolynomialDecay(0.0, warmup * steps, end_learning_rate=rate)
    base = OPTIMIZERS[settings.get("optimizer") or "adam"]
    decay = settings.get("weight_decay")
    if decay is None:
        decay = ADAMW_DECAY if base is keras.optimizers.AdamW else 0.0
    clip = settings.get("clip_norm")
    if rates:
        return _with_rates(base, rates, decay)(rate, weight_decay=0.0, global_clipnorm=clip)
    return base(rate, weight_decay=decay, global_clipnorm=clip)


def _with_rates(base, rates, decay):
    class Layerwise(base):
        """Scales steps and decay; Adam would undo a scaling of the gradients."""

        def build(self, variables):
            super().build(variables)
            self.rates = [rates.get(variable.path, 1.0) for variable in variables]

        def update_step(self, gradient, variable, learning_rate):
            own = learning_rate * self.rates[self._get_variable_index(variable)]
            if decay:
                self.assign_sub(variable, variable * (decay * own))
            super().update_step(gradient, variable, own)

    return Layerwise
