"""Examples that cannot be read or decoded: an error that names them, or counted and named."""

import contextlib
import pathlib
import threading
from collections.abc import Iterator
from typing import NoReturn

import tensorflow as tf

from trainer.data.class_names import printable
from trainer.errors import UserError
from trainer.system.output import log
from trainer.system.regular_file import opener, read_regular

# So many are told one by one.
_TOLD = 10
_MOST_BYTES = 2**30


class BadExamples:
    """The distinct bad examples of a run, over all its starts.

    The threads of the input pipeline add them.

    Args:
      skip: whether they are left out, or end the run.
      path: a file with a line for each; None: nothing is kept.
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
        """How many there are."""
        return len(self._reasons)

    @property
    def reasons(self) -> dict[str, str]:
        """Of all of them, by their names."""
        with self._lock:
            return dict(self._reasons)

    def add(self, name: str, reason: str) -> None:
        """Counts one, if it is not known yet.

        Raises:
          UserError: where none is left out.
        """
        name, reason = printable(name), printable(reason)
        if not self.skip:
            self.refuse(
                f"{name} cannot be used: {reason}.\n"
                "Mend or remove it, or give --skip_bad_examples to leave out what is like it."
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
        if number <= _TOLD:
            log(f"{name} is left out: {reason}", all_workers=True)
            if number == _TOLD and self._path:
                log(f"further ones are in {self._path}", all_workers=True)

    def refuse(self, message: str) -> NoReturn:
        """Ends the run; of several threads' messages the first counts.

        Raises:
          UserError: always.
        """
        with self._lock:
            self._refused = self._refused or UserError(message)
        raise self._refused

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raises the UserError of `add` in place of what TensorFlow makes of it."""
        try:
            yield
        except tf.errors.OpError:
            if self._refused:
                raise self._refused from None
            raise
