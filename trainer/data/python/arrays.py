"""Makes a split of arrays that a Python program holds: images and labels."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import decode
from trainer.data.class_names import split_summary
from trainer.data.in_memory import InMemoryDataset, aligned, aligned_empty
from trainer.data.python.items import described
from trainer.errors import UserError

# Images of more bytes are hashed in part: this many, evenly spaced. Labels are hashed whole.
_MOST_HASHED, _HASHED = 2**30, 1000
_RESIZED_AT_ONCE = 256
# Without class names, a larger label than this, and than the number of examples, is refused.
_MOST_CLASSES = 10**6


def checked(data: tuple[Any, Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, h, w, c] and labels int64 [N].

    Args:
      data: images [N, h, w] or [N, h, w, c], and labels [N] or [N, 1].
      name: name of the argument, for messages.

    Raises:
      UserError: if a type or shape is another one, a label is negative, or N is 0.
    """
    images, labels = np.asarray(data[0]), np.asarray(data[1])
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8:
        raise UserError(
            f"the images of {name} have {described(images)}: give uint8, pixels 0 to 255, as in "
            "(255 * images).round().astype('uint8')."
        )
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            f"the images of {name} have the shape {images.shape}: give (N, height, width) or "
            "(N, height, width, channels)."
        )
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"the labels of {name} have {described(labels)}: give integers from 0, one an image."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != images.shape[:1]:
        raise UserError(
            f"{name} has labels of the shape {labels.shape} for {len(images):,} images: give one "
            "integer an image, for example labels.argmax(axis=1) of one-hot labels."
        )
    if not len(labels):
        raise UserError(f"{name} has no examples: give at least one image and its label.")
    check_range(labels, None, name)
    return images, labels.astype(np.int64)


def check_range(labels: np.ndarray, classes: int | None, name: str) -> None:
    """Checks that labels are from 0 to `classes` − 1; None: that they are not negative.

    Raises:
      UserError: if a label is another number; the message names it and its index.
    """
    wrong = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if np.any(wrong):
        at = int(np.argmax(wrong))
        limit = "a class, because it is below 0" if classes is None else f"one of {classes} classes"
        raise UserError(
            f"label {labels[at]} of {name}, at index {at}, is not {limit}: give integers from 0, "
            "and name all classes with class_names=."
        )


def numbered_classes(labels: np.ndarray, name: str) -> list[str]:
    """Returns the names of classes that have none: "0", "1" and so on, up to the largest label.

    Raises:
      UserError: if the largest label cannot be the number of a class; it may be a hash or a date.
    """
    largest, at = int(labels.max()), int(labels.argmax())
    if largest > max(_MOST_CLASSES, len(labels)):
        raise UserError(
            f"label {largest} of {name}, at index {at}, would make {largest + 1:,} classes of "
            f"{len(labels):,} examples: number the classes from 0, or name them with class_names=."
        )
    return [str(label) for label in range(largest + 1)]


def load(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    image_size: int | None,
    name: str,
) -> InMemoryDataset:
    """Returns a split in memory, with the images resized to `image_size` pixels if it is set.

    Args:
      images: uint8 [N, h, w, c].
      labels: int64 [N].
      class_names: names of the classes; a label is an index into this list.
      image_size: side of the square to which images are resized; None: not resized.
      name: name of the split, for messages.
    """
    digest = _digest(images, labels)
    names = tuple(class_names)
    if image_size is not None and images.shape[1:3] != (image_size, image_size):
        images = _resized(images, image_size)
    counts = np.bincount(labels, minlength=len(names)).tolist()
    summary = split_summary(name, len(labels), names, counts)
    # Each growth of the batch makes a dataset, which would copy the images otherwise.
    return InMemoryDataset(aligned(images), labels, names, name, summary, digest=digest)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    found = aligned_empty((len(images), side, side, images.shape[-1]))
    with tf.device("CPU:0"):
        for start in range(0, len(images), _RESIZED_AT_ONCE):
            part = slice(start, start + _RESIZED_AT_ONCE)
            found[part] = decode.resized(tf.constant(images[part]), (side, side)).numpy()
    return found


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    step = -(-len(images) // _HASHED) if images.nbytes > _MOST_HASHED else 1
    found = hashlib.blake2b(f"{images.shape}".encode(), digest_size=16)
    found.update(labels.tobytes())
    for start in range(0, len(images), step * _RESIZED_AT_ONCE):
        found.update(images[start : start + step * _RESIZED_AT_ONCE : step].tobytes())
    return found.hexdigest()
