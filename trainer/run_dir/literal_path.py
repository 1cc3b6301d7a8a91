"""Paths without characters that TensorFlow would interpret as a pattern.

TensorFlow's readers of checkpoints and of SavedModels' variables treat a path as a pattern. For
example, `lr[0.1]` matches `lr0`, `lr.` and `lr1`, and a backslash escapes the next character.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

from trainer.system.regular_file import opener


@contextlib.contextmanager
def plain(folder: pathlib.Path) -> Iterator[str]:
    """Yields a path that has no special characters and leads to `folder` in this process.

    The path names an open file descriptor, so this function does not write a link or a copy. The
    path leads to the same folder even if `folder` is renamed or replaced meanwhile.

    Raises:
      NotRegularError: if the folder holds a FIFO or a device, on which a reader would hang.
      OSError: if `folder` is not a folder, or cannot be read.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = f"/proc/self/fd/{descriptor}"
        for parent, _, files in os.walk(path, onerror=_raise):
            for name in files:
                os.close(opener(os.path.join(parent, name), os.O_RDONLY))
        yield path
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error


def named(text: str, folder: pathlib.Path) -> str:
    """Returns `text`, with each path that `plain` yielded replaced by `folder`."""
    return re.sub(r"/proc/self/fd/\d+", lambda _: str(folder), text)
