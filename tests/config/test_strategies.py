"""Strategies: what each stage trains, by name, and which errors are messages."""

import importlib
import re
import shutil
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from timm_models import load_timm
from zoolib.config.strategies import find_strategy, fingerprint_of_plans, residual_groups
from zoolib.job.logs import UserError
from zoolib.learning.backbones import ZOO, build_backbone
from zoolib.learning.blocks import blocks_of, nested_layers
from zoolib.learning.optimizers import Plateau, build_optimizer, is_spared
from zoolib.weights.timm import timm_names

BLOCKS = [["stem", "stem_bn"], ["middle"], ["top", "top_bn"]]
TASK = {"epochs": 10, "learning_rate": 0.01, "patience": 4}
TOP, UPPER = {"top", "top_bn"}, {"middle", "top", "top_bn"}
EVERYTHING = {"stem", "stem_bn", "middle", "top", "top_bn"}


def planned(strategy, task=TASK):
    stages = find_strategy(strategy).stages(BLOCKS, task)
    return [(set(s.layers), s.epochs, s.learning_rate, s.patience, s.from_best) for s in stages]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("freeze", [(set(), 10, 0.01, 4, True)]),
        ("no_freeze", [(EVERYTHING, 10, 0.01, 4, True)]),
        (
            {"name": "freeze_unfreeze", "unfreeze_epoch": 3},
            [(set(), 3, 0.01, None, True), (EVERYTHING, 7, 0.01, 4, False)],
        ),
        (
            {"name": "unfreeze_milestones", "epochs": [3, 8], "blocks": 2},
            [(set(), 3, 0.01, None, True), (UPPER, 5, 0.01, None, False), (EVERYTHING, 2, 0.01, 4, False)],
        ),
        (
            {"name": "unfreeze_milestones", "epochs": [1, 2], "layers": 3},
            [(set(), 1, 0.01, None, True), (UPPER, 1, 0.01, None, False), (EVERYTHING, 8, 0.01, 4, False)],
        ),
        (
            {"name": "two_stage", "blocks": 1, "learning_rate": 1e-4, "epochs": 6},
            [(set(), 10, 0.01, 4, True), (TOP, 6, 1e-4, 4, True)],
        ),
        (
            {"name": "two_stage", "patience": 2},
            [(set(), 10, 0.01, 4, True), (EVERYTHING, 50, 1e-5, 2, True)],
        ),
        ("layer_decay", [(EVERYTHING, 10, 0.01, 4, True)]),
        ("adamw_layer_decay", [(EVERYTHING, 10, 1e-4, 4, True)]),
        ({"name": "adamw_layer_decay", "n_blocks": 2, "learning_rate": 0.1}, [(UPPER, 10, 0.1, 4, True)]),
        ({"name": "adamw_layer_decay", "n_blocks": 0}, [(set(), 10, 1e-4, 4, True)]),
        ({"name": "adamw_layer_decay", "n_blocks": 9}, [(EVERYTHING, 10, 1e-4, 4, True)]),
    ],
)
def test_what_trains_when(strategy, expected):
    assert planned(strategy) == expected


def test_layer_decay_slows_each_block_below_the_top():
    (stage,) = find_strategy({"name": "layer_decay", "decay": 0.5}).stages(BLOCKS, TASK)
    assert stage.rates == {"top": 0.5, "top_bn": 0.5, "middle": 0.25, "stem": 0.125, "stem_bn": 0.125}


def timm_and_torch():
    try:
        timm, torch = load_timm()
    except ImportError as error:
        pytest.skip(f"torch and timm are only in the environment of make env-parity ({error})")
    return timm, importlib.import_module("timm.optim"), torch


