"""Types of a run's progress, which a checkpoint holds as JSON beside the variables.

TensorFlow's checksum detects damage to the JSON. The types detect values that this version of the
program cannot read, because another version wrote them. trainer/training/state.py documents the
fields.
"""

from typing import Any

from trainer.errors import UserError
from trainer.system import typed_json
from trainer.system.typed_json import Kind, fields, integer, measured, number, optional

# The best evaluation of a run. It has `evaluated_with` only if the run averages its parameters.
BEST = fields(
    {"top1": number(0, 1), "update": integer()},
    {"evaluated_with": typed_json.one_of("plain", "ema")},
)

_SETTING = {"batch_size": integer(1), "learning_rate": number(0), "momentum": number(0, 1)}
_VALUES = {"loss": measured, "top1": number(0, 1), "top5": number(0, 1)}
_EVALUATION = fields(
    {"position": integer(), **_VALUES}, {"plain": fields(_VALUES), "ema": fields(_VALUES)}
)
_CONTROL = fields(
    {},
    {
        "best": optional(number(0, 1)),
        "waited": integer(),
        "cooling": integer(),
        "anneals": integer(),
        "ended": typed_json.boolean,
        "batch_size": integer(1),
    },
)
_NOISE = fields({"trace": measured, "square": measured, "weight": measured})


def _if_any(kind: Kind) -> Kind:
    """Returns a kind that accepts {} and the values that `kind` accepts."""
    return lambda value: {} if value == {} else kind(value)


def _setting(value: Any) -> dict[str, Any]:
    """Checks the fields of a Setting, and drops all other fields."""
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
        "window": typed_json.table_of(measured),
        "setting": _if_any(_setting),
        "evaluation": _if_any(_EVALUATION),
        "best": optional(BEST),
        "control": _CONTROL,
        "noise": _if_any(_NOISE),
        "metric_noise": _if_any(_NOISE),
        "statistics_starts": optional(typed_json.table_of(optional(integer()))),
        "training_data": typed_json.table_of(typed_json.anything),
        "model_configuration": optional(typed_json.text),
        "normalization_refreshed": typed_json.boolean,
    },
)


def checked(progress: dict[str, Any], path: object) -> dict[str, Any]:
    """Checks that `progress`, from the checkpoint `path`, is complete; returns `progress`.

    Raises:
      UserError: if position or update is missing, because another version wrote the checkpoint.
    """
    for name in ("position", "update"):
        if name not in progress:
            raise UserError(
                f"{path} was written by another version: {name} is missing.\n"
                "Resume with the version that wrote it, or name a new --model_dir."
            )
    return progress
