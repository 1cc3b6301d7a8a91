"""Whole image-classification sets from TFDS, decoded into one array in memory.

Records are read in the order of their files, always the same: the example that an index names is
part of the order contract. Serialised records are parsed and decoded in batches, which takes 1 to
1.5 s for Fashion-MNIST's 60,000 on two cores; TFDS's own `as_dataset` takes 2 to 3 s.
"""

import dataclasses
import functools
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from trainer.config import UserError
from trainer.data.prepare import prepare
from trainer.data.sizes import count_split

_RECORDS_AT_ONCE = 256
_STATISTICS_AT_ONCE = 2**22  # pixels; bincount takes 8 bytes for each
_ALIGNMENT = 64  # bytes: where TensorFlow's own tensors start


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """A split in memory.

    images: uint8 [N, h, w, c]; labels: int64 [N], each in [0, classes); name: for messages.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    name: str


def load(dataset: str, split: str, data_dir: str | None, image_size: int | None) -> Images:
    """Reads a split of any TFDS image-classification set into memory, preparing it if need be.

    Args:
        dataset: a TFDS name, with configuration and version if need be.
        split: TFDS's split syntax: `train`, `train[:90%]`, `train+test`.
        data_dir: where prepared sets are; None: TFDS's own default.
        image_size: side of the square, in pixels, to which every image is resized (bilinear,
            antialiased); None: the dataset's own size.

    Raises:
        UserError: no such dataset or split, no 8-bit images with one label each, images of varying
            shape and no `image_size`, too big for memory, or damaged files.
    """
    builder = prepare(dataset, data_dir)
    image, label = _supervised_features(builder, dataset)
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise UserError(
            f"{dataset} is prepared as {file_format} in {builder.data_path}, and only tfrecord can "
            f"be read: `tfds build {dataset} --file_format=tfrecord` in another --data_dir"
        )
    height, width, channels = image.shape
    if image_size is not None:
        height = width = image_size
    elif height is None or width is None:
        raise UserError(f"{dataset}'s images differ in size: give --image_size=n to resize them")
    examples = count_split(builder.info.splits, split, dataset)
    _check_memory(examples * height * width * channels, f"{dataset} {split}", examples)

    records = _records(builder, split, image_size)
    images = aligned_empty((examples, height, width, channels))
    labels = np.empty(examples, np.int64)
    count = 0
    try:
        for some_images, some_labels in records.as_numpy_iterator():
            end = count + len(some_labels)
            images[count:end], labels[count:end] = some_images, some_labels
            count = end
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as e:
        raise UserError(
            f"{dataset} {split} is damaged in {builder.data_path}, among the {_RECORDS_AT_ONCE} "
            f"records from number {count:,}: delete that folder and prepare it again"
        ) from e
    if count != examples:
        raise UserError(
            f"{dataset} {split} has {count:,} of its {examples:,} records in {builder.data_path}: "
            "delete that folder and prepare it again"
        )
    unlabelled = np.count_nonzero((labels < 0) | (labels >= label.num_classes))
    if unlabelled:
        raise UserError(
            f"{dataset} {split}: {unlabelled:,} of {examples:,} examples have no label: "
            "choose another split"
        )
    return Images(images, labels, label.num_classes, f"{dataset} {split}")


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised uint8 array that starts where TensorFlow can use it without a copy."""
    size = int(np.prod(shape, dtype=np.int64))
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].reshape(shape)


def as_tensor(images: np.ndarray) -> tf.Tensor:
    """The images as a tensor on the CPU that shares their memory if they are aligned.

    `tf.constant` would hold two more copies (measured: 1,017 MB for an array of 500 MB).
    """
    if images.ctypes.data % _ALIGNMENT or not images.flags.c_contiguous:
        aligned = aligned_empty(images.shape)
        aligned[:] = images
        images = aligned
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__())


def pixel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, exact, from 256-bin histograms.

    Args:
        images: uint8 [N, h, w, c].

    Returns:
        (mean, std): c floats each, in grey levels (0 to 255), rounded to float32. A std is at least
        1 grey level, so that dividing by it never blows up a constant channel.
    """
    channels = images.shape[-1]
    pixels = images.reshape(-1, channels)  # [N·h·w, c]
    histograms = np.zeros((channels, 256), np.int64)
    for start in range(0, len(pixels), _STATISTICS_AT_ONCE):
        some = pixels[start : start + _STATISTICS_AT_ONCE]
        for channel in range(channels):
            histograms[channel] += np.bincount(some[:, channel], minlength=256)
    levels = np.arange(256)
    means = histograms @ levels / len(pixels)
    variances = np.sum(histograms * (levels - means[:, None]) ** 2, axis=1) / len(pixels)
    stds = np.maximum(np.sqrt(variances), 1.0)
    return (
        tuple(float(mean) for mean in means.astype(np.float32)),
        tuple(float(std) for std in stds.astype(np.float32)),
    )


def _supervised_features(
    builder: tfds.core.DatasetBuilder, dataset: str
) -> tuple[tfds.features.Image, tfds.features.ClassLabel]:
    """The features of the image and the label; refuses what is not image classification."""
    keys = builder.info.supervised_keys or ()
    features = [builder.info.features[key] for key in keys if isinstance(key, str)]
    match features:
        case [tfds.features.Image() as image, tfds.features.ClassLabel() as label]:
            pass
        case _:
            raise UserError(
                f"{dataset} is not an image-classification set: TFDS's supervised keys are "
                f"{keys or 'none'}, not an image and a class"
            )
    if image.np_dtype != np.uint8 or image.shape[-1] is None:
        raise UserError(
            f"{dataset}'s images are {np.dtype(image.np_dtype).name} of shape {image.shape}: only "
            "8-bit images with a fixed number of channels can be trained on"
        )
    return image, label


def _check_memory(size: int, name: str, examples: int) -> None:
    """Refuses what takes more than half of the machine's memory, before anything is read."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise UserError(
            f"{name} takes {size / 1e9:,.1f} GB in memory ({examples:,} images), more than half of "
            f"this machine's {memory / 1e9:,.1f} GB: give a smaller --image_size or a slice such "
            "as train[:10%]"
        )


def _records(
    builder: tfds.core.DatasetBuilder, split: str, image_size: int | None
) -> tf.data.Dataset:
    """Batches of (uint8 [n, h, w, c], int64 [n]) in the order of the files."""
    image_key, label_key = builder.info.supervised_keys
    image = builder.info.features[image_key]

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        pixels = image.decode_example(encoded)  # [h, w, c]
        if image_size is not None:
            resized = tf.image.resize(pixels, (image_size, image_size), antialias=True)
            pixels = tf.saturate_cast(tf.round(resized), tf.uint8)
        return pixels

    def parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_example(
            serialized,
            {
                image_key: tf.io.FixedLenFeature((), tf.string),
                label_key: tf.io.FixedLenFeature((), tf.int64),
            },
        )
        images = tf.map_fn(decode, example[image_key], fn_output_signature=tf.uint8)
        return images, example[label_key]

    files = [
        tf.data.TFRecordDataset(piece.filename).skip(piece.skip).take(piece.take)
        for piece in builder.info.splits[split].file_instructions
    ]
    records = functools.reduce(tf.data.Dataset.concatenate, files)
    return records.batch(_RECORDS_AT_ONCE).map(
        parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
