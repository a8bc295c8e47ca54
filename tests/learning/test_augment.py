"""Augmentations: their lists, the scale of a galaxy, light, and that no view depends on others."""

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from scipy import ndimage
from stored import IMAGE as STORED_IMAGE
from stored import files
from zoolib.config import augmentations
from zoolib.config.augmentations import load_augmentation, load_augmentations
from zoolib.data.decoders import BLACK, WHITE
from zoolib.figures import augmentations as figure
from zoolib.job.logs import UserError
from zoolib.learning import augment
from zoolib.learning.augment import PAPER, apply_views, central_view, draw_numbers, random_views
from zoolib.learning.datasets import cut_views

IMAGE = {"size": 100, "crop": 0.7, "final_size": 60, "color": False, "encoding": "png"}
NAMES = ("paper", "zoobot1", "zoobot2", "astronomer")


@pytest.fixture(scope="module")
def lists(repo):
    return {name: load_augmentation(name, repo / "config" / "augmentations") for name in NAMES}


def only(*steps):
    return {"name": "mine", "steps": list(steps)}


def draws_of(augmentation, rounds, seed=1, name="J1"):
    return tf.stack([draw_numbers(augmentation, seed, number, tf.constant(name)) for number in rounds])


def views(augmentation, rounds, **keywords):
    return random_views(augmentation, draws_of(augmentation, rounds, **keywords), IMAGE)


def augmented(augmentation, pixels, rounds, image=IMAGE):
    """Augmented views of the same image, one for each round."""
    draws = draws_of(augmentation, rounds)
    return augment.augment(augmentation, tf.repeat(pixels, len(rounds), axis=0), draws, image).numpy()


def disc(radius=18.0, size=100):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return (200 * np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)).astype("float32")[None, :, :, None]


def grey(value, image=IMAGE, channels=1):
    return np.full((1, image["size"], image["size"], channels), value, "float32")


def flux(pixels):
    return np.sinh(np.asarray(pixels, "float64") / 255 * (WHITE - BLACK) + BLACK)


def test_every_list_is_read_and_every_step_has_ranges_and_a_function(repo, lists):
    files = {path.stem for path in (repo / "config" / "augmentations").glob("*.yaml")}
    assert files == set(NAMES)
    assert lists["paper"] == PAPER
    for table in ("GEOMETRY", "LIGHT"):
        assert set(getattr(augment, table)) == set(getattr(augmentations, table))
    names = [next(iter(step)) for step in lists["astronomer"]["steps"]]
    assert names[:3] == [next(iter(step)) for step in PAPER["steps"]]
    assert set(names[3:]) == {"noise", "blur", "dim", "redden"}


