"""Views of a galaxy: augmented (pixels moved, then the light changed), or upright and central.

An augmentation is a list of steps (`config/augmentations/`). Each step that moves pixels gives a matrix from
positions in the new image to positions in the old one. The product of the matrices needs one interpolation.

Steps that change the light work on fluxes: the stretch of the record's images is undone before these steps
and applied again after them (see `data.decoders.stretch`). This is exact for one unclipped band. It is only
approximate for

- images of 8 bits, which have lost everything below black and above white,
- grey images, each the mean of stretched bands, which are treated here as one band,
- pixels that were made grey to remove speckles,
- images of other surveys, which were stretched in another way.

The random numbers of a galaxy depend on its name, the seed and the epoch alone, not on its batch.
"""

import math

import numpy as np
import tensorflow as tf

from zoolib.data.decoders import BLACK, WHITE

# The augmentation of models whose `model.json` names none; the same as config/augmentations/paper.yaml.
PAPER = {
    "name": "paper",
    "steps": [{"rotate": {"degrees": [-180.0, 180.0]}}, {"flip": {}}, {"crop": {}}],
}
# Magnitudes of extinction for 1 magnitude of E(B-V) in z, r and g, the bands of red, green and blue
# (Legacy Surveys; Schlafly & Finkbeiner 2011, https://www.legacysurvey.org/dr9/catalogs/).
EXTINCTION = (1.211, 2.165, 3.214)
SIGMAS_PER_FWHM = 1 / math.sqrt(8 * math.log(2))


def augmentation_of(about):
    """The augmentation that a model was trained with.

    Args:
        about: the content of its `model.json`.

    Returns:
        {"name", "steps"}.
    """
    return about["training"].get("augmentation", PAPER)


def _between(draw, limits):
    return limits[0] + (limits[1] - limits[0]) * draw


def _around_one(draw, limits):
    """Uniform in the logarithm, so that 1/2 is as far from 1 as 2 is."""
    return tf.exp(_between(draw, [math.log(limit) for limit in limits]))


def _matrix(draw, xx=1.0, xy=0.0, yx=0.0, yy=1.0, x=0.0, y=0.0):
    """(galaxies, 3, 3): from positions in the new image to the old one, in edges, 0 in the middle."""
    numbers = [value + tf.zeros_like(draw) for value in (xx, xy, x, yx, yy, y, 0.0, 0.0, 1.0)]
    return tf.reshape(tf.stack(numbers, axis=1), [-1, 3, 3])


def _rotate(draws, ranges, _):
    angle = _between(draws[:, 0], ranges["degrees"]) * (math.pi / 180)
    return _matrix(angle, tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle))


def _flip(draws, _, __):
    """Flip left and right, and up and down, each in half of the draws."""
    signs = tf.where(draws < 0.5, -1.0, 1.0)
    return _matrix(draws[:, 0], xx=signs[:, 0], yy=signs[:, 1])


def _place(draws, width, height):
    """A crop anywhere inside the image."""
    x, y = ((2 * draws[:, axis] - 1) * (1 - share) / 2 for axis, share in enumerate((width, height)))
    return _matrix(draws[:, 0], xx=width, yy=height, x=x, y=y)


def _crop(draws, _, image):
    return _place(draws, image["crop"], image["crop"])


def _resized_crop(draws, ranges, _):
    """A crop by its share of the area, stretched to a square."""
    area = _between(draws[:, 2], ranges["area"])
    aspect = _around_one(draws[:, 3], ranges["aspect"])
    return _place(draws, tf.minimum(tf.sqrt(area * aspect), 1.0), tf.minimum(tf.sqrt(area / aspect), 1.0))


def _shift(draws, ranges, _):
    x, y = (_between(draws[:, axis], ranges["share"]) for axis in range(2))
    return _matrix(x, x=x, y=y)


def _zoom(draws, ranges, _):
    share = 1 / _between(draws[:, 0], ranges["factor"])
    return _matrix(share, xx=share, yy=share)


def _shear(draws, ranges, _):
    """Slide rows over each other; areas do not change."""
    slide = tf.tan(_between(draws[:, 0], ranges["degrees"]) * (math.pi / 180))
    return _matrix(slide, xy=slide)


def _shear_both(draws, ranges, _):
    """Slide rows over each other and columns too, each by an angle of its own; areas change.

    The point (x, y) of the old image moves to (x + y tan a, y + x tan b).
    """
    a, b = (tf.tan(_between(draws[:, axis], ranges["degrees"]) * (math.pi / 180)) for axis in range(2))
    area = 1 - a * b
    return _matrix(a, xx=1 / area, xy=-a / area, yx=-b / area, yy=1 / area)


