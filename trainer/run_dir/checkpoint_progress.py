"""Types of the progress, which a checkpoint holds as JSON beside the variables.

TensorFlow's checksum detects damage, but another version of this program may have written the JSON.
trainer/training/state.py documents the fields.
"""

from typing import Any

from trainer.errors import UserError
from trainer.system.typed_json import (
    Kind,
    anything,
    boolean,
    fields,
    integer,
    measured,
    number,
    optional,
    table_of,
    text,
)

_SETTING = {"batch_size": integer(1), "learning_rate": number(0), "momentum": number(0, 1)}
_EVALUATION = fields(
    {"position": integer(), "loss": measured, "top1": number(0, 1), "top5": number(0, 1)}
)
_CONTROL = fields(
    {},
    {
        "best": optional(number(0, 1)),
        "waited": integer(),
        "cooling": integer(),
        "anneals": integer(),
        "ended": boolean,
        "batch_size": integer(1),
    },
)
_NOISE = fields({"trace": measured, "square": measured, "weight": measured})


def _if_any(kind: Kind) -> Kind:
    """Returns a checker that accepts {} and what `kind` accepts."""
    return lambda value: {} if value == {} else kind(value)


def _setting(value: Any) -> dict[str, Any]:
    """Checks the values of a Setting, and drops all others."""
    checked = fields(_SETTING)(value)
    return {name: checked[name] for name in _SETTING}


PROGRESS = fields(
    {},
    {
        "position": integer(),
        "update": integer(),
        "seconds": number(0),
        "input_wait": number(0),
        "resumes": integer(),
        "window": table_of(measured),
        "setting": _if_any(_setting),
        "evaluation": _if_any(_EVALUATION),
        "best": optional(fields({"top1": number(0, 1), "update": integer()})),
        "control": _CONTROL,
        "noise": _if_any(_NOISE),
        "statistics_starts": optional(table_of(optional(integer()))),
        "training_data": table_of(anything),
        "model_configuration": optional(text),
    },
)


def checked(progress: dict[str, Any], path: object) -> dict[str, Any]:
    """Returns `progress` of the checkpoint `path`, if it holds a position and an update.

    Raises:
      UserError: if one of them is missing, because another version wrote the checkpoint.
    """
    for name in ("position", "update"):
        if name not in progress:
            raise UserError(
                f"{path} was written by another version: {name} is missing.\n"
                "Resume with the version that wrote it, or name a new --model_dir."
            )
    return progress