def rates_and_decays_of_timm(name):
    """({timm's name of a weight: (share of the learning rate, weight decay)}, {the same: its shape})."""
    timm, optim, _ = timm_and_torch()
    network = timm.create_model(name, num_classes=0)
    if hasattr(network, "pos_embed"):
        # As Zoobot does.
        network.pos_embed.requires_grad_(False)
    without = getattr(network, "no_weight_decay", set)()
    found = {}
    for group in optim.param_groups_layer_decay(network, 0.05, without, layer_decay=0.75):
        about = pytest.approx(group["lr_scale"]), group["weight_decay"]
        found |= {id(weights): about for weights in group["params"]}
    named = dict(network.named_parameters())
    rates = {key: found[id(weights)] for key, weights in named.items() if id(weights) in found}
    return rates, {key: tuple(weights.shape) for key, weights in named.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "convnext_pico", "convnextv2_atto", "efficientnet_b0", "tf_efficientnetv2_b0"),
        *("vit_tiny_patch16_224", "maxvit_nano_rw_256", "maxvit_rmlp_pico_rw_256"),
    ],
)
def test_groups_of_layers_are_those_of_timm(name):
    """Weight by weight: does it train, its share of the learning rate, and its weight decay."""
    expected, shapes = rates_and_decays_of_timm(name)
    # timm's parameters that are no module's weight or bias are layers of their own.
    layers = {key: re.sub(r"\.(weight|bias)$", "", key) for key in shapes}
    if name in ZOO:
        keras.utils.clear_session()
        backbone = build_backbone(name, getattr(ZOO[name], "edge", None) or 64, 3)
        blocks, variables = blocks_of(backbone), {key: one for key, (one, _) in timm_names(backbone).items()}
    else:
        # The layers of our backbones have timm's names.
        blocks = [[layer] for layer in dict.fromkeys(layers.values())]
        variables = {key: SimpleNamespace(path=f"{layers[key]}/x", shape=shapes[key]) for key in shapes}
    (stage,) = find_strategy("adamw_layer_decay").stages(blocks, TASK)
    assert stage.optimizer == "adamw"
    found = {
        key: (stage.rates[layer], 0.0 if is_spared(variables[key]) else stage.weight_decay)
        for key, layer in layers.items()
        if layer in stage.layers
    }
    assert found == expected


