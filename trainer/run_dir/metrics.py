"""metrics.jsonl, the record of a run: a line a logged point.

Read without TensorFlow, which takes four seconds to import.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from trainer.regular_file import read_regular

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


def read(
    path: pathlib.Path, report: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The points of a metrics.jsonl, without a last line that a kill cut short.

    Lines that are damaged are left out, and `report` is told.
    """
    if not path.exists():
        return []
    lines = read_regular(path).decode(errors="replace").splitlines(keepends=True)
    points = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        point = _point(line)
        if point is None:
            report(f"line {number} of {path} is damaged and left out.")
        else:
            points.append(point)
    return points


def _point(line: str) -> dict[str, Any] | None:
    """What a line holds, if it is a point that can be drawn."""
    try:
        point = json.loads(line)
        numbers = [point["time"], *(point[name] for name in TAGS if name in point)]
        drawn = point["split"] in ("train", "eval") and {"update", "position"} <= point.keys()
    except (ValueError, TypeError, KeyError):
        return None
    return point if drawn and all(isinstance(n, int | float) for n in numbers) else None


def line(point: dict[str, Any]) -> str:
    """The line of `point`."""
    return json.dumps(point) + "\n"
