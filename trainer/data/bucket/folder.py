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
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from trainer.buckets.objects import MissingError
from trainer.data.bucket import disk_space, placeholders
from trainer.data.bucket.listed_objects import ListedObjects
from trainer.errors import NotSavedError, UserError
from trainer.system import file_lock
from trainer.system.atomic_file import flush
from trainer.system.output import log
from trainer.system.regular_file import opener

# Requests of one process at a time: for what is needed at once, and for what is fetched ahead. At
# 30 ms a request, 64 requests at a time fetch up to 2,100 pictures/s.
_AT_ONCE, _AHEAD = 64, 8
_BLOCK = 4096  # Bytes that most file systems give a file at least.
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


class BucketFolder:
    """A folder in a bucket, and the local folder that has its files or placeholders for them.

    Args:
      source: the objects of the folder, by the paths of their files.
      path: the local folder.
      parts: another folder on the same disk, for files that are not complete.

    Attributes:
      url: URL of the folder.
      source: the objects of the folder, by the paths of their files.
      path: the local folder.
    """

    def __init__(self, source: ListedObjects, path: pathlib.Path, parts: pathlib.Path) -> None:
        self.url, self.source, self.path = source.url, source, path
        self._parts = parts
        self._needed: dict[str, int] = {}  # Sizes of the files that this process needs.
        self._damaged: set[str] = set()
        self._repaired: dict[str, bool] = {}  # Whether a file that was fetched again had changed.
        self._repairing = threading.Lock()
        self._threads = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)

    def name(self, path: str) -> str:
        """Returns the name of the object of a file in the local folder."""
        return os.path.relpath(path, self.path)

    def size(self, path: str) -> int:
        """Returns the size of a file's object, in bytes."""
        return self.source.listing[self.name(path)].size

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
        with self.source.noted():
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
        return self.source.read_range(self.name(path), start, stop)

    def discard(self, path: str) -> None:
        """Makes a damaged file a placeholder, so that the next process fetches it again."""
        if path not in self._damaged:
            self._damaged.add(path)
            log(f"{path} is damaged; what cannot be read in it is read from {self.url}")
            with contextlib.suppress(OSError):
                os.utime(path, (0, 0))

    def fetch_again(self, path: str) -> bool:
        """Fetches a file that cannot be decoded once more; returns whether its content changed.

        A file is fetched again once; later calls return the same.

        Raises:
          ExitError: as `bring`.
        """
        with self._repairing, self.source.noted():
            if path not in self._repaired:
                before = self._content(path)
                self._fetch(path)
                self._repaired[path] = self._content(path) != before
                if self._repaired[path]:
                    log(f"{path} was damaged, and is fetched again from {self.url}")
            return self._repaired[path]

    @staticmethod
    def _content(path: str) -> bytes:
        try:
            return pathlib.Path(path).read_bytes()
        except OSError:
            return b""

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
        self._needed |= {path: self.size(path) for path in missing}
        # What was needed before may not be there yet.
        sizes = [n for path, n in self._needed.items() if placeholders.is_placeholder(path)]

        def refusal(free: int) -> str:
            return (
                f"the files of this run take {readable_size(sum(sizes))} more of {self.url}, and "
                f"the disk of {self._parts.parent} has {readable_size(free)} free.\n"
                "Free disk space, or name a folder on a larger disk with --cache_dir."
            )

        blocks = sum(-(-n // _BLOCK) for n in sizes)
        disk_space.make_room(self._parts.parent, blocks * _BLOCK, refusal)
        files = "1 file" if len(missing) == 1 else f"{len(missing):,} files"
        size = readable_size(sum(map(self.size, missing)))
        log(f"fetching {files} of {what}, {size}, from {self.url} to {self.path}")
        if now:
            with self._alone():
                self.bring(missing)
        else:
            thread = threading.Thread(
                target=self._fetch_ahead, args=(missing, what), name="fetch-ahead", daemon=True
            )
            thread.start()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other process on this machine fetches many files of the folder."""
        with open(self._parts.parent / ".fetching", "a+b", opener=opener) as lock:
            file_lock.take(lock, wait=True)
            yield

    def _fetch_ahead(self, paths: list[str], what: str) -> None:
        """Fetches those files at `paths` that no other process on this machine fetches."""
        begin = time.monotonic()
        try:
            with self._alone():
                failed = self._fetch_all(paths)
        except (OSError, UserError) as error:
            failed = [error]
        if failed:
            reason = str(failed[0]).partition("\n")[0]
            log(f"the other files of {what} are fetched when they are needed: {reason}")
        else:
            log(f"fetched all files of {what} in {time.monotonic() - begin:.0f} s")

    def _fetch_all(self, paths: list[str]) -> list[Exception]:
        """Fetches files in threads until one fails; returns the errors."""
        rest, failed = iter(paths), list[Exception]()

        def follow() -> None:
            while not failed and (path := next(rest, None)) is not None:
                try:
                    if placeholders.is_placeholder(path):
                        self._fetch(path)
                except Exception as error:
                    failed.append(error)

        threads = [threading.Thread(target=follow, daemon=True) for _ in range(_AHEAD)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failed

    def _fetch(self, path: str) -> None:
        """Fetches a file; removes its placeholder if the object is missing."""
        name, part = self.name(path), self._parts / secrets.token_hex(8)
        with self._written(part):
            try:
                self.source.download(name, part)
            except MissingError:
                pathlib.Path(path).unlink(missing_ok=True)
                return
            # After a power failure, a file that was not flushed may have zeros.
            flush(part)
            modified = placeholders.stamp(self.source.listing[name])
            os.utime(part, ns=(modified, modified))
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


def readable_size(size: int) -> str:
    """Returns a number of bytes in GB, MB or kB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.1f} kB"