WRONG = {
    "no file": (None, "train.augmentation is 'mine', but there is no file .*has astronomer, paper, zoobot1"),
    "no YAML": ("steps: [", "mine.yaml: is not valid YAML in line"),
    "no list": ("steps: {rotate: {}}", "mine.yaml: expected only the key 'steps', with a list"),
    "more than steps": ("steps: [flip]\nname: x", "mine.yaml: expected only the key 'steps', with a list"),
    "unknown step": (
        "steps: [flip, rotat]",
        "mine.yaml: step 2 is 'rotat' .did you mean 'rotate'.., which is not a step; "
        "choose one of rotate, flip",
    ),
    "two in one": (
        "steps: [{flip: {}, crop: {}}]",
        "mine.yaml: step 1 is .*, expected one step with its ranges",
    ),
    "no range": ("steps: [zoom]", "mine.yaml: step 1 .zoom. has no ranges, expected factor"),
    "unknown range": ("steps: [{flip: {up: 1}}]", "step 1 .flip. has up, expected no ranges"),
    "one number": ("steps: [{zoom: {factor: 2}}]", r"step 1 .zoom.: factor is 2, expected .lowest, highest"),
    "upside down": (
        "steps: [{zoom: {factor: [2, 1]}}]",
        r"\(zoom\): factor is \[2, 1\], expected \[lowest, highest\] between 0.1 and 10",
    ),
    "too wide": ("steps: [{resized_crop: {area: [0.5, 2], aspect: [1, 1]}}]", "area is .0.5, 2., expected"),
    "not a number": ("steps: [{zoom: {factor: [.nan, 2]}}]", "factor is .nan, 2., expected"),
    "twice": ("steps: [crop, flip, crop]", "mine.yaml: step 3 .crop. repeats step 1; write each step that"),
    "order": (
        "steps: [flip, {noise: {sigma: [0, 1]}}, crop]",
        "step 3 .crop. moves pixels, but comes after step 2 .noise., which changes their values",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_list_ends_with_one_message(case, repo, tmp_path):
    content, words = WRONG[case]
    name = "mine"
    if content is not None:
        (tmp_path / "mine.yaml").write_text(content)
        name = str(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=words) as caught:
        load_augmentation(name, repo / "config" / "augmentations")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_users_list_is_named_after_its_file(repo, tmp_path):
    (tmp_path / "strong.yaml").write_text(yaml.safe_dump({"steps": ["crop", {"dim": {"redshift": [0, 1]}}]}))
    found = load_augmentation(str(tmp_path / "strong.yaml"), repo)
    assert found == {"name": "strong", "steps": [{"crop": {}}, {"dim": {"redshift": [0.0, 1.0]}}]}


def test_ranges_may_have_an_exponent(repo, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "steps: [{noise: {sigma: [0, 1e-1]}}, {dim: {redshift: [1e-2, 2E1]}}]"
    )
    found = load_augmentation(str(tmp_path / "mine.yaml"), repo)["steps"]
    assert found == [{"noise": {"sigma": [0.0, 0.1]}}, {"dim": {"redshift": [0.01, 20.0]}}]


@pytest.mark.parametrize("name", NAMES)
def test_training_and_prediction_see_a_galaxy_at_the_same_scale(lists, name):
    geometry = only(*(step for step in lists[name]["steps"] if next(iter(step)) in augment.GEOMETRY))
    central = apply_views(disc(), central_view(geometry, IMAGE)[None], 60).numpy()
    cuts = augmented(geometry, disc(), range(300))
    # The square root of the light is proportional to the width of the disc; cut discs are left out.
    whole = [cut for cut in cuts if max(cut[0].max(), cut[-1].max(), cut[:, 0].max(), cut[:, -1].max()) == 0]
    assert len(whole) > 150
    widths = np.sqrt([cut.sum() for cut in whole])
    assert np.mean(widths) == pytest.approx(np.sqrt(central.sum()), rel=0.01)
    assert np.sqrt(central.sum() / 200 / np.pi) == pytest.approx(18 * 0.6 / share(name), rel=0.02)
    assert (np.std(widths) / np.mean(widths) < 0.01) == (name in ("paper", "astronomer"))


def share(name):
    return {"zoobot1": np.sqrt(0.75), "zoobot2": 1 / 1.3}.get(name, IMAGE["crop"])


def test_the_central_view_is_the_unchanged_middle_of_the_image():
    image = {"size": 100, "crop": 0.5, "final_size": 50}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 100, 100, 3)).astype("uint8")
    cut = apply_views(pixels, tf.tile(central_view(PAPER, image)[None], [2, 1]), 50).numpy()
    np.testing.assert_allclose(cut, pixels[:, 25:75, 25:75], atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_depends_on_seed_round_and_galaxy_alone(lists, name):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 100, 100, 1)).astype("uint8")
    alone = augmented(lists[name], pixels, [3])[0]
    among = augmented(lists[name], pixels, [5, 4, 3])
    np.testing.assert_allclose(among[2], alone, atol=1e-3)
    for changes in ({"rounds": [4]}, {"seed": 2}, {"name": "J2"}):
        other = draws_of(lists[name], **{"rounds": [3], **changes})
        assert np.abs(augment.augment(lists[name], pixels, other, IMAGE).numpy()[0] - alone).max() > 1


def test_each_image_of_a_batch_is_cropped_differently_and_half_are_mirrored():
    cuts = views(PAPER, range(400)).numpy()
    assert len(np.unique(cuts[:, 2])) == 400
    mirrored = (cuts[:, 0] * cuts[:, 4] - cuts[:, 1] * cuts[:, 3]) < 0
    assert 0.4 < mirrored.mean() < 0.6


