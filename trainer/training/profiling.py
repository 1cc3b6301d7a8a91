"""Profiles some updates of a run, for the profile page of TensorBoard."""

import pathlib
from types import TracebackType
from typing import Self

import tensorflow as tf

from trainer.config.profile_range import ProfileRange
from trainer.system.output import log

# Events of the host's operations and of the device's kernels; no events of Python functions.
_OPTIONS = tf.profiler.experimental.ProfilerOptions(2, 0, 1)


class UpdateProfiler:
    """Records the updates of a range with TensorFlow's profiler, as a context around the loop.

    The profile includes an evaluation or a checkpoint between these updates.
    """

    def __init__(self, updates: ProfileRange | None, folder: pathlib.Path) -> None:
        """Records `updates` in `folder`; None records nothing."""
        self._updates, self._folder = updates, folder
        self._recording, self._recorded = False, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._recording:
            self._stop()
        elif self._updates and not self._recorded and not kind:
            what = f"--profile_updates={self._updates}"
            log(f"{what}: this call has not trained any of these updates")

    def most_updates(self, update: int) -> int | None:
        """Returns the number of updates after `update` until the recording starts or stops.

        None: it does neither.
        """
        if self._updates is None:
            return None
        ends = self._updates.first - 1, self._updates.last
        return next((end - update for end in ends if end > update), None)

    def before(self, update: int) -> None:
        """Starts to record if the first update after `update` is in the range."""
        if self._updates and not self._recording and update + 1 in self._updates:
            self._folder.mkdir(parents=True, exist_ok=True)
            tf.profiler.experimental.start(str(self._folder), _OPTIONS)
            self._recording = True

    def after(self, update: int) -> None:
        """Writes the profile if `update` is the last of the range."""
        if self._updates and self._recording and update >= self._updates.last:
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._recording, self._recorded = False, True
        log(f"the profile of updates {self._updates} is in {self._folder}; docs/speed.md reads it")
