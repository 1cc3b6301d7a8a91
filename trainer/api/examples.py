"""Turns the examples of a public function into flags, and into objects beside the flags."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config.flags import Config
from trainer.data.class_names import refuse_twice
from trainer.data.python.dataset import DATASET, EVALUATION, TRAINING, are_arrays
from trainer.errors import UserError

# Flags that name the examples, which the arguments give instead.
_FLAGS = ("dataset", "data_dir", "train_split", "eval_split", "train_examples")


def flags_of(
    function: str, flags: Mapping[str, object], data: object, evaluation_data: object
) -> dict[str, object]:
    """Returns the flags of a run whose examples are arguments; {} if there are none.

    Raises:
      UserError: if only one of the two arguments is given, or a flag names examples too.
    """
    if data is None and evaluation_data is None:
        return {}
    if data is None or evaluation_data is None:
        given, missing = (TRAINING, EVALUATION)[:: 1 if evaluation_data is None else -1]
        raise UserError(
            f"{function} has {given}= and not {missing}=: give both, with different examples."
        )
    refuse(function, flags)
    return {"dataset": DATASET, "train_split": TRAINING, "eval_split": EVALUATION}


def by_split(data: object, evaluation_data: object) -> dict[str, object]:
    """Returns the given examples by the name of their split."""
    both = {TRAINING: data, EVALUATION: evaluation_data}
    return {name: given for name, given in both.items() if given is not None}


def refuse(function: str, flags: Mapping[str, object]) -> None:
    """Refuses flags that name examples, because an argument gives them.

    Raises:
      UserError: if there is such a flag.
    """
    for name in _FLAGS:
        if flags.get(name) is not None:
            raise UserError(f"{function} has examples, so leave {name}= out.")


def checked_names(class_names: Sequence[str] | None, data: object) -> tuple[str, ...] | None:
    """Returns the names of the classes of `data` as a tuple; None if there are none.

    Raises:
      UserError: if a name is not text, is empty, or occurs twice, or `data` is None.
    """
    if class_names is None:
        return None
    if data is None:
        raise UserError(
            "class_names= names the classes of data=, which is missing: give both, or leave "
            "class_names= out."
        )
    names = tuple(class_names)
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if isinstance(class_names, str) or wrong or not names:
        raise UserError(
            f"class_names={class_names!r:.60} is not a list of names: give one text a class, in "
            "the order of the labels."
        )
    refuse_twice(names, "class_names=", "give each class a name of its own")
    return tuple(map(str, names))  # numpy has a str of its own.


def names_of(config: Config, class_names: tuple[str, ...] | None, data: Any) -> Any:
    """Returns the names of the classes; without names, a source has "0" to --num_classes − 1."""
    is_source = not are_arrays(data) and not hasattr(data, "classes")
    if class_names is None and is_source and config.num_classes is not None:
        return tuple(map(str, range(config.num_classes)))
    return class_names
