"""Copies a run directory to its bucket in a thread, while the run trains and until it ends."""

import pathlib
import threading
from collections.abc import Callable

from trainer.buckets.lease import Lease
from trainer.buckets.repeated import Repeated, caught
from trainer.errors import TryAgainError
from trainer.run_dir import checkpoint_names
from trainer.run_dir.mirror import Mirror
from trainer.system.output import log


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
        self._copy = Repeated(
            mirror.copy,
            lambda reason: (
                f"{place} is not up to date: {reason}; the copy is repeated until it succeeds, and "
                f"{folder} has all files"
            ),
            f"{place} is up to date again",
        )
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        copied = None
        while not self._closing.wait(self._copy.pause):
            state = self._state()
            if self._lease.lost():  # This is asked last, so that no later state is copied.
                return
            if (state is None or state != copied) and self._copy.attempt():
                copied = state
                caught(self._mirror.clean)

    def _state(self) -> tuple[bool, list[str]] | None:
        """Returns what decides that a copy is due: the existence of the flags and checkpoints.

        Returns None if the checkpoints cannot be listed.
        """
        found: list[pathlib.Path] = []
        if caught(lambda: found.extend(checkpoint_names.found(self._folder / "checkpoints"))):
            return None
        return (self._folder / "flags.txt").exists(), [path.name for path in found]

    def close(self, stopped: Callable[[], bool], patience: float | None = None) -> None:
        """Copies the last state of the run, and releases the lease.

        Args:
          stopped: returns whether this process was asked to stop, so that it should not wait long.
          patience: time to wait for a bucket that does not answer, in seconds (None: 5 minutes).

        Raises:
          TryAgainError: if this process has lost the lease, or the bucket does not answer.
        """
        self._closing.set()
        self._thread.join()
        try:
            copied = self._copy.persist(stopped, patience, self._lease.lost)
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
