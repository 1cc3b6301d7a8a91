"""Copies a run directory to its bucket in a thread, while the run trains and until it ends."""

import os
import pathlib
import signal
import threading
import time

from trainer.buckets.lease import Lease
from trainer.buckets.objects import UnavailableError
from trainer.errors import NotSavedError
from trainer.run_dir import checkpoint_names
from trainer.run_dir.mirror import Mirror
from trainer.system.output import log

_POLL_SECONDS = 1.0
_LONGEST_PAUSE = 30.0  # Seconds between two attempts while the bucket does not answer.
# Seconds that the end of a run waits for a bucket that does not answer.
_PATIENCE = 300.0


class MirrorThread:
    """Copies the run directory `folder` to the bucket whenever a checkpoint appears.

    Training does not wait for the copies. If the lease is lost, the thread stops the run as SIGTERM
    does.

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
        while not self._closing.wait(pause):
            if self._lease.taken_by():
                os.kill(os.getpid(), signal.SIGTERM)  # Training saves a checkpoint, and ends.
                return
            pause = _POLL_SECONDS
            state = self._state()
            if state == copied:
                continue
            if self._copied():
                copied = state
            else:
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _state(self) -> tuple[bool, list[str]]:
        """Returns what decides that a copy is due: the existence of the flags and checkpoints."""
        checkpoints = checkpoint_names.found(self._folder / "checkpoints")
        return (self._folder / "flags.txt").exists(), [path.name for path in checkpoints]

    def _copied(self) -> bool:
        """Copies what changed; returns True if that succeeded, and otherwise reports the error."""
        try:
            self._mirror.copy()
        except (UnavailableError, OSError) as error:
            if not self._failing:
                log(
                    f"{self._place} is not up to date: {error}; the copy is repeated until it "
                    f"succeeds, and {self._folder} has all files"
                )
            self._failing = True
            return False
        if self._failing:
            log(f"{self._place} is up to date again")
        self._failing = False
        return True

    def close(self) -> None:
        """Copies the last state of the run, and releases the lease.

        Raises:
          NotSavedError: if another process has taken the lease, or the bucket does not answer.
        """
        self._closing.set()
        self._thread.join()
        end, pause = time.monotonic() + _PATIENCE, _POLL_SECONDS
        while not (copied := not self._lease.taken_by() and self._copied()):
            if self._lease.taken_by() or time.monotonic() > end:
                break
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        self._lease.release()
        if process := self._lease.taken_by():
            raise NotSavedError(
                f"{self._place} was taken over by {process}, because this process did not renew "
                f"its lease in time.\nThe run goes on there; {self._folder} is not used any more."
            )
        if not copied:
            raise NotSavedError(
                f"{self._place} lacks the newest files of the run, which are in {self._folder}.\n"
                "Give the same command again on this machine, when the bucket can be reached."
            )
        log(f"{self._place} has all files of the run")
