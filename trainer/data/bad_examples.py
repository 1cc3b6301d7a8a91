"""Records the bad examples of a run; the run skips them, or ends at the first bad example.

A bad example cannot be read or decoded, or its label is not a class of the run.
"""

import contextlib
import copy
import pathlib
import threading
from typing import NoReturn

import tensorflow as tf

from trainer.data.bucket import open_folders
from trainer.data.class_names import printable
from trainer.errors import ExitError, UserError
from trainer.system.output import log
from trainer.system.regular_file import opener, read_regular

_MOST_REPORTED = 10
_MOST_BYTES = 2**30  # Largest size of a file that lists bad examples; larger files are refused.


class BadExamples:
    """The distinct bad examples of a run; several threads may add examples.

    Args:
      skip: whether bad examples are left out; if False, the first one ends the run.
      path: file that lists the bad examples, one per line. If the run is resumed, the file already
        lists earlier bad examples. If `path` is None, no file is read or written.
      most_reported: largest number of bad examples that are logged, each in its own message.
    """

    def __init__(
        self, skip: bool, path: pathlib.Path | None = None, most_reported: int = _MOST_REPORTED
    ) -> None:
        self.skip = skip
        self._most_reported = most_reported
        self._path = path
        self._lock = threading.Lock()
        self._refused: UserError | None = None
        self._reasons: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            content = read_regular(path, _MOST_BYTES) if path else b""
            lines = content.decode(errors="replace").splitlines()
            pairs = (line.partition("\t") for line in lines)
            self._reasons = {name: reason for name, _, reason in pairs}

    @property
    def count(self) -> int:
        """Number of distinct bad examples."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Reason for each bad example, by the example's name."""
        with self._lock:
            return dict(self._reasons)

    def add(self, name: str, reason: str) -> None:
        """Records a bad example and its reason, unless the example was added before.

        Raises:
          UserError: if `skip` is False.
        """
        name, reason = printable(name), printable(reason)
        if not self.skip:
            self.refuse(
                f"{name} cannot be used: {reason}.\n"
                "Repair or remove it, or give --skip_bad_examples to leave such examples out."
            )
        with self._lock:
            if name in self._reasons:
                return
            self._reasons[name] = reason
            number = self.count
            if self._path:
                with (
                    contextlib.suppress(OSError),
                    open(self._path, "a", encoding="utf-8", opener=opener) as file,
                ):
                    file.write(f"{name}\t{reason}\n")
        if number <= self._most_reported:
            log(f"{name} is left out: {reason}", all_workers=True)
            if number == self._most_reported and self._path:
                log(f"any others are listed in {self._path}", all_workers=True)

    def refuse(self, message: str) -> NoReturn:
        """Ends the run with a message; if there are several calls, the first message is used.

        Raises:
          UserError: always.
        """
        with self._lock:
            self._refused = self._refused or UserError(message)
        raise copy.copy(self._refused)  # `refused` says why it is a copy.

    @property
    def refused(self) -> ExitError | None:
        """The error that `refuse`, or the reading of a bucket, raised; None if none did.

        It is a copy: the traceback of a raised error holds the iterator of the data, and the
        iterator holds this object. If this object held that error too, neither would ever be freed,
        and the iterator's threads would go on.
        """
        return copy.copy(self._refused or open_folders.failure())

    def refusal(self, _: tf.errors.OpError) -> ExitError | None:
        """Returns the error that `refuse`, or the reading of a bucket, raised; None if none did.

        TensorFlow replaces an error from its input pipeline by an error of its own type. A caller
        that catches TensorFlow's error gets the original error from this method.
        """
        return self.refused
