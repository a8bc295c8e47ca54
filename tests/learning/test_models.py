"""Backbones and heads: saving and loading, the ranges of outputs, and dropout."""

import contextlib
import json
import os
import shutil

import keras
import numpy as np
import pytest
from mutated import mutated
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError
from zoolib.learning import models
from zoolib.learning.backbones import build_backbone

TREE = DecisionTree.from_dict(
    {"name": "t", "questions": {"a": {"answers": ["x", "y"]}, "b": {"answers": ["u", "v"]}}}
)
IMAGE = {"size": 40, "crop": 0.8, "final_size": 32, "color": False, "encoding": "png"}


def about(**changes):
    return {
        "kind": "concentrations",
        "tree": TREE.to_dict(),
        "columns": TREE.columns,
        "image": IMAGE,
        "training": {},
        **changes,
    }


def build(name="tiny", edge=32, channels=1, head="dirichlet"):
    backbone = build_backbone(name, edge, channels)
    return models.join(backbone, models.tree_head(backbone.output_shape[-1], TREE, 0.5, head, components=3))


def save(network, folder, **changes):
    models.save_model(network, about(**changes), folder / "model.keras", folder / "model.json")
    return folder


@pytest.mark.parametrize("head", models.KINDS)
def test_a_model_saves_and_loads_whole_in_safe_mode(tmp_path, head):
    network = build(head=head)
    network.compile(loss=lambda votes, concentrations: keras.ops.sum(concentrations))
    loaded = models.load_model(save(network, tmp_path, kind=models.KINDS[head], training={"components": 3}))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype("float32")
    expected = network.predict(pixels, verbose=0)
    np.testing.assert_array_equal(loaded.network.predict(pixels, verbose=0), expected)
    assert loaded.tree == TREE
    kinds = {"multinomial": "probabilities", "dirichlet_mixture": "mixtures"}
    assert loaded.kind == kinds.get(head, "concentrations")
    assert loaded.components == (3 if head == "dirichlet_mixture" else 1)


# The smallest and the largest output of each head, for extreme logits.
EXTREMES = {"dirichlet": (1, 101), "dirichlet_wide": (0.01, 1e5), "multinomial": (0, 1)}


@pytest.mark.parametrize(("head", "ends"), EXTREMES.items())
def test_the_outputs_of_a_head_reach_its_ends_and_stay_finite(head, ends):
    network = models.tree_head(3, TREE, 0.2, head)
    start = keras.ops.convert_to_numpy(network(np.zeros((1, 3), "float32")))
    np.testing.assert_allclose(start, 0.5 if head == "multinomial" else 5.75, atol=0.05)
    pulled = np.array([[1e4, -1e4, -1e4, 1e4]], "float32")
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            layer.set_weights([np.zeros_like(kernel), pulled[0, : len(bias)]])
    if head == "multinomial":
        pulled = np.array([[1e4, -1e4, 1e4, -1e4]], "float32")
    values = keras.ops.convert_to_numpy(network(np.zeros((1, 3), "float32")))[0]
    assert np.isfinite(values).all()
    np.testing.assert_allclose(values[pulled[0] > 0], ends[1], rtol=1e-4)
    np.testing.assert_allclose(values[pulled[0] < 0], ends[0], rtol=1e-4)


def test_mixtures_are_split_into_concentrations_and_weights_of_each_component():
    network = models.tree_head(3, TREE, 0.2, "dirichlet_mixture", components=3)
    # Biases that tell the outputs apart: 100 for each component, 1 for each answer.
    biases = {"weights": np.arange(6) + 1.0} | {f"answers_{k}": 100.0 * k + np.arange(4) for k in (1, 2, 3)}
    for name, bias in biases.items():
        layer = network.get_layer(name)
        layer.set_weights([np.zeros_like(layer.get_weights()[0]), bias])
    outputs = keras.ops.convert_to_numpy(network(np.zeros((2, 3), "float32")))
    assert outputs.shape == (2, 3 * 4 + 3 * 2)
    values, weights = models.split_mixtures(outputs, TREE, 3)
    # A softplus of so large a number is the number.
    expected = [[component + answer for component in (100, 200, 300)] for answer in range(4)]
    np.testing.assert_allclose(values, np.tile(0.01 + 10 * np.array(expected), (2, 1, 1)), rtol=1e-6)
    shares = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    np.testing.assert_allclose(weights, np.tile(shares, (2, 2, 1)), rtol=1e-4)
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-12)


