"""Batches of galaxies for training and prediction, a function of seed and epoch alone."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from zoolib.data.images import BadImage, load_row
from zoolib.data.locations import PLACES
from zoolib.data.tfrecords import check_shard, damaged, parse
from zoolib.job.logs import MachineError, UserError, check_machine
from zoolib.learning.augment import apply_views, augment, central_view, draw_numbers, edges_of, random_views
from zoolib.learning.decoded import Decoded

# How TensorFlow says that a shard is damaged. Other errors are of the system: a retry may succeed.
DAMAGE = (tf.errors.DataLossError, tf.errors.FailedPreconditionError, tf.errors.InvalidArgumentError)
MISSING = re.compile("([^ ;]+); No such file")


@dataclass(frozen=True)
class Store:
    """Galaxies with their stored images, cut into files.

    Attributes:
        counts: galaxies in each file.
        open: number of a file (scalar tensor) -> a dataset of its records, which are cheap to shuffle.
        decode: a record -> (id_str, image (size, size, channels), labels).
        image: the `image` section of the configuration.
        problems: the errors of the images that could not be read.
        search: called after an error of TensorFlow; adds the errors that it finds to `problems`.
    """

    counts: tuple
    open: Callable
    decode: Callable
    image: dict
    problems: list = field(default_factory=list)
    search: Callable = lambda: None

    @property
    def count(self):
        """The number of galaxies."""
        return sum(self.counts)


def image_shape(image):
    """Shape of a stored image, (size, size, channels)."""
    return image["size"], image["size"], 3 if image["color"] else 1


def from_shards(files, abouts, image):
    """Galaxies that `zoolib.shards.write_shard` has written.

    Reading a shard that has fewer or more galaxies than its sidecar says, or damaged bytes, is an error of
    TensorFlow; `images_read` makes it one that names the shard.

    Args:
        files: TFRecord shards, or the `.parquet` lists that replace them where `shards.enabled` is false.
        abouts: their sidecars, see `data.tfrecords.read_sidecar`.
        image: the `image` section of the configuration that they were written with.

    Returns:
        A `Store`, labelled with the columns of the sidecars.

    Raises:
        UserError: a file is missing, has another length than its sidecar says, or is a damaged list.
    """
    for file, about in zip(files, abouts, strict=True):
        check_shard(file, about)
    if str(files[0]).endswith(".parquet"):
        return from_catalog([_read_list(file) for file in files], abouts[0]["columns"], image)
    names = tf.constant([str(file) for file in files])
    counts = tuple(about["count"] for about in abouts)
    expected = tf.constant(counts, tf.int64)
    shape, labels = image_shape(image), len(abouts[0]["columns"])
    problems = []

    def open_shard(number):
        # TensorFlow takes the end of a file for the end of a shard: a shard that was cut between two records
        # would be a smaller one.
        whole = tf.data.experimental.assert_cardinality(expected[number])
        return tf.data.TFRecordDataset(names[number]).apply(whole)

    def decode_record(record):
        example = parse(record)
        if image["encoding"] == "raw":
            pixels = tf.reshape(tf.io.decode_raw(example["image"], tf.float32), shape)
        else:
            pixels = tf.io.decode_image(example["image"], channels=shape[2], expand_animations=False)
            pixels = tf.ensure_shape(pixels, shape)
        return example["id_str"], pixels, tf.ensure_shape(example["votes"], [labels])

    def search():
        for number, (file, count) in enumerate(zip(files, counts, strict=True)):
            read = 0
            try:
                for _ in open_shard(number).map(decode_record):
                    read += 1
            except DAMAGE:
                many = f"it has more than {count}" if read >= count else f"only the first {read} can be read"
                problems.append(damaged(file, f"{many} of the {count} galaxies of its sidecar"))
                return

    return Store(counts, open_shard, decode_record, image, problems, search)


def _read_list(file):
    try:
        return pd.read_parquet(file)
    except (OSError, pa.ArrowException) as error:
        check_machine(error, file)
        raise damaged(file, f"it cannot be read ({' '.join(str(error).split())})") from None


def from_catalog(frames, labels, image, keep_in=None, on_bad=None):
    """Galaxies whose images are read from archives or image files when they are needed.

    Args:
        frames: a list of catalogues; each takes the place of a shard.
        labels: columns that become the labels; may be empty.
        image: the `image` section of the configuration.
        keep_in: a folder; each image is then kept after its first reading (finetuning shows few images many
            times), in memory or in a temporary file of this folder, see `decoded.Decoded`.
        on_bad: called with the row and the message when an image cannot be read; a black image is then used.
            Without it the error stops the run.

    Returns:
        A `Store`.
    """
    table = pd.concat(frames, ignore_index=True)
    counts = tuple(len(frame) for frame in frames)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype("int64")
    shape = image_shape(image)
    raw = image["encoding"] == "raw"
    dtype = np.float32 if raw else np.uint8
    # Only a published encoder names its own interpolation and its own grey.
    how = image.get("interpolation", "lanczos"), image.get("grey", "mean")
    # One dict a galaxy would take more memory than everything else.
    places = {name: table[name].to_numpy() for name in ("id_str", *PLACES, "seen", "pixels") if name in table}
    problems = []

    def read(number):
        row = {name: values[number] for name, values in places.items()}
        try:
            pixels = load_row(row, image["size"], image["color"], raw, *how).astype(dtype)
        except UserError as error:
            if on_bad is None or not isinstance(error, BadImage):
                problems.append(error)
                raise
            on_bad(row, str(error))
            pixels = np.zeros(shape, dtype)
        return pixels

    if keep_in is not None:
        # A galaxy that is shown several times has several rows, and one image.
        image_of = table.groupby(PLACES, sort=False, dropna=False).ngroup().to_numpy()
        read = Decoded(read, image_of, shape, dtype, keep_in).read
    ids = tf.constant(table["id_str"].astype(str).tolist(), tf.string)
    values = tf.constant(table[labels].to_numpy("float32").reshape(len(table), len(labels)))

    def decode_record(number):
        pixels = tf.numpy_function(read, [number], tf.as_dtype(dtype), stateful=False)
        return ids[number], tf.ensure_shape(pixels, shape), values[number]

    boundaries = tf.constant(starts)
    return Store(
        counts=counts,
        open=lambda number: tf.data.Dataset.range(boundaries[number], boundaries[number + 1]),
        decode=decode_record,
        image=image,
        problems=problems,
    )


@contextlib.contextmanager
def images_read(*stores):
    """Raise the error of a bad image or shard itself: that of TensorFlow does not name the file.

    Args:
        stores: the stores whose images are read inside the `with` block.

    Raises:
        BadImage: an image cannot be read.
        MachineError: the file system does not answer, or an image or a shard is gone.
        UserError: a shard is damaged.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # The search for a damaged shard may meet the same missing file.
        with contextlib.suppress(tf.errors.NotFoundError):
            for store in stores:
                if not store.problems:
                    store.search()
                for problem in store.problems:
                    raise problem from None
        if isinstance(error, tf.errors.NotFoundError) and (missing := MISSING.search(str(error))):
            raise MachineError(
                f"{missing[1]}: the shard is gone, but it was there when the job started; if its folder is"
                " away, type the same command again when it is back."
            ) from None
        raise