def test_steps_are_those_of_torch_s_adamw():
    """A kernel, a bias, a slow kernel and a table of places, by the optimiser and by PyTorch's."""
    *_, torch = timm_and_torch()
    random = np.random.default_rng(0)
    about = {
        "top": ((3, 2), 1, 0.5),
        "bias": ((2,), 1, 0),
        "low": ((2, 2), 0.25, 0.5),
        "token": ((1, 3), 1, 0),
    }
    begun = {name: random.normal(size=shape).astype("float32") for name, (shape, *_) in about.items()}
    theirs = {name: torch.tensor(value) for name, value in begun.items()}
    adamw = torch.optim.AdamW(
        {"params": [theirs[name]], "lr": 0.1 * share, "weight_decay": decay}
        for name, (_, share, decay) in about.items()
    )
    ours = {}
    for name, value in begun.items():
        with keras.name_scope("cls_token" if name == "token" else "dense"):
            ours[name] = keras.Variable(value, name=name)
    settings = {"learning_rate": 0.1, "epochs": 1, "optimizer": "adamw", "weight_decay": 0.5}
    rates = {ours[name].path: share for name, (_, share, _) in about.items()}
    optimizer = build_optimizer(settings | {"decay_all": False}, 1, rates)
    for _ in range(5):
        slopes = {name: random.normal(size=value.shape).astype("float32") for name, value in begun.items()}
        optimizer.apply([keras.ops.convert_to_tensor(slopes[name]) for name in ours], ours.values())
        for name, slope in slopes.items():
            theirs[name].grad = torch.tensor(slope)
        adamw.step()
    for name, variable in ours.items():
        # Their epsilons differ: 1e-7 and 1e-8.
        np.testing.assert_allclose(variable.numpy(), theirs[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("name", "groups"),
    [("tiny", 5), ("EfficientNetB0", 17), ("ResNet50", 17), ("resnet18", 9), ("convnext_pico", 14)],
)
def test_layer_decay_of_adamw_goes_over_residual_blocks(name, groups):
    keras.utils.clear_session()
    blocks = blocks_of(build_backbone(name, 64, 3))
    found = residual_groups(blocks)
    assert len(found) == groups
    assert [name for group in found for name in group] == [name for block in blocks for name in block]


def test_a_strategy_of_ones_own_is_named_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "top_strategies.py").write_text(
        "from zoolib.config.strategies import Stage, Strategy\n"
        "class TopOnly(Strategy):\n"
        "    def __init__(self, blocks=1):\n"
        "        self.blocks = blocks\n"
        "    def stages(self, blocks, task):\n"
        "        names = tuple(name for block in blocks[-self.blocks:] for name in block)\n"
        "        return [Stage('top', names, task['epochs'], 0.1, None)]\n"
        "class NoStrategy:\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert planned({"name": "top_strategies.TopOnly", "blocks": 2}) == [(UPPER, 10, 0.1, None, True)]
    with pytest.raises(UserError, match="is not a subclass of zoolib.config.strategies.Strategy"):
        find_strategy("top_strategies.NoStrategy")


OWN = """
from zoolib.config.strategies import Stage, Strategy
class Own(Strategy):
    def stages(self, blocks, task):
        names = tuple(name for block in blocks[-2:] for name in block if "conv" in name)
        return [Stage("top", names, task["epochs"], 0.1, None, {name: 0.5 for name in names})]
"""


@pytest.mark.parametrize(
    ("old", "new", "is_other"),
    [
        ("class Own", "# A comment.\nclass Own", False),
        ("names", "chosen", False),
        ("[-2:]", "[-3:]", True),
        ('"conv" in', '"norm" in', True),
        ('task["epochs"]', "7", True),
        ("0.1", "0.2", True),
        ("None", "3", True),
        ("0.5", "0.25", True),
        # It works with two blocks or more, and with other ones than before.
        ("blocks[-2:]", "[blocks[1]]", True),
    ],
)
def test_an_edit_of_ones_own_strategy_counts_if_it_changes_a_stage(tmp_path, monkeypatch, old, new, is_other):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for text in (OWN, OWN.replace(old, new)):
        (tmp_path / "edited_strategies.py").write_text(text)
        monkeypatch.delitem(sys.modules, "edited_strategies", raising=False)
        # Two edits within a second look the same to the cache of compiled modules.
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        found.append(fingerprint_of_plans("edited_strategies.Own", TASK))
    assert (found[0] != found[1]) == is_other


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("thaw", "there is no 'thaw', expected one of freeze, no_freeze"),
        ("nowhere.Thaw", "'nowhere.Thaw' cannot be imported"),
        ({"name": "freeze", "blocks": 2}, "strategy freeze: has no key 'blocks', expected one of name; fix"),
        (
            {"name": "two_stage", "block": 2},
            "has no key 'block', expected one of name, blocks, learning_rate",
        ),
        ({"name": "two_stage", "blocks": 0}, "blocks is 0, expected a whole number, 1 or more"),
        ({"name": "layer_decay", "decay": 1.5}, "decay is 1.5, expected a number above 0 and at most 1"),
        (
            {"name": "adamw_layer_decay", "n_blocks": "two"},
            "n_blocks is 'two', expected a whole number, 0 or",
        ),
        (
            {"name": "adamw_layer_decay", "layer_decay": 2},
            "layer_decay is 2, expected a number above 0 and at m",
        ),
        (
            {"name": "adamw_layer_decay", "learning_rate": -1},
            "learning_rate is -1, expected a number above 0;",
        ),
        (
            {"name": "adamw_layer_decay", "weight_decay": None},
            "weight_decay is None, expected a number 0 or more;",
        ),
        (
            {"name": "adamw_layer_decay", "decay": 0.5},
            "has no key 'decay', expected one of name, learning_rate",
        ),
        ({"name": "unfreeze_milestones", "epochs": [8, 3]}, "expected two increasing numbers of epochs"),
        (
            {"name": "unfreeze_milestones", "blocks": 1, "layers": 2},
            "blocks is 1 and layers is 2, expected one of the two",
        ),
        ({"name": "freeze_unfreeze", "unfreeze_epoch": 10}, "the task has only 10 epochs"),
    ],
)
def test_a_wrong_strategy_is_a_message(strategy, message):
    with pytest.raises(UserError, match=message):
        find_strategy(strategy).stages(BLOCKS, TASK)


