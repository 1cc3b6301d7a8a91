"""What a run's model has to know of its training data, kept in the run directory.

So a run goes on, is evaluated and exported with the same model without its training set being read
for it. Each checkpoint holds the same values under its checksum, and the two are compared: one
digit of a mean that changes in the file would change what is learned.
"""

import dataclasses
import json
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.system import typed_json
from trainer.system.atomic_file import write_json
from trainer.system.typed_json import (
    DamagedError,
    WrongError,
    anything,
    fields,
    file_name,
    integer,
    list_of,
    number,
    optional,
)

FILE = "training_data.json"

_FIELDS = fields(
    {
        "examples": integer(1),
        "image_shape": list_of(integer(1, 2**16), 3),
        "classes": integer(1),
        "mean": list_of(number()),
        "std": list_of(number()),
    },
    {"class_names": optional(list_of(file_name))},
)


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
        found: dict[str, Any] = typed_json.parsed(json.dumps(dataclasses.asdict(self)), anything)
        return found


def read(folder: pathlib.Path) -> TrainingData | None:
    """Returns what the run in `folder` keeps, or None if it keeps nothing yet.

    Raises:
      UserError: a value is missing or impossible.
    """
    file = folder / FILE
    try:
        found: TrainingData = typed_json.read(file, _checked)
    except FileNotFoundError:
        return None
    except (DamagedError, OSError) as error:
        raise UserError(
            f"{file} {typed_json.problem(error)}.\n"
            "Restore it from a copy, or delete it: it is made again from the training data."
        ) from error
    return found


def _checked(value: Any) -> TrainingData:
    """The kind of the file: lengths agree, and class names are distinct."""
    kept = _FIELDS(value)
    h, w, c = kept["image_shape"]
    mean, std = (
        tuple(fields({name: list_of(number(least, 255), c)})(kept)[name])
        for name, least in (("mean", 0), ("std", 1))
    )
    names = kept.get("class_names")
    if names is not None:
        if len(names) != kept["classes"]:
            raise WrongError(f"is not a list of {kept['classes']}", "class_names")
        if len({*names}) < len(names):
            raise WrongError("has a name twice", "class_names")
        names = tuple(names)
    return TrainingData(kept["examples"], (h, w, c), kept["classes"], mean, std, names)


def keep(folder: pathlib.Path, data: TrainingData) -> None:
    """Keeps `data` for the run in `folder`."""
    write_json(folder / FILE, data.as_json(), indent=None)


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
        f"{name} {reprlib.repr(now[name])} instead of {reprlib.repr(value)}"
        for name, value in learned.items()
        if name in now and now[name] != value
    ]
    if differences:
        raise UserError(
            f"{file} differs from what the run has learned with: {'; '.join(differences)}.\n"
            "Restore it from a copy, or delete it: it is made again from the training data."
        )
