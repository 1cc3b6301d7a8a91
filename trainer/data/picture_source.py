"""Opens pictures without labels as a dataset whose examples are read by index."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.data import picture_files
from trainer.data.indexed import IndexedDataset, Opened


def load(
    paths: Sequence[bytes], image_shape: tuple[int, int, int], max_pixels: int
) -> IndexedDataset:
    """Opens the pictures at `paths`; all labels are 0.

    Args:
        paths: paths of files in any format that an image folder may hold.
        image_shape: (h, w, c) that the model receives.
        max_pixels: a picture with more pixels is not decoded.
    """
    largest = picture_files.largest_file(max_pixels)
    with tf.device("CPU:0"):
        every = tf.constant(paths, tf.string)  # [N]

    def look(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return picture_files.look(paths, largest)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        seen = tf.numpy_function(
            look, [tf.gather(every, indices)], [tf.string, tf.int32], stateful=False
        )
        return tuple(tf.ensure_shape(values, indices.shape) for values in seen)

    def opened(path: tf.Tensor, orientation: tf.Tensor) -> Opened:
        return Opened(tf.io.read_file(path), tf.constant(0), orientation)

    def path(index: int) -> str:
        return os.fsdecode(paths[index])

    return IndexedDataset(
        examples=len(paths),
        class_names=("",),
        image_shape=image_shape,
        name="the pictures",
        fetch=fetch,
        open=opened,
        describe=path,
        path=path,
        max_pixels=max_pixels,
        unread=lambda index: picture_files.unread(paths[index], largest),
    )
