"""Repeats a request to a bucket until it succeeds, and reports a failure once."""

import time
from collections.abc import Callable

from trainer.system.output import log

POLL_SECONDS = 1.0
_LONGEST_PAUSE = 30.0  # Seconds between two attempts while the bucket does not answer.
# Seconds that the end of a command waits for a bucket that does not answer, and that it waits if a
# signal asked the command to stop.
PATIENCE, PATIENCE_AFTER_SIGNAL = 300.0, 30.0


def caught(call: Callable[[], object]) -> Exception | None:
    """Returns the error that `call` raises, or None; a thread must not end by an error."""
    try:
        call()
    except Exception as error:
        return error
    return None


class Repeated:
    """Makes a request again and again while it fails.

    Args:
      request: the request.
      failing: returns the message for the first failure, given the reason.
      succeeding: message for the first success after a failure.

    Attributes:
      pause: time to wait before the next attempt, in seconds; it grows with each failure.
    """

    def __init__(
        self, request: Callable[[], object], failing: Callable[[str], str], succeeding: str
    ) -> None:
        self._request, self._message, self._succeeding = request, failing, succeeding
        self._failing = False
        self.pause = POLL_SECONDS

    def attempt(self) -> bool:
        """Makes the request; returns True if it succeeded, and otherwise reports the error."""
        error = caught(self._request)
        if error and not self._failing:
            log(self._message(str(error) or type(error).__name__))
        elif self._failing and not error:
            log(self._succeeding)
        self._failing = error is not None
        self.pause = min(_LONGEST_PAUSE, 2 * self.pause) if error else POLL_SECONDS
        return error is None

    def persist(
        self,
        stopped: Callable[[], bool],
        patience: float | None = None,
        cannot_help: Callable[[], object] = lambda: False,
    ) -> bool:
        """Makes the request until it succeeds, at the end of a command.

        Args:
          stopped: returns whether this process was asked to stop, so that it should not wait long.
          patience: time to wait for a bucket that does not answer, in seconds (None: PATIENCE).
          cannot_help: returns whether further attempts cannot help.

        Returns:
          Whether the request succeeded.
        """
        begin, self.pause = time.monotonic(), POLL_SECONDS
        while not cannot_help():
            if self.attempt():
                return True
            longest = PATIENCE if patience is None else patience
            if time.monotonic() - begin > (PATIENCE_AFTER_SIGNAL if stopped() else longest):
                return False
            time.sleep(self.pause / 2)
        return False
