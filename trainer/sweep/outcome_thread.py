"""Brings the outcomes of a sweep to its bucket in a thread, while points train."""

import pathlib
import threading
from collections.abc import Callable

from trainer.buckets.repeated import Repeated, caught
from trainer.sweep import outcomes
from trainer.sweep.grid import Point, folder
from trainer.sweep.outcomes import FILE, Content, Outcome
from trainer.sweep.shared_outcomes import SharedOutcomes
from trainer.system.output import log


class OutcomeThread:
    """Records outcomes in sweep.json in a bucket, and keeps a copy in the folder `path`.

    Args:
      shared: sweep.json in the bucket.
      path: the sweep's folder on this machine.
      place: URL of the sweep, for messages.
    """

    def __init__(self, shared: SharedOutcomes, path: pathlib.Path, place: str) -> None:
        self._shared, self._path = shared, path
        self._lock = threading.Lock()
        # Outcomes that the bucket may lack.
        self._pending: dict[str, tuple[Point, Outcome]] = {}
        self._due, self._closing = threading.Event(), threading.Event()
        self._exchange = Repeated(
            self._exchange_all,
            lambda reason: (
                f"{place}/{FILE} is not up to date: {reason}; recording the outcomes is repeated "
                "until it succeeds"
            ),
            f"{place}/{FILE} is up to date again",
        )
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def record(self, point: Point, end: Outcome) -> None:
        """Records an outcome on this machine, and soon in the bucket.

        Raises:
          OSError: if sweep.json cannot be written on this machine.
        """
        with self._lock:
            self._pending[folder(point)] = point, end
            outcomes.record_outcome(self._path, point, end)
        self._due.set()

    def read(self) -> dict[str, Outcome]:
        """Replaces this machine's copy of sweep.json by the bucket's; returns the outcomes.

        Raises:
          UnavailableError: if the bucket does not answer.
          OSError: if the copy cannot be written.
        """
        content = self._shared.read()
        self._keep(content)
        return content.outcomes()

    def close(self, stopped: Callable[[], bool], last: Callable[[], object]) -> bool:
        """Records the last outcomes, and calls `last`; returns whether the outcomes are recorded.

        Args:
          stopped: returns whether this process was asked to stop, so that it should not wait long.
          last: reads from the bucket what the sweep's table shows.
        """
        self._closing.set()
        self._due.set()
        self._thread.join()
        recorded = self._exchange.persist(stopped)
        if recorded and (error := caught(last)):
            log(f"the table may lack results of other machines: {error}")
        return recorded

    def _follow(self) -> None:
        while not self._closing.is_set():
            self._due.wait()
            self._due.clear()
            while self._pending and not self._exchange.attempt():
                if self._closing.wait(self._exchange.pause):
                    return

    def _exchange_all(self) -> None:
        with self._lock:
            sent = dict(self._pending)

        def edit(content: Content) -> None:
            for point, end in sent.values():
                content.record_late(point, end)

        new = self._shared.change(edit)
        with self._lock:
            for name, entry in sent.items():
                if self._pending[name] is entry:
                    del self._pending[name]
        self._keep(new)

    def _keep(self, content: Content) -> None:
        with self._lock:
            for point, end in self._pending.values():
                content.record_late(point, end)
            outcomes.replace(self._path, content)
