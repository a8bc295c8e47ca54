"""Simulated rings, drawn into images of real galaxies that have none, for the study of the real rings.

A ring follows its galaxy: its centre, axis ratio and position angle, its size, and its light. It is a band in
which the galaxy is brighter than elsewhere at this distance, in the colour it has there, and a gap inside
it in which the galaxy is fainter. Noise, neighbours and everything else stay as they are in the image.
"""

from dataclasses import dataclass

import numpy as np
from pages import REPO  # noqa: F401 - makes zoolib importable
from scipy.ndimage import gaussian_filter, gaussian_filter1d, label, median
from zoolib.data.decoders import BLACK, WHITE

# The galaxy is what is brighter than the sky by so many times the noise, after smoothing by so many pixels.
ABOVE, SMOOTHED = 4.0, 2.0
# The nucleus is the brightest place within this share of the edge around the middle.
MIDDLE = 0.05
# Narrowest ring, as the standard deviation of its profile in pixels: about the seeing.
NARROWEST = 2.0
# Smallest galaxy, as its semi-major axis in pixels: in a smaller one no ring could be seen.
SMALLEST = 15.0
# A gap is at this share of the ring's radius, and so wide (standard deviation, share of the ring's radius).
GAP_AT, GAP_WIDTH = 0.6, 0.18


@dataclass(frozen=True)
class Ellipse:
    """Where a galaxy is in its image.

    Attributes:
        x: column of the nucleus in pixels.
        y: row of the nucleus in pixels.
        semi_major: of the faintest isophote that can be seen, in pixels.
        axis_ratio: up to 1.
        angle: of the major axis, in radians from the direction of the columns towards that of the rows.
    """

    x: float
    y: float
    semi_major: float
    axis_ratio: float
    angle: float

    def distances(self, shape):
        """Elliptical distance from the nucleus in pixels, along the major axis; (height, width)."""
        y, x = np.indices(shape[:2], dtype=float)
        x, y = x - self.x, y - self.y
        along = x * np.cos(self.angle) + y * np.sin(self.angle)
        across = y * np.cos(self.angle) - x * np.sin(self.angle)
        return np.hypot(along, across / self.axis_ratio)


@dataclass(frozen=True)
class Ring:
    """A ring, in units of its galaxy.

    Attributes:
        radius: along the major axis, as a share of the galaxy's semi-major axis.
        width: standard deviation of its profile, as a share of its radius.
        contrast: its light at the ridge, as a share of the galaxy's light at this distance.
        gap: the light that is missing inside it, as a share of the galaxy's light there.
        lopsided: the share by which one side of it is brighter than the mean, and the other fainter.
        side: the angle of the brighter side from the major axis, in radians.
    """

    radius: float
    width: float
    contrast: float
    gap: float = 0.0
    lopsided: float = 0.0
    side: float = 0.0


def draw_ring(rng):
    """A ring as they are in real galaxies: broad, and often faint.

    Args:
        rng: a numpy `Generator`.

    Returns:
        `Ring`.
    """
    return Ring(
        radius=rng.uniform(0.35, 0.8),
        width=rng.uniform(0.1, 0.2),
        contrast=np.exp(rng.uniform(np.log(0.3), np.log(1.2))),
        gap=rng.uniform(0.1, 0.45),
        lopsided=rng.uniform(0, 0.4),
        side=rng.uniform(0, 2 * np.pi),
    )


def to_light(image):
    """Undo the stretch of the record's images.

    Args:
        image: (height, width, 3), 0 to 255.

    Returns:
        The same shape, float64, proportional to the flux of each band.
    """
    return np.sinh(np.asarray(image, float) * ((WHITE - BLACK) / 255) + BLACK)


def to_image(light):
    """The stretch of the record's images, the inverse of `to_light`; uint8."""
    return np.clip(np.round((np.arcsinh(light) - BLACK) * (255 / (WHITE - BLACK))), 0, 255).astype(np.uint8)


