"""Profiles the updates that --profile_updates names, for TensorBoard's profile page."""

import contextlib
import pathlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import tensorflow as tf

from trainer.config.number_range import NumberRange
from trainer.system.output import log

# The profile has events of the host's operations and of the device's kernels, but not of Python
# functions.
_OPTIONS = tf.profiler.experimental.ProfilerOptions(2, 0, 1)


class UpdateProfiler:
    """Records a range of updates with TensorFlow's profiler, as a context around the training loop.

    If an evaluation or a checkpoint comes between these updates, the profile includes it.
    """

    def __init__(self, updates: NumberRange | None, folder: pathlib.Path) -> None:
        """Prepares to record `updates` in `folder`; if `updates` is None, nothing is recorded."""
        self._updates, self._folder = updates, folder
        self._first = self._last = 0  # First and last recorded update; 0: nothing is recorded yet.
        self._recording = False

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
        elif self._updates and not self._first and not kind:
            what = f"--profile_updates={self._updates}"
            log(f"{what}: this call has not trained any of these updates")

    def most_updates(self, update: int) -> int | None:
        """Returns the number of updates from `update` to the next start or end of the recording.

        Returns None if the recording neither starts nor ends after `update`.
        """
        if self._updates is None:
            return None
        ends = self._updates.first - 1, self._updates.last
        return next((end - update for end in ends if end > update), None)

    def before(self, update: int) -> None:
        """Starts to record if the next update, `update` + 1, is in the range."""
        if self._updates and not self._first and update + 1 in self._updates:
            self._first, self._last = update + 1, update
            with self._logged_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
                tf.profiler.experimental.start(str(self._folder), _OPTIONS)
                self._recording = True

    def after(self, update: int) -> None:
        """Notes that `update` is trained; writes the profile if `update` completes the range."""
        if self._updates and self._recording:
            self._last = update
            if update >= self._updates.last:
                self._stop()

    def _stop(self) -> None:
        self._recording = False
        with self._logged_errors():
            tf.profiler.experimental.stop()
            recorded = f"the profile of updates {self._first} to {self._last}"
            log(f"{recorded} is in {self._folder}; docs/speed.md explains how to read it")

    @contextlib.contextmanager
    def _logged_errors(self) -> Iterator[None]:
        """Logs an error of the profiler, because a profile must not end the run."""
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            log(f"{self._folder} lacks the profile: {str(error).splitlines()[0]}")
