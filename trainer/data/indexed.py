"""A set of encoded images that is read by index, in TensorFlow's graph."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from trainer.data.decode import MAX_PIXELS


class Opened(NamedTuple):
    """One example, before it is decoded.

    Attributes:
      content: the file's bytes [].
      label: int32 [].
      orientation: int32 [], as `exif.orientation`; None: images are decoded as they are stored.
    """

    content: tf.Tensor
    label: tf.Tensor
    orientation: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedDataset:
    """A split on the disk, too large for memory or to be cropped before it is decoded.

    Attributes:
      examples: N.
      class_names: the names of the classes; a label is a place in this list.
      image_shape: (h, w, c) of what is trained on; the files' own sizes may differ.
      name: for messages.
      fetch: int64 indices [n], each in [0, N) → tensors [n], in batches, since a call has a cost.
        The first is of strings; what cannot be read is empty there.
      open: one of each of these tensors, [] → `Opened`.
      describe: an index → where it lies, for messages.
      path: an index → the file that holds this example alone; None: examples share files.
      max_pixels: an image of more is not decoded.
      unread: an index → why its file cannot be read, as far as that can be told.
      summary: a line on what the split holds.
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
    summary: str = ""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
