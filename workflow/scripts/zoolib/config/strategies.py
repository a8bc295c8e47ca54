"""Finetuning strategies: which layers of a backbone train, when, and how fast.

The names and meanings are those of Lightning Flash (`freeze`, `no_freeze`, `freeze_unfreeze`,
`unfreeze_milestones`) and of Zoobot (`two_stage`, `layer_decay`, `adamw_layer_decay`). The head always
trains.
"""

import importlib
import inspect
import math
import re
from dataclasses import dataclass, field, replace

from zoolib.job.logs import UserError
from zoolib.job.provenance import hash_of

# Names of layers in all architectures, for backbones that are only imagined; {} is the number of a block.
LAYERS = (
    *("block{}a_expand_conv", "block{}a_dwconv", "block{}a_bn", "block{}a_se_reduce", "conv{}_block1_1_conv"),
    *("blocks.{}.0.conv_pw", "blocks.{}.0.bn1", "layer{}.0.conv1", "layer{}.0.bn1", "conv2d_{}"),
    *("stages.{}.blocks.0.conv_dw", "stages.{}.blocks.0.norm", "stages.{}.blocks.0.mlp.fc1"),
    *("stages.{}.downsample.0", "batch_normalization_{}", "layer{}"),
)
MOST_BLOCKS = 20
# The residual block that a layer belongs to, by timm's names and by those of keras.applications. What is
# between two blocks, such as ConvNeXt's downsampling, belongs to the block after it.
RESIDUAL_BLOCK = re.compile(
    r"^(?:stages\.\d+\.blocks\.\d+|blocks\.\d+(?:\.\d+)?|layer\d+\.\d+|block\d+[a-z]|conv\d+_block\d+)"
)
BETWEEN = re.compile(r"^(stages\.\d+)\.downsample")
# timm takes the stages of a MaxViT as a whole.
WHOLE_STAGES, STAGE = re.compile(r"^stages\..*\.attn_(?:block|grid)\."), re.compile(r"^stages\.\d+")
# The last layers of a backbone that are above its blocks; other last layers belong to the last block.
ABOVE = re.compile(r"^head\.|^fc_norm")
# Zoobot does not train where the patches of a vision transformer are.
NEVER_TRAINS = "pos_embed"


@dataclass(frozen=True)
class Stage:
    """One stage of a finetuning.

    Attributes:
        name: its name in logs and in `history.csv`.
        layers: names of the backbone's layers that train, besides the head.
        epochs: the largest number of epochs.
        learning_rate: of the head, and of all layers that are not in `rates`.
        patience: stop after this number of epochs without a better validation loss; None: never stop early.
        rates: {name of a layer: its learning rate as a share of `learning_rate`}.
        from_best: begin with the best weights so far; False: begin with those of the last epoch.
        optimizer: `adam`, `adamw` or `sgd`; None: the task's.
        weight_decay: of all weights but those that `optimizers.is_spared`; None: the task's `weight_decay`,
            of all weights.
    """

    name: str
    layers: tuple
    epochs: int
    learning_rate: float
    patience: int | None
    rates: dict = field(default_factory=dict)
    from_best: bool = True
    optimizer: str | None = None
    weight_decay: float | None = None

    @property
    def settings(self):
        """What `optimizers.build_optimizer` is told in place of the task's keys."""
        found = {key: getattr(self, key) for key in ("learning_rate", "epochs", "patience")}
        if self.optimizer:
            found["optimizer"] = self.optimizer
        if self.weight_decay is not None:
            found |= {"weight_decay": self.weight_decay, "decay_all": False}
        return found