def test_extreme_mixtures_stay_finite_and_their_weights_sum_to_1():
    network = models.tree_head(3, TREE, 0.2, "dirichlet_mixture", components=2)
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            layer.set_weights([np.zeros_like(kernel), 1e4 * (-1.0) ** np.arange(len(bias))])
    outputs = keras.ops.convert_to_numpy(network(np.zeros((1, 3), "float32")))
    assert np.isfinite(outputs).all()
    values, weights = models.split_mixtures(outputs, TREE, 2)
    np.testing.assert_allclose(values[0], np.repeat([[1e5], [0.01]] * 2, 2, axis=1), rtol=1e-4)
    np.testing.assert_array_equal(weights[0], [[1, 0], [1, 0]])


def test_the_components_of_a_mixture_start_apart_each_with_another_answer():
    # The numbers of components, and what each starts from for the two answers of a question.
    high, low, half_high, half_low = 0.01 + 10 * np.logaddexp(0, [0.75, -0.65, 0.25, -0.45])
    starts = [[high, low], [low, high], [half_high, half_low], [half_low, half_high]]
    for components in (1, 2, 3, 4):
        network = models.tree_head(3, TREE, 0.2, "dirichlet_mixture", components)
        outputs = keras.ops.convert_to_numpy(network(np.zeros((1, 3), "float32")))
        values, _ = models.split_mixtures(outputs, TREE, components)
        expected = np.transpose(starts[:components] if components > 1 else [[5.7694, 5.7694]])
        np.testing.assert_allclose(values[0], np.tile(expected, (2, 1)), rtol=1e-4)


def test_a_mixture_of_one_component_is_the_wide_head():
    wide = models.tree_head(6, TREE, 0.2, "dirichlet_wide")
    mixture = models.tree_head(6, TREE, 0.2, "dirichlet_mixture", components=1)
    one, other = mixture.get_layer("answers_1"), wide.get_layer("answers")
    np.testing.assert_array_equal(one.get_weights()[1], other.get_weights()[1])
    one.set_weights(other.get_weights())
    features = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    values, weights = models.split_mixtures(keras.ops.convert_to_numpy(mixture(features)), TREE, 1)
    np.testing.assert_array_equal(values[:, :, 0], keras.ops.convert_to_numpy(wide(features)))
    assert (weights == 1).all()


def test_the_multinomial_head_has_a_softmax_for_each_question_in_the_order_of_the_tree():
    tree = DecisionTree.from_dict(
        {"questions": {"features": {"answers": ["x", "y"]}, "c": {"answers": ["u", "v", "w"]}}}
    )
    network = models.tree_head(4, tree, 0.2, "multinomial")
    features = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    values = keras.ops.convert_to_numpy(network(features))
    for question in tree.questions:
        np.testing.assert_allclose(values[:, question.slice].sum(axis=1), 1, rtol=1e-6)
    logits = [features @ layer.get_weights()[0] for layer in network.layers if hasattr(layer, "kernel")]
    for question, logit in zip(tree.questions, logits, strict=True):
        np.testing.assert_array_equal(values[:, question.slice].argmax(axis=1), logit.argmax(axis=1))


@pytest.mark.parametrize("head", models.KINDS)
def test_the_reloaded_head_draws_and_the_backbone_does_not(tmp_path, head):
    loaded = models.load_model(save(build(head=head), tmp_path))
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 1)).astype("float32")
    features = loaded.backbone(pixels, training=False)
    assert features.shape == (3, loaded.backbone.output_shape[-1])
    np.testing.assert_array_equal(features, loaded.backbone(pixels, training=False))
    draws = [keras.ops.convert_to_numpy(loaded.head(features, training=True)) for _ in range(2)]
    assert np.abs(draws[0] - draws[1]).max() > 0


