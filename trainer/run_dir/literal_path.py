"""Folders by a path that TensorFlow can only read as what it is.

TensorFlow's readers of checkpoints, and of SavedModels' variables, take the path for a pattern: to
them `lr[0.1]` is `lr0` or `lr.` or `lr1`, and a backslash is an escape.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

from trainer.system.regular_file import opener


@contextlib.contextmanager
def plain(folder: pathlib.Path) -> Iterator[str]:
    """A path of `folder` without special characters, while the context lasts, in this process.

    It leads through the folder's descriptor: nothing is made on the disk, and what has been opened
    is read even if the folder is renamed or replaced meanwhile.

    Raises:
      NotRegularError: if a file in it is a FIFO or a device, on which a reader would hang.
      OSError: if it is not a folder, or cannot be read.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = f"/proc/self/fd/{descriptor}"
        for parent, _, files in os.walk(path):
            for name in files:
                os.close(opener(os.path.join(parent, name), os.O_RDONLY))
        yield path
    finally:
        os.close(descriptor)


def named(text: str, folder: pathlib.Path) -> str:
    """A message about a plain path, with the folder's own name in its place."""
    return re.sub(r"/proc/self/fd/\d+", lambda _: str(folder), text)