class Strategy:
    """What trains when; the base class of all strategies, also of those outside this project.

    Your own strategy is a subclass. The configuration gives its import path,
    `strategy: {name: my_strategies.TopFirst, first: 3}`; the other keys are the arguments of its
    `__init__`, plain values of YAML. `docs/finetuning.md` has a worked example.
    """

    def stages(self, blocks, task):
        """Plan the finetuning of one backbone.

        Args:
            blocks: a list of lists of names of the backbone's layers with weights, from the stem to
                the top, as `blocks.blocks_of` gives it.
            task: a mapping with epochs, learning_rate and patience, such as a task of the configuration.

        Returns:
            A list of `Stage`, which are trained one after the other. At the end, the weights of the epoch
            with the best validation loss are kept, whatever its stage.
        """
        raise NotImplementedError


class Freeze(Strategy):
    """The backbone does not train, only the head does (Flash's `freeze`)."""

    def stages(self, blocks, task):
        """One stage for the head."""
        return [_stage("head", [], task)]


class NoFreeze(Strategy):
    """Backbone and head train together from the beginning (Flash's `no_freeze`)."""

    def stages(self, blocks, task):
        """One stage for everything."""
        return [_stage("everything", blocks, task)]


class FreezeUnfreeze(Strategy):
    """The backbone is frozen for some epochs and then trains, too (Flash's `freeze_unfreeze`).

    Args:
        unfreeze_epoch: number of epochs in which only the head trains.
    """

    def __init__(self, unfreeze_epoch=5):
        self.unfreeze_epoch = _whole("unfreeze_epoch", unfreeze_epoch, at_least=1)

    def stages(self, blocks, task):
        """The head for `unfreeze_epoch` epochs, then everything for the remaining epochs."""
        return _by_epochs({0: [], self.unfreeze_epoch: blocks}, task)


class UnfreezeMilestones(Strategy):
    """The top of the backbone trains from one epoch on, all of it from a later one (Flash).

    Args:
        epochs: the two epochs, e.g. [3, 8].
        blocks: how many of the last blocks train from the first of the two epochs on.
        layers: the same as a number of layers with weights, instead of blocks.
    """

    def __init__(self, epochs=(5, 10), blocks=None, layers=None):
        integers = isinstance(epochs, list | tuple) and all(type(epoch) is int for epoch in epochs)
        if not integers or len(epochs) != 2 or not 0 < epochs[0] < epochs[1]:
            raise _wrong("epochs", epochs, "two increasing numbers of epochs such as [3, 8]")
        if blocks is not None and layers is not None:
            raise UserError(
                f"strategy: blocks is {blocks!r} and layers is {layers!r}, expected one of the two; remove"
                " the other."
            )
        self.epochs = epochs
        self.layers = None if layers is None else _whole("layers", layers, at_least=1)
        self.blocks = _whole("blocks", 2 if blocks is None else blocks, at_least=1)

    def stages(self, blocks, task):
        """The head, then the top as well, then everything."""
        names = [name for block in blocks for name in block]
        top = [names[-self.layers :]] if self.layers else blocks[-self.blocks :]
        return _by_epochs({0: [], self.epochs[0]: top, self.epochs[1]: blocks}, task)


class TwoStage(Strategy):
    """First the head trains; then, from its best weights, also the top of the backbone or all of it (Zoobot).

    Args:
        blocks: how many of the last blocks train in the second stage; the default is `all`.
        learning_rate: of the second stage.
        epochs: of the second stage, at most.
        patience: of the second stage; the default is the task's.
    """

    def __init__(self, blocks="all", learning_rate=1e-5, epochs=50, patience=None):
        self.blocks = blocks if blocks == "all" else _whole("blocks", blocks, at_least=1)
        self.learning_rate = learning_rate
        self.epochs = _whole("epochs", epochs, at_least=1)
        self.patience = patience if patience is None else _whole("patience", patience, at_least=1)

    def stages(self, blocks, task):
        """The head at the task's rate, then the backbone at this strategy's."""
        chosen = blocks if self.blocks == "all" else blocks[-self.blocks :]
        second = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "patience": self.patience or task["patience"],
        }
        return [_stage("head", [], task), _stage("unfrozen", chosen, second)]


