"""Output of the program: results, messages, and streams that cannot end a training.

A training goes on if its output cannot be written: the disk under a log is full, the reader of a
pipe has left, the terminal has hung up. If the output is the result, as that of `plan`, the program
ends.
"""

import codecs
import contextlib
import errno
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO, cast

from absl import logging as absl_logging

from trainer.errors import ExitError, ExitStatus

# Letters of this program that an ASCII terminal can show otherwise; all others become "?".
_IN_ASCII = {"×": "x", "→": "->", "…": "...", "·": "*", "ε": "eps", "−": "-", "±": "+-", "÷": "/"}
# Most texts have none of these, and are long: a plan has megabytes.
_SUSPECT = re.compile(r"[^\n\t -~]")


class OutputError(ExitError):
    """The result cannot be printed."""

    status = ExitStatus.FAILED


class ReaderLeftError(Exception):
    """The process that reads the output has ended, as `head` does; nobody waits for a message."""


class _Stream:
    """A text stream whose failures are given to `failed` in place of being raised."""

    def __init__(self, stream: TextIO, failed: Callable[[Exception], None]) -> None:
        self._stream, self.failed = stream, failed

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the user's code has closed it.
            self.failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            getattr(self._stream, "flush", _nothing)()
        except (OSError, ValueError) as error:
            self.failed(error)

    def close(self) -> None:
        """Leaves the descriptor open, or the next file would get its number, and all output."""
        self.flush()

    def isatty(self) -> bool:
        return bool(getattr(self._stream, "isatty", _nothing)())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Plain(logging.Formatter):
    """A warning without the time, process and line that absl puts before it."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(f"{record.levelname.lower()}: {record.getMessage()}")


def open_closed_streams() -> None:
    """Opens /dev/null on those of the descriptors 0 to 2 that are closed.

    Files and pipes of this program would get these numbers otherwise, and TensorFlow's messages.
    """
    for descriptor, mode in enumerate(["r", "w", "w"]):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.
        name = ("stdin", "stdout", "stderr")[descriptor]
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def protect(training: bool) -> None:
    """Puts streams in the place of stdout and stderr whose failures are dropped or end the program.

    Args:
      training: whether the output is beside the point, and dropped if it cannot be written;
        otherwise stdout is the result, and messages on stderr alone are dropped.
    """
    codecs.register_error("crescendo", _to_ascii)
    for stream in (sys.stdout, sys.stderr):
        cast(Any, stream).reconfigure(errors="crescendo")
    sys.stdout = cast(TextIO, _Stream(sys.stdout, _drop if training else _end))
    sys.stderr = cast(TextIO, _Stream(sys.stderr, _drop))
    handler = absl_logging.get_absl_handler()
    handler.python_handler.stream = sys.stderr
    handler.setFormatter(_Plain())
    logging.raiseExceptions = False  # It would print a traceback.


class _Log:
    """The destination of messages.

    Attributes:
      command: name of the command, if its messages go to stderr, because stdout is its result.
      silent: whether this process is not the chief of several.
      write: prints a line above the progress bar, while there is one.
    """

    command: str | None = None
    silent = False
    write: Callable[..., None] | None = None


_log = _Log()


def log(text: str, *, all_workers: bool = False) -> None:
    """Prints a message about what the program does; of several workers, the chief alone prints it.

    Args:
      text: lines, with line feeds between them.
      all_workers: whether each worker prints it, because the others do not know it.
    """
    if _log.silent and not all_workers:
        return
    if _log.write:
        _log.write(clean(text), file=sys.stdout)
        sys.stdout.flush()
    elif _log.command:
        say(f"crescendo {_log.command}: {text}", to=sys.stderr)
    else:
        say(text)


def log_to(command: str | None) -> None:
    """Sends messages to stderr, after the name of a command whose stdout has the result."""
    _log.command = command


@contextlib.contextmanager
def log_as(*, chief: bool) -> Iterator[None]:
    """Leaves messages to the chief within, if this process is not the chief."""
    before, _log.silent = _log.silent, not chief
    try:
        yield
    finally:
        _log.silent = before


def log_above_bar(write: Callable[..., None] | None) -> None:
    """Prints messages with `write`, which knows the progress bar; None once the bar is closed."""
    _log.write = write


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keeps the streams whatever the user's code within does: it may close or replace them.

    A stream in the place of a protected one stays, and is protected in the same way.
    """
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    try:
        yield
    finally:
        for name, stream in before.items():
            now = getattr(sys, name)
            if not isinstance(stream, _Stream) or isinstance(now, _Stream):
                continue
            gone = now is None or getattr(now, "closed", False)
            setattr(sys, name, stream if gone else _Stream(now, stream.failed))
        open_closed_streams()


def say(text: str, *, to: TextIO | None = None) -> None:
    """Prints lines at once, without control characters that a file's name or content may hold.

    Args:
      text: lines, with line feeds between them.
      to: None: stdout.
    """
    print(clean(text), file=to or sys.stdout, flush=True)


def width() -> int | None:
    """Returns the columns of the terminal that stdout is, or None if it is another file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line per row, with the cells of each column padded on the left to equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


def clean(text: str) -> str:
    r"""Returns the text with \x1b for an escape, and so on; line feeds and tabs stay."""
    return _SUSPECT.sub(
        lambda found: found[0] if found[0].isprintable() else ascii(found[0])[1:-1], text
    )


def end() -> None:
    """Writes what is left to be written.

    Raises:
      OutputError, ReaderLeftError: as `protect` says.
    """
    with contextlib.suppress(AttributeError):
        sys.stderr.flush()
    sys.stdout.flush()


def _nothing() -> None:
    """Stands for a method that a stream of the user's lacks."""


def _drop(_: Exception) -> None:
    pass


def _end(error: Exception) -> None:
    if isinstance(error, BrokenPipeError):
        raise ReaderLeftError from error
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    room = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    raise OutputError(
        f"the output cannot be written: {reason}."
        + (" Make room, or write it elsewhere." if room else " Write it elsewhere.")
    ) from error


def _to_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(letter, "?") for letter in letters), error.end
