"""A folder of data in a bucket, whose files are fetched into a local folder.

A thread fetches all files that a run needs, while the run already trains. A file that is needed
earlier is fetched at once. Of a large file, single parts can be read from the bucket until the
whole file is there.
"""

import concurrent.futures
import contextlib
import errno
import os
import pathlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from trainer.buckets import objects as buckets
from trainer.buckets.objects import MissingError, Objects, RefusedError, Stat, UnavailableError
from trainer.buckets.url import BucketUrl
from trainer.data.bucket import placeholders, room
from trainer.errors import ExitError, NotSavedError, TryAgainError, UserError
from trainer.system import file_lock
from trainer.system.atomic_file import flush
from trainer.system.output import log
from trainer.system.regular_file import opener

# Requests of one process at a time: for what is needed at once, and for what is fetched ahead. At
# 30 ms a request, 64 requests at a time fetch up to 2,100 pictures/s.
_AT_ONCE, _AHEAD = 64, 8
# Seconds for which a run waits for a bucket that does not answer.
_PATIENCE = 600.0
# Smaller files need no flush: if one is damaged by a power failure, its decoder reports it.
_FLUSHED = 2**20
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


class BucketFolder:
    """A folder in a bucket, and the local folder that has its files or placeholders for them.

    Args:
      url: URL of the folder.
      objects: objects of the folder.
      path: the local folder.
      parts: another folder on the same disk, for files that are not complete.
      stats: size and time of each object, by its path in the folder.

    Attributes:
      url: URL of the folder.
      path: the local folder.
      failure: the first error that ended a request of this process; None if there was none.
    """

    def __init__(
        self,
        url: BucketUrl,
        objects: Objects,
        path: pathlib.Path,
        parts: pathlib.Path,
        stats: Mapping[str, Stat],
    ) -> None:
        self.url, self.path = url, path
        self.failure: ExitError | None = None
        self._objects, self._parts, self._stats = objects, parts, stats
        self._threads = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)
        self._waiting = threading.Lock()  # Held by a thread that waits for the bucket.

    @property
    def objects(self) -> int:
        """Number of objects in the folder."""
        return len(self._stats)

    def name(self, path: str) -> str:
        """Returns the name of the object of a file in the local folder."""
        return os.path.relpath(path, self.path)

    def stat(self, path: str) -> Stat:
        """Returns the size and the time of a file's object."""
        return self._stats[self.name(path)]

    def each(self, call: Callable[[_Item], _Answer], items: Iterable[_Item]) -> list[_Answer]:
        """Returns call(item) for each item; the calls run in up to 64 threads."""
        return list(self._threads.map(call, items))

    def bring(self, paths: Iterable[str]) -> None:
        """Fetches the files that are placeholders; removes those whose objects are missing.

        Raises:
          ExitError: if the bucket does not answer for minutes, an object has changed, or the disk
            is full.
        """
        missing = [path for path in paths if placeholders.is_placeholder(path)]
        if len(missing) == 1:
            self._fetch(missing[0])
        elif missing:
            self.each(self._fetch, missing)

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Returns the bytes of a file from position `start` to `stop`, from the bucket.

        Raises:
          MissingError: if the object does not exist any longer.
          ExitError: as `bring`.
        """
        with self._noted():
            name = self.name(path)

            def request() -> tuple[bytes, Stat]:
                content, stat = self._objects.read_range(name, start, stop)
                if stat == self._stats[name] and len(content) != stop - start:
                    raise UnavailableError(f"its answer for {name} was cut off")
                return content, stat

            content, stat = self._answered(request)
            self._check(name, stat)
            return content

    def discard(self, path: str) -> None:
        """Makes a damaged file a placeholder, so that the next process fetches it again."""
        log(f"{path} is damaged; what cannot be read in it is read from {self.url}")
        with contextlib.suppress(OSError):
            os.utime(path, (0, 0))

    def need(self, paths: Iterable[str], what: str, *, now: bool = False) -> None:
        """Makes room for the files at `paths`, and fetches them.

        Args:
          paths: paths in the local folder.
          what: name of the files, for messages.
          now: whether to wait for the files, instead of fetching them in threads.

        Raises:
          UserError: if the disk has too little room.
          ExitError: if `now`, as `bring`.
        """
        missing = [path for path in paths if placeholders.is_placeholder(path)]
        if not missing:
            return
        size = sum(self.stat(path).size for path in missing)

        def refusal(free: int) -> str:
            return (
                f"the files of {what} take {readable_size(size)} in {self.url}, and the disk of "
                f"{self._parts.parent} has {readable_size(free)} free.\n"
                "Free disk space, or name a folder on a larger disk with --cache_dir."
            )

        room.make(self._parts.parent, size, refusal)
        files = "1 file" if len(missing) == 1 else f"{len(missing):,} files"
        log(f"fetching {files} of {what}, {readable_size(size)}, from {self.url} to {self.path}")
        if now:
            self.bring(missing)
        else:
            threading.Thread(target=self._fetch_ahead, args=(missing, what), daemon=True).start()

    def _fetch_ahead(self, paths: list[str], what: str) -> None:
        """Fetches the files at `paths`, unless another process on this machine does it."""
        begin, rest = time.monotonic(), iter(paths)
        failed: list[Exception] = []

        def follow() -> None:
            while not failed and (path := next(rest, None)) is not None:
                try:
                    if placeholders.is_placeholder(path):
                        self._fetch(path, noted=False)
                except Exception as error:
                    failed.append(error)

        with open(self._parts.parent / "fetching", "ab", opener=opener) as lock:
            file_lock.take(lock, wait=True)
            threads = [threading.Thread(target=follow, daemon=True) for _ in range(_AHEAD)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failed:
            reason = str(failed[0]).partition("\n")[0]
            log(f"the other files of {what} are fetched when they are needed: {reason}")
        else:
            log(f"fetched all files of {what} in {time.monotonic() - begin:.0f} s")

    def _fetch(self, path: str, noted: bool = True) -> None:
        """Fetches a file; removes its placeholder if the object is missing."""
        name, part = self.name(path), self._parts / secrets.token_hex(8)

        def download() -> Stat:
            with open(part, "wb") as file:  # A repeated request begins anew.
                stat = self._objects.download(name, file)
            if part.stat().st_size != stat.size:
                raise UnavailableError(f"its answer for {name} was cut off")
            return stat

        with self._noted() if noted else contextlib.nullcontext(), self._written(part):
            try:
                stat = self._answered(download)
            except MissingError:
                pathlib.Path(path).unlink(missing_ok=True)
                return
            self._check(name, stat)
            if stat.size >= _FLUSHED:
                flush(part)
            os.utime(part, (stat.modified, stat.modified))
            os.replace(part, path)

    @contextlib.contextmanager
    def _written(self, part: pathlib.Path) -> Iterator[None]:
        """Removes the incomplete file `part`, and translates errors of the disk."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "Free disk space" if full else "Make the folder writable"
            raise NotSavedError(
                f"{self._parts.parent} cannot be written: {error.strerror}.\n"
                f"{remedy}, and give the same command again."
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _check(self, name: str, stat: Stat) -> None:
        if stat != self._stats[name]:
            raise UserError(
                f"{self.url}/{name} has changed since this process listed it.\n"
                "Give the same command again, once the data no longer change."
            )

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Keeps the error in `failure`, because TensorFlow replaces it by one of its own."""
        try:
            yield
        except ExitError as error:
            self.failure = self.failure or error
            raise

    def _answered(self, request: Callable[[], _Answer]) -> _Answer:
        """Returns what `request` returns; repeats it while the bucket does not answer.

        Raises:
          MissingError: if the object does not exist.
          TryAgainError: if the bucket does not answer for minutes.
          UserError: if the bucket refuses the request for minutes.
        """
        end, told = time.monotonic() + _PATIENCE, False
        try:
            while True:
                try:
                    return request()
                except UnavailableError as error:
                    if time.monotonic() > end:
                        if isinstance(error, RefusedError):
                            raise UserError(buckets.refusal(self.url, error)) from error
                        raise TryAgainError(
                            f"{self.url} cannot be reached: {error}.\n"
                            "Check the network, and give the same command again."
                        ) from error
                    if not told and (told := self._waiting.acquire(blocking=False)):
                        log(f"{self.url} cannot be read: {error}; trying for {_PATIENCE:g} s")
                    time.sleep(min(5, _PATIENCE / 10))
        finally:
            if told:
                self._waiting.release()


def readable_size(size: int) -> str:
    """Returns a number of bytes in GB or MB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
