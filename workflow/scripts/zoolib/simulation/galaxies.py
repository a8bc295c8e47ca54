"""Simulated galaxies: from physical parameters to images that look like those of DECaLS.

Lengths are in units of half the image's edge, surface brightness in units of the stretch (below).
"""

import io
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import i0e

from zoolib.job.logs import progress

# Colours, as the share of each component's light in the image's red, green, blue (bands z, r, g).
RED = np.array([1.17, 1.0, 0.80], np.float32)
BLUE = np.array([0.93, 1.0, 1.12], np.float32)
YELLOW = np.array([1.08, 1.0, 0.90], np.float32)
# The level of the sky and the softening of the arcsinh stretch of the Legacy Surveys' JPEGs,
# https://github.com/legacysurvey/imagine/blob/main/map/views.py (sdss_rgb).
PEDESTAL = 0.017
SOFTENING = 20.0
# Concentration of the light in the arms around their ridge, and its mean over all angles.
ARM_SHARPNESS = 2.0
ARM_MEAN = float(i0e(ARM_SHARPNESS))
# Scale lengths of a disc within its visible radius.
SCALES = 3.2


def draw_galaxies(galaxies, rng):
    """Draw the physical parameters of a population.

    Sizes, brightness, noise, colours, position angles and neighbours are independent of the morphology,
    so that none of them gives an answer away.

    Args:
        galaxies: number of galaxies.
        rng: a numpy `Generator`.

    Returns:
        A data frame, one row per galaxy; `id_str` is unique.
    """

    def uniform(low, high):
        return rng.uniform(low, high, galaxies)

    ra, dec = uniform(0, 360), np.degrees(np.arcsin(uniform(-0.25, 0.55)))
    disc = (rng.random(galaxies) < 0.72).astype(float)
    thickness = uniform(0.1, 0.2)
    face_on = uniform(0, 1)
    disc_ratio = np.sqrt(thickness**2 + (1 - thickness**2) * face_on**2)
    ring = rng.beta(0.5, 0.75, galaxies) * disc
    spiral = rng.beta(0.6, 0.6, galaxies) * disc * (1 - 0.8 * ring)
    bar = rng.beta(0.5, 0.8, galaxies) * disc
    parameters = {
        "id_str": sky_names(ra, dec),
        "ra": ra,
        "dec": dec,
        "disc": disc,
        "radius": np.exp(uniform(np.log(0.38), np.log(0.64))),
        "brightness": np.exp(uniform(np.log(0.028), np.log(0.13))),
        "noise": np.exp(uniform(np.log(0.0022), np.log(0.005))),
        "seeing": uniform(0.016, 0.027),
        "redness": uniform(0, 1),
        "axis_ratio": np.where(disc > 0, disc_ratio, uniform(0.28, 1)),
        "position_angle": uniform(0, np.pi),
        "bulge_share": np.where(disc > 0, 0.65 * rng.beta(0.8, 1.6, galaxies), uniform(0, 1)),
        "bulge_radius": uniform(0.3, 0.55),
        "bulge_sersic": uniform(1.2, 3.2),
        "boxiness": rng.beta(0.6, 0.9, galaxies),
        "dust": uniform(0, 1),
        "break_radius": uniform(0.5, 2.0),
        "break_strength": uniform(-1.8, 1.0),
        "clumpiness": rng.beta(1, 2, galaxies),
        "spiral_strength": spiral,
        "arms": rng.choice([1, 2, 3, 4, 5], galaxies, p=[0.1, 0.5, 0.2, 0.1, 0.1]),
        "pitch": np.exp(uniform(np.log(9), np.log(38))),
        "handedness": rng.choice([-1.0, 1.0], galaxies),
        "phase": uniform(0, 2 * np.pi),
        "bar_strength": bar,
        "bar_length": uniform(1.3, 2.1),
        "bar_angle": uniform(0, np.pi),
        "ring_strength": ring,
        "ring_radius": uniform(1.15, 2.5),
        "ring_width": uniform(0.085, 0.13),
    }
    return pd.DataFrame(parameters | _draw_disturbances(galaxies, rng))


def _draw_disturbances(galaxies, rng):
    """Tidal disturbances, merging companions and artifacts, {parameter: (galaxies,)}."""
    return {
        "disturbance": rng.beta(0.5, 1.4, galaxies),
        "tail_angle": rng.uniform(0, 2 * np.pi, galaxies),
        "companion": rng.beta(0.3, 1.9, galaxies),
        "companion_distance": rng.uniform(0.5, 0.9, galaxies),
        "companion_angle": rng.uniform(0, 2 * np.pi, galaxies),
        "artifact": rng.random(galaxies) ** 24,
    }


