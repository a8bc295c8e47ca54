"""What a backbone makes of images, a few at a time."""

import numpy as np
import pytest
from stored import IMAGE, files
from zoolib import train
from zoolib.learning import features, models
from zoolib.learning.augment import PAPER


@pytest.mark.parametrize(("edge", "count"), [(48, 128), (128, 64), (224, 16), (300, 8), (2000, 1)])
def test_large_images_go_through_a_processor_a_few_at_a_time(edge, count):
    assert features.images_at_once(edge) == count


def test_a_gpu_takes_complete_blocks(monkeypatch):
    monkeypatch.setattr(features.tf.config, "list_physical_devices", lambda kind: [kind])
    assert features.images_at_once(224) == features.BLOCK


def test_features_are_those_of_all_images_at_once(model_folder, monkeypatch):
    backbone = models.load_model(model_folder).backbone
    backbone.compile(jit_compile=False)
    images = np.random.default_rng(0).uniform(0, 255, (11, *backbone.input_shape[1:])).astype("float32")
    expected = backbone.predict_on_batch(images)
    shapes, predict = set(), backbone.predict_on_batch
    monkeypatch.setattr(backbone, "predict_on_batch", lambda x: shapes.add(len(x)) or predict(x))
    monkeypatch.setattr(features, "PIXELS", 5 * images.shape[1] ** 2)
    found = features.features_of(backbone, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert found.dtype == np.float32 and shapes == {4}
    # A galaxy has the same features, whichever galaxies are seen with it.
    np.testing.assert_array_equal(features.features_of(backbone, images[8:]), found[8:])


def test_the_features_of_a_store_are_those_of_its_central_views(stored, model_folder):
    model = models.load_model(model_folder)
    store, _ = train.open_store(*files(stored, "val"), model.tree, IMAGE)
    found, votes = features.features_of_store(model.backbone, store, PAPER)
    assert found.shape == (store.count, model.backbone.output_shape[-1])
    assert votes.shape == (store.count, len(model.tree.columns))
