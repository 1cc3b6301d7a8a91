"""Describes a dataset of encoded images that a TensorFlow graph reads by index."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.decode import MAX_PIXELS

NO_LABEL = -2  # Label of an example that has none; −1 is that of a class that the run lacks.


class Opened(NamedTuple):
    """One example, before it is decoded.

    Attributes:
      content: bytes [] of the encoded image.
      label: int32 [], index of the example's class; −1 if the run lacks the class, or NO_LABEL.
      orientation: int32 [], result of `exif.orientation`; None: the image counts as upright.
    """

    content: tf.Tensor
    label: tf.Tensor
    orientation: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedDataset:
    """A split whose examples are read from disk and decoded when they are needed.

    Attributes:
      examples: N, the number of examples in the split.
      class_names: names of the classes; a label is an index into this list.
      image_shape: (h, w, c) that the model receives; the files' own sizes may differ.
      name: name of the split for messages.
      fetch: maps indices, int64 [n], each in [0, N), to one or more tensors [n]. The first tensor
        has strings; "" stands for an example that cannot be read. One call for n examples takes
        less time than n calls.
      open: maps one element [] of each tensor from `fetch` to an `Opened`.
      describe: maps an index to the location of the example, for messages.
      path: maps an index to the path of the example's file; None if a file holds several examples.
      max_pixels: largest number of pixels of an image that is decoded.
      unread: maps an index to the reason why the example's file cannot be read, or to None if the
        file can be read.
      fetch_again: fetches an example's file from its bucket once more, because it cannot be
        decoded, and returns whether the file's content changed. None: the files are local.
      summary: one line about the split's content.
      labels: function that returns all labels, int64 [N]; −1 stands for an unknown class. The call
        may read all examples. None: the labels are unknown.
      digest: hash of some examples that a Python program gave; None if they are from files.
    """

    examples: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    name: str
    fetch: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]
    open: Callable[..., Opened]
    describe: Callable[[int], str]
    path: Callable[[int], str] | None = None
    max_pixels: int = MAX_PIXELS
    unread: Callable[[int], str | None] = lambda _: None
    fetch_again: Callable[[int], bool] | None = None
    summary: str = ""
    labels: Callable[[], np.ndarray] | None = None
    digest: str | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def at(self, places: Sequence[int] | np.ndarray) -> "IndexedDataset":
        """Returns the examples at the indices `places`, in this order, as another dataset."""
        of = np.asarray(places, np.int64)
        path, again, labels = self.path, self.fetch_again, self.labels
        return dataclasses.replace(
            self,
            examples=len(of),
            fetch=lambda indices: self.fetch(tf.gather(of, indices)),
            describe=lambda index: self.describe(int(of[index])),
            path=path and (lambda index: path(int(of[index]))),
            unread=lambda index: self.unread(int(of[index])),
            fetch_again=again and (lambda index: again(int(of[index]))),
            labels=labels and (lambda: labels()[of]),
        )
