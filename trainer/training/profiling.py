"""Profiles some updates of a run, for the profile page of TensorBoard."""

import contextlib
import pathlib
from collections.abc import Iterator
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
        self._first = self._last = 0  # The recorded updates; 0: none.
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
        """Returns the number of updates after `update` until the recording starts or stops.

        None: it does neither.
        """
        if self._updates is None:
            return None
        ends = self._updates.first - 1, self._updates.last
        return next((end - update for end in ends if end > update), None)

    def before(self, update: int) -> None:
        """Starts to record if the first update after `update` is in the range."""
        if self._updates and not self._first and update + 1 in self._updates:
            self._first, self._last = update + 1, update
            with self._logged_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
                tf.profiler.experimental.start(str(self._folder), _OPTIONS)
                self._recording = True

    def after(self, update: int) -> None:
        """Notes that `update` is trained; writes the profile if it is the last of the range."""
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
