"""Several devices and other Keras backends give the same numbers as one device under TensorFlow."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest


def run_in_a_process(repo, script, *arguments, **environment):
    """Run a script of tests/support in a new process, in which TensorFlow and Keras have not started yet."""
    path = os.pathsep.join(str(repo / folder) for folder in ("tests/support", "workflow/scripts"))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, str(repo / "tests" / "support" / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_devices_train_like_one(repo, stored, tmp_path):
    run_in_a_process(repo, "two_devices.py", stored, tmp_path / "devices.npz")
    with np.load(tmp_path / "devices.npz") as found:
        assert {"loss", "val_loss", "loss_a", "val_loss_b"} <= set(found["plain_two_columns"])
        # BatchNorm sums variances in another order, and Adam magnifies differences close to 0.
        for kind, share, step in (("plain", 1e-5, 1e-5), ("batchnorm", 1e-3, 5e-3)):
            for name, allowed in (("history", {"rtol": share}), ("weights", {"rtol": share, "atol": step})):
                one, two = (found[f"{kind}_{number}_{name}"] for number in ("one", "two"))
                np.testing.assert_allclose(two, one, **allowed, err_msg=f"{kind} {name}")
        assert not found["two_synchronized"].any()
        np.testing.assert_allclose(found["two_loss"], found["one_loss"], rtol=1e-6)
        # Each device compares the galaxies of its own share, so two do not train exactly like one.
        assert found["views_history"].shape == (1, 3) and np.isfinite(found["views_history"]).all()
        assert "train.batch_size is 2, and 12 galaxies decide" in str(found["too_few"])
        assert "9 galaxies cannot be shared equally by the 2 GPUs" in str(found["refused"])


def test_jax_gives_the_numbers_of_tensorflow(repo, tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed: the likelihood was not compared between backends")
    found = {}
    for backend in ("tensorflow", "jax"):
        run_in_a_process(repo, "on_backend.py", tmp_path / f"{backend}.npz", KERAS_BACKEND=backend)
        with np.load(tmp_path / f"{backend}.npz") as written:
            found[backend] = dict(written)
    expected, numbers = found["tensorflow"], found["jax"]
    assert str(numbers.pop("backend")) == "jax"
    # Neither the likelihood nor the heads import TensorFlow.
    assert not numbers.pop("tensorflow_imported")
    for name, values in numbers.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-3, err_msg=name)
    for kind in ("concentrations", "probabilities"):
        assert (numbers[f"{kind}_gradient"][::4, 2:] == 0).all()
    # The second question's concentrations and weights of each component.
    of_answers, of_questions = np.split(numbers["mixtures_gradient"][::4], [15], axis=1)
    assert (of_answers.reshape(-1, 3, 5)[:, :, 2:] == 0).all()
    assert (of_questions.reshape(-1, 3, 2)[:, :, 1] == 0).all()