def sky_names(ra, dec):
    """Names from positions in the style of the IAU, J######.##+######.#; the seconds are cut, not rounded.

    Args:
        ra: (galaxies,) right ascension in degrees.
        dec: (galaxies,) declination in degrees.

    Returns:
        A list of names; if two are equal, the later one moves on by a hundredth of a second.
    """
    names, seen = [], set()
    for along, up in zip(np.asarray(ra), np.asarray(dec), strict=True):
        hundredths = int(along / 15 * 360000)
        tenths = int(abs(up) * 36000)
        while True:
            seconds, minutes, hours = hundredths % 6000, hundredths // 6000 % 60, hundredths // 360000 % 24
            arc = f"{tenths // 36000:02d}{tenths // 600 % 60:02d}{tenths % 600 / 10:04.1f}"
            name = f"J{hours:02d}{minutes:02d}{seconds / 100:05.2f}{'-' if up < 0 else '+'}{arc}"
            if name not in seen:
                break
            hundredths += 1
        seen.add(name)
        names.append(name)
    return names


def sersic(radius, half_light, index):
    """Sérsic profile, 1 at the half-light radius, softened in the centre.

    Args:
        radius: distances from the centre.
        half_light: half-light radius in the same units.
        index: 1 is an exponential disc, 4 is de Vaucouleurs' profile.

    Returns:
        Surface brightness, the shape of `radius`.
    """
    # The first terms of Ciotti & Bertin 1999, equation 18.
    b = 2 * index - 1 / 3 + 0.009876 / index
    return np.exp(-b * ((np.hypot(radius, 0.04 * half_light) / half_light) ** (1 / index) - 1))


def render(galaxy, size, seed):
    """Draw one galaxy: its light, neighbours on the sky, seeing, noise, stretch.

    Args:
        galaxy: a mapping with the columns of `draw_galaxies`.
        size: edge of the image in pixels.
        seed: as `numpy.random.default_rng` takes it; noise and neighbours follow from it.

    Returns:
        (size, size, 3) uint8, red, green, blue.
    """
    rng = np.random.default_rng(seed)
    axis = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    light = _galaxy_light(galaxy, x, y, rng)
    light *= np.pi * galaxy["radius"] ** 2 * galaxy["brightness"] * (size / 2) ** 2 / light.sum((0, 1)).mean()
    light += _companion(galaxy, x, y, light)
    light += _neighbours(x, y, size, rng)
    light += _trail(galaxy, x, y, rng)
    blur = galaxy["seeing"] * size / 2
    light = 0.88 * gaussian_filter(light, (blur, blur, 0)) + 0.12 * gaussian_filter(
        light, (3 * blur, 3 * blur, 0)
    )
    # Resampled images have noise that neighbouring pixels share.
    noise = gaussian_filter(rng.standard_normal(light.shape).astype(np.float32), (0.55, 0.55, 0))
    light += noise * (galaxy["noise"] / noise.std() * np.array([1.25, 1.0, 1.0], np.float32))
    return stretch(light)