def _share_of_shears(ranges, _):
    """The share of the edge that is in view, on average over the angles of `shear_both`."""
    low, high = np.radians(ranges["degrees"])
    slides = np.tan(low + (high - low) * (np.arange(64) + 0.5) / 64)
    return 1 / float(np.sqrt(1 - np.outer(slides, slides)).mean())


def _black_edges(draws, _, __):
    """Moves nothing: `edges_of` reads this step."""
    return _matrix(tf.zeros(tf.shape(draws)[:1]))


def _each(values):
    """One number a galaxy, in the shape of images."""
    return values[:, None, None, None]


def _dim(light, draws, ranges):
    """Surface brightness falls with the fourth power of 1 + z (Tolman 1930); the size does not change."""
    return light * _each(_between(draws[:, 0], ranges["redshift"]) + 1) ** -4


def _redden(light, draws, ranges):
    """Dust in front of the galaxy; a grey image has no colour and is dimmed by the mean of the bands."""
    extinction = EXTINCTION if light.shape[3] == 3 else [np.mean(EXTINCTION)]
    magnitudes = _each(_between(draws[:, 0], ranges["color_excess"])) * tf.constant(extinction, tf.float32)
    return light * 10 ** (-0.4 * magnitudes)


def _blur(light, draws, ranges):
    """A wider point spread function: a Gaussian whose width is a share of the view's edge."""
    edge, channels = light.shape[1], light.shape[3]
    radius = max(1, min(math.ceil(3 * ranges["fwhm"][1] * edge * SIGMAS_PER_FWHM), edge - 1))
    sigma = tf.maximum(_between(draws[:, 0], ranges["fwhm"]) * edge * SIGMAS_PER_FWHM, 1e-3)
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernels = tf.nn.softmax(-0.5 * (offsets / sigma[:, None]) ** 2)
    # Each galaxy has its own kernel. A convolution with one kernel a channel does this: all galaxies become
    # channels of a single image.
    kernels = tf.repeat(tf.transpose(kernels), channels, axis=1)[..., None]
    planes = tf.reshape(tf.transpose(light, [1, 2, 0, 3]), [1, edge, edge, -1])
    planes = tf.pad(planes, [[0, 0], [radius, radius], [radius, radius], [0, 0]], "REFLECT")
    for kernel in (kernels[:, None], kernels[None]):
        planes = tf.nn.depthwise_conv2d(planes, kernel, [1, 1, 1, 1], "VALID")
    return tf.transpose(tf.reshape(planes, [edge, edge, -1, channels]), [2, 0, 1, 3])


def _noise(light, draws, ranges):
    """More noise of the sky, in the units of the stretch; the record's images have about 0.3."""
    seeds = tf.cast(draws[:, 1:] * 2**23, tf.int32)
    field = tf.map_fn(
        lambda seed: tf.random.stateless_normal(light.shape[1:], seed), seeds, fn_output_signature=tf.float32
    )
    return light + _each(_between(draws[:, 0], ranges["sigma"])) * field


def _erase(light, draws, ranges):
    """A black rectangle anywhere in the view."""
    area = _between(draws[:, 2], ranges["area"])
    aspect = _around_one(draws[:, 3], ranges["aspect"])
    places = (tf.range(light.shape[1], dtype=tf.float32) + 0.5) / light.shape[1]
    inside = []
    for axis, length in enumerate((tf.sqrt(area / aspect), tf.sqrt(area * aspect))):
        start = draws[:, axis] * (1 - length)
        inside.append((places >= start[:, None]) & (places < (start + length)[:, None]))
    erased = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return tf.where(erased, np.float32(math.sinh(BLACK)), light)


# {step: (count of its random numbers, its function)}
GEOMETRY = {
    "rotate": (1, _rotate),
    "flip": (2, _flip),
    "crop": (2, _crop),
    "resized_crop": (4, _resized_crop),
    "shift": (2, _shift),
    "zoom": (1, _zoom),
    "shear": (1, _shear),
    "shear_both": (2, _shear_both),
    "black_edges": (0, _black_edges),
}
LIGHT = {
    "dim": (1, _dim),
    "redden": (1, _redden),
    "blur": (1, _blur),
    "noise": (3, _noise),
    "erase": (4, _erase),
}
# {step: the share of the edge that stays in view, on average}; the other steps do not change the scale.
SHARES = {
    "crop": lambda ranges, image: image["crop"],
    "resized_crop": lambda ranges, image: math.sqrt(sum(ranges["area"]) / 2),
    "zoom": lambda ranges, image: 2 / sum(ranges["factor"]),
    "shear_both": _share_of_shears,
}


def _steps(augmentation):
    return [(name, ranges) for step in augmentation["steps"] for name, ranges in step.items()]