def test_crops_stay_inside_an_unrotated_image_and_reach_its_edges():
    cuts = views(PAPER, range(500)).numpy()
    middle = np.array([29.5, 29.5, 1.0])
    x, y = cuts[:, :3] @ middle - 49.5, cuts[:, 3:6] @ middle - 49.5
    assert np.hypot(x, y).max() <= 15 * np.sqrt(2) + 1e-3
    assert np.maximum(np.abs(x), np.abs(y)).max() > 14.5


def test_resized_crops_have_the_areas_and_aspects_of_their_ranges(lists):
    cuts = views(lists["zoobot1"], range(500)).numpy() * 60 / 100
    sides = np.hypot(cuts[:, [0, 1]], cuts[:, [3, 4]])
    area, aspect = sides.prod(axis=1), sides[:, 0] / sides[:, 1]
    assert 0.7 <= area.min() < 0.71 and 0.79 < area.max() <= 0.8
    assert 0.9 - 1e-4 <= aspect.min() < 0.91 and 1.09 < aspect.max() <= 1.1 + 1e-4


def test_a_shear_slides_rows_and_a_shift_moves_the_galaxy():
    leaning = views(only({"shear": {"degrees": [20.0, 20.0]}}), [0]).numpy()[0] * 60 / 100
    np.testing.assert_allclose(leaning[[0, 1, 3, 4]], [1, np.tan(np.pi / 9), 0, 1], atol=1e-5)
    moved = augmented(only({"shift": {"share": [0.1, 0.1]}}), disc(5.0), [0])[0, :, :, 0]
    y, x = (moved[..., None] * np.moveaxis(np.mgrid[:60, :60], 0, 2)).sum(axis=(0, 1)) / moved.sum()
    assert (x, y) == pytest.approx((29.5 - 6, 29.5 - 6), abs=0.1)


def test_a_shear_of_both_axes_is_scipy_s_and_so_is_what_lies_beyond_the_edge():
    both = {"shear_both": {"degrees": [5.0, 20.0]}}
    image = {"size": 60, "crop": 1.0, "final_size": 60, "encoding": "raw"}
    pixels = np.random.default_rng(4).uniform(0, 255, (60, 60)).astype("float32")
    for steps, mode in (([both], "reflect"), ([both, "black_edges"], "grid-constant")):
        steps = only(*({step: {}} if isinstance(step, str) else step for step in steps))
        found = augmented(steps, pixels[None, :, :, None], range(3), image)[..., 0]
        for view, (across, up) in zip(found, draws_of(steps, range(3)).numpy(), strict=True):
            a, b = np.tan(np.radians([5 + 15 * across, 5 + 15 * up]))
            assert abs(a - b) > 1e-3
            # scipy's axes are (row, column): the point (y, x) of the old image is at (y + b x, x + a y).
            back = np.linalg.inv([[1, b], [a, 1]])
            start = 29.5 - back @ [29.5, 29.5]
            expected = ndimage.affine_transform(pixels, back, start, order=1, mode=mode)
            np.testing.assert_allclose(view, expected, atol=0.05)
        assert ((found == 0).mean() > 0.02) == (mode == "grid-constant")


def test_random_views_at_prediction_have_the_same_edges():
    moved = {"shift": {"share": [0.5, 0.5]}}
    for steps, least in ((only(moved, {"black_edges": {}}), 0), (only(moved), 200)):
        shown = cut_views(grey(200), ["J1"], steps, IMAGE, seed=1, view=0)
        assert shown.min() == pytest.approx(least, abs=0.01)
        assert shown.max() == pytest.approx(200, abs=0.01)


def test_dimming_and_reddening_multiply_the_flux():
    far = augmented(only({"dim": {"redshift": [1.0, 1.0]}}), grey(150), [0])
    assert flux(far).mean() == pytest.approx(flux(150) / 16, rel=1e-3)
    dusty = only({"redden": {"color_excess": [0.5, 0.5]}})
    colours = flux(augmented(dusty, grey(150, channels=3), [0])).mean(axis=(0, 1, 2)) / flux(150)
    np.testing.assert_allclose(-2.5 * np.log10(colours), 0.5 * np.array([1.211, 2.165, 3.214]), rtol=1e-3)
    dimmed = flux(augmented(dusty, grey(150), [0])).mean() / flux(150)
    assert -2.5 * np.log10(dimmed) == pytest.approx(0.5 * (1.211 + 2.165 + 3.214) / 3, rel=1e-3)


