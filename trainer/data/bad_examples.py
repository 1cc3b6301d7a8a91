"""Examples that cannot be read or decoded: they end the run, or are skipped, counted and named."""

import contextlib
import pathlib
import threading
from typing import NoReturn

import tensorflow as tf

from trainer.data.class_names import printable
from trainer.errors import UserError
from trainer.system.output import log
from trainer.system.regular_file import opener, read_regular

_MOST_REPORTED = 10  # examples that get a line of their own
_MOST_BYTES = 2**30


class BadExamples:
    """The distinct bad examples of a run, over all its starts; input-pipeline threads add them.

    Args:
      skip: True leaves bad examples out; False ends the run at the first.
      path: file with one line an example; None: nothing is written.
    """

    def __init__(
        self,
        skip: bool,
        path: pathlib.Path | None = None,
    ) -> None:
        self.skip = skip
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
        """Reason for each bad example, by its name."""
        with self._lock:
            return dict(self._reasons)

    def add(self, name: str, reason: str) -> None:
        """Counts and reports an example if it is new.

        Raises:
          UserError: `skip` is False.
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
        if number <= _MOST_REPORTED:
            log(f"{name} is left out: {reason}", all_workers=True)
            if number == _MOST_REPORTED and self._path:
                log(f"any others are listed in {self._path}", all_workers=True)

    def refuse(self, message: str) -> NoReturn:
        """Ends the run; if several threads call this, the first message is kept.

        Raises:
          UserError: always.
        """
        with self._lock:
            self._refused = self._refused or UserError(message)
        raise self._refused

    def refusal(self, _: tf.errors.OpError) -> UserError | None:
        """Returns the UserError of `add`, if it is the cause of TensorFlow's error."""
        return self._refused