def stretch(light):
    """The arcsinh stretch of the Legacy Surveys' colour images: hue is kept, brightness compressed.

    Lupton et al. 2004 (arXiv:astro-ph/0312483), equation 2.

    Args:
        light: (height, width, 3), sky subtracted.

    Returns:
        The same shape, uint8.
    """
    light = np.maximum(light + PEDESTAL, 0)
    mean = np.maximum(light.mean(-1, keepdims=True), 1e-6)
    image = light * (np.arcsinh(SOFTENING * mean) / np.sqrt(SOFTENING) / mean)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _galaxy_light(galaxy, x, y, rng):
    """Light of the galaxy itself, unscaled, (height, width, 3)."""
    radius, disturbance = galaxy["radius"], galaxy["disturbance"]
    # The outer parts of a disturbed galaxy are shifted against its centre.
    pull = disturbance * 0.55 * np.minimum((x * x + y * y) / radius, 1.2 * radius)
    east, north = np.cos(galaxy["tail_angle"]), np.sin(galaxy["tail_angle"])
    x, y = x - pull * east, y - pull * north
    turn = np.cos(galaxy["position_angle"]), np.sin(galaxy["position_angle"])
    along, across = x * turn[0] + y * turn[1], y * turn[0] - x * turn[1]
    ratio = galaxy["axis_ratio"]
    bulge_ratio = max(ratio, 0.62) if galaxy["disc"] else ratio
    corner = 2 + 2.5 * galaxy["boxiness"] * (ratio < 0.4) * galaxy["disc"]
    bulge_distance = (np.abs(along) ** corner + np.abs(across / bulge_ratio) ** corner) ** (1 / corner)
    scale = radius / SCALES
    half_light = scale * galaxy["bulge_radius"] * (0.5 + galaxy["bulge_share"])
    bulge = sersic(bulge_distance, half_light, galaxy["bulge_sersic"])
    smooth, young = _disc_light(galaxy, along, across / ratio, across, scale, rng)
    share = galaxy["bulge_share"]
    bulge *= share / (1 - share + 1e-3) * smooth.sum() / bulge.sum()
    old = YELLOW + (RED - YELLOW) * galaxy["redness"]
    disc_colour = BLUE + (YELLOW - BLUE) * galaxy["redness"]
    light = (bulge * 1.0)[..., None] * old + smooth[..., None] * disc_colour
    light += young[..., None] * (BLUE - disc_colour * 0.35)
    return np.maximum(light, 0) + _tail(galaxy, x, y, light)


def _disc_light(galaxy, along, across, height, scale, rng):
    """Light of the disc with its bar, arms and ring, and the part of it that is young and blue."""
    distance = np.hypot(along, across)
    disc = np.exp(-np.hypot(distance, 0.1 * scale) / scale)
    if not galaxy["disc"]:
        return disc, np.zeros_like(disc)
    clumps = gaussian_filter(rng.standard_normal(disc.shape).astype(np.float32), 0.018 * len(disc))
    angle, reach = np.arctan2(across, along), distance / scale
    winding = np.log(np.maximum(reach, 0.05)) / np.tan(np.radians(galaxy["pitch"]))
    turned = galaxy["arms"] * (angle - galaxy["handedness"] * winding) + galaxy["phase"]
    # Seen edge-on, arms lie in front of one another and leave no pattern.
    seen = np.clip((galaxy["axis_ratio"] - 0.15) / 0.25, 0, 1)
    ridge = np.exp(ARM_SHARPNESS * (np.cos(turned) - 1)) / ARM_MEAN - 1
    start = 0.7 + 0.3 * galaxy["bar_strength"] * galaxy["bar_length"]
    inside = np.clip((reach - 0.55 * start) / (0.6 * start), 0, 1)
    arms = seen * galaxy["spiral_strength"] * 0.95 * ridge * inside
    # A ring takes its light from the zones beside it.
    place, width = galaxy["ring_radius"], galaxy["ring_width"]
    gap = np.exp(-0.5 * ((reach - 0.62 * place) / (0.24 * place)) ** 2)
    band = np.exp(-0.5 * ((reach - place) / (width * place)) ** 2)
    ring = galaxy["ring_strength"] * (2.6 * band - 0.4 * gap)
    # Discs are rarely exponential: most are brighter or fainter inside a break, without a visible edge.
    inner = np.exp(-0.5 * (reach / galaxy["break_radius"]) ** 4)
    broken = np.exp(galaxy["break_strength"] * (inner - 0.5))
    patches = clumps / clumps.std() * 0.16 * galaxy["clumpiness"] * np.clip(reach, 0, 1)
    pattern = np.maximum(1 + arms, 0.05) * np.maximum(1 + ring, 0.05) * np.maximum(1 + patches, 0.2) * broken
    bar = _bar(galaxy, along, across, scale)
    length = galaxy["bar_length"]
    hollow = 1 - 0.55 * galaxy["bar_strength"] * np.exp(-((reach / (1.1 * length)) ** 4))
    smooth = disc * pattern * hollow + bar
    if galaxy["axis_ratio"] < 0.25:
        lane = np.exp(-0.5 * (height / (0.13 * scale)) ** 2) * np.exp(-0.5 * (along / (1.8 * scale)) ** 2)
        smooth = smooth * (1 - 0.65 * galaxy["dust"] * lane)
    return smooth, disc * np.clip(pattern - 1, -0.5, 3) * 0.6


