"""What a run's model has to know of its training data, kept in the run directory.

So a run goes on, is evaluated and exported with the same model without its training set being read
for it. Each checkpoint holds the same values under its checksum, and the two are compared: one
digit of a mean that changes in the file would change what is learned.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.regular_file import read_regular
from trainer.run_dir.directory import write_whole

FILE = "training_data.json"


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The training set, as the model sees it.

    Attributes:
      examples: N.
      image_shape: (h, w, c) of the images, pixels.
      classes: how many; each label is below it.
      mean: of each channel's pixels, 0 to 255.
      std: standard deviation of each channel's pixels, at least 1 grey level.
      class_names: the name of each label; None in a run from before they were kept.
    """

    examples: int
    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the values as JSON has them, as the file and the checkpoints keep them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read(folder: pathlib.Path) -> TrainingData | None:
    """Returns what the run in `folder` keeps, or None if it keeps nothing yet.

    Raises:
      UserError: a value is missing or impossible.
    """
    file = folder / FILE
    try:
        text = read_regular(file)
    except FileNotFoundError:
        return None
    try:
        return _checked(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(
            f"{file} is damaged: {reason}.\n"
            "Restore it from a copy, or delete it: it is made again from the training data."
        ) from error


def _checked(kept: Mapping[str, Any]) -> TrainingData:
    """Returns the values of the file.

    Raises:
      ValueError, TypeError, KeyError: one of them is missing or impossible.
    """
    if not isinstance(kept, dict):
        raise TypeError("it does not hold an object of named values")
    examples, classes = (_number(name, kept[name], least=1) for name in ("examples", "classes"))
    shape = _list("image_shape", kept["image_shape"], 3)
    h, w, c = (_number("image_shape", side, least=1) for side in shape)
    mean, std = (
        tuple(_number(name, value, least, 255) for value in _list(name, kept[name], int(c)))
        for name, least in (("mean", 0), ("std", 1))
    )
    names = kept.get("class_names")
    if names is not None:
        names = tuple(_list("class_names", names, int(classes)))
        if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
            raise ValueError("class_names are not distinct names")
    sizes = int(h), int(w), int(c)
    return TrainingData(int(examples), sizes, int(classes), mean, std, names)


def _list(name: str, value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"{name} is not a list of {length}")
    return value


def _number(name: str, value: Any, least: float, most: float = math.inf) -> float:
    """Returns the value if it is a number in the interval; an integer if `most` is infinite."""
    kinds = int if most == math.inf else int | float
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} {value!r} is not a number from {least} to {most}")
    return value if most == math.inf else float(value)


def keep(folder: pathlib.Path, data: TrainingData) -> None:
    """Keeps `data` for the run in `folder`."""
    write_whole(folder / FILE, json.dumps(data.as_json()) + "\n")


def check_learned(learned: Mapping[str, Any], data: TrainingData, file: pathlib.Path) -> None:
    """Compares what a checkpoint learned with to what the run directory holds now.

    Args:
      learned: the checkpoint's values; empty in one from before they were kept.
      data: what is in `file`, or was made from the training data.
      file: the run's training_data.json, for the message.

    Raises:
      UserError: they differ.
    """
    now = data.as_json()
    differences = [
        f"{name} {now[name]} instead of {value}"
        for name, value in learned.items()
        if name in now and now[name] != value
    ]
    if differences:
        raise UserError(
            f"{file} differs from what the run has learned with: {'; '.join(differences)}.\n"
            "Restore it from a copy, or delete it: it is made again from the training data."
        )
