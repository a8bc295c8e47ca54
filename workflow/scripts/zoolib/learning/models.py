"""Models: a backbone with a head that answers a tree, and the folder that a model is saved in.

Only Keras's own layers are used, and models are saved uncompiled. So Keras loads `model.keras` in safe mode
without any code of this project.
"""

import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from keras import layers

from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError, check_machine, whole
from zoolib.job.provenance import hash_of, hash_of_file

# The published head's concentrations lie between 1 and 101 (Walmsley et al. 2022, section 5.1).
SMALLEST_CONCENTRATION = 1.0
CONCENTRATION_RANGE = 100.0
# The wide head's concentrations have no upper limit. Below this lower limit the likelihood is not exact in
# float32. Ten times a softplus reaches 0.1 as easily as 1,000.
WIDE_FLOOR = 0.01
WIDE_SCALE = 10.0
# With these biases concentrations start near 6: a model that has learned nothing should be unsure. With 0 the
# sigmoid would start at 51, and the first epochs would only correct this.
SIGMOID_BIAS = -3.0
SOFTPLUS_BIAS = -0.25
# Added to the bias of the answer that a component of a mixture leans towards at first, and to the other ones.
LEANING, OTHERS = 1.0, -0.4
# How often a model is read again if another training replaces its files meanwhile.
ATTEMPTS = 3
# What Keras, h5py, zipfile and zlib raise at damaged files; too little memory is not among them.
UNREADABLE = (ValueError, OSError, KeyError, TypeError, AttributeError, IndexError, EOFError)
UNREADABLE += (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
# The kind of outputs of each head, by its name in `train.head`.
KINDS = {
    "dirichlet": "concentrations",
    "dirichlet_wide": "concentrations",
    "dirichlet_mixture": "mixtures",
    "multinomial": "probabilities",
}


@dataclass
class GalaxyModel:
    """A model and the information that is needed to use it.

    Attributes:
        network: keras.Model, (galaxies, final_size, final_size, channels) float32 0-255 -> outputs.
        about: the content of `model.json`.
    """

    network: keras.Model
    about: dict = field(repr=False)

    @property
    def backbone(self):
        """(galaxies, final_size, final_size, channels) -> (galaxies, features)."""
        return self.network.get_layer("backbone")

    @property
    def head(self):
        """(galaxies, features) -> (galaxies, answers or labels); for mixtures see `split_mixtures`."""
        return self.network.get_layer("head")

    @property
    def tree(self):
        """The decision tree that the model answers; None for a finetuned label."""
        return DecisionTree.from_dict(self.about["tree"], "model.json") if self.about["tree"] else None

    @property
    def kind(self):
        """What the outputs are: `concentrations`, `mixtures`, `probabilities`, `values`, `features`."""
        return self.about["kind"]

    @property
    def components(self):
        """How many Dirichlets describe a question in one pass through the head; 1 without a mixture."""
        return self.about["training"]["components"] if self.kind == "mixtures" else 1

    @property
    def columns(self):
        """Names of the outputs."""
        return self.about["columns"]


def tree_head(features, tree, dropout, head="dirichlet", components=1):
    """A head that answers a tree: dropout, a dense layer with one number per answer, and an activation.

    `dirichlet` is the published head, a sigmoid stretched from 1 to 101 (Walmsley et al. 2022, section
    5.1); `dirichlet_wide` has a softplus and concentrations from 0.01 up; `dirichlet_mixture` has several of
    these a question, and their weights; `multinomial` has a softmax over the answers of each question.
    Float32 from the dense layer on, for any precision of the backbone.

    Args:
        features: count of the numbers that the backbone gives for a galaxy.
        tree: a `DecisionTree`.
        dropout: share of the features that are dropped, in training and for each posterior sample.
        head: a name in `KINDS`.
        components: Dirichlets of each question, for `dirichlet_mixture`.

    Returns:
        keras.Model named `head`, (galaxies, features) -> (galaxies, answers), concentrations or
        probabilities; for `dirichlet_mixture` what `split_mixtures` takes.
    """
    inputs = layers.Input((features,), name="features")
    x = layers.Dropout(dropout)(inputs)
    if head == "multinomial":
        outputs = _probabilities(x, tree)
    elif head == "dirichlet_mixture":
        outputs = _mixtures(x, tree, components)
    else:
        outputs = concentrations(x, tree, head)
    return keras.Model(inputs, outputs, name="head")


def concentrations(x, tree, head="dirichlet"):
    """The last layers of a head that gives concentrations: dense, then an activation with values > 0.

    Args:
        x: (galaxies, features), a Keras tensor.
        tree: a `DecisionTree`.
        head: `dirichlet` or `dirichlet_wide`.

    Returns:
        (galaxies, answers), a Keras tensor.
    """
    if head == "dirichlet_wide":
        return _wide(x, tree, "answers")
    x = _dense(x, tree, SIGMOID_BIAS, "answers")
    x = layers.Activation("sigmoid", dtype="float32")(x)
    return layers.Rescaling(CONCENTRATION_RANGE, offset=SMALLEST_CONCENTRATION, dtype="float32")(x)


def _wide(x, tree, name, bias=SOFTPLUS_BIAS):
    """Concentrations without an upper limit; `bias` is that of all answers, or a list of each one's."""
    x = layers.Activation("softplus", dtype="float32")(_dense(x, tree, bias, name))
    return layers.Rescaling(WIDE_SCALE, offset=WIDE_FLOOR, dtype="float32")(x)


def _dense(x, tree, bias, name):
    bias = keras.initializers.Constant(bias)
    return layers.Dense(len(tree.columns), bias_initializer=bias, dtype="float32", name=name)(x)


def _mixtures(x, tree, components):
    questions, found = len(tree.questions), []
    for number in range(components):
        bias = _leaning(tree, number) if components > 1 else SOFTPLUS_BIAS
        found.append(_wide(x, tree, f"answers_{number + 1}", bias))
    # The softmax is over the last axis, which has the components of one question.
    weights = layers.Dense(questions * components, dtype="float32", name="weights")(x)
    weights = layers.Reshape((questions, components), dtype="float32")(weights)
    weights = layers.Activation("log_softmax", dtype="float32")(weights)
    weights = layers.Permute((2, 1), dtype="float32")(weights)
    return layers.Concatenate(dtype="float32")([*found, layers.Flatten(dtype="float32")(weights)])


def _leaning(tree, number):
    """The biases that a component of a mixture starts with; one answer of each question has a larger one.

    Equal components would have equal gradients and stay equal. So each leans towards another answer. If there
    are more components than answers, they go through the answers again, and lean half as much.
    """
    biases = []
    for question in tree.questions:
        earlier, chosen = divmod(number, len(question.answers))
        added = (LEANING if answer == chosen else OTHERS for answer in range(len(question.answers)))
        biases += [SOFTPLUS_BIAS + lean / 2**earlier for lean in added]
    return biases


def _probabilities(x, tree):
    shares = []
    for question in tree.questions:
        answers = layers.Dense(len(question.answers), dtype="float32", name=f"answers_{question.name}")(x)
        shares.append(layers.Softmax(dtype="float32")(answers))
    return layers.Concatenate(dtype="float32")(shares) if len(shares) > 1 else shares[0]


def split_mixtures(outputs, tree, components):
    """What a head of mixtures has given, as concentrations and weights.

    Args:
        outputs: (galaxies, components * answers + components * questions): concentrations component by
            component, then the logarithms of the weights component by component.
        tree: a `DecisionTree`.
        components: Dirichlets of each question.

    Returns:
        (values (galaxies, answers, components), > 0; weights (galaxies, questions, components), >= 0, which
        sum to 1 over the components).
    """
    outputs = np.asarray(outputs)
    values, logs = np.split(outputs, [components * len(tree.columns)], axis=1)
    values = values.reshape(len(outputs), components, len(tree.columns)).transpose(0, 2, 1)
    weights = np.exp(
        logs.reshape(len(outputs), components, len(tree.questions)).transpose(0, 2, 1), dtype=float
    )
    return values, weights / weights.sum(axis=2, keepdims=True)


def join(backbone, head=None):
    """Join a backbone and a head to one model; both stay nested in it, by their names.

    Args:
        backbone: from `backbones.build_backbone` or a loaded model.
        head: from `tree_head` or `label_heads.labels_head`; None for a model whose outputs are features.

    Returns:
        keras.Model.
    """
    inputs = keras.Input(backbone.input_shape[1:], name="image")
    features = backbone(inputs)
    return keras.Model(inputs, head(features) if head else features, name="galaxies")


def save_model(network, about, model_path, about_path):
    """Write a model as two files, uncompiled; the second has checksums of both.

    Args:
        network: keras.Model with the nested models `backbone` and `head`.
        about: what goes to `model.json`: tree, columns, kind, image, training, seeds, data, versions.
        model_path: ends in `.keras`.
        about_path: ends in `.json`.
    """
    # Loading a compiled model would need the code of our loss; a new model of the same layers does not.
    uncompiled = keras.Model(network.inputs, network.outputs, name=network.name)
    with whole(model_path) as partial:
        uncompiled.save(partial)
        weights = hash_of_file(partial)
    # As it will be read: JSON has no tuples, and all its keys are text.
    content = json.loads(json.dumps({key: about[key] for key in about if key != "checksums"}))
    checksums = {"model.keras": weights, "model.json": hash_of(content)}
    with whole(about_path) as partial:
        partial.write_text(json.dumps({**content, "checksums": checksums}, indent=1) + "\n")


def load_model(folder):
    """Read a model folder.

    Args:
        folder: holds `model.keras` and `model.json`.

    Returns:
        A `GalaxyModel`.

    Raises:
        UserError: the folder is not a model folder, or its files cannot be read, are damaged, or are not of
            the same model.
    """
    folder = Path(folder)
    for name in ("model.keras", "model.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: is not a model folder, it has no {name}; train a model first, or name another."
            )
    for _ in range(ATTEMPTS):
        before = _state(folder)
        try:
            about = _read_about(folder / "model.json")
            found = GalaxyModel(_read_network(folder / "model.keras", about), about)
        except UserError:
            if _state(folder) == before:
                raise
            continue
        # Otherwise another training has replaced one of the two files, or both.
        if _state(folder) == before:
            return found
    raise UserError(f"{folder}: is replaced again and again while it is read; wait for what trains it.")


def _state(folder):
    """Which files the folder has at the moment: those of a replaced model differ."""
    stats = [(folder / name).stat() for name in ("model.keras", "model.json")]
    return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]