@pytest.mark.parametrize("head", models.KINDS)
def test_outputs_are_float32_under_mixed_precision(head):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = build(head=head)
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.get_layer("backbone").compute_dtype == "float16"
    assert network(np.full((2, 32, 32, 1), 128, "float32")).dtype == "float32"


def test_folders_without_a_usable_model_end_with_a_message(tmp_path):
    with pytest.raises(UserError, match="no model.keras"):
        models.load_model(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"not a model")
    (tmp_path / "model.json").write_text(json.dumps(about()))
    with pytest.raises(UserError, match="cannot be read"):
        models.load_model(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder."""
    return save(build(), tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("name", ["model.keras", "model.json"])
def test_a_damaged_model_is_a_message_with_its_path(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content, random = (folder / name).read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = mutated(content, random)
        (tmp_path / name).write_bytes(damaged)
        try:
            found = models.load_model(tmp_path)
        except UserError as error:
            # A checksum that is damaged itself fits no file.
            assert f"{tmp_path}/model." in str(error)
            refused += 1
        else:
            # Only what means the same is read, such as another space between two keys.
            said = {key: found.about[key] for key in found.about if key != "checksums"}
            assert said == about()
            assert damaged == content or name == "model.json"
    assert refused > 250


def test_a_damaged_model_without_checksums_is_a_message_too(folder, tmp_path):
    content, random = (folder / "model.keras").read_bytes(), np.random.default_rng(0)
    (tmp_path / "model.json").write_text(json.dumps(about()))
    (tmp_path / "model.keras").write_bytes(content)
    assert models.load_model(tmp_path).tree == TREE
    for _ in range(25):
        (tmp_path / "model.keras").write_bytes(mutated(content, random))
        with contextlib.suppress(UserError):
            models.load_model(tmp_path)


def test_files_of_two_models_are_not_one(folder, tmp_path):
    other = save(build(), tmp_path / "other")
    shutil.copy(folder / "model.json", other)
    with pytest.raises(
        UserError, match="other/model.keras: cannot be read .its checksum is not that in model"
    ):
        models.load_model(other)
    edited = json.loads((folder / "model.json").read_text()) | {"kind": "values"}
    (other / "model.json").write_text(json.dumps(edited))
    with pytest.raises(UserError, match="model.json: is damaged or was edited"):
        models.load_model(other)


def test_a_model_that_is_replaced_while_it_is_read_is_the_old_or_the_new_one(folder, tmp_path, monkeypatch):
    new = save(build(), tmp_path / "new", kind="new")
    shutil.copytree(folder, tmp_path / "used")
    load, calls = keras.saving.load_model, []

    def replaced(path, **settings):
        calls.append(1)
        if len(calls) == 1:
            for name in ("model.keras", "model.json"):
                os.replace(shutil.copy(new / name, tmp_path / name), tmp_path / "used" / name)
        return load(path, **settings)

    monkeypatch.setattr(keras.saving, "load_model", replaced)
    found = models.load_model(tmp_path / "used")
    expected = load(new / "model.keras")
    assert (len(calls), found.kind) == (2, "new")
    for one, other in zip(found.network.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_for_another_tree_or_other_images_is_refused():
    other = DecisionTree.from_dict({"name": "other", "questions": {"c": {"answers": ["x", "y"]}}})
    with pytest.raises(UserError, match="answers 't' .* asks 'other'"):
        models.check_same_use(about(), other, IMAGE, "models/0")
    with pytest.raises(UserError, match="image.crop"):
        models.check_same_use(about(), TREE, {**IMAGE, "crop": 0.5}, "models/0")
    models.check_same_use(about(), TREE, IMAGE, "models/0")
