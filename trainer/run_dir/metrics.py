"""metrics.jsonl, the record of a run: a line a logged point.

Read without TensorFlow, which takes four seconds to import.
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

# metrics.jsonl's names → TensorBoard's tags. Stable: dashboards and reports build on them.
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
    """The points of a metrics.jsonl, without a last line that a kill cut short.

    Lines that are damaged are left out, and `report` is told of all of them together.

    Raises:
      OSError: the file cannot be read.
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
        others = "is another line" if wrong == 2 else f"are {wrong - 1:,} further lines"
        report(first if wrong == 1 else f"{first}; so {others}")
    return points


def line(point: dict[str, Any]) -> str:
    """The line of `point`."""
    return json.dumps(point) + "\n"
