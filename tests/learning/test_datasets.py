"""The images that a finetuning shows again and again: one copy of each, in memory or in a file."""

import errno
import os
import shutil
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from stored import IMAGE
from zoolib.data.tfrecords import read_sidecar
from zoolib.job.logs import MachineError
from zoolib.learning import datasets, decoded
from zoolib.learning.augment import PAPER

SIZE = 100
LARGE = {**IMAGE, "size": SIZE, "color": True}


@pytest.fixture
def shown(stored):
    """40 galaxies, each ten times."""
    table = pd.read_parquet(stored / "train.parquet")
    shown = table.loc[table.index.repeat(10)].reset_index(drop=True)
    return shown.assign(id_str=[f"{name} again {number}" for number, name in enumerate(shown["id_str"])])


@pytest.fixture
def decodings(monkeypatch):
    """The images that were decoded, in order."""
    found, load_row = [], datasets.load_row
    monkeypatch.setattr(
        datasets, "load_row", lambda row, *rest: found.append(row["file_loc"]) or load_row(row, *rest)
    )
    return found


def epochs_of(table, folder, image=LARGE, epochs=2):
    """All batches of some epochs, and of a validation."""
    store = datasets.from_catalog([table], ["a_x"], image, keep_in=folder)
    batches, _ = datasets.training_batches(store, PAPER, 64, 3, range(epochs), keep_last=True)
    central = datasets.central_batches(store, PAPER, 64)
    return [part.numpy() for batch in [*batches, *central] for part in batch]


def same(first, second):
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_an_image_that_is_shown_ten_times_is_kept_once(shown, tmp_path, decodings):
    store = datasets.from_catalog([shown], [], LARGE, keep_in=tmp_path)
    tracemalloc.start()
    for _ in datasets.stored_batches(store, 8):
        pass
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # With a copy for each row, it would be ten times as much.
    assert 40 <= kept / (SIZE * SIZE * 3) < 100
    assert len(set(decodings)) == 40
    # Two threads may decode the same image at the same time, but only before one of them has kept it.
    decodings.clear()
    for _ in datasets.stored_batches(store, 8):
        pass
    assert not decodings and not os.listdir(tmp_path)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_above_the_ceiling_images_come_from_a_file_without_a_name(
    shown, tmp_path, decodings, monkeypatch, encoding
):
    image = {**LARGE, "encoding": encoding}
    in_memory = epochs_of(shown, tmp_path / "memory", image)
    assert not (tmp_path / "memory").exists()
    monkeypatch.setattr(decoded, "CEILING", 40 * SIZE * SIZE * 3 - 1)
    decodings.clear()
    assert same(in_memory, epochs_of(shown, tmp_path / "file", image))
    assert len(decodings) < 100
    assert not os.listdir(tmp_path / "file")


def test_a_full_disk_makes_training_slower_but_not_different(shown, tmp_path, monkeypatch, caplog):
    in_memory = epochs_of(shown, tmp_path)
    monkeypatch.setattr(decoded, "CEILING", 0)
    write, places = os.pwrite, []

    def full(file, data, place):
        places.append(place)
        if len(places) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        # The last thing that fits is a part of an image.
        return write(file, data if len(places) < 20 else data[:100], place)

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level("WARNING", "zoolib"):
        assert same(in_memory, epochs_of(shown, tmp_path))
    assert "cannot grow (No space left on device)" in caplog.text


def test_a_model_of_luma_is_shown_luma(tmp_path):
    colours = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "one.png")
    place = {"id_str": ["a"], "archive": [""], "member": [""], "file_loc": [str(tmp_path / "one.png")]}
    image = {"size": 32, "crop": 1.0, "final_size": 32, "color": False, "encoding": "png"}
    shown = {}
    for grey in ("mean", "luma"):
        store = datasets.from_catalog([pd.DataFrame(place)], [], {**image, "grey": grey})
        ((_, pixels, *_),) = datasets.stored_batches(store, 1)
        shown[grey] = np.asarray(pixels)[0, :, :, 0].astype(int)
    assert np.abs(shown["luma"] - np.asarray(Image.fromarray(colours).convert("L"))).max() <= 1
    assert np.array_equal(shown["mean"], np.rint(colours.mean(axis=2)))


def test_a_shard_that_goes_away_is_a_message_with_its_name(stored, tmp_path):
    shard = tmp_path / "0.tfrecord"
    shutil.copy(stored / "train" / "0.tfrecord", shard)
    about = read_sidecar(stored / "train" / "0.json")
    store = datasets.from_shards([shard], [about], IMAGE)
    with datasets.images_read(store):
        assert sum(len(batch[0]) for batch in datasets.stored_batches(store, 16)) == about["count"]
    # It is away at the first look only, and then for good.
    away = f"{{{{node}}}} {shard}; No such file or directory [Op:IteratorGetNext] name: "
    with pytest.raises(MachineError, match=f"^{shard}: the shard is gone"), datasets.images_read(store):
        raise tf.errors.NotFoundError(None, None, away)
    shard.unlink()
    with pytest.raises(MachineError, match=f"^{shard}: the shard is gone"), datasets.images_read(store):
        list(datasets.stored_batches(store, 16))


def test_the_end_of_stored_batches_is_not_waited_for(shown):
    """What tunes a dataset sleeps for seconds, and the end of each job waited for it."""
    store = datasets.from_catalog([shown], [], IMAGE)
    for batches in (datasets.stored_batches(store, 8), datasets.central_batches(store, PAPER, 8)):
        assert not batches.options().autotune.enabled
