"""Checkpoints: whatever happened to the file, training continues with the right state or from scratch."""

import errno
import logging
import os
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from mutated import mutated
from zoolib.job.attempts import Budget
from zoolib.job.logs import MachineError
from zoolib.learning.checkpoints import Checkpoint, Progress

MUTATIONS = 1000


def stopping():
    return SimpleNamespace(
        best=0.5, wait=1, patience=3, best_epoch=1, stopped_epoch=0, best_weights=[np.ones((3, 2), "float32")]
    )


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after one epoch, and a function that reads it as the next attempt does."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    progress = Progress(tmp_path, "0123456789ab", Budget())

    def opened():
        found = Checkpoint(progress, stopping())
        found.set_model(model)
        return found

    checkpoint = opened()
    checkpoint.set_params({"epochs": 5})
    checkpoint.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    return SimpleNamespace(path=checkpoint.path, content=checkpoint.path.read_bytes(), opened=opened)


def state_of(checkpoint):
    """What the next attempt would continue with; None if it starts from scratch."""
    if checkpoint._state is None:
        assert (checkpoint.first_epoch, checkpoint.history, checkpoint.finished) == (0, [], False)
        return None
    about, arrays = checkpoint._state
    return about, {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def test_a_mutated_checkpoint_continues_rightly_or_starts_from_scratch(saved, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    expected, random = state_of(saved.opened()), np.random.default_rng(0)
    assert expected[0]["history"][0]["loss"] == 1.0
    scratch = 0
    for _ in range(MUTATIONS):
        content = mutated(saved.content, random)
        saved.path.write_bytes(content)
        caplog.clear()
        found = state_of(saved.opened())
        if found is None:
            scratch += 1
            assert "starts from scratch" in caplog.text
        else:
            assert found == expected and content == saved.content
    assert scratch > 0.95 * MUTATIONS


@pytest.mark.parametrize("content", ["empty", "cut", "of another program", "folder", "no right to read"])
def test_what_is_no_checkpoint_gives_way_to_one(saved, monkeypatch, caplog, content):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    if content == "folder":
        saved.path.unlink()
        saved.path.mkdir()
        (saved.path / "file").touch()
    elif content == "no right to read":
        refuse_to_open(monkeypatch, errno.EACCES)
    else:
        saved.path.write_bytes({"empty": b"", "cut": saved.content[:-1]}.get(content, b"PK\x03\x04 other"))
    found = saved.opened()
    assert state_of(found) is None
    assert f"{saved.path} cannot be read" in caplog.text
    monkeypatch.undo()
    found.set_params({"epochs": 5})
    found.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    assert state_of(saved.opened()) is not None


def test_a_file_system_that_does_not_answer_costs_no_epoch(saved, monkeypatch):
    refuse_to_open(monkeypatch, errno.ESTALE)
    with pytest.raises(MachineError, match="Stale file handle"):
        saved.opened()
    monkeypatch.undo()
    assert state_of(saved.opened()) is not None


def refuse_to_open(monkeypatch, number):
    def refuse(*arguments, **settings):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", refuse)