def _bar(galaxy, along, across, scale):
    turn = np.cos(galaxy["bar_angle"]), np.sin(galaxy["bar_angle"])
    length = galaxy["bar_length"] * scale
    lengthwise = (along * turn[0] + across * turn[1]) / length
    sideways = (across * turn[0] - along * turn[1]) / (0.27 * length)
    return 2.3 * galaxy["bar_strength"] * np.exp(-((lengthwise**2 + sideways**2) ** 1.3))


def _tail(galaxy, x, y, light):
    """A tidal tail: light along an arc that winds outwards and fades."""
    radius, strength = galaxy["radius"], galaxy["disturbance"]
    angle = (np.arctan2(y, x) - galaxy["tail_angle"]) * galaxy["handedness"] % (2 * np.pi)
    arc = radius * (0.4 + 0.55 * angle)
    width = radius * (0.1 + 0.05 * angle)
    tail = np.exp(-0.5 * ((np.hypot(x, y) - arc) / width) ** 2) * np.exp(-((angle / 1.25) ** 2))
    tail *= np.clip(angle / 0.2, 0, 1)
    share = 0.35 * strength**1.3 * light.mean(-1).sum() / max(tail.sum(), 1e-6)
    return (tail * share)[..., None] * (light.mean((0, 1)) / light.mean())


def _companion(galaxy, x, y, light):
    """A merging neighbour, with light in proportion to that of the galaxy."""
    away = galaxy["companion_distance"] * galaxy["radius"]
    x = x - away * np.cos(galaxy["companion_angle"])
    y = y - away * np.sin(galaxy["companion_angle"])
    half_light = galaxy["radius"] * (0.1 + 0.16 * galaxy["companion"])
    distance = np.hypot(x, y * (1.3 - 0.4 * galaxy["boxiness"]))
    companion = sersic(distance, half_light, 1.0 + galaxy["dust"])
    share = 0.8 * galaxy["companion"] ** 1.3 * light.mean(-1).sum() / companion.sum()
    return (companion * share)[..., None] * YELLOW


def _neighbours(x, y, size, rng):
    """Stars and small galaxies of the field."""
    light = np.zeros((*x.shape, 3), np.float32)
    colours = np.stack([RED**2, YELLOW, BLUE**1.5])
    for _ in range(rng.poisson(5)):
        row, column = rng.integers(0, size, 2)
        flux = 0.2 * rng.pareto(1.1) + 0.05
        light[row, column] += min(flux, 15) * (size / 96) ** 2 * colours[rng.integers(3)]
    for _ in range(rng.poisson(9)):
        angle, place = rng.uniform(0, np.pi), rng.uniform(-1, 1, 2)
        along = (x - place[0]) * np.cos(angle) + (y - place[1]) * np.sin(angle)
        across = (y - place[1]) * np.cos(angle) - (x - place[0]) * np.sin(angle)
        distance = np.hypot(along, across / rng.uniform(0.35, 1))
        peak = 0.03 * rng.pareto(1.5) + 0.01
        profile = sersic(distance, rng.uniform(0.012, 0.04), 1.0)
        light += (min(peak, 0.12) * profile)[..., None] * colours[rng.integers(3)]
    return light


def _trail(galaxy, x, y, rng):
    """The trail of a satellite across the image, which volunteers call an artifact."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.35, 0.35)
    distance = (x * np.cos(angle) + y * np.sin(angle) - offset) / 0.022
    return (0.7 * galaxy["artifact"] ** 2 * np.exp(-0.5 * distance**2))[..., None] * YELLOW


def _encode(task):
    galaxy, size, seed = task
    file = io.BytesIO()
    Image.fromarray(render(galaxy, size, seed)).save(file, "png", compress_level=6)
    return file.getvalue()


def render_all(galaxies, size, seed, threads=1):
    """Draw all galaxies in order; the bytes do not depend on the number of processes.

    Args:
        galaxies: the table of `draw_galaxies`.
        size: edge of the images in pixels.
        seed: the survey's seed.
        threads: number of processes; on a Mac there is one.

    Yields:
        PNG files as bytes.
    """
    rows = galaxies.to_dict("records")
    tasks = [(row, size, [seed, number]) for number, row in enumerate(rows)]
    # Libraries of macOS may crash in forked processes (Python's documentation of multiprocessing).
    if threads <= 1 or sys.platform == "darwin":
        yield from progress(map(_encode, tasks), "drawing galaxies", total=len(tasks))
        return
    # Forked, so that a script without a main guard can be the parent.
    with ProcessPoolExecutor(threads, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from progress(pool.map(_encode, tasks, chunksize=32), "drawing galaxies", total=len(tasks))
