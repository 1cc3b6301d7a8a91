"""metrics.jsonl, the record of a run: one logged point per line.

This module does not import TensorFlow, because the import takes four seconds.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from trainer.system import typed_json
from trainer.system.typed_json import fields, integer, measured, number

FILE = "metrics.jsonl"

# Maps the name of a value in metrics.jsonl to its tag in TensorBoard. Dashboards of users depend on
# the names and the tags, so never rename a name or a tag.
TAGS = {
    "loss": "loss",
    "top1": "top1",
    "top5": "top5",
    "learning_rate": "schedule/learning_rate",
    "batch_size": "schedule/batch_size",
    "momentum": "schedule/momentum",
    "noise_scale": "schedule/noise_scale",
    "image_size": "schedule/image_size",
    "gradient_norm": "gradient/norm",
    "gradient_noise_scale": "gradient/noise_scale",
    "gradient_noise_scale_adam": "gradient/noise_scale_adam",
    "gradient_clipped": "gradient/clipped",
    "examples_per_second": "throughput/examples_per_second",
    "input_wait": "throughput/input_wait",
    "epoch": "progress/epoch",
    "update": "progress/update",
    "position": "progress/position",
}

# Values of `split`: training, and evaluations of the plain parameters and of their average.
SPLITS = ("train", "eval", "eval_ema")

POINT = fields(
    {
        "split": typed_json.one_of(*SPLITS),
        "update": integer(),
        "position": integer(),
        "time": number(0, 1e12),  # Seconds since 1970.
    },
    {
        "loss": measured,
        "top1": number(0, 1),
        "top5": number(0, 1),
        "learning_rate": number(0),
        "batch_size": integer(1),
        "momentum": number(0, 1),
        "noise_scale": measured,
        "image_size": integer(1),
        "gradient_norm": measured,
        "gradient_noise_scale": measured,
        "gradient_noise_scale_adam": measured,
        "gradient_clipped": number(0, 1),
        "examples_per_second": measured,
        "input_wait": measured,
        "epoch": number(0),
    },
)


def read(
    path: pathlib.Path, report: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Returns the points of a metrics.jsonl; [] if the file does not exist.

    An incomplete last line, which a killed process left, is ignored. Damaged lines are left out and
    reported in one message.

    Raises:
      OSError: if the file cannot be read.
    """
    points: list[dict[str, Any]] = []
    wrong, first = 0, ""
    try:
        for line_number, point in typed_json.read_lines(path, POINT):
            if isinstance(point, typed_json.WrongError):
                wrong += 1
                first = first or f"line {line_number} of {path} is damaged and left out: {point}"
            else:
                points.append(point)
    except FileNotFoundError:
        return []
    if wrong:
        others = "1 other line is" if wrong == 2 else f"{wrong - 1:,} other lines are"
        report(first if wrong == 1 else f"{first}; {others} damaged too")
    return points


def line(point: dict[str, Any]) -> str:
    """Returns `point` as a line of metrics.jsonl."""
    return json.dumps(point) + "\n"
