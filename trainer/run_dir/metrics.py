"""metrics.jsonl, the record of a run: one logged point per line.

This module does not import TensorFlow, which takes four seconds.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from trainer.system.typed_json import (
    WrongError,
    fields,
    integer,
    measured,
    number,
    one_of,
    read_lines,
)

# Names in metrics.jsonl → tags in TensorBoard. Both are frozen: dashboards depend on them.
TAGS = {
    "loss": "loss",
    "top1": "top1",
    "top5": "top5",
    "learning_rate": "schedule/learning_rate",
    "batch_size": "schedule/batch_size",
    "momentum": "schedule/momentum",
    "noise_scale": "schedule/noise_scale",
    "gradient_norm": "gradient/norm",
    "gradient_noise_scale": "gradient/noise_scale",
    "examples_per_second": "throughput/examples_per_second",
    "input_wait": "throughput/input_wait",
    "epoch": "progress/epoch",
    "update": "progress/update",
    "position": "progress/position",
}

_POINT = fields(
    {
        "split": one_of("train", "eval"),
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
        "gradient_norm": measured,
        "gradient_noise_scale": measured,
        "examples_per_second": measured,
        "input_wait": measured,
        "epoch": number(0),
    },
)


def read(
    path: pathlib.Path, report: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Returns the points of a metrics.jsonl, without a last line that a kill truncated.

    Damaged lines are left out and reported in one message.

    Raises:
      OSError: if the file cannot be read.
    """
    points, wrong, first = [], 0, ""
    try:
        for number_of_line, point in read_lines(path, _POINT):
            if isinstance(point, WrongError):
                wrong += 1
                where = f"line {number_of_line} of {path}"
                first = first or f"{where} is damaged and left out: {point}"
            else:
                points.append(point)
    except FileNotFoundError:
        return []
    if wrong:
        others = "1 other line is" if wrong == 2 else f"{wrong - 1:,} other lines are"
        report(first if wrong == 1 else f"{first}; {others} damaged too")
    return points


def line(point: dict[str, Any]) -> str:
    """Returns the line of `point` in metrics.jsonl."""
    return json.dumps(point) + "\n"