def training_batches(store, augmentation, batch_size, seed, epochs, shuffle=8192, keep_last=False, views=1):
    """Shuffled, augmented batches, epoch after epoch.

    The order of files, the shuffle and the views depend on (seed, epoch) alone: a training that continues
    with epoch 7 sees the batches that it would have seen without the interruption.

    Args:
        store: the galaxies.
        augmentation: {"name", "steps"}, from `config.augmentations.load_augmentation`.
        batch_size: galaxies a step.
        seed: whole number.
        epochs: a range of epochs, counted from 0.
        shuffle: galaxies in the shuffle buffer.
        keep_last: keep the last, smaller batch of an epoch.
        views: augmented views of each galaxy in its batch, one after the other; 0 for the upright, central
            view in every epoch.

    Returns:
        (dataset of (images (galaxies * views, final_size, final_size, channels) float32 0-255, labels
        (galaxies * views, labels)), steps an epoch).

    Raises:
        UserError: there are fewer galaxies than a batch has, so that an epoch has no step.
    """
    steps = -(-store.count // batch_size) if keep_last else store.count // batch_size
    if steps == 0:
        raise UserError(
            f"train.batch_size: {store.count} galaxies are fewer than one batch of {batch_size};"
            " lower train.batch_size or select more galaxies."
        )

    def of_epoch(epoch):
        def augmented(record):
            id_str, pixels, labels = store.decode(record)
            draws = [draw_numbers(augmentation, seed + view, epoch, id_str) for view in range(views or 1)]
            return pixels, tf.stack(draws), labels

        records = _shuffled(store, shuffle, seed, epoch)
        galaxies = records.map(augmented, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return galaxies.batch(batch_size, drop_remainder=not keep_last)

    def seen(pixels, draws, labels):
        if not views:
            return central_views(pixels, augmentation, store.image), labels
        if views > 1:
            pixels, labels = (tf.repeat(each, views, axis=0) for each in (pixels, labels))
        return augment(augmentation, pixels, tf.reshape(draws, [-1, draws.shape[2]]), store.image), labels

    batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(of_epoch)
    batches = batches.map(seen, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE), steps


def _shuffled(store, buffer, seed, epoch):
    """The records of one epoch: the files in a random order, then a shuffle buffer."""
    order = tf.random.experimental.stateless_shuffle(
        tf.range(len(store.counts), dtype=tf.int64), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
    )
    records = tf.data.Dataset.from_tensor_slices(order).flat_map(store.open)
    return records.shuffle(buffer, seed=seed * 1_000_003 + epoch, reshuffle_each_iteration=False)


def central_batches(store, augmentation, batch_size):
    """Every galaxy once, in order, upright and central.

    Args:
        store: the galaxies.
        augmentation: {"name", "steps"} of the training; the views have its mean scale.
        batch_size: galaxies a batch; the last one may be smaller.

    Returns:
        A dataset of (images (galaxies, final_size, final_size, channels) float32, labels).
    """

    def cut(_, pixels, labels):
        return central_views(pixels, augmentation, store.image), labels

    batches = stored_batches(store, batch_size).map(cut, num_parallel_calls=2, deterministic=True)
    return batches.apply(tf.data.experimental.assert_cardinality(-(-store.count // batch_size))).prefetch(2)


def central_views(pixels, augmentation, image):
    """The upright, central view of each stored image.

    Args:
        pixels: (galaxies, size, size, channels).
        augmentation: {"name", "steps"} of the training; the views have its mean scale.
        image: the `image` section of the configuration.

    Returns:
        (galaxies, final_size, final_size, channels) float32 tensor.
    """
    view = central_view(augmentation, image)
    return apply_views(pixels, tf.tile(view[None], [tf.shape(pixels)[0], 1]), image["final_size"])


def array_batches(inputs, labels, batch_size, seed, epochs):
    """Shuffled batches of arrays in memory, epoch after epoch; the order depends on (seed, epoch) alone.

    Args:
        inputs: (galaxies, features).
        labels: (galaxies, labels).
        batch_size: galaxies a step; the last batch of an epoch may be smaller.
        seed: whole number.
        epochs: a range of epochs, counted from 0.

    Returns:
        (dataset of (inputs, labels), steps an epoch).
    """
    galaxies = tf.range(len(inputs), dtype=tf.int64)

    def of_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            galaxies, seed=tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        return batches.map(lambda chosen: (tf.gather(inputs, chosen), tf.gather(labels, chosen)))

    batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(of_epoch)
    return batches, -(-len(inputs) // batch_size)


def stored_batches(store, batch_size, start=0, stop=None):
    """Every galaxy once, in order, with the image as it is stored.

    Args:
        store: the galaxies.
        batch_size: galaxies a batch; the last one may be smaller.
        start: number of the first galaxy.
        stop: number of the galaxy to stop before; None for all galaxies.

    Returns:
        A dataset of (id_str, images (galaxies, size, size, channels), labels).
    """
    records = tf.data.Dataset.range(len(store.counts)).flat_map(store.open).skip(start)
    if stop is not None and stop < store.count:
        # Otherwise the end is read too: there may be more than the sidecars say.
        records = records.take(stop - start)
    galaxies = records.map(store.decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    # What tunes a dataset sleeps for seconds, and its end waits for that. Without it, all threads decode.
    plain = tf.data.Options()
    plain.autotune.enabled = False
    return galaxies.batch(batch_size).prefetch(2).with_options(plain)


def cut_views(pixels, names, augmentation, image, seed, view=None):
    """Cut one view out of each stored image of a batch.

    Random views are rotated, flipped and cropped as in training. Their light stays as it is: noise, blur and
    dust would make the image worse, and the posterior is asked for the image itself.

    Args:
        pixels: (galaxies, size, size, channels).
        names: (galaxies,) id_str.
        augmentation: {"name", "steps"} of the model's training.
        image: the `image` section of the configuration.
        seed: whole number.
        view: number of a random view; None for the upright, central view.

    Returns:
        (galaxies, final_size, final_size, channels) float32 array.
    """
    if view is None:
        return central_views(pixels, augmentation, image).numpy()
    # Epochs count up from 0 and views count down from -1: no view repeats a view of the training.
    before_training = tf.constant(-1 - view, tf.int64)
    draws = [draw_numbers(augmentation, seed, before_training, name) for name in names]
    transforms = random_views(augmentation, tf.stack(draws), image)
    return apply_views(pixels, transforms, image["final_size"], edges_of(augmentation)).numpy()
