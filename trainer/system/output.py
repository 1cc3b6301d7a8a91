"""Prints results and messages; a failed write to stdout or stderr does not end a training.

A write fails if the disk is full, the reader of a pipe has ended, or the terminal has hung up. The
output of some commands, such as `plan`, is their result. A failed write to stdout ends these
commands with an error.
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

# If a stream can encode only ASCII, these characters are replaced as follows. All other characters
# outside of ASCII become "?".
_IN_ASCII = {
    "×": "x",
    "→": "->",
    "…": "...",
    "·": "*",
    "ε": "eps",
    "−": "-",
    "–": "-",
    "±": "+-",
    "÷": "/",
}
# Characters that may need an escape. A regular expression finds them fast in long texts.
_SUSPECT = re.compile(r"[^\n\t -~]")


class OutputError(ExitError):
    """Raised if the result cannot be printed."""

    status = ExitStatus.FAILED


class ReaderLeftError(Exception):
    """Raised if the process that reads the output, such as `head`, has ended."""


class _Stream:
    """Text stream that passes its errors to `failed` instead of raising them."""

    def __init__(self, stream: TextIO, failed: Callable[[Exception], None]) -> None:
        self._stream, self.failed = stream, failed

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the user's code closed the stream.
            self.failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            getattr(self._stream, "flush", _nothing)()
        except (OSError, ValueError) as error:
            self.failed(error)

    def close(self) -> None:
        """Flushes the stream, but leaves it open.

        If descriptor 1 (stdout) or 2 (stderr) were closed, the next file that the program opens
        could get the number 1 or 2. Then native code that prints would write into that file.
        """
        self.flush()

    def isatty(self) -> bool:
        return bool(getattr(self._stream, "isatty", _nothing)())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Plain(logging.Formatter):
    """Formats a log record as its level and message, without absl's time, process and line."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(f"{record.levelname.lower()}: {record.getMessage()}")


def open_closed_streams() -> None:
    """Opens /dev/null for each of stdin, stdout and stderr that is closed.

    Otherwise, a file that this program opens could get the descriptor of stderr. TensorFlow would
    then write its messages into that file.
    """
    for descriptor, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free number: `descriptor`.
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def protect(training: bool) -> None:
    """Replaces stdout and stderr by streams that handle failed writes.

    A failed write to stderr is ignored. In training, a failed write to stdout is ignored too. If
    `training` is false, stdout carries the command's result, and a failed write to stdout ends the
    program.
    """
    codecs.register_error("crescendo", _to_ascii)
    for stream in (sys.stdout, sys.stderr):
        cast(Any, stream).reconfigure(errors="crescendo")
    sys.stdout = cast(TextIO, _Stream(sys.stdout, _nothing if training else _end))
    sys.stderr = cast(TextIO, _Stream(sys.stderr, _nothing))
    handler = absl_logging.get_absl_handler()
    handler.python_handler.stream = sys.stderr
    handler.setFormatter(_Plain())
    logging.raiseExceptions = False  # Otherwise, a failed write prints a traceback.


class _Log:
    """Destination of messages."""

    command: str | None = None  # Command named in messages to stderr; None: messages go to stdout.
    silent = False  # Whether this process is a worker other than the chief.
    write: Callable[..., None] | None = None  # Prints above the progress bar; None: no bar.


_log = _Log()


def log(text: str, *, all_workers: bool = False) -> None:
    """Prints a message of one or more lines about the program's actions.

    If there are several workers, only the chief, the first worker, prints. If `all_workers` is
    True, each worker prints.
    """
    if _log.silent and not all_workers:
        return
    if _log.write:
        to = sys.stderr if _log.command else sys.stdout
        _log.write(clean(text), file=to)
        to.flush()
    elif _log.command:
        say(f"crescendo {_log.command}: {text}", to=sys.stderr)
    else:
        say(text)


def log_to(command: str | None) -> None:
    """Sends messages to stdout if `command` is None, and otherwise to stderr.

    Messages to stderr have the prefix "crescendo <command>:", except above a progress bar.
    """
    _log.command = command


@contextlib.contextmanager
def log_as(*, chief: bool) -> Iterator[None]:
    """Silences `log` in the block if this process is not the chief."""
    before, _log.silent = _log.silent, not chief
    try:
        yield
    finally:
        _log.silent = before


def log_above_bar(write: Callable[..., None] | None) -> None:
    """Sets the function by which `log` prints above the progress bar; None removes it."""
    _log.write = write


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Restores stdout and stderr after the block, because user code in the block may close them.

    If the user code replaces a protected stream, the new stream is protected in the same way.
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
    """Prints and flushes one or more lines `to` a stream (None: stdout), escaped by `clean`."""
    print(clean(text), file=to or sys.stdout, flush=True)


def width() -> int | None:
    """Returns the number of columns of the terminal, or None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line for each row, with cells padded on the left to the width of their column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


def clean(text: str) -> str:
    r"""Returns the text with each unprintable character replaced by an escape such as \x1b.

    File names may contain such characters. Line feeds and tabs stay.
    """
    return _SUSPECT.sub(
        lambda found: found[0] if found[0].isprintable() else ascii(found[0])[1:-1], text
    )


def end() -> None:
    """Flushes stderr and stdout.

    Raises:
      OutputError: if the program prints its result to stdout, and stdout cannot be written.
      ReaderLeftError: if the program prints its result to stdout, and the reader has ended.
    """
    with contextlib.suppress(AttributeError):
        sys.stderr.flush()
    sys.stdout.flush()


def _nothing(*_: object) -> None:
    """Ignores an error, or replaces a method that the user's stream lacks."""


def _end(error: Exception) -> None:
    if isinstance(error, BrokenPipeError):
        raise ReaderLeftError from error
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else str(error)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    remedy = "Free disk space, or write it elsewhere." if full else "Write it elsewhere."
    raise OutputError(f"the output cannot be written: {reason}. {remedy}") from error


def _to_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(letter, "?") for letter in letters), error.end
