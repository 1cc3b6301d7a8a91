"""Loads a split of --dataset=python: the arrays or the source that a Python program has given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.config import augment_list
from trainer.data.class_names import places, refuse_twice, refuse_unknown
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.python import arrays, dataset, items, source
from trainer.errors import UserError
from trainer.system import python_objects


class _Rows:
    """Arrays as a source of examples, for augmentations that read encoded images."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._images[index], int(self._labels[index])


def load(
    split: str,
    image_size: int | None,
    *,
    augment: str,
    class_names: Sequence[str] | None,
    max_pixels: int,
    skip_bad: bool,
    several_sizes: bool,
) -> InMemoryDataset | IndexedDataset:
    """Returns the split that the current call has received.

    Args:
      split: name of the argument of trainer.train that holds the split.
      image_size: side of the square to which images are resized, in pixels; None: not resized.
      augment: the run's --augment; with `imagenet`, the set stays encoded.
      class_names: the run's class names; None: those of the split.
      max_pixels: an encoded image with more pixels is not decoded.
      skip_bad: whether examples of other classes are left out.
      several_sizes: whether training resizes the images later.

    Raises:
      UserError: if the call has not received the split, or it cannot be used.
    """
    given = python_objects.given()
    if split not in given.examples:
        raise dataset.refusal(split)
    data = given.examples[split]
    names: Sequence[str] | None = given.class_names
    if dataset.are_arrays(data):
        images, labels = arrays.checked(data, split)
        names = names or class_names or arrays.numbered_classes(labels, split)
        arrays.check_range(labels, len(names), split)
    else:
        if isinstance(data, Mapping) or (
            isinstance(data, tuple) and any(hasattr(each, "ndim") for each in data)
        ):
            raise UserError(
                f"{split} is a {type(data).__name__} with arrays: give a pair of arrays, (images, "
                "labels)."
            )
        source.count(data, split)  # Refuses an object that is not a source.
        names = names or _classes_of(data, split) or class_names
    if not names:
        raise UserError(
            f"the classes of {split} are not known: name them with class_names=, in the order of "
            "the labels, or give their number with num_classes=."
        )
    run_names = tuple(class_names or names)
    refuse_unknown(names, run_names, split, skip_bad)
    class_map = places(names, run_names)
    if dataset.are_arrays(data):
        if -1 not in class_map and not augment_list.parse(augment).resized_crop:
            labels = np.array(class_map)[labels]
            side = None if several_sizes else image_size
            return arrays.load(images, labels, run_names, side, split)
        if images.shape[-1] not in items.CHANNELS:
            raise _wrong_channels(images.shape[-1], split, -1 in class_map, augment)
        data = _Rows(images, labels)
    return source.load(data, run_names, _to_run(class_map), image_size, max_pixels, split)


def _classes_of(data: Any, split: str) -> tuple[str, ...] | None:
    """Returns the class names that a source has as `classes`, as torchvision's sets have.

    Raises:
      UserError: if a name occurs twice.
    """
    found = getattr(data, "classes", None)
    if isinstance(found, list | tuple) and found and all(isinstance(each, str) for each in found):
        remedy = "give each class a name of its own, with class_names="
        refuse_twice(tuple(found), f"the list `classes` of {split}", remedy)
        return tuple(found)
    return None


def _wrong_channels(channels: int, split: str, left_out: bool, augment: str) -> UserError:
    """Returns the error for arrays that must become encoded images, and cannot.

    `left_out` says whether examples are left out because the run does not know their classes.
    """
    cause, remedy = f"--augment={augment}", "use another --augment"
    if left_out:
        cause = "leaving out examples of classes that the run does not know"
        remedy = "remove these examples from the arrays"
    return UserError(
        f"{cause} needs images of 1 or 3 channels, and those of {split} have {channels}: {remedy}."
    )


def _to_run(class_map: Sequence[int]) -> Callable[[int], int]:
    return lambda label: class_map[label] if 0 <= label < len(class_map) else -1
