"""Writes TensorBoard's event files atomically, without TensorFlow."""

import io
import pathlib
import time
from collections.abc import Sequence

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from trainer.system.atomic_file import remove, write_atomic


def replace(folder: pathlib.Path, summaries: Sequence[Summary], step: int = 0) -> None:
    """Replaces the content of `folder` by one event file with `summaries`, all at step `step`.

    Raises:
      OSError: if the file cannot be written; the error names the file.
    """
    remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    content = io.BytesIO()
    # This uses RecordWriter, because EventFileWriter reports a full disk only in its own thread.
    records = RecordWriter(content)
    records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for summary in summaries:
        records.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
    write_atomic(folder / f"events.out.tfevents.{now:.0f}", content.getvalue())
