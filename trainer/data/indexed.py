"""A dataset of encoded images that TensorFlow's graph reads by index."""

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
      orientation: int32 [], result of `exif.orientation`; None: the image is stored upright.
    """

    content: tf.Tensor
    label: tf.Tensor
    orientation: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedDataset:
    """A split on disk that is too large for memory, or is cropped before it is decoded.

    Attributes:
      examples: N.
      class_names: the names of the classes; a label is a place in this list.
      image_shape: (h, w, c) that the model receives; the files' own sizes may differ.
      name: the name in messages.
      fetch: int64 indices [n], each in [0, N) → tensors [n]; batched to share a call's cost.
        The first tensor holds strings, empty if an example cannot be read.
      open: one element [] of each of these tensors → `Opened`.
      describe: index → location of the example, for messages.
      path: index → the file that holds this example alone; None: examples share files.
      max_pixels: an image of more pixels is not decoded.
      unread: index → why its file cannot be read; None if unknown.
      summary: one line about the split's content.
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
