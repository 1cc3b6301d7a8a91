"""Rows of TensorBoard's HParams table: a point of a sweep, and how it ended.

This module writes the plugin's messages itself, because the plugin's own functions import
TensorFlow, which takes five seconds and half a gigabyte.
"""

import pathlib
import time
from collections.abc import Mapping

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from trainer.run_dir import event_files


def write(run: pathlib.Path, flags: Mapping[str, str], results: Mapping[str, float] | None) -> None:
    """Adds the run in the directory `run` to the table, in place of an earlier row of this run.

    Args:
      run: the run directory; the last part of its path names the row.
      flags: values of the swept flags; a value that is a number is shown as a number.
      results: values of the result columns; None if the run failed.

    Raises:
      OSError: if the file cannot be written.
    """
    now = time.time()
    began = SessionStartInfo(group_name=run.name, start_time_secs=now)
    for name, value in flags.items():
        number = _number(value)
        if number is None:
            began.hparams[name].string_value = value
        else:
            began.hparams[name].number_value = number
    status = STATUS_FAILURE if results is None else STATUS_SUCCESS
    ended = SessionEndInfo(status=status, end_time_secs=now)
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in (results or {}).items()]
    event_files.replace(
        run / "tensorboard" / "hparams",
        [
            _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=began)),
            Summary(value=scalars),
            _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=ended)),
        ],
        step=round((results or {}).get("updates", 0)),
    )


def _summary(tag: str, data: HParamsPluginData) -> Summary:
    value = Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
