"""Logged points: metrics.jsonl, and TensorBoard's curves made from it.

metrics.jsonl is the record. TensorBoard's files are written beside it, and again from it when a run
resumes, so that no point is there twice and none is missing.
"""

import json
import os
import pathlib
import shutil
import time
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.run_dir.directory import write_whole

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
    "examples_per_second": "throughput/examples_per_second",
    "input_wait": "throughput/input_wait",
    "epoch": "progress/epoch",
    "update": "progress/update",
    "position": "progress/position",
}


class Summaries:
    """The logged points of the run in `folder`, those after `update` dropped on opening."""

    def __init__(self, folder: pathlib.Path, *, update: int) -> None:
        self._path = folder / "metrics.jsonl"
        points = [point for point in read(self._path) if point["update"] <= update]
        write_whole(self._path, "".join(map(_line, points)))
        # A line at a time, for who reads along; closed by close().
        self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        # Each writes from a thread of its own.
        self._writers = {
            split: EventFileWriter(str(folder / "tensorboard" / split), flush_secs=10)
            for split in ("train", "eval")
        }
        for point in points:
            self._draw(point)

    def write(self, split: str, update: int, position: int, **values: float) -> None:
        """Logs a point of `split`, train or eval, after `update` updates of `position` examples."""
        point = {"split": split, "update": update, "position": position, **values}
        point["time"] = time.time()
        self._file.write(_line(point))
        self._draw(point)

    def _draw(self, point: dict[str, Any]) -> None:
        values = [
            Summary.Value(tag=tag, simple_value=point[name])
            for name, tag in TAGS.items()
            if name in point
        ]
        event = Event(wall_time=point["time"], step=point["update"], summary=Summary(value=values))
        self._writers[point["split"]].add_event(event)

    def flush(self) -> None:
        """To the disk: a checkpoint must not know of more than the log does."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes all files."""
        self._file.close()
        for writer in self._writers.values():
            writer.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The points of a metrics.jsonl, without a last line that a kill cut short."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _line(point: dict[str, Any]) -> str:
    return json.dumps(point) + "\n"
