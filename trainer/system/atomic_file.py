"""Files and folders that appear under their name whole or not at all, and their removal."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from typing import Any

from trainer.system.regular_file import NotRegularError, opener


def write_atomic(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file that appears whole or not at all, and survives a crash; text is UTF-8.

    Raises:
      OSError: if it cannot be written; with the file's name, which the system's own error lacks.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:  # Over NFS, an error may come as late as on closing.
        with open(temporary, "wb", opener=opener) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except NotRegularError:  # More room would not help.
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # It may be what the disk is full of.
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: pathlib.Path, value: Any, indent: int | None = 2) -> None:
    """Writes a JSON file as `write_atomic` does; None for `indent`: on one line.

    Raises:
      OSError: as `write_atomic`.
    """
    write_atomic(path, json.dumps(value, indent=indent) + "\n")


def move_atomic(
    temporary: pathlib.Path, path: pathlib.Path, aside: pathlib.Path | None = None
) -> None:
    """Renames a folder of complete files, so that it appears whole or not at all.

    A folder that has the name is moved `aside` first.
    """
    for each in (*temporary.rglob("*"), temporary):
        flush(each)
    if aside is not None and path.exists():
        path.rename(aside)
    temporary.rename(path)
    flush(path.parent)


def flush(path: pathlib.Path) -> None:
    """Flushes a file or folder to the disk, so that no rename becomes durable before it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # A file system that cannot flush folders.
            raise
    finally:
        os.close(descriptor)


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link, or a folder with what it holds, if it is there and can be.

    By itself, shutil.rmtree waits for the writer of a FIFO.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
