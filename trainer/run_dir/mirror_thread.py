"""Copies a run directory to its bucket in a thread, while the run trains and until it ends."""

import pathlib
import threading
import time
from collections.abc import Callable

from trainer.buckets.lease import Lease
from trainer.errors import TryAgainError
from trainer.run_dir import checkpoint_names
from trainer.run_dir.mirror import Mirror
from trainer.system.output import log

_POLL_SECONDS = 1.0
_LONGEST_PAUSE = 30.0  # Seconds between two attempts while the bucket does not answer.
# Seconds that the end of a run waits for a bucket that does not answer, and that it waits if a
# signal asked the run to stop.
_PATIENCE, _PATIENCE_AFTER_SIGNAL = 300.0, 30.0


class MirrorThread:
    """Copies the run directory `folder` to the bucket whenever a checkpoint appears.

    Training does not wait for the copies.

    Args:
      mirror: copies the files.
      folder: run directory.
      lease: the lease of the run.
      place: URL of the run, for messages.
    """

    def __init__(self, mirror: Mirror, folder: pathlib.Path, lease: Lease, place: str) -> None:
        self._mirror, self._folder, self._lease, self._place = mirror, folder, lease, place
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        copied, pause = None, _POLL_SECONDS
        while not self._closing.wait(pause) and not self._lease.lost():
            state = self._state()
            if state is not None and state == copied:
                continue
            if self._copied():
                copied, pause = state, _POLL_SECONDS
                self._try(self._mirror.clean)
            else:
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _state(self) -> tuple[bool, list[str]] | None:
        """Returns what decides that a copy is due: the existence of the flags and checkpoints.

        Returns None if the checkpoints cannot be listed.
        """
        found: list[pathlib.Path] = []
        if self._try(lambda: found.extend(checkpoint_names.found(self._folder / "checkpoints"))):
            return None
        return (self._folder / "flags.txt").exists(), [path.name for path in found]

    @staticmethod
    def _try(call: Callable[[], object]) -> Exception | None:
        """Returns the error that `call` raises, because the thread must not end by it."""
        try:
            call()
        except Exception as error:
            return error
        return None

    def _copied(self) -> bool:
        """Copies what changed; returns True if that succeeded, and otherwise reports the error."""
        error = self._try(self._mirror.copy)
        if error and not self._failing:
            reason = str(error) or type(error).__name__
            log(
                f"{self._place} is not up to date: {reason}; the copy is repeated until it "
                f"succeeds, and {self._folder} has all files"
            )
        elif self._failing and not error:
            log(f"{self._place} is up to date again")
        self._failing = error is not None
        return error is None

    def close(self, stopped: Callable[[], bool], patience: float = _PATIENCE) -> None:
        """Copies the last state of the run, and releases the lease.

        Args:
          stopped: returns whether this process was asked to stop, so that it should not wait long.
          patience: time to wait for a bucket that does not answer, in seconds.

        Raises:
          TryAgainError: if this process has lost the lease, or the bucket does not answer.
        """
        self._closing.set()
        self._thread.join()
        begin, pause, copied = time.monotonic(), _POLL_SECONDS, False
        try:
            while not self._lease.lost() and not (copied := self._copied()):
                waited = time.monotonic() - begin
                if waited > (_PATIENCE_AFTER_SIGNAL if stopped() else patience):
                    break
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)
        finally:
            self._lease.release()
        if why := self._lease.lost():
            raise TryAgainError(
                f"the end of this run is not in {self._place}: {why}.\n"
                f"The files of this process are in {self._folder}."
            )
        if not copied:
            raise TryAgainError(
                f"{self._place} lacks the newest files of the run, which are in {self._folder}.\n"
                "Give the same command again on this machine, when the bucket can be reached."
            )
        if (self._folder / "flags.txt").exists():
            log(f"{self._place} has all files of the run")