def _read_about(path):
    try:
        about = json.loads(path.read_text())
        if not isinstance(about, dict):
            raise ValueError("is not a mapping")
        missing = sorted({"kind", "tree", "columns", "image", "training"} - set(about))
        if missing:
            raise ValueError(f"has no '{missing[0]}'")
        if about["kind"] == "mixtures" and "components" not in about["training"]:
            raise ValueError("has no 'training.components'")
    except (ValueError, TypeError, OSError, RecursionError) as error:
        check_machine(error, path)
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({reason}); it is damaged: train the model again.") from None
    content = {key: value for key, value in about.items() if key != "checksums"}
    if "checksums" in about and _checksum(about, "model.json") != hash_of(content):
        raise UserError(
            f"{path}: is damaged or was edited, its checksum is wrong; train the model again, or, if you have"
            " edited it, remove its key 'checksums'."
        )
    return about


def _checksum(about, name):
    """The checksum of one of the two files; None if the model has none, as older ones do not."""
    found = about.get("checksums")
    return found.get(name, "") if isinstance(found, dict) else found


def _read_network(path, about):
    expected = _checksum(about, "model.keras")
    try:
        # Not by `is_zipfile`, which answers an error of the system with "no".
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                raise ValueError("it is not a Keras model")
        if expected is not None and hash_of_file(path) != expected:
            raise ValueError("its checksum is not that in model.json")
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except UNREADABLE as error:
        check_machine(error, path)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be read ({reason}); it is damaged, of another model than the model.json beside"
            " it, or was written by another program: train it again."
        ) from None


def check_same_use(about, tree, image, folder):
    """Stop if a model answers another tree, or sees other images, than this run needs.

    Args:
        about: content of the model's `model.json`.
        tree: the `DecisionTree` of the run.
        image: the `image` section of the run's configuration.
        folder: the model's folder, for the message.

    Raises:
        UserError: the message names the first difference.
    """
    if about["kind"] == "features":
        raise UserError(
            f"{folder}: is a pretrained backbone without a head, and train.start_from needs a model with a"
            " head; name it in train.pretrained instead."
        )
    if not about["tree"] or about["columns"] != tree.columns:
        found = about["tree"]["name"] if about["tree"] else ", ".join(about["columns"])
        raise UserError(
            f"{folder}: this model answers '{found}' ({len(about['columns'])} answers), this run asks"
            f" '{tree.name}' ({len(tree.columns)}); choose a model for this tree or finetune this one."
        )
    for key in ("size", "crop", "final_size", "color", "grey"):
        found, here = (section.get(key, "mean") for section in (about["image"], image))
        if found != here:
            raise UserError(
                f"{folder}: this model was trained with image.{key}: {found}, this run has {here}; set"
                f" image.{key} to the model's value."
            )
