"""Views of a galaxy: scale, reproducibility, and that each is cut differently."""

import numpy as np
import tensorflow as tf
from zoolib.augment import apply_views, central_view, random_view

IMAGE = {"size": 100, "crop": 0.75, "final_size": 50}


def blob(width=8.0, size=100):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return (200 * np.exp(-(x**2 + y**2) / (2 * width**2))).astype("float32")[None, :, :, None]


def width_of(view):
    y, x = np.mgrid[: view.shape[0], : view.shape[1]]
    light = view / view.sum()
    centre_x, centre_y = (light * x).sum(), (light * y).sum()
    return np.sqrt((light * ((x - centre_x) ** 2 + (y - centre_y) ** 2)).sum() / 2)


def views(image, rounds, seed=1, name="J1"):
    return tf.stack([random_view(image, seed, r, tf.constant(name)) for r in rounds])


def test_training_and_prediction_see_a_galaxy_at_the_same_scale():
    expected = 8.0 * 50 / 75
    central = apply_views(blob(), central_view(IMAGE)[None], 50)[0, :, :, 0].numpy()
    assert abs(width_of(central) - expected) < 0.1
    for view in views(IMAGE, range(10)):
        cut = apply_views(blob(), view[None], 50)[0, :, :, 0].numpy()
        assert abs(width_of(cut) - expected) < 0.3


def test_without_rescaling_the_central_view_is_the_middle_of_the_image_untouched():
    image = {"size": 100, "crop": 0.5, "final_size": 50}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 100, 100, 3)).astype("uint8")
    cut = apply_views(pixels, tf.tile(central_view(image)[None], [2, 1]), 50).numpy()
    np.testing.assert_allclose(cut, pixels[:, 25:75, 25:75], atol=0.02)


def test_views_depend_on_seed_round_and_galaxy_alone():
    again = views(IMAGE, [3]).numpy()
    assert (views(IMAGE, [3]).numpy() == again).all()
    for other in (views(IMAGE, [4]), views(IMAGE, [3], seed=2), views(IMAGE, [3], name="J2")):
        assert np.abs(other.numpy() - again).max() > 1e-3


def test_each_image_of_a_batch_is_cropped_differently_and_half_are_mirrored():
    cuts = views(IMAGE, range(400)).numpy()
    assert len(np.unique(cuts[:, 2])) == 400
    mirrored = (cuts[:, 0] * cuts[:, 4] - cuts[:, 1] * cuts[:, 3]) < 0
    assert 0.4 < mirrored.mean() < 0.6


def test_crops_stay_inside_an_unrotated_image_and_reach_its_edges():
    cuts = views(IMAGE, range(500)).numpy().reshape(-1, 8)
    middle = np.array([24.5, 24.5, 1.0])
    x, y = cuts[:, :3] @ middle - 49.5, cuts[:, 3:6] @ middle - 49.5
    distance = np.maximum(np.abs(x), np.abs(y))
    assert np.hypot(x, y).max() <= 12.5 * np.sqrt(2) + 1e-3
    assert distance.max() > 12
