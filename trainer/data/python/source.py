"""Makes a split of a Python program's source: an object with __len__ and __getitem__.

The threads of the input pipeline call the source, several at a time. TensorFlow calls Python once
for a chunk of up to 16 examples. An item that cannot be used is a bad example, as a damaged file is
in a folder.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import exif
from trainer.data.class_names import split_summary
from trainer.data.indexed import IndexedDataset, Opened
from trainer.data.python import items
from trainer.data.python.items import WrongItemError
from trainer.errors import UserError
from trainer.nn.user_code import one_line
from trainer.system.cores import usable
from trainer.system.output import log

_SAMPLED = 16  # Number of items that are read at first, and whose content the digest has.


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Reads the items of a source.

    Attributes:
      source: the caller's object.
      shape: (h, w, c) of all images; None in place of a number that may vary, because the decoder
        resizes the images, or converts their channels.
      class_of: maps a label of the source to a label of the run; −1 if the run lacks the class.
      name: name of the split, for messages.
      reasons: maps the index of a bad item to the reason why it cannot be used.
      turned_grey: indices of the first image with colours that became grey, or empty.
      lock: guards `reasons` and `turned_grey`.
    """

    source: Any
    shape: tuple[int | None, int | None, int | None]
    class_of: Callable[[int], int]
    name: str
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)
    turned_grey: list[int] = dataclasses.field(default_factory=list)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def item(self, index: int) -> tuple[bytes, int]:
        """Returns the bytes of an image file, and the label, of the item at `index`.

        Raises:
          WrongItemError: if the item cannot be used.
        """
        image, label = items.image_and_label(_called(self.source, index))
        if isinstance(image, bytes):
            if self.shape[0] is None:
                return image, self.class_of(label)
            raise WrongItemError("its image is encoded, and the first one is not")
        height, width, channels = self.shape
        found = items.pixels(image, channels)
        if channels not in (None, found.shape[2]):
            raise WrongItemError(
                f"its image has the shape {found.shape}, and the first one has {channels} channel"
                f"{'' if channels == 1 else 's'}: give all images the same number"
            )
        if height is not None and found.shape[:2] != (height, width):
            raise WrongItemError(
                f"its image has the shape {found.shape}, and the first one {self.shape}; "
                "image_size= resizes all images"
            )
        if channels == 1 and items.has_colors(image):
            self._tell_grey(index)
        return items.png(found), self.class_of(label)

    def _tell_grey(self, index: int) -> None:
        """Logs that images become grey, once, because the caller may not want it."""
        with self.lock:
            if self.turned_grey:
                return
            self.turned_grey.append(index)
        log(
            f"images of {self.name} become grey, such as that at index {index}, because the first "
            'one is grey. To train on colours, return image.convert("RGB") for each image.'
        )

    def look(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns bytes [n], "" for a bad item; labels int32 [n]; and orientations int32 [n]."""
        contents = np.empty(len(indices), object)
        labels = np.zeros(len(indices), np.int32)
        orientations = np.full(len(indices), exif.UPRIGHT, np.int32)
        for at, index in enumerate(indices.tolist()):
            try:
                contents[at], labels[at] = self.item(index)
            except WrongItemError as error:
                with self.lock:
                    self.reasons[index] = str(error)
                contents[at] = b""
            else:
                orientations[at] = exif.orientation(contents[at]) or exif.UPRIGHT
        return contents, labels, orientations

    def labels(self, examples: int) -> np.ndarray:
        """Returns the labels of all items, int64 [N]; −1 if the item or its label is unusable."""

        def label(index: int) -> int:
            try:
                return self.class_of(items.image_and_label(_called(self.source, index))[1])
            except WrongItemError:
                return -1

        with concurrent.futures.ThreadPoolExecutor(len(usable())) as threads:
            return np.fromiter(threads.map(label, range(examples)), np.int64, examples)


def load(
    source: Any,
    class_names: Sequence[str],
    class_of: Callable[[int], int],
    image_size: int | None,
    max_pixels: int,
    name: str,
    model_shape: tuple[int, int, int] | None = None,
) -> IndexedDataset:
    """Returns a split whose examples are read from the source when they are needed.

    Args:
      source: has __len__ and __getitem__, which takes an integer and returns an item, as in
        `items.image_and_label`. Several threads may call it at the same time.
      class_names: names of the run's classes.
      class_of: maps a label of the source to an index in `class_names`, or to −1.
      image_size: side of the square to which images are resized, in pixels; None: all images must
        have the shape of the first one that can be used.
      max_pixels: an encoded image with more pixels is not decoded.
      name: name of the split, for messages.
      model_shape: (h, w, c) that a trained model receives: all images are resized to it, and their
        channels converted. None: the images decide.

    Raises:
      UserError: if the source cannot be used.
    """
    examples = count(source, name)
    indices = _evenly_spaced(examples)
    fixed: tuple[int | None, int | None, int | None] = (None, None, None)
    if model_shape is None:
        height, width, channels = _first_shape(source, image_size, indices, name)
        model_shape = (image_size or height, image_size or width, channels)
        fixed = (None, None, channels) if image_size else (height, width, channels)
    reader = _Reader(source, fixed, class_of, name)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = tf.numpy_function(
            reader.look, [indices], [tf.string, tf.int32, tf.int32], stateful=False
        )
        return tuple(tf.ensure_shape(values, indices.shape) for values in found)

    def opened(content: tf.Tensor, label: tf.Tensor, orientation: tf.Tensor) -> Opened:
        return Opened(content, label, orientation)

    return IndexedDataset(
        examples=examples,
        class_names=tuple(class_names),
        image_shape=model_shape,
        name=name,
        fetch=fetch,
        open=opened,
        describe=lambda index: f"the example at index {index} of {name}",
        max_pixels=max_pixels,
        unread=reader.reasons.get,
        summary=split_summary(name, examples, class_names),
        labels=functools.partial(reader.labels, examples),
        digest=_digest(source, indices, name),
    )


def count(source: Any, name: str) -> int:
    """Returns the number of items of the source; raises UserError if it has none, or no index."""
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise UserError(
            f"{name} has the type {type(source).__name__}, without an index: give a pair of "
            "arrays (images, labels), or an object with __len__ and __getitem__."
        )
    if not len(source):
        raise UserError(f"{name} has no examples: give at least one image and its label.")
    return len(source)


def _called(source: Any, index: int) -> Any:
    """Returns source[index]; an error of the caller's code becomes a WrongItemError."""
    try:
        return source[index]
    except KeyboardInterrupt:  # Python raises it in the main thread, whatever code runs there.
        raise
    except BaseException as error:  # A thread of TensorFlow could not pass on a SystemExit.
        *_, frame = traceback.extract_tb(error.__traceback__)
        where = f"{frame.filename}, line {frame.lineno}" if frame.filename != __file__ else ""
        raise WrongItemError(f"{one_line(error)}{where and f' ({where})'}") from error


def _evenly_spaced(examples: int) -> list[int]:
    """Returns the indices of up to 16 evenly spaced items; the first one is 0."""
    return sorted({at * (examples - 1) // max(1, _SAMPLED - 1) for at in range(_SAMPLED)})


def _first_shape(
    source: Any, image_size: int | None, indices: Sequence[int], name: str
) -> tuple[int, int, int]:
    """Returns the shape (h, w, c) of the first usable image of those at `indices`.

    An encoded image counts as RGB.

    Raises:
      UserError: if none of them can be used, or the image is encoded and `image_size` is None.
    """
    problems = []
    for index in indices:
        try:
            image, _ = items.image_and_label(_called(source, index))
            if not isinstance(image, bytes):
                return items.pixels(image, None).shape
        except WrongItemError as error:
            problems.append(_unusable(index, name, str(error)))
            continue
        if image_size is not None:
            return image_size, image_size, 3
        reason = "its image is encoded, and may have any size; give image_size= to resize all"
        raise _unusable(index, name, reason)
    raise problems[0]


def _unusable(index: int, name: str, reason: str) -> UserError:
    return UserError(f"the example at index {index} of {name} cannot be used: {reason}.")


def _digest(source: Any, indices: Sequence[int], name: str) -> str:
    """Returns a hash of the items at `indices`, or of their labels if images vary.

    Each item is read twice, because a random flip leaves half of the images as they were.
    """
    whole, labels = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    varies = False
    for index in indices:
        try:
            image, label = items.image_and_label(_called(source, index))
            content = _content(image)
            again, _ = items.image_and_label(_called(source, index))
            varies = varies or content != _content(again)
        except WrongItemError:
            content, label = b"", -1
        whole.update(content)
        labels.update(f"{label},".encode())
    if varies:
        log(
            f"{name} returns another image each time: a resumed run is not exact. Leave random "
            "changes of the images to --augment."
        )
    labels.update(b"" if varies else whole.digest())
    return labels.hexdigest()


def _content(image: Any) -> bytes:
    if isinstance(image, bytes):
        return image
    found = items.pixels(image, None)
    return f"{found.shape}".encode() + found.tobytes()