def draw_numbers(augmentation, seed, round, id_str):
    """The random numbers of one galaxy's view; they depend on seed, round and galaxy alone.

    Args:
        augmentation: {"name", "steps"}, from `augmentations.load_augmentation`.
        seed: whole number.
        round: scalar int tensor: the epoch, or the number of a view at prediction.
        id_str: scalar string tensor.

    Returns:
        (numbers,) float32 from 0 to 1.
    """
    count = sum((GEOMETRY | LIGHT)[name][0] for name, _ in _steps(augmentation))
    galaxy = tf.strings.to_hash_bucket_fast(id_str, 2**31 - 1)
    key = tf.stack([tf.cast(seed, tf.int64) * 1_000_003 + tf.cast(round, tf.int64), galaxy])
    return tf.random.stateless_uniform([count], seed=key)


def _taken(augmentation, draws, table):
    """The steps that are in a table, each with its share of the drawn numbers."""
    start = 0
    for name, ranges in _steps(augmentation):
        count, function = (GEOMETRY | LIGHT)[name]
        if name in table:
            yield function, draws[:, start : start + count], ranges
        start += count


def random_views(augmentation, draws, image):
    """Where the pixels of augmented views come from, by the steps that move pixels.

    Args:
        augmentation: {"name", "steps"}.
        draws: (galaxies, numbers), from `draw_numbers`.
        image: the `image` section of the configuration (`size`, `crop`, `final_size`).

    Returns:
        (galaxies, 8) float32, projective transforms from pixels of the view to pixels of the stored image.
    """
    total = tf.eye(3, batch_shape=[tf.shape(draws)[0]])
    for function, numbers, ranges in _taken(augmentation, draws, GEOMETRY):
        total = total @ function(numbers, ranges, image)
    return _in_pixels(total, image)


def central_view(augmentation, image):
    """The view of validation and prediction: the middle of the image, upright, at the scale of training.

    Args:
        augmentation: {"name", "steps"}; the view has its mean scale.
        image: the `image` section of the configuration (`size`, `crop`, `final_size`).

    Returns:
        (8,) float32, a projective transform from pixels of the view to pixels of the stored image.
    """
    shares = [SHARES[name](ranges, image) for name, ranges in _steps(augmentation) if name in SHARES]
    share = tf.constant([math.prod(shares)], tf.float32)
    return _in_pixels(_matrix(share, xx=share, yy=share), image)[0]


def _in_pixels(matrices, image):
    """Numbers (a0, a1, a2, b0, b1, b2, 0, 0): output (x, y) is input (a0 x + a1 y + a2, b0 x + b1 y + b2)."""
    turned = matrices[:, :2, :2] * (image["size"] / image["final_size"])
    middle = (image["final_size"] - 1) / 2
    start = matrices[:, :2, 2] * image["size"] + (image["size"] - 1) / 2 - tf.reduce_sum(turned, 2) * middle
    rows = tf.reshape(tf.concat([turned, start[:, :, None]], axis=2), [-1, 6])
    return tf.pad(rows, [[0, 0], [0, 2]])


def edges_of(augmentation):
    """What is beyond the edges of an image: its mirror image (REFLECT), or black (CONSTANT)."""
    black = any(name == "black_edges" for name, _ in _steps(augmentation))
    return "CONSTANT" if black else "REFLECT"


def apply_views(images, transforms, final_size, edges="REFLECT"):
    """Cut views out of a batch of images by bilinear interpolation.

    Args:
        images: (galaxies, size, size, channels), any number type, 0 to 255.
        transforms: (galaxies, 8), from `random_views` or `central_view`.
        final_size: edge of a view in pixels.
        edges: from `edges_of`.

    Returns:
        (galaxies, final_size, final_size, channels) float32.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=[final_size, final_size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=edges,
    )


def augment(augmentation, images, draws, image):
    """Augmented views of a batch of galaxies: pixels are moved, then the light is changed.

    Args:
        augmentation: {"name", "steps"}.
        images: (galaxies, size, size, channels), any number type, 0 to 255.
        draws: (galaxies, numbers), from `draw_numbers`.
        image: the `image` section of the configuration.

    Returns:
        (galaxies, final_size, final_size, channels) float32, 0 to 255 unless the encoding is raw.
    """
    transforms = random_views(augmentation, draws, image)
    views = apply_views(images, transforms, image["final_size"], edges_of(augmentation))
    changes = list(_taken(augmentation, draws, LIGHT))
    if not changes:
        return views
    black, span = np.float32(BLACK), np.float32(WHITE - BLACK)
    # On a CPU, tf.sinh takes ten times as long and tf.asinh three times: longer than all steps together.
    growth = tf.exp(views * (span / 255) + black)
    light = (growth - 1 / growth) / 2
    for function, numbers, ranges in changes:
        light = function(light, numbers, ranges)
    size = tf.abs(light)
    stretched = tf.sign(light) * tf.math.log(size + tf.sqrt(size * size + 1))
    views = (stretched - black) * (255 / span)
    return views if image["encoding"] == "raw" else tf.clip_by_value(views, 0.0, 255.0)
