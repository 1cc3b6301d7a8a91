"""Writes files and moves folders so that they appear complete or not at all.

The module also removes files and folders.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from typing import Any

from trainer.system.regular_file import NotRegularError, opener


def write_atomic(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file, which appears complete or not at all, even after a crash; text is UTF-8.

    Raises:
      OSError: if the file cannot be written. The error's `filename` is `path`.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:  # On NFS, closing the file may be the first step that fails.
        with open(temporary, "wb", opener=opener) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except NotRegularError:  # Callers handle this error in another way.
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()  # The unfinished file may fill the disk.
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: pathlib.Path, value: Any, indent: int | None = 2) -> None:
    """Writes `value` as JSON with `write_atomic`, on one line if `indent` is None."""
    write_atomic(path, json.dumps(value, indent=indent) + "\n")


def move_atomic(
    temporary: pathlib.Path, path: pathlib.Path, aside: pathlib.Path | None = None
) -> None:
    """Renames the folder `temporary` to `path`, where it appears complete or not at all.

    If `aside` is given, a folder that exists at `path` is first renamed to `aside`.
    """
    for entry in (*temporary.rglob("*"), temporary):
        flush(entry)
    if aside is not None and path.exists():
        path.rename(aside)
    temporary.rename(path)
    flush(path.parent)


def flush(path: pathlib.Path) -> None:
    """Flushes a file or folder to the disk, so that a later rename cannot reach the disk first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some file systems cannot flush folders.
            raise
    finally:
        os.close(descriptor)


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link, or a folder with its content, if it exists and can be removed."""
    if path.is_dir() and not path.is_symlink():  # On a FIFO, rmtree would wait for a writer.
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
