"""Formats for programs without Keras: ONNX and TensorFlow's SavedModel, compared with the network itself.

What is written is the network with its dropout off: the same image always gives the same numbers.
"""

import importlib.metadata
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from zoolib.config.labels import Label
from zoolib.config.sources import MODEL_FILES
from zoolib.data.partition import CLASSIFICATIONS
from zoolib.job.logs import UserError, log, whole
from zoolib.learning.augment import augmentation_of, central_view
from zoolib.learning.blocks import nested_layers
from zoolib.learning.models import load_model

# The greatest difference between two formats, as a share of the size of an output.
TOLERANCE = 1e-4
ONNX, SAVED_MODEL = "model.onnx", "saved_model"
PACKAGES = ("onnx", "onnxruntime", "tf2onnx")
# The names of the input and the output in a file of ONNX, and of the first axis of both.
INPUT, OUTPUT, FIRST_AXIS = "image", "outputs", "galaxies"
# Images that a format is compared on: noise, round spots of all sizes, and two without any structure.
NOISE, SPOTS = 4, 6


def check_packages():
    """Stop where a package that ONNX needs is missing, before any work is done.

    Raises:
        UserError: names it.
    """
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"The package {name} is not installed, expected {', '.join(PACKAGES)} to write and to check"
                " ONNX; install the environment of envs/cpu.lock.txt again (make env)."
            ) from None


def in_float32(network):
    """The same network with float32 in all layers, whatever precision it was trained with.

    Args:
        network: keras.Model of Keras's own layers.

    Returns:
        A new keras.Model with the same weights.
    """
    text = network.to_json()
    for policy in ("mixed_float16", "mixed_bfloat16"):
        text = text.replace(f'"{policy}"', '"float32"')
    plain = keras.models.model_from_json(text)
    plain.set_weights(network.get_weights())
    # A layer such as Normalization holds plain tensors. tf2onnx would make them inputs of the file.
    for layer in nested_layers(plain):
        for name, value in list(vars(layer).items()):
            if isinstance(value, tf.Tensor):
                setattr(layer, name, value.numpy())
    # One image tensor goes in and one tensor comes out; from JSON they would be lists of one.
    plain = keras.Model(plain.inputs[0], plain.outputs[0], name=network.name)
    # Keras exports only what has been called.
    plain(np.zeros((1, *plain.input_shape[1:]), "float32"), training=False)
    return plain


def precision_of(network):
    """The precision that a network was trained with: `float32`, or a mixed one of Keras."""
    found = {layer.dtype_policy.name for layer in nested_layers(network)} - {"float32"}
    return found.pop() if found else "float32"


def write_saved_model(network, folder):
    """Write a SavedModel of TensorFlow.

    Args:
        network: from `in_float32`.
        folder: to write; its signature `serve` takes and gives what the network does.
    """
    network.export(folder, format="tf_saved_model", verbose=False)


def write_onnx(network, path, about):
    """Write a file of ONNX, whose input is `image` and whose output is `outputs`.

    Args:
        network: from `in_float32`.
        path: to write.
        about: {key: a value for JSON} to keep in the file, as its `metadata_props`.
    """
    import onnx

    _know_erfc()
    network.export(path, format="onnx", verbose=False)
    model = onnx.load(str(path))
    (given,), (made,) = model.graph.input, model.graph.output
    names = {given.name: INPUT, made.name: OUTPUT}
    for node in model.graph.node:
        for places in (node.input, node.output):
            places[:] = [names.get(name, name) for name in places]
    for value in (given, made):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = FIRST_AXIS
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@cache
def _know_erfc():
    """Teach tf2onnx an operation of the exact GELU: erfc(x) is 1 - erf(x), and ONNX has only erf."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        """The operation, as tf2onnx looks it up."""

        @classmethod
        def version_9(cls, graph, node, **_):
            """From version 9 of ONNX's operations on, which is the first that has erf."""
            names, shapes = node.output, node.output_shapes
            inputs, types = node.input, node.output_dtypes
            graph.remove_node(node.name)
            erf = graph.make_node("Erf", inputs, shapes=shapes, dtypes=types)
            one = graph.make_const(f"{node.name}_one", np.ones((), np.float32))
            graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=names, shapes=shapes, dtypes=types)

    return Erfc


def example_images(shape):
    """Images that the formats of a network are compared on; always the same.

    Args:
        shape: (edge, edge, channels).

    Returns:
        (12, edge, edge, channels) float32, 0-255: noise, spots of light on noise, black, white.
    """
    random, edge = np.random.default_rng(1), shape[0]
    noise = random.uniform(0, 255, (NOISE, *shape))
    y, x = (np.mgrid[:edge, :edge] + 0.5) / edge - 0.5
    spots = []
    for number in range(SPOTS):
        round_one = np.exp(-(x**2 + (y * (1 + number / 2)) ** 2) / (2 * (0.03 * (1 + number)) ** 2))
        spots.append(220 * round_one[..., None] + random.uniform(0, 30, shape))
    flat = [np.zeros(shape), np.full(shape, 255)]
    return np.concatenate([noise, spots, flat]).clip(0, 255).astype("float32")


