"""training_data.json: the properties of the training set that a run's model depends on.

The file gives resumed, evaluated and exported runs the same model; evaluation and export need not
read the training set. Each checkpoint holds the same values under a checksum, and the two are
compared, because one altered digit of a mean in the file would change what is learned.
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
    """The properties of a training set that its model depends on.

    Attributes:
      examples: number of examples, N.
      image_shape: (h, w, c) of the images, in pixels.
      classes: number of classes; labels are 0 to classes − 1.
      mean: mean of each channel's pixel values, 0 to 255.
      std: standard deviation of each channel's pixel values, at least 1.
      class_names: name of each label; None in a run by an older version.
    """

    examples: int
    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the values as JSON types, the form in the file and in checkpoints."""
        found: dict[str, Any] = typed_json.parsed(json.dumps(dataclasses.asdict(self)), anything)
        return found


def read(folder: pathlib.Path) -> TrainingData | None:
    """Returns the training data of the run in `folder`, or None if the file does not exist.

    Raises:
      UserError: if the file cannot be read, or a value is missing or impossible.
    """
    file = folder / FILE
    try:
        found: TrainingData = typed_json.read(file, _checked)
    except FileNotFoundError:
        return None
    except (DamagedError, OSError) as error:
        raise UserError(
            f"{file} {typed_json.problem(error)}.\n"
            "Restore it from a copy, or delete it: it is then made from the training data again."
        ) from error
    return found


def _checked(value: Any) -> TrainingData:
    """Checks the content of the file: lengths agree, and class names are distinct."""
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
    """Writes `data` to the file of the run in `folder`."""
    write_json(folder / FILE, data.as_json(), indent=None)


def check_learned(learned: Mapping[str, Any], data: TrainingData, file: pathlib.Path) -> None:
    """Checks that a checkpoint and the run directory agree on the training data.

    Args:
      learned: the checkpoint's values; empty in a checkpoint by an older version.
      data: the values of `file`, or of the training data if the file is missing.
      file: the run's training_data.json, for the message.

    Raises:
      UserError: if a value differs.
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
            "Restore it from a copy, or delete it: it is then made from the training data again."
        )
