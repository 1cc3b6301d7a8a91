"""Holds decoded images in one array that TensorFlow uses without a copy."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_STATISTICS_AT_ONCE = 2**22  # pixels per call of bincount, which needs 8 bytes per pixel
_ALIGNMENT = 64  # bytes, the alignment of TensorFlow's own tensors


@dataclasses.dataclass(frozen=True, eq=False)
class InMemoryDataset:
    """A split in memory.

    Attributes:
      images: uint8 [N, h, w, c] for N examples.
      labels: int64 [N], indices into `class_names`.
      class_names: names of the classes.
      name: name of the split for messages.
      summary: one line about the split's content.
      path: maps the index of an example to the path of its file; None if the file is not known, or
        if one file holds several examples.
      digest: hash of the examples that a Python program gave; None if they are from files.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    summary: str = ""
    path: Callable[[int], str] | None = None
    digest: str | None = None

    @property
    def examples(self) -> int:
        """Number of examples, N."""
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (h, w, c) of each image."""
        return self.images.shape[1:]


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a new uint8 array, aligned so that TensorFlow can use it without a copy."""
    size = int(np.prod(shape, dtype=np.int64))
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].reshape(shape)


def aligned(images: np.ndarray) -> np.ndarray:
    """Returns the images, uint8, in an array that TensorFlow can use without a copy."""
    flags = images.flags
    if not images.ctypes.data % _ALIGNMENT and flags.c_contiguous and flags.writeable:
        return images  # NumPy exports no array that is read-only.
    found = aligned_empty(images.shape)
    found[:] = images
    return found


def as_tensor(images: np.ndarray) -> tf.Tensor:
    """Returns the images as a CPU tensor, without a copy if they are from `aligned`.

    `tf.constant` would make two copies. For an array of 500 MB, it took 1,017 MB of extra memory.
    """
    return tf.experimental.dlpack.from_dlpack(aligned(images).__dlpack__())


def pixel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of all images, uint8 [N, h, w, c].

    Returns:
        (mean, std): c floats each, in grey levels (0 to 255), rounded to float32. A std below 1
        grey level becomes 1, so that a channel can be divided by its std even if it is constant.
    """
    channels = images.shape[-1]
    pixels = images.reshape(-1, channels)  # [N·h·w, c]
    histograms = np.zeros((channels, 256), np.int64)
    for start in range(0, len(pixels), _STATISTICS_AT_ONCE):
        part = pixels[start : start + _STATISTICS_AT_ONCE]
        for channel in range(channels):
            histograms[channel] += np.bincount(part[:, channel], minlength=256)
    levels = np.arange(256)
    means = histograms @ levels / len(pixels)
    variances = np.sum(histograms * (levels - means[:, None]) ** 2, axis=1) / len(pixels)
    stds = np.maximum(np.sqrt(variances), 1.0)
    return tuple(means.astype(np.float32).tolist()), tuple(stds.astype(np.float32).tolist())