def test_a_blur_has_its_width_keeps_the_flux_and_differs_between_galaxies():
    image = {**IMAGE, "size": 60, "encoding": "raw"}
    star = np.full((1, 60, 60, 1), 17.84, "float32")
    star[0, 30, 30] = 255
    blur = only({"blur": {"fwhm": [0.05, 0.1]}})
    light = flux(augmented(blur, star, range(6), image))[..., 0]
    above = light - flux(17.84)
    np.testing.assert_allclose(above.sum(axis=(1, 2)), (flux(star) - flux(17.84)).sum(), rtol=2e-3)
    x = np.arange(60) - 30
    widths = 2.3548 * np.sqrt((above.sum(axis=1) * x**2).sum(axis=1) / above.sum(axis=(1, 2))) / 60
    expected = 0.05 + 0.05 * draws_of(blur, range(6)).numpy()[:, 0]
    np.testing.assert_allclose(widths, expected, rtol=0.03)
    assert np.ptp(widths) > 0.01


def test_noise_has_its_sigma_and_is_new_for_every_image():
    noise = only({"noise": {"sigma": [0.2, 0.2]}})
    image = {**IMAGE, "encoding": "raw"}
    light = flux(augmented(noise, grey(60), range(3), image))
    np.testing.assert_allclose(light.std(axis=(1, 2, 3)), 0.2, rtol=0.05)
    np.testing.assert_allclose(light.mean(axis=(1, 2, 3)), flux(60), atol=0.02)
    fields = light.reshape(3, -1)
    assert np.abs(np.corrcoef(fields) - np.eye(3)).max() < 0.08
    assert augmented(noise, grey(0), [0]).min() == 0 > augmented(noise, grey(0), [0], image).min()


def test_erased_patches_are_black_and_have_their_area(lists):
    patch = only({"erase": {"area": [0.04, 0.06], "aspect": [0.5, 2.0]}})
    cuts = augmented(patch, grey(200), range(100))[..., 0]
    erased = cuts < 1
    np.testing.assert_allclose(cuts[~erased], 200, rtol=1e-3)
    shares = erased.mean(axis=(1, 2))
    assert shares.min() > 0.033 and shares.max() < 0.068 and shares.mean() == pytest.approx(0.05, rel=0.05)
    assert len(np.unique(erased.reshape(100, -1).argmax(axis=1))) > 80
    five = only(*(step for step in lists["zoobot2"]["steps"] if "erase" in step))
    assert 0.01 < (augmented(five, grey(200), range(50)) < 1).mean() < 0.035


def test_steps_that_change_nothing_give_the_same_light():
    still = only({"dim": {"redshift": [0.0, 0.0]}}, {"blur": {"fwhm": [0.0, 0.0]}})
    pixels = np.random.default_rng(0).integers(0, 256, (1, 100, 100, 3)).astype("uint8")
    plain = augmented(only(), pixels, [0])
    np.testing.assert_allclose(augmented(still, pixels, [0]), plain, atol=0.02)


@pytest.mark.parametrize("suffix", [".tfrecord", ".parquet"])
def test_the_figure_shows_the_stored_images_and_two_draws_of_each_list(stored, repo, tmp_path, suffix):
    chosen = load_augmentations("zoobot1", repo / "config" / "augmentations")
    assert [augmentation["name"] for augmentation in chosen] == ["zoobot1", "astronomer", "paper", "zoobot2"]
    shards, sidecars = files(stored, "train", suffix)
    figure.draw_augmentations(shards, sidecars, STORED_IMAGE, chosen, 1, tmp_path / "a.png")
    step = figure.TILE + figure.GAP
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(float)

    def tile(row, column, between):
        top = figure.HEADER + row * step + between * figure.BETWEEN
        left = figure.MARGIN + column * step
        return pixels[top : top + figure.TILE, left : left + figure.TILE]

    for column in range(6):
        with Image.open(stored / f"{column}.png") as image:
            assert tile(0, column, 0).mean() == pytest.approx(np.asarray(image).mean(), abs=2)
    drawn = [tile(row, 0, (row + 1) // 2) for row in range(9)]
    assert all(np.abs(one - other).max() > 20 for one, other in zip(drawn, drawn[1:], strict=False))
    assert pixels.shape[0] == figure.HEADER + 9 * step + 5 * figure.BETWEEN
