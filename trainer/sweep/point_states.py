"""Asks a bucket in threads whether points of a sweep may be trained."""

import concurrent.futures
import time
from collections.abc import Callable

from trainer.buckets.objects import UnavailableError
from trainer.errors import TryAgainError
from trainer.sweep.sweep_folder import State
from trainer.system.output import log

# Seconds for which an answer counts.
_COUNTS = {State.FREE: 1.0, State.BUSY: 3.0, State.UNKNOWN: 3.0}
_AT_ONCE = 4
_PATIENCE = 180.0  # Seconds that a sweep waits for a bucket that does not answer.


class PointStates:
    """Tells whether points may be trained, without waiting for the bucket.

    Args:
      may_start: asks the bucket whether a point may be trained; raises an UnavailableError if the
        bucket does not answer.
      place: URL of the sweep, for messages.
    """

    def __init__(self, may_start: Callable[[str], bool], place: str) -> None:
        self._may_start, self._place = may_start, place
        self._pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)
        self._asked: dict[str, concurrent.futures.Future[tuple[bool, float]]] = {}
        # Last answer for each point, and when it came.
        self._known: dict[str, tuple[State, float]] = {}
        self._away_since: float | None = None

    def state(self, name: str) -> State:
        """Returns the last answer, and asks the bucket if that is older than some seconds.

        Raises:
          TryAgainError: if the bucket has not answered for some minutes.
        """
        if name in self._asked and self._asked[name].done():
            self._known[name] = self._answer(self._asked.pop(name))
        state, when = self._known.get(name, (State.UNKNOWN, float("-inf")))
        if time.monotonic() - when < _COUNTS[state]:
            return state
        if name not in self._asked and len(self._asked) < _AT_ONCE:
            self._asked[name] = self._pool.submit(self._ask, name)
        return State.BUSY if state is State.BUSY else State.UNKNOWN

    def set_busy(self, name: str) -> None:
        """Makes the last answer that another process trains the point."""
        self._known[name] = State.BUSY, time.monotonic()

    def close(self) -> None:
        """Sends no further requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, name: str) -> tuple[bool, float]:
        """Returns the bucket's answer, and when it came."""
        return self._may_start(name), time.monotonic()

    def _answer(self, asked: concurrent.futures.Future[tuple[bool, float]]) -> tuple[State, float]:
        try:
            free, when = asked.result()
        except UnavailableError as error:
            now = time.monotonic()
            if self._away_since is None:
                log(f"{self._place} cannot be reached: {error}; trying for {_PATIENCE:g} s")
                self._away_since = now
            if now - self._away_since > _PATIENCE:
                raise TryAgainError(f"{self._place} cannot be reached: {error}.") from error
            return State.UNKNOWN, now
        self._away_since = None
        return (State.FREE if free else State.BUSY), when
