"""Write losses, gradients and outputs of every head on the Keras backend `KERAS_BACKEND` to an NPZ file."""

import sys
from functools import partial

import keras
import numpy as np
from zoolib.config.trees import DecisionTree
from zoolib.learning import models
from zoolib.learning.likelihood import LOSSES, QuestionLosses, TreeLoss, question_losses

TREE = DecisionTree.from_dict(
    {"questions": {"a": {"answers": ["x", "y"]}, "b": {"answers": ["u", "v", "w"], "after": "a_x"}}}
)


def gradient_of(loss, votes, values):
    """Gradient of the summed loss, by the automatic differentiation of the backend."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: loss(votes, x).sum())(values))
    import tensorflow as tf

    variable = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        total = keras.ops.sum(loss(votes, variable))
    return tape.gradient(total, variable).numpy()


def main(output):
    """Compute everything for the same inputs, which numpy draws."""
    rng = np.random.default_rng(5)
    votes = rng.integers(0, 60, (200, 5)).astype("float32")
    votes[::4, 2:] = 0
    values = {
        "concentrations": (10 ** rng.uniform(-2, 5, (200, 5))).astype("float32"),
        "probabilities": np.hstack([rng.dirichlet(np.ones(n), 200) for n in (2, 3)]).astype("float32"),
    }
    values["probabilities"][:3] = [1, 0, 0, 1, 0]
    # Three components of each question.
    weights = np.log(np.moveaxis(rng.dirichlet(np.ones(3), (200, 2)), 2, 1)).reshape(200, -1)
    concentrations = 10 ** rng.uniform(-2, 5, (200, 15))
    values["mixtures"] = np.hstack([concentrations, weights]).astype("float32")
    written = {"backend": keras.backend.backend()}
    for kind, loss in LOSSES.items():
        asked = partial(question_losses, TREE, kind=kind)
        alone = partial(loss, votes) if kind != "mixtures" else partial(asked, votes)
        written[f"{kind}_loss"] = keras.ops.convert_to_numpy(alone(values[kind]))
        written[f"{kind}_gradient"] = gradient_of(asked, votes, values[kind])
        written[f"{kind}_tree"] = float(TreeLoss(TREE, kind)(votes, values[kind]))
        metric = QuestionLosses(TREE, kind)
        metric.update_state(votes, values[kind])
        written[f"{kind}_questions"] = [float(value) for value in metric.result().values()]
    features = rng.normal(size=(20, 6)).astype("float32")
    weights = np.random.default_rng(6)
    for head in models.KINDS:
        network = models.tree_head(6, TREE, 0.2, head, components=3)
        network.set_weights([weights.normal(size=weight.shape) for weight in network.get_weights()])
        written[f"head_{head}"] = keras.ops.convert_to_numpy(network(features))
    written["tensorflow_imported"] = "tensorflow" in sys.modules
    np.savez(output, **written)


if __name__ == "__main__":
    main(sys.argv[1])