class LayerDecay(Strategy):
    """Everything trains, each block slower than the one above it (Zoobot 2.9's `layer_decay`).

    Args:
        decay: a block's learning rate as a share of that of the block above it.
    """

    def __init__(self, decay=0.75):
        self.decay = _number("decay", decay, most=1)

    def stages(self, blocks, task):
        """One stage; the top block has `decay` times the head's rate, and so on down to the stem."""
        depths = enumerate(reversed(blocks), start=1)
        rates = {name: self.decay**depth for depth, block in depths for name in block}
        return [_stage("everything", blocks, task, rates=rates)]


class AdamwLayerDecay(Strategy):
    """AdamW, with a learning rate that falls from each residual block to the one below it (Zoobot 2.9).

    The groups of layers, their rates and what has weight decay are those of timm's
    `param_groups_layer_decay`, which Zoobot calls
    (https://github.com/mwalmsley/zoobot/blob/main/zoobot/pytorch/training/finetune.py).
    The top group has the rate of the head.

    Args:
        learning_rate: of the head and of the top of the backbone.
        layer_decay: a group's learning rate as a share of that of the group above it.
        weight_decay: of AdamW.
        n_blocks: how many of the last blocks (stages) train, at most; `all`, or 0 for the head alone.
    """

    def __init__(self, learning_rate=1e-4, layer_decay=0.75, weight_decay=0.05, n_blocks="all"):
        self.learning_rate = _number("learning_rate", learning_rate)
        self.layer_decay = _number("layer_decay", layer_decay, most=1)
        self.weight_decay = _number("weight_decay", weight_decay, zero=True)
        self.n_blocks = n_blocks if n_blocks == "all" else _whole("n_blocks", n_blocks, at_least=0)

    def stages(self, blocks, task):
        """One stage, for `epochs` and `patience` of the task."""
        count = len(blocks) if self.n_blocks == "all" else min(self.n_blocks, len(blocks))
        chosen = [[name for name in block if name != NEVER_TRAINS] for block in blocks[len(blocks) - count :]]
        train = {name for block in chosen for name in block}
        depths = enumerate(reversed(residual_groups(blocks)))
        rates = {name: self.layer_decay**depth for depth, group in depths for name in group if name in train}
        name = "everything" if count == len(blocks) else "top" if count else "head"
        stage = _stage(name, chosen, {**task, "learning_rate": self.learning_rate}, rates)
        return [replace(stage, optimizer="adamw", weight_decay=self.weight_decay)]


def residual_groups(blocks):
    """The layers of a backbone in timm's groups for layer decay: stem, residual blocks, what is above.

    Args:
        blocks: as for `Strategy.stages`.

    Returns:
        A list of lists of names; the blocks themselves where no name tells a residual block.
    """
    names = [name for block in blocks for name in block]
    pattern = STAGE if any(map(WHOLE_STAGES.match, names)) else RESIDUAL_BLOCK
    groups = {}
    for name in names:
        if (found := BETWEEN.match(name)) and pattern is RESIDUAL_BLOCK:
            key = f"{found[1]}.blocks.0"
        elif found := pattern.match(name):
            key = found[0]
        else:
            key = "above" if ABOVE.match(name) else next(reversed(groups), "stem")
        groups.setdefault(key, []).append(name)
    return list(groups.values()) if len(groups) > 1 else blocks


STRATEGIES = {
    "freeze": Freeze,
    "no_freeze": NoFreeze,
    "freeze_unfreeze": FreezeUnfreeze,
    "unfreeze_milestones": UnfreezeMilestones,
    "two_stage": TwoStage,
    "layer_decay": LayerDecay,
    "adamw_layer_decay": AdamwLayerDecay,
}


