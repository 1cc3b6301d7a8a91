"""Writes the rows of TensorBoard's HParams table: a row for each run of a sweep.

A row shows the values of the swept flags and the results of the run. This module writes the
protocol buffers of TensorBoard's HParams plugin itself. The plugin's own functions import
TensorFlow, which takes five seconds and half a gigabyte of memory.
"""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from trainer.run_dir import event_files


def write(run: pathlib.Path, flags: Mapping[str, str], results: Mapping[str, float] | None) -> None:
    """Writes the row of a run, and replaces an earlier row of the same run.

    Args:
      run: the run directory; the last part of its path becomes the name of the row.
      flags: values of the swept flags; the table shows texts such as "0.1" as numbers.
      results: values of the result columns; None if the run failed.

    Raises:
      OSError: if the file cannot be written.
    """
    now = time.time()
    began = plugin_data_pb2.SessionStartInfo(group_name=run.name, start_time_secs=now)
    for name, value in flags.items():
        try:
            began.hparams[name].number_value = float(value)
        except ValueError:
            began.hparams[name].string_value = value
    status = api_pb2.STATUS_FAILURE if results is None else api_pb2.STATUS_SUCCESS
    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now)
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in (results or {}).items()]
    event_files.replace(
        run / "tensorboard" / "hparams",
        [
            _summary(metadata.SESSION_START_INFO_TAG, session_start_info=began),
            Summary(value=scalars),
            _summary(metadata.SESSION_END_INFO_TAG, session_end_info=ended),
        ],
        step=round((results or {}).get("updates", 0)),
    )


def _summary(tag: str, **content: Any) -> Summary:
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, metadata=data, tensor=metadata.NULL_TENSOR)])