def outputs_of(network, images):
    """What a network gives with its dropout off.

    Args:
        network: keras.Model.
        images: (galaxies, edge, edge, channels) float32.

    Returns:
        (galaxies, outputs) array.
    """
    single = keras.Model(network.inputs[0], network.outputs[0])
    return keras.ops.convert_to_numpy(single(images, training=False))


def outputs_of_onnx(path, images):
    """What ONNX Runtime makes of images with a file of ONNX: the first alone, the others together.

    Args:
        path: of the file.
        images: (galaxies, edge, edge, channels) float32.

    Returns:
        (galaxies, outputs) array.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batches = [images[:1], images[1:]]
    return np.concatenate([session.run([OUTPUT], {INPUT: batch})[0] for batch in batches])


def outputs_of_saved_model(folder, images):
    """What TensorFlow makes of images with a SavedModel: the first alone, the others together.

    Args:
        folder: of the SavedModel.
        images: (galaxies, edge, edge, channels) float32.

    Returns:
        (galaxies, outputs) array.
    """
    loaded = tf.saved_model.load(str(Path(folder)))
    return np.concatenate([loaded.serve(batch).numpy() for batch in (images[:1], images[1:])])


def greatest_difference(found, expected, shares=()):
    """How far outputs are from others, relative to their size.

    Args:
        found: (galaxies, outputs).
        expected: the same.
        shares: numbers of outputs that are probabilities, whose size is 1; that of any other output is its
            largest absolute value among the galaxies.

    Returns:
        The largest difference; infinite where a number is none.
    """
    size = np.abs(expected).max(axis=0)
    size[list(shares)] = 1
    away = np.abs(found - expected).max(axis=0) / np.where(size > 0, size, 1)
    return float(away.max()) if np.isfinite(away).all() else float("inf")


def export_model(folder, into):
    """Write a model folder with other formats of its network beside it, if each gives the same numbers.

    The new folder has `model.keras` and `model.json` as they are, `model.onnx`, `saved_model/`, and
    `checks.json`: `tolerance`, `images` (how many were compared), `differences` of each format, `precision`
    and `difference_of_precision` (how the network was trained, and how far its outputs are from those in
    float32), `parameters`, `share` (of an image's edge that the network sees), `packages`.

    Args:
        folder: of the model.
        into: the folder to write. The files get there when all of them are checked.

    Raises:
        UserError: a package is missing, the model cannot be read, or a format gives other numbers.
    """
    check_packages()
    model = load_model(folder)
    plain, images = in_float32(model.network), example_images(model.network.input_shape[1:])
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        for name in MODEL_FILES:
            shutil.copyfile(Path(folder, name), made / name)
        log.info("Writing %s and %s of %s", ONNX, SAVED_MODEL, folder)
        write_onnx(plain, made / ONNX, {key: model.about[key] for key in ("kind", "columns")})
        write_saved_model(plain, made / SAVED_MODEL)
        checks = _check(model, plain, images, made)
        (made / "checks.json").write_text(json.dumps(checks, indent=1) + "\n")
        for path in sorted(path for path in made.rglob("*") if path.is_file()):
            with whole(Path(into) / path.relative_to(made)) as partial:
                shutil.copyfile(path, partial)


def _check(model, plain, images, made):
    """The content of `checks.json`; a `UserError` where a format gives other numbers."""
    labels = [Label.from_dict(label) for label in model.about.get("labels") or ()]
    kinds = [label.kind for label in labels for _ in label.outputs]
    count = plain.output_shape[-1]
    shares = range(count) if model.kind == "probabilities" else []
    if len(kinds) == count:
        shares = [number for number, kind in enumerate(kinds) if kind in CLASSIFICATIONS]
    trained, expected = (outputs_of(network, images) for network in (model.network, plain))
    copied = load_model(made).network
    pairs = {
        "model.keras": (outputs_of(copied, images), trained),
        ONNX: (outputs_of_onnx(made / ONNX, images), expected),
        SAVED_MODEL: (outputs_of_saved_model(made / SAVED_MODEL, images), expected),
    }
    found = {name: greatest_difference(*pair, shares) for name, pair in pairs.items()}
    precision = precision_of(model.network)
    away = greatest_difference(trained, expected, shares)
    # Every other precision rounds differently; how far apart the two are is said, not judged.
    judged = found if precision != "float32" else {**found, "the network in float32": away}
    for name, difference in judged.items():
        log.info("%s: differs from the model by %.1e of the size of an output", name, difference)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{name}: gives other numbers than the model, the greatest difference is {difference:.1e} of"
                f" an output's size, expected at most {TOLERANCE:.0e}; nothing is exported. Use model.keras,"
                " and report this with the name of the backbone."
            )
    view = central_view(augmentation_of(model.about), model.about["image"])
    image = model.about["image"]
    return {
        "tolerance": TOLERANCE,
        "images": len(images),
        "differences": found,
        "precision": precision,
        "difference_of_precision": away,
        "parameters": plain.count_params(),
        "share": float(view[0]) * image["final_size"] / image["size"],
        "packages": {name: importlib.metadata.version(name) for name in (*PACKAGES, "keras")},
    }
