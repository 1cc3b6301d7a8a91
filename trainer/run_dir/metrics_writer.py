"""Writes logged points to metrics.jsonl and to TensorBoard's files.

A run that resumes rewrites TensorBoard's files from metrics.jsonl, so that no point is duplicated
or missing.
"""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterable
from typing import Any

from tensorboard.compat import tf as files
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.run_dir import directory, event_files, metrics, summaries, tensorboard_layout
from trainer.system import python_objects
from trainer.system.atomic_file import remove, write_atomic
from trainer.system.output import log
from trainer.system.regular_file import read_regular

# Python's and TensorBoard's files raise these errors if a disk is full or has been removed.
UNWRITABLE = (OSError, files.errors.OpError)
# Name of the file with a picture of the first training examples, after augmentation.
PICTURES = "augmented.png"
_MOST_BYTES = 2**24  # Largest size of this file; a grid of thumbnails has less than a megabyte.


class MetricsWriter:
    """Logs the points of the run in `folder`; drops existing points after `update`.

    If the run has not `evaluated` at `update`, an evaluation there is dropped, too: a kill came
    between its point and its checkpoint. If the disk is full, the writer reports the error, and
    keeps the points to write them later.
    """

    def __init__(self, folder: pathlib.Path, *, update: int, evaluated: bool = True) -> None:
        self._path = folder / metrics.FILE
        if not update:  # A run that was killed at its start may have left this file.
            remove(folder / PICTURES)
        last_evaluation = update if evaluated else update - 1
        points = [
            point
            for point in metrics.read(self._path, log)
            if point["update"] <= (update if point["split"] == "train" else last_evaluation)
        ]
        write_atomic(self._path, "".join(map(metrics.line, points)))
        # The file is unbuffered, so that readers see each point at once.
        self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
        self._size = self._file.seek(0, os.SEEK_END)
        self._unwritten, self._failing = b"", False
        self._on_log = python_objects.given().on_log
        self._curves: dict[str, EventFileWriter] | None = None
        self._draw_all()

    def write(self, split: str, update: int, position: int, **values: float | str) -> None:
        """Logs a point after `update` updates and `position` examples.

        `split` is one of metrics.SPLITS. TensorBoard receives only the values that metrics.TAGS
        names. The `on_log` of a Python program receives the whole point.
        """
        now = time.time()
        point = {"split": split, "update": update, "position": position, **values, "time": now}
        self._unwritten += metrics.line(point).encode()
        self._append()
        self._draw([point])
        if self._on_log:
            self._on_log(point)

    def _append(self) -> None:
        """Writes all unwritten points to metrics.jsonl, or none of them if a write fails."""
        try:
            self._file.seek(self._size)
            rest = self._unwritten
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            if not self._failing:
                later = "the points are kept in memory and written later"
                log(f"{self._path} cannot be written: {error.strerror}; {later}.")
            self._failing = True
            return
        self._size += len(self._unwritten)
        self._unwritten, self._failing = b"", False

    def _draw_all(self) -> None:
        folder = self._path.with_name("tensorboard")
        remove(folder)
        try:
            self._curves = {
                split: EventFileWriter(str(folder / split), flush_secs=10)
                for split in ("train", "eval")
            }
            now, train = time.time(), self._curves["train"]
            train.add_event(tensorboard_layout.event(now))
            for summary in self._start():
                train.add_event(Event(wall_time=now, step=0, summary=summary))
        except (*UNWRITABLE, RuntimeError) as error:  # RuntimeError: no thread can be started.
            self._curves = None
            log(f"{folder} cannot be written: {error}; it is written again later.")
            return
        self._draw(metrics.read(self._path))

    def _start(self) -> list[Summary]:
        """Returns summaries of the flags and the augmented pictures, read from the run's files."""
        folder, found = self._path.parent, []
        try:
            if flags := directory.kept_flags(folder):
                found.append(summaries.lines("flags", flags))
            found.append(
                summaries.image("augmented_pictures", read_regular(folder / PICTURES, _MOST_BYTES))
            )
        except FileNotFoundError:  # There is no picture yet, or an older version began the run.
            pass
        except OSError as error:
            log(f"TensorBoard does not show {error.filename}: {error.strerror}.")
        return found

    def keep_pictures(self, png: bytes) -> None:
        """Writes a picture of the first training examples, after augmentation.

        The picture is written to a file and to TensorBoard. A resumed run shows the file again.
        """
        path = self._path.with_name(PICTURES)
        try:
            write_atomic(path, png)
            if self._curves:
                picture = summaries.image("augmented_pictures", png)
                self._curves["train"].add_event(
                    Event(wall_time=time.time(), step=0, summary=picture)
                )
        except UNWRITABLE as error:
            log(f"{path} is not written: {error}")

    def _draw(self, points: Iterable[dict[str, Any]]) -> None:
        if self._curves is None:
            return
        try:
            for point in points:
                split = point["split"]
                if split not in self._curves:  # Only runs with averages have the split eval_ema.
                    folder = self._path.with_name("tensorboard") / split
                    self._curves[split] = EventFileWriter(str(folder), flush_secs=10)
                self._curves[split].add_event(_event(point))
        # The writer's thread could not write an earlier point, or the thread cannot be started. In
        # the second case, the error is a RuntimeError.
        except (*UNWRITABLE, RuntimeError) as error:
            self._curves = None
            log(f"TensorBoard's files cannot be written: {error}; they are written again later.")

    def flush(self) -> bool:
        """Writes all points to the disk; returns False if metrics.jsonl cannot be written.

        After a failure, the caller must not save a checkpoint: a run that resumes from it would
        lack the points that are not written.
        """
        if self._unwritten:
            self._append()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            log(f"{self._path} cannot be flushed: {error.strerror}.")
            return False
        if self._curves is None and not self._unwritten:
            self._draw_all()
        return not self._unwritten

    def close(self) -> None:
        """Flushes and closes all files."""
        try:
            self._file.close()
        except OSError as error:  # Over NFS, a write may fail only when the file is closed.
            log(f"{self._path} cannot be written: {error.strerror}.")
        for writer in (self._curves or {}).values():
            with contextlib.suppress(*UNWRITABLE):
                writer.close()


