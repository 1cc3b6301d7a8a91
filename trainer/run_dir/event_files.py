"""TensorBoard's event files, written in one piece and without TensorFlow."""

import io
import pathlib
import time
from collections.abc import Sequence

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from trainer.system.atomic_file import remove, write_atomic

_VERSION = "brain.Event:2"  # in their first record


def replace(folder: pathlib.Path, summaries: Sequence[Summary], step: int = 0) -> None:
    """Makes `summaries`, all of `step`, what TensorBoard finds in `folder`.

    Raises:
      OSError: where they cannot be written, with the file's name.
    """
    remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    content = io.BytesIO()
    # TensorBoard's own writer of files raises on a full disk from a thread.
    records = RecordWriter(content)
    records.write(Event(wall_time=now, file_version=_VERSION).SerializeToString())
    for summary in summaries:
        records.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
    write_atomic(folder / f"events.out.tfevents.{now:.0f}", content.getvalue())
