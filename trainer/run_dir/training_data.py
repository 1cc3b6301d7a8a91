"""training_data.json: the properties of the training set that a run's model depends on.

Resuming, evaluation and export read this file, so they can build the same model without the
training set. Each checkpoint holds the same values, with a checksum. A resumed run compares the
values with those of the file, because one altered digit of a mean would change what is learned.
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
from trainer.system.typed_json import DamagedError, WrongError, fields, integer, list_of, number

FILE = "training_data.json"
_REMEDY = "Restore it from a copy, or delete it: a restart makes it again from the data."

_FIELDS = fields(
    {
        "examples": integer(1),
        "image_shape": list_of(integer(1, 2**16), 3),
        "classes": integer(1),
        "mean": list_of(number()),
        "std": list_of(number()),
    },
    {
        "class_names": typed_json.optional(list_of(typed_json.file_name)),
        "preprocessing": typed_json.optional(typed_json.one_of("imagenet")),
        "class_weights": typed_json.optional(list_of(number(0))),
        "class_sizes": typed_json.optional(list_of(integer(0))),
        "digest": typed_json.text,
    },
)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Properties of a training set that the model depends on."""

    examples: int  # N, the number of training examples.
    image_shape: tuple[int, int, int]  # (h, w, c) in pixels.
    classes: int  # Number of classes; labels are 0 to classes − 1.
    mean: tuple[float, ...]  # Mean of each channel's pixel values, 0 to 255.
    std: tuple[float, ...]  # Standard deviation of each channel's pixel values, at least 1.
    class_names: tuple[str, ...] | None = None  # None if an older version wrote the file.
    # "imagenet" if keras.applications' preprocessing replaces mean and std, else None.
    preprocessing: str | None = None
    class_weights: tuple[float, ...] | None = None  # None if all examples have the weight 1.
    # Number of examples of each class, or None if the order of examples does not depend on it.
    class_sizes: tuple[int, ...] | None = None
    digest: str | None = None  # Hash of examples that a Python program gave; None for files.

    def as_json(self) -> dict[str, Any]:
        """Returns the values as checkpoints and the file hold them: tuples become lists."""
        values = dataclasses.asdict(self)
        if self.digest is None:
            del values["digest"]  # The files of other runs stay as they were.
        return typed_json.parsed(json.dumps(values), typed_json.anything)


def read(folder: pathlib.Path) -> TrainingData | None:
    """Returns the training data of the run in `folder`, or None if the file does not exist.

    Raises:
      UserError: if the file cannot be read, or a value is missing or impossible.
    """
    file = folder / FILE
    try:
        return typed_json.read_existing(file, from_json)
    except (DamagedError, OSError) as error:
        raise UserError(f"{file} {typed_json.problem(error)}.\n{_REMEDY}") from error


def digest_in(folder: pathlib.Path) -> str | None:
    """Returns the hash of a Python program's examples; None if the file is missing or damaged."""
    try:
        kept = read(folder)
    except UserError:
        return None
    return kept.digest if kept else None


def from_json(value: Any) -> TrainingData:
    """Returns the training data in `value`, the JSON object that `as_json` returns.

    Raises:
      WrongError: if a value is missing or impossible, or a class name occurs twice.
    """
    kept = _FIELDS(value)
    h, w, c = kept["image_shape"]
    fields({"mean": list_of(number(0, 255), c), "std": list_of(number(1, 255), c)})(kept)
    mean, std = tuple(kept["mean"]), tuple(kept["std"])
    names = kept.get("class_names")
    if names is not None:
        if len(names) != kept["classes"]:
            raise WrongError(f"is not a list of {kept['classes']}", "class_names")
        if len({*names}) < len(names):
            raise WrongError("has a name twice", "class_names")
        names = tuple(names)
    of_each = [kept.get(name) for name in ("class_weights", "class_sizes")]
    for name, values in zip(("class_weights", "class_sizes"), of_each, strict=True):
        if values is not None and len(values) != kept["classes"]:
            raise WrongError(f"is not a list of {kept['classes']}", name)
    weights, sizes = (values and tuple(values) for values in of_each)
    return TrainingData(
        *(kept["examples"], (h, w, c), kept["classes"], mean, std, names),
        preprocessing=kept.get("preprocessing"),
        class_weights=weights,
        class_sizes=sizes,
        digest=kept.get("digest"),
    )


def keep(folder: pathlib.Path, data: TrainingData) -> None:
    """Writes the training_data.json of the run in `folder`."""
    write_json(folder / FILE, data.as_json(), indent=None)


def check_learned(learned: Mapping[str, Any], data: TrainingData, file: pathlib.Path) -> None:
    """Checks that `learned`, from a checkpoint, agrees with `data`, from the run's `file`.

    `learned` is empty if an older version wrote the checkpoint.

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
            f"{file} differs from the data that the run began with: {'; '.join(differences)}.\n"
            + _REMEDY
        )
