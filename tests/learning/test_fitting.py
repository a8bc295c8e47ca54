"""The life of a training: what is kept under SLURM, and when it is put back."""

import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from mutated import mutated
from zoolib.learning.checkpoints import Checkpoint
from zoolib.learning.fitting import Job, run_training

ABOUT = {"kind": "values", "tree": None, "columns": ["x"], "image": {}, "training": {}}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A function that runs a training of one identity in a SLURM job; it returns how often it was trained."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    inputs = keras.Input((3,))
    network = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    output = SimpleNamespace(**{name: tmp_path / name for name in ("about", "history")})
    output.model, times = tmp_path / "model.keras", []

    def learn(progress):
        times.append(1)
        return network, pd.DataFrame({"epoch": [1]}), ABOUT

    def run(identity, delete=True):
        before = len(times)
        run_training(Job(output), {"data": identity}, learn)
        if delete:
            # As Snakemake does before it runs the job again.
            for path in vars(output).values():
                path.unlink()
        return len(times) - before

    return run


def test_a_kept_model_is_put_back_only_for_the_same_data(trained):
    assert [trained(data) for data in ("pixels", "pixels", "other pixels", "pixels")] == [1, 0, 1, 1]


def test_a_checkpoint_is_continued_only_with_the_same_data(tmp_path):
    output = SimpleNamespace(model=tmp_path / "model.keras")
    stopping = SimpleNamespace(best=0.5, wait=1, patience=3, best_epoch=1, stopped_epoch=0, best_weights=None)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    network.compile("adam", "mse")
    epochs = []

    def learn(progress):
        # A finetuning has stages with checkpoints of their own.
        for number in (None, 0):
            checkpoint = Checkpoint(progress if number is None else progress.of_stage(number), stopping)
            checkpoint.set_model(network)
            checkpoint.set_params({"epochs": 9})
            epochs.append(checkpoint.first_epoch)
            checkpoint.on_epoch_end(checkpoint.first_epoch, {"loss": 1.0, "val_loss": 2.0})
        raise KeyboardInterrupt

    for data in ("pixels", "pixels", "other pixels", "other pixels"):
        with pytest.raises(KeyboardInterrupt):
            run_training(Job(output), {"data": data}, learn)
    assert epochs == [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("name", ["model", "about", "history", "fingerprint"])
def test_a_damaged_kept_model_is_trained_again(trained, tmp_path, name):
    trained("pixels")
    kept, random = tmp_path / "kept", np.random.default_rng(0)
    shutil.copytree(kept, tmp_path / "good")
    for _ in range(20):
        content = mutated((tmp_path / "good" / name).read_bytes(), random)
        if content == (tmp_path / "good" / name).read_bytes():
            continue
        shutil.rmtree(kept)
        shutil.copytree(tmp_path / "good", kept)
        (kept / name).write_bytes(content)
        assert trained("pixels") == 1


def test_a_model_that_cannot_be_kept_is_complete(trained, tmp_path):
    (tmp_path / "kept").touch()
    assert trained("pixels", delete=False) == 1
    assert (tmp_path / "model.keras").is_file()
