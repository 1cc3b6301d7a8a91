"""The flagfiles of a command line, and those that they name in turn, read without waiting.

absl opens them by itself, and would wait for a FIFO's writer without end: so they are read here
first.
"""

import os
from collections.abc import Iterator, Sequence

from trainer.regular_file import read_regular

# A flagfile of a run has 3 kB.
_MOST_BYTES = 2**20


def texts(arguments: Sequence[str]) -> dict[str, str]:
    """The text of each flagfile that `arguments` name, themselves or by another one, by its path.

    Raises:
      NotRegularError: if one is not a regular file.
      OSError: if one cannot be read.
      UnicodeDecodeError: if one is not UTF-8.
    """
    found: dict[str, str] = {}
    waiting = list(_named(arguments))
    while waiting:
        path = waiting.pop()
        if path and path not in found:
            found[path] = read_regular(path, _MOST_BYTES).decode()
            waiting += _named(found[path].splitlines())
    return found


def _named(arguments: Sequence[str]) -> Iterator[str]:
    """The paths that absl reads: of --flagfile=x, of -flagfile=x, and of --flagfile x."""
    following = iter(arguments)
    for argument in following:
        flag, equals, path = argument.partition("=")
        if argument == "--":
            return
        if flag in ("--flagfile", "-flagfile"):
            yield os.path.expanduser(path.strip() if equals else next(following, ""))
