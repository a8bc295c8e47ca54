"""Rings drawn into real galaxies: they have the flux, the size and the shape that the galaxy gives them."""

from dataclasses import replace

import inject_rings
import numpy as np
import pytest
from inject_rings import Ellipse, Ring

DISC = Ellipse(x=104.0, y=98.0, semi_major=60.0, axis_ratio=0.6, angle=0.7)
RING = Ring(radius=0.5, width=0.1, contrast=0.8)


def disc(ellipse=DISC, brightness=30.0, edge=200, noise=0.3):
    """Light of an exponential disc that ends in the noise near the semi-major axis of the ellipse."""
    rng = np.random.default_rng(1)
    scale = ellipse.semi_major / 4
    light = brightness * np.exp(-ellipse.distances((edge, edge)) / scale)
    return light[..., None] * np.array([1.2, 1.0, 0.8]) + noise * rng.standard_normal((edge, edge, 3))


def test_the_galaxy_is_found():
    found = inject_rings.find_galaxy(disc())
    assert (found.x, found.y) == pytest.approx((DISC.x, DISC.y), abs=1)
    assert found.axis_ratio == pytest.approx(DISC.axis_ratio, abs=0.04)
    assert found.angle == pytest.approx(DISC.angle, abs=0.05)
    # Smoothing by a Gaussian of s pixels divides the noise of the mean of three bands by 2 s √π.
    noise = 0.3 / np.sqrt(3) / (2 * inject_rings.SMOOTHED * np.sqrt(np.pi))
    assert found.semi_major == pytest.approx(15 * np.log(30 / (inject_rings.ABOVE * noise)), rel=0.05)


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 2.5])
def test_a_ring_has_the_radius_and_the_ellipse_of_its_galaxy(angle):
    ellipse = replace(DISC, angle=angle)
    added = inject_rings.ring_light(disc(ellipse, noise=0), ellipse, RING)[..., 1]
    rows, columns = np.indices(added.shape)
    total = added.sum()
    offsets = np.stack([columns - ellipse.x, rows - ellipse.y]).reshape(2, -1)
    covariance = (offsets * added.ravel()) @ offsets.T / total
    variances, axes = np.linalg.eigh(covariance)
    assert np.sqrt(variances[0] / variances[1]) == pytest.approx(ellipse.axis_ratio, abs=0.02)
    along = np.arctan2(axes[1, 1], axes[0, 1]) % np.pi
    assert min(abs(along - angle), np.pi - abs(along - angle)) < 0.02
    # The ridge: a band whose contrast is highest at half of the semi-major axis, on both axes.
    relative = added / disc(ellipse, noise=0)[..., 1]
    for turn, radius in ((angle, 30), (angle + np.pi / 2, 30 * ellipse.axis_ratio)):
        steps = np.arange(5, 55)
        x = np.round(ellipse.x + steps * np.cos(turn)).astype(int)
        y = np.round(ellipse.y + steps * np.sin(turn)).astype(int)
        assert steps[relative[y, x].argmax()] == pytest.approx(radius, abs=1.5)
    assert relative.max() == pytest.approx(RING.contrast, rel=0.05)


def test_a_ring_has_the_flux_that_its_galaxy_gives_it():
    added = inject_rings.ring_light(disc(noise=0), DISC, RING).sum(axis=(0, 1))
    distances = np.linspace(0, 90, 20_000)
    galaxy = 30 * np.exp(-distances / 15)
    band = 0.8 * np.exp(-0.5 * ((distances - 30) / 3) ** 2)
    expected = 2 * np.pi * DISC.axis_ratio * np.trapezoid(galaxy * band * distances, distances)
    np.testing.assert_allclose(added, expected * np.array([1.2, 1.0, 0.8]), rtol=0.02)
    twice = inject_rings.ring_light(disc(brightness=60, noise=0), DISC, RING).sum()
    assert twice == pytest.approx(2 * added.sum(), rel=1e-6)
    large = replace(DISC, x=208.0, y=196.0, semi_major=120.0)
    ring = inject_rings.ring_light(disc(large, edge=400, noise=0), large, RING).sum()
    assert ring == pytest.approx(4 * added.sum(), rel=0.02)
    lopsided = replace(RING, lopsided=0.4, side=1.0)
    assert inject_rings.ring_light(disc(noise=0), DISC, lopsided).sum() == pytest.approx(
        added.sum(), rel=0.01
    )


def test_a_gap_takes_light_from_inside_the_ring():
    added = inject_rings.ring_light(disc(noise=0), DISC, replace(RING, gap=0.4))[..., 1]
    distances = DISC.distances(added.shape)
    assert (added[np.abs(distances - 18) < 2] < 0).all() and (added[np.abs(distances - 30) < 2] > 0).all()
    assert (disc(noise=0)[..., 1] + added > 0).all()


def test_a_gap_in_half_a_galaxy_is_not_darker_than_the_sky():
    light = disc(noise=0.01)
    light[:, 104:] = disc(brightness=1e-6, noise=0.01)[:, 104:]
    added = inject_rings.ring_light(light, DISC, replace(RING, contrast=0.0, gap=0.9))
    assert (light + added)[:, 115:].min() > -0.1


def test_the_image_changes_only_where_the_ring_is():
    image = inject_rings.to_image(disc())
    np.testing.assert_array_equal(inject_rings.to_image(inject_rings.to_light(image)), image)
    ringed = inject_rings.inject_ring(image, RING)
    assert ringed.dtype == np.uint8 and ringed.shape == image.shape
    near = (
        np.abs(
            inject_rings.find_galaxy(inject_rings.to_light(image)).semi_major / 2
            - DISC.distances(image.shape)
        )
        < 2
    )
    change = ringed.astype(int) - image
    assert change[near].mean() > 8
    assert np.abs(change[DISC.distances(image.shape) > 90]).max() <= 1


def test_the_same_numbers_draw_the_same_ring():
    rings = [inject_rings.draw_ring(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert rings[0] == rings[1] != rings[2]


@pytest.mark.parametrize(
    ("light", "message"),
    [
        (np.random.default_rng(1).standard_normal((200, 200, 3)), "no galaxy in the middle"),
        (disc(replace(DISC, semi_major=200.0, axis_ratio=0.15)), "larger than the image"),
        (disc(replace(DISC, semi_major=10.0)), "too small"),
    ],
    ids=["sky", "large", "small"],
)
def test_images_without_a_place_for_a_ring(light, message):
    with pytest.raises(ValueError, match=message):
        inject_rings.find_galaxy(light)
