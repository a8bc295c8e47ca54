"""Views of a galaxy: rotated, mirrored and cropped in one interpolation, or upright and central."""

import math

import tensorflow as tf


def central_view(image):
    """The view that validation and prediction see: the middle of the image, at training's scale.

    Args:
        image: the `image` section of the configuration (`size`, `crop`, `final_size`).

    Returns:
        (8,) float32, a projective transform from the model's pixels to the stored image's.
    """
    return _transform(image, angle=0.0, mirror=1.0, shift_x=0.0, shift_y=0.0)


def random_view(image, seed, round, id_str):
    """A random rotation, mirror and crop that depends on nothing but seed, round and galaxy.

    Any angle with one mirror covers every combination of rotation and flips. The crop's centre is
    uniform over the places at which the crop lies inside the (unrotated) image, as in Walmsley et
    al. 2022, section 5.1; rotation fills the corners by reflection.

    Args:
        image: the `image` section of the configuration (`size`, `crop`, `final_size`).
        seed: whole number.
        round: scalar int tensor: the epoch, or the number of a view at prediction.
        id_str: scalar string tensor.

    Returns:
        (8,) float32, a projective transform from the model's pixels to the stored image's.
    """
    galaxy = tf.strings.to_hash_bucket_fast(id_str, 2**31 - 1)
    key = tf.stack([tf.cast(seed, tf.int64) * 1_000_003 + tf.cast(round, tf.int64), galaxy])
    draws = tf.random.stateless_uniform([4], seed=key)
    room = image["size"] * (1 - image["crop"]) / 2
    return _transform(
        image,
        angle=draws[0] * (2 * math.pi),
        mirror=tf.where(draws[1] < 0.5, -1.0, 1.0),
        shift_x=(2 * draws[2] - 1) * room,
        shift_y=(2 * draws[3] - 1) * room,
    )


def _transform(image, angle, mirror, shift_x, shift_y):
    """Pixel (x, y) of the output is found at (a0 x + a1 y + a2, b0 x + b1 y + b2) of the input."""
    scale = image["size"] * image["crop"] / image["final_size"]
    middle_in = (image["size"] - 1) / 2
    middle_out = (image["final_size"] - 1) / 2
    cosine, sine = tf.cos(angle), tf.sin(angle)
    a0, a1 = cosine * mirror * scale, -sine * scale
    b0, b1 = sine * mirror * scale, cosine * scale
    start_x = (shift_x - middle_out * scale) * mirror
    start_y = shift_y - middle_out * scale
    a2 = cosine * start_x - sine * start_y + middle_in
    b2 = sine * start_x + cosine * start_y + middle_in
    return tf.stack([tf.cast(value, tf.float32) for value in (a0, a1, a2, b0, b1, b2, 0.0, 0.0)])


def apply_views(images, transforms, final_size):
    """Cut the views out of a batch of images, by bilinear interpolation.

    Args:
        images: (galaxies, size, size, channels), any number type, 0 to 255.
        transforms: (galaxies, 8), from `random_view` or `central_view`.
        final_size: edge of a view in pixels.

    Returns:
        (galaxies, final_size, final_size, channels) float32.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=[final_size, final_size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
