"""Reads the points of a sweep in a bucket: their small files, and which ones are being trained."""

import contextlib
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable

from trainer.buckets import lease as leases
from trainer.buckets.objects import Objects, UnavailableError
from trainer.buckets.subfolder import Subfolder
from trainer.buckets.url import BucketUrl
from trainer.errors import UserError
from trainer.run_dir import bucket_run, result
from trainer.run_dir.bucket_connection import at_once, local_folder, patiently
from trainer.run_dir.mirror_download import download

# Files of a run that a sweep reads; the sweep's own folder has copies.
_FILES = (result.FILE, "flags.txt")


class BucketPoints:
    """Points of the sweep at `url`, with copies of their small files below `path`.

    Several threads may use different points at once.

    Args:
      url: URL of the sweep.
      objects: objects of the sweep's folder.
      path: the sweep's folder on this machine.
      cache_dir: folder for the local directories of runs; None for the user's cache.
    """

    def __init__(
        self, url: BucketUrl, objects: Objects, path: pathlib.Path, cache_dir: str | None
    ) -> None:
        self._url, self._objects, self._path, self._cache = url, objects, path, cache_dir
        # Points whose runs have a checkpoint in the bucket.
        self._begun: set[str] = set()
        # Version of the lease of a point when `may_start` was False, and when this process read
        # that version for the first time.
        self._seen: dict[str, tuple[str, float]] = {}

    def url(self, name: str) -> BucketUrl:
        """Returns the URL of the run of a point."""
        return self._url.below(name)

    def begun(self, name: str) -> bool:
        """Returns whether the bucket had a checkpoint of the point when `refresh` read it."""
        return name in self._begun

    def forget(self, name: str) -> None:
        """Removes the copies of the point's files on this machine, if there are any."""
        self._begun.discard(name)
        for file in _FILES:
            (self._path / name / file).unlink(missing_ok=True)

    def refresh(self, name: str) -> None:
        """Replaces the copies of the point's files by those in the bucket.

        Raises:
          UserError: if the run is damaged.
          UnavailableError: if the bucket does not answer.
        """
        objects, place = Subfolder(self._objects, name), str(self.url(name))
        with tempfile.TemporaryDirectory(dir=self._path, prefix=".read-") as work:
            new = pathlib.Path(work)
            found = download(objects, place, new, lambda path: path in _FILES)
            self.forget(name)
            if found is None:
                return
            if any(path.startswith("checkpoints/") for path in found[0].files):
                self._begun.add(name)
            self._copy(name, new)

    def refresh_all(self, names: Iterable[str]) -> dict[str, str]:
        """Refreshes points, several at once.

        Returns:
          A dict from each damaged run's name to the error message.

        Raises:
          TryAgainError: if the bucket does not answer for some minutes.
          UserError: if the bucket refuses a request.
        """
        left = set(names)
        damaged: dict[str, str] = {}

        def read(name: str) -> UnavailableError | None:
            try:
                self.refresh(name)
            except UserError as error:
                damaged[name] = str(error)
            except UnavailableError as error:
                return error
            left.discard(name)
            return None

        def read_all() -> None:
            for error in at_once(read, sorted(left)):
                if error:
                    raise error

        patiently(self._url, read_all)
        return damaged

    def collect(self, name: str) -> None:
        """Copies the files of a run that has ended on this machine.

        Raises:
          OSError: if a file cannot be written.
        """
        self._copy(name, local_folder(self.url(name), self._cache))

    def _copy(self, name: str, source: pathlib.Path) -> None:
        (self._path / name).mkdir(exist_ok=True)
        for file in reversed(_FILES):
            with contextlib.suppress(FileNotFoundError):
                new = self._path / name / f"{file}.tmp"
                shutil.copyfile(source / file, new)
                new.replace(self._path / name / file)

    def may_start(self, name: str, recorded: Callable[[], bool]) -> bool:
        """Returns whether no other process trains the point; if so, refreshes its files.

        A process that holds the lease and does not renew it for the lease's duration counts as
        ended. If the lease is released, but its last owner may not have recorded an outcome yet,
        the answer is False, and True at the next call.

        Args:
          name: folder of the point.
          recorded: returns whether sweep.json has an outcome of the point.

        Raises:
          UnavailableError: if the bucket does not answer.
        """
        try:
            found = leases.read(Subfolder(self._objects, name))
            if found and found[0].held:
                if not self._has_ended(name, *found):
                    return False
                self._seen.pop(name, None)
                self.refresh(name)
                return True
            self.refresh(name)
            if found is None or (self._path / name / result.FILE).exists():
                return True
            now = found[1], time.monotonic()
            before = self._seen.get(name)
            if before is None and recorded():
                return True
            self._seen[name] = now
            return before is not None and before[0] == now[0]
        except UserError:  # The training of the point reports the damage.
            return True

    def _has_ended(self, name: str, claim: leases.Claim, version: str) -> bool:
        """Returns whether the process that holds the lease has ended, as far as can be known."""
        if bucket_run.has_ended(self.url(name), self._cache, claim):
            return True
        seen, since = self._seen.get(name, ("", 0.0))
        if seen == version:
            return time.monotonic() - since >= claim.seconds
        self._seen[name] = version, time.monotonic()
        return False