def find_strategy(wanted):
    """The strategy that a task names.

    Args:
        wanted: a name of `STRATEGIES` or the import path of a `Strategy`; or a mapping with the key
            `name` and the arguments of the strategy.

    Returns:
        A `Strategy`.

    Raises:
        UserError: there is no such strategy or module, or the strategy does not have these arguments.
    """
    name, arguments = (wanted, {}) if isinstance(wanted, str) else (wanted["name"], dict(wanted))
    arguments.pop("name", None)
    found = STRATEGIES.get(name) or _imported(name)
    known = [key for key in inspect.signature(found).parameters if key not in ("args", "kwargs")]
    strange = sorted(set(arguments) - set(known))
    if strange:
        raise UserError(
            f"strategy {name}: has no key '{strange[0]}', expected one of {', '.join(['name', *known])}; fix"
            " or remove it."
        )
    try:
        return found(**arguments)
    except TypeError as error:
        raise UserError(
            f"strategy {name}: does not accept {arguments or 'no arguments'} ({error}); fix its keys."
        ) from None


def fingerprint_of_plans(wanted, task):
    """A hash of what a strategy plans: another one means that a finetuning has to be trained again.

    An edit of a strategy of your own changes it if it changes a stage. The backbone is not known before a
    model is there, so the strategy plans for imagined backbones of 1 to 20 blocks.

    Args:
        wanted: as for `find_strategy`.
        task: as for `Strategy.stages`.

    Returns:
        12 hexadecimal digits.
    """
    plans = []
    for count in range(1, MOST_BLOCKS + 1):
        ends = [["stem_conv", "stem.0"]], [["top_conv", "conv_head"]]
        inner = [[name.format(number) for name in LAYERS] for number in range(1, count - 1)]
        blocks = (ends[0] + inner + ends[1])[-count:]
        try:
            plans.append([vars(stage) for stage in find_strategy(wanted).stages(blocks, task)])
        # A user's own strategy may fail in any way, for example where it needs more blocks.
        except Exception as error:
            plans.append(f"{type(error).__name__}: {error}")
    return hash_of(plans)


def _imported(path):
    module, _, name = path.rpartition(".")
    expected = f"one of {', '.join(STRATEGIES)}, or the import path of a class such as my_strategies.TopFirst"
    if not module:
        raise UserError(f"strategy: there is no '{path}', expected {expected}; fix the name.")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"strategy: '{path}' cannot be imported ({error}), expected {expected}, in a folder on"
            " PYTHONPATH; fix the name or PYTHONPATH."
        ) from None
    if not (inspect.isclass(found) and issubclass(found, Strategy)):
        raise UserError(
            f"strategy: '{path}' is not a subclass of zoolib.config.strategies.Strategy; make it one."
        )
    return found


def _stage(name, blocks, settings, rates=None):
    layers = tuple(layer for block in blocks for layer in block)
    common = {key: settings[key] for key in ("epochs", "learning_rate", "patience")}
    return Stage(name, layers, rates=rates or {}, **common)


def _by_epochs(starts, task):
    """Stages that begin at the given epochs; each continues the one before, and only the last stops early."""
    epochs = [*starts, task["epochs"]]
    if epochs[-1] <= epochs[-2]:
        raise UserError(
            f"strategy: layers unfreeze after epoch {epochs[-2]}, but the task has only {task['epochs']}"
            " epochs; increase the task's epochs."
        )
    stages = []
    for (start, blocks), end in zip(starts.items(), epochs[1:], strict=True):
        last = end == task["epochs"]
        settings = {**task, "epochs": end - start, "patience": task["patience"] if last else None}
        name = "head" if not start else "everything" if last else "top"
        stage = _stage(name, blocks, settings)
        stages.append(Stage(**{**vars(stage), "from_best": not start}))
    return stages


def _whole(key, value, at_least):
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise _wrong(key, value, f"a whole number, {at_least} or more")
    return value


def _number(key, value, most=math.inf, zero=False):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or not (value or zero):
        least = "0 or more" if zero else "above 0"
        raise _wrong(key, value, f"a number {least}{'' if most == math.inf else f' and at most {most}'}")
    return value


def _wrong(key, value, expected):
    return UserError(f"strategy: {key} is {value!r}, expected {expected}; fix it.")
