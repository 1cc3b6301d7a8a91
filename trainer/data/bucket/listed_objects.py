"""Reads the objects of a listing, and waits for a bucket that does not answer."""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from trainer.buckets.objects import ConflictError, Objects, Stat, UnavailableError
from trainer.buckets.url import BucketUrl
from trainer.data.bucket.placeholders import Listing
from trainer.errors import ExitError, UserError
from trainer.run_dir.bucket_connection import patiently

# Seconds for which a run waits for a bucket that does not answer.
_PATIENCE = 600.0
_Answer = TypeVar("_Answer")


class ListedObjects:
    """Objects of a folder in a bucket, which must not change after the listing.

    Args:
      url: URL of the folder.
      objects: objects of the folder.
      listing: sizes, times and tags of the objects, by name.

    Attributes:
      url: URL of the folder.
      listing: sizes, times and tags of the objects, by name.
      failure: the first error within `noted`; None if there was none.
    """

    def __init__(self, url: BucketUrl, objects: Objects, listing: Listing) -> None:
        self.url, self.listing = url, listing
        self.failure: ExitError | None = None
        self._objects = objects
        self._waiting = threading.Lock()  # Held by the thread that reports a failure.

    def download(self, name: str, path: pathlib.Path) -> None:
        """Writes the content of an object to the file `path`.

        Raises:
          MissingError: if the object does not exist any longer.
          ExitError: if the bucket does not answer for minutes, or the object has changed.
          OSError: if the file cannot be written.
        """

        def request() -> Stat:
            with open(path, "wb") as file:  # A repeated request begins anew.
                stat = self._objects.download(name, file)
            if path.stat().st_size != stat.size:
                raise UnavailableError(f"its answer for {name} was cut off")
            return stat

        self._check(name, self._answered(request))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Returns the bytes of an object from position `start` to `stop`.

        Raises:
          MissingError: if the object does not exist any longer.
          ExitError: if the bucket does not answer for minutes, or the object has changed.
        """

        def request() -> bytes:
            try:
                content, stat = self._objects.read_range(name, start, stop)
            except ConflictError as error:
                raise self._changed(name) from error
            self._check(name, stat)
            if len(content) != stop - start:
                raise UnavailableError(f"its answer for {name} was cut off")
            return content

        with self.noted():
            return self._answered(request)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keeps the error in `failure`, because TensorFlow replaces it by one of its own."""
        try:
            yield
        except ExitError as error:
            self.failure = self.failure or error
            raise

    def _check(self, name: str, stat: Stat) -> None:
        # Services may tell another time in the answer than in a listing.
        listed = self.listing[name]
        if (stat.size, stat.tag) != (listed.size, listed.tag):
            raise self._changed(name)

    def _changed(self, name: str) -> UserError:
        return UserError(
            f"{self.url}/{name} has changed since this process listed it.\n"
            "Give the same command again, once the data no longer change."
        )

    def _answered(self, request: Callable[[], _Answer]) -> _Answer:
        return patiently(
            self.url, request, patience=_PATIENCE, repeat_if_refused=True, reporter=self._waiting
        )