def find_galaxy(light):
    """Find the galaxy in the middle of an image.

    Args:
        light: (height, width, 3), from `to_light`.

    Returns:
        `Ellipse`.

    Raises:
        ValueError: there is no galaxy in the middle, or it is larger than the image, or too small for a ring.
    """
    smooth = gaussian_filter(light.mean(axis=2), SMOOTHED)
    height, width = smooth.shape
    rim = np.concatenate([smooth[: height // 20].ravel(), smooth[-(height // 20) :].ravel()])
    sky = np.median(rim)
    noise = 1.4826 * np.median(np.abs(rim - sky))
    reach = int(MIDDLE * height)
    rows, columns = (slice(side // 2 - reach, side // 2 + reach + 1) for side in smooth.shape)
    middle = smooth[rows, columns]
    y, x = np.unravel_index(middle.argmax(), middle.shape)
    y, x = y + rows.start, x + columns.start
    regions, _ = label(smooth > sky + ABOVE * noise)
    if not regions[y, x]:
        raise ValueError("there is no galaxy in the middle of the image.")
    inside = np.argwhere(regions == regions[y, x])
    if inside.min() == 0 or (inside.max(axis=0) == [height - 1, width - 1]).any():
        raise ValueError("the galaxy is larger than the image.")
    # The variances of an ellipse of even weight along its axes are a quarter of the squared semi-axes.
    variances, axes = np.linalg.eigh(np.cov(inside.T, bias=True))
    semi_minor, semi_major = 2 * np.sqrt(variances)
    if semi_major < SMALLEST:
        raise ValueError(f"the galaxy is too small: its semi-major axis is {semi_major:.0f} pixels.")
    angle = np.arctan2(axes[0, 1], axes[1, 1]) % np.pi
    return Ellipse(float(x), float(y), float(semi_major), float(semi_minor / semi_major), float(angle))


def smooth_profile(light, ellipse):
    """The galaxy without its structure: the median light at each elliptical distance, never rising outwards.

    Args:
        light: (height, width, 3).
        ellipse: `Ellipse`.

    Returns:
        (distances (steps,) in pixels, light above the sky (steps, 3), light of the sky (3,)).
    """
    distances = ellipse.distances(light.shape)
    last = int(1.5 * ellipse.semi_major)
    step = np.where(distances < last, distances, last).astype(int)
    medians = np.stack([median(band, step, np.arange(last)) for band in np.moveaxis(light, 2, 0)], axis=1)
    sky = np.median(light[distances >= last], axis=0)
    profile = gaussian_filter1d(np.minimum.accumulate(medians, axis=0) - sky, 1.0, axis=0)
    return np.arange(last) + 0.5, np.maximum(profile, 0), sky


def ring_light(light, ellipse, ring):
    """What a ring adds to a galaxy, and takes from its gap.

    Args:
        light: (height, width, 3), of the galaxy.
        ellipse: `Ellipse` of the galaxy.
        ring: `Ring`.

    Returns:
        (height, width, 3), to be added to `light`.
    """
    distances = ellipse.distances(light.shape)
    steps, profile, sky = smooth_profile(light, ellipse)
    galaxy = np.stack([np.interp(distances, steps, band, right=0.0) for band in profile.T], axis=-1)
    radius = ring.radius * ellipse.semi_major
    width = max(ring.width * radius, NARROWEST)
    band = ring.contrast * np.exp(-0.5 * ((distances - radius) / width) ** 2)
    gap = ring.gap * np.exp(-0.5 * ((distances - GAP_AT * radius) / (GAP_WIDTH * radius)) ** 2)
    y, x = np.indices(light.shape[:2])
    around = np.arctan2(y - ellipse.y, x - ellipse.x) - ellipse.angle - ring.side
    # Where a galaxy has less light than its profile, the gap takes less: nothing gets darker than the sky.
    there = np.clip(gaussian_filter(light - sky, (NARROWEST, NARROWEST, 0)), 0, galaxy)
    return galaxy * (band * (1 + ring.lopsided * np.cos(around)))[..., None] - there * gap[..., None]


def inject_ring(image, ring):
    """Draw a ring into the image of a galaxy.

    Args:
        image: (height, width, 3) uint8, of the record or stretched like them.
        ring: `Ring`.

    Returns:
        The image with the ring, the same shape, uint8.

    Raises:
        ValueError: see `find_galaxy`.
    """
    light = to_light(image)
    return to_image(light + ring_light(light, find_galaxy(light), ring))