@pytest.mark.parametrize(
    ("name", "firsts"),
    [
        ("tiny", ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4"]),
        (
            "EfficientNetB0",
            ["stem_conv", "block1a_dwconv", *(f"block{n}a_expand_conv" for n in range(2, 8)), "top_conv"],
        ),
        ("ResNet50", ["conv1_conv", *(f"conv{n}_block1_1_conv" for n in range(2, 6))]),
        ("resnet18", ["conv1", *(f"layer{n}.0.conv1" for n in range(1, 5))]),
        (
            "convnext_pico",
            ["stem.0", "stages.0.blocks.0.conv_dw", *(f"stages.{n}.downsample.0" for n in range(1, 4))],
        ),
        (
            "efficientnet_b0",
            ["conv_stem", "blocks.0.0.conv_dw", *(f"blocks.{n}.0.conv_pw" for n in range(1, 7)), "conv_head"],
        ),
        (
            "tf_efficientnetv2_b0",
            [
                *("conv_stem", "blocks.0.0.conv", "blocks.1.0.conv_exp", "blocks.2.0.conv_exp"),
                *(f"blocks.{n}.0.conv_pw" for n in range(3, 6)),
                "conv_head",
            ],
        ),
        (
            "convnextv2_atto",
            ["stem.0", "stages.0.blocks.0.conv_dw", *(f"stages.{n}.downsample.0" for n in range(1, 4))],
        ),
        ("vit_tiny_patch16_224", ["patch_embed.proj", *(f"blocks.{n}.norm1" for n in range(12))]),
        ("maxvit_tiny_rw_224", ["stem.conv1", *(f"stages.{n}.blocks.0.conv.pre_norm" for n in range(4))]),
    ],
)
def test_blocks_are_the_stages_of_the_architecture(name, firsts):
    keras.utils.clear_session()
    backbone = build_backbone(name, 224 if name.endswith("_224") else 64, 3)
    blocks = blocks_of(backbone)
    assert [block[0] for block in blocks] == firsts
    named = {layer for block in blocks for layer in block}
    assert named == {layer.name for layer in nested_layers(backbone) if layer.trainable_weights}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_layers_own_rate_scales_its_steps(name):
    settings = {"learning_rate": 0.1, "epochs": 5, "optimizer": name}
    variables = [keras.Variable(0.0, name="slow"), keras.Variable(0.0, name="fast")]
    optimizer = build_optimizer(settings | {"weight_decay": 0}, 10, {variables[0].path: 0.25})
    optimizer.apply([keras.ops.ones(())] * 2, variables)
    steps = [-float(variable.numpy()) for variable in variables]
    np.testing.assert_allclose(steps, [0.025, 0.1], rtol=1e-4)


def rates(steps, **settings):
    optimizer = build_optimizer({"learning_rate": 0.1, "epochs": 4, **settings}, steps)
    variable = keras.Variable(0.0)
    found = []
    for _ in range(4 * steps):
        found.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
        optimizer.apply([keras.ops.ones(())], [variable])
    return np.array(found)


def test_schedules():
    assert np.allclose(rates(10), 0.1)
    cosine = rates(10, schedule="cosine")
    np.testing.assert_allclose(cosine, 0.05 * (1 + np.cos(np.pi * np.arange(40) / 40)), rtol=1e-4)
    warm = rates(10, schedule="cosine", warmup_epochs=1)
    np.testing.assert_allclose(warm[:10], 0.01 * np.arange(10), rtol=1e-4)
    np.testing.assert_allclose(warm[10:], 0.05 * (1 + np.cos(np.pi * np.arange(30) / 30)), rtol=1e-4)
    linear = rates(10, warmup_epochs=2)
    np.testing.assert_allclose(linear, np.minimum(0.1, 0.005 * np.arange(40)), rtol=1e-4)
    with pytest.raises(UserError, match="warmup_epochs is 4, but the training has only 4 epochs"):
        build_optimizer({"learning_rate": 0.1, "epochs": 4, "warmup_epochs": 4}, 10)


def rates_on_a_plateau(losses, **settings):
    """The rate of each of two batches an epoch, for these validation losses."""
    settings = {"learning_rate": 0.1, "epochs": len(losses), "schedule": "plateau", **settings}
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(build_optimizer(settings, 2), "mse")
    plateau, found = Plateau(settings), []
    plateau.set_model(model)
    plateau.set_params({"steps": 2})
    plateau.on_train_begin()
    for epoch, loss in enumerate(losses):
        plateau.on_epoch_begin(epoch)
        for batch in range(2):
            plateau.on_train_batch_begin(batch)
            found.append(float(model.optimizer.learning_rate.numpy()))
        plateau.on_epoch_end(epoch, {"val_loss": loss})
    return found


@pytest.mark.parametrize(
    ("losses", "settings", "expected"),
    [
        # Two epochs without a better loss, which are half of the patience.
        ([5, 4, 4, 4, 3, 3, 2], {"patience": 4}, [1, 1, 1, 1, 0.1, 0.1, 0.1]),
        ([5, 6, 7, 8, 9, 10], {"patience": 4}, [1, 1, 1, 0.1, 0.1, 0.01]),
        # Any better loss counts, however little.
        ([5, 4.99999, 4.99998, 4.99997], {"patience": 2}, [1, 1, 1, 1]),
        ([5, 5, 5], {"patience": 1}, [1, 1, 0.1]),
        # None trains all epochs.
        ([5, 5, 5, 5, 5], {"patience": None}, [1, 1, 1, 0.1, 0.1]),
        ([5, 5, 5, 5], {"patience": 2, "warmup_epochs": 2}, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
        ([5, 5, 5, 5], {"patience": 2, "warmup_epochs": 1}, [0, 0.5, 1, 1, 1, 1, 0.1, 0.1]),
    ],
)
def test_a_plateau_lowers_the_rate(losses, settings, expected):
    found = rates_on_a_plateau(losses, **settings)
    expected = expected if len(expected) == 2 * len(losses) else np.repeat(expected, 2)
    np.testing.assert_allclose(found, 0.1 * np.array(expected), rtol=1e-4)


def test_weight_decay_and_clipping_reach_the_optimizer():
    settings = {
        "learning_rate": 0.1,
        "epochs": 1,
        "optimizer": "adamw",
        "weight_decay": 0.5,
        "clip_norm": 0.3,
    }
    optimizer = build_optimizer(settings, 1)
    assert optimizer.weight_decay == 0.5
    assert optimizer.global_clipnorm == 0.3
    assert build_optimizer({"learning_rate": 0.1, "epochs": 1, "optimizer": "adamw"}, 1).weight_decay == 0.004


def test_a_layers_own_rate_scales_its_decay_too():
    variables = [keras.Variable(1.0, name="slow"), keras.Variable(1.0, name="fast")]
    settings = {"learning_rate": 0.1, "epochs": 1, "optimizer": "sgd", "weight_decay": 0.5}
    optimizer = build_optimizer(settings, 1, {variables[0].path: 0.2})
    optimizer.apply([keras.ops.zeros(())] * 2, variables)
    np.testing.assert_allclose([v.numpy() for v in variables], [1 - 0.01, 1 - 0.05], rtol=1e-6)