class NoMetricsWriter(MetricsWriter):
    """Replaces MetricsWriter on workers other than the chief; logs nothing."""

    def __init__(self) -> None:
        pass

    def write(self, split: str, update: int, position: int, **values: float | str) -> None:
        """Does nothing."""

    def keep_pictures(self, png: bytes) -> None:
        """Does nothing."""

    def flush(self) -> bool:
        """Returns True, because no point is unwritten."""
        return True

    def close(self) -> None:
        """Does nothing."""


def write_image(folder: pathlib.Path, tag: str, png: bytes) -> None:
    """Replaces the content of `folder` by an event file with a PNG picture for TensorBoard.

    Raises:
      OSError: if the file cannot be written; the error names the file.
    """
    event_files.replace(folder, [summaries.image(tag, png)])


def add_image(folder: pathlib.Path, tag: str, update: int, png: bytes) -> None:
    """Adds a PNG picture to the event files in `folder`, at step `update`.

    The MetricsWriter of these files must be closed already. A failure is only reported, because
    the picture is not a part of the run's result.
    """
    try:
        writer = EventFileWriter(str(folder))
        summary = summaries.image(tag, png)
        writer.add_event(Event(wall_time=time.time(), step=update, summary=summary))
        writer.close()
    except (*UNWRITABLE, RuntimeError) as error:  # RuntimeError: no thread can be started.
        log(f"{folder} lacks {tag}: {error}")


def _event(point: dict[str, Any]) -> Event:
    values = [
        Summary.Value(tag=tag, simple_value=point[name])
        for name, tag in metrics.TAGS.items()
        if name in point
    ]
    return Event(wall_time=point["time"], step=point["update"], summary=Summary(value=values))
