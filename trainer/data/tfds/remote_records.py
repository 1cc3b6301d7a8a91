"""Reads records of an ArrayRecord file that is in a bucket, and is not on the local disk yet."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from trainer.buckets.objects import MissingError
from trainer.data.bucket.folder import BucketFolder
from trainer.data.tfds import record_ranges
from trainer.data.tfds.record_ranges import FormatError, RecordIndex


class RemoteRecords:
    """Reads records by the parts of the file that hold them; several threads may call `read`.

    Args:
        folder: folder in a bucket that holds the file.
        path: path of the file in the local folder.
        open_file: opens a reader for the path of an ArrayRecord file.
    """

    def __init__(self, folder: BucketFolder, path: str, open_file: Callable[[str], Any]) -> None:
        self._folder, self._path, self._open_file = folder, path, open_file
        self._index: RecordIndex | None = None
        self._lock = threading.Lock()

    def read(self, records: Sequence[int]) -> list[bytes]:
        """Returns the records with the numbers `records`; b"" for one that cannot be read.

        If the positions of the records are not known, the whole file is fetched first.

        Raises:
            ExitError: if the bucket does not answer for minutes, or the file has changed.
        """
        try:
            # The package that decompresses the positions may be missing.
            with self._folder.source.noted(), self._lock:
                if self._index is None:
                    size = self._folder.size(self._path)
                    self._index = record_ranges.read_index(self._read_range, size)
            return record_ranges.read_records(
                self._read_range, self._index, records, self._open_file
            )
        except MissingError:
            return [b""] * len(records)
        except FormatError:
            return self._read_whole(records)
        except (RuntimeError, ValueError, IndexError, OSError):
            if len(records) == 1:
                return [b""]
            return [self.read([record])[0] for record in records]

    def _read_range(self, start: int, stop: int) -> bytes:
        return self._folder.read(self._path, start, stop)

    def _read_whole(self, records: Sequence[int]) -> list[bytes]:
        self._folder.bring([self._path])
        try:
            return self._open_file(self._path).read(records)
        except (RuntimeError, ValueError, IndexError, OSError):
            if len(records) == 1:
                return [b""]
            return [self._read_whole([record])[0] for record in records]
