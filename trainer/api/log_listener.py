"""Passes logged points to the caller's function, and stops the run if the function fails."""

from collections.abc import Callable
from typing import Any


class LogListener:
    """Calls the caller's `on_log`, unless this is None, until it raises an error."""

    def __init__(self, on_log: Callable[[dict[str, Any]], None] | None) -> None:
        self._on_log = on_log
        self._error: BaseException | None = None

    def __call__(self, point: dict[str, Any]) -> None:
        """Passes on a copy of a logged point, which the caller may change."""
        if self._on_log is None or self._error is not None:
            return
        try:
            self._on_log(dict(point))
        except BaseException as error:  # SystemExit and KeyboardInterrupt too.
            # The training loop stops at its next check, with a checkpoint.
            self._error = error

    def failed(self) -> bool:
        """Returns whether the caller's function has raised an error."""
        return self._error is not None

    def raise_error(self) -> None:
        """Raises the error of the caller's function, if there was one."""
        if self._error is not None:
            raise self._error
