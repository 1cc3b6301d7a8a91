"""Temporary folders beside a path; a later process removes those that a killed process left.

A process locks a file in its temporary folder. The kernel releases the lock when the process ends,
even if the process is killed. A later process removes folders that no process has locked.
"""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator

from trainer.errors import UserError
from trainer.system import file_lock
from trainer.system.regular_file import opener

_OWNER = "owner"  # Name of the locked file.


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder beside `path`, on the same disk, and removes it on exit.

    Also removes folders that killed processes left. If a process was killed while it replaced
    `path`, this function restores the old content of `path`.

    Raises:
      OSError: if the folder cannot be created.
    """
    prefix = f".{path.name}-"
    ours = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")  # The names that tempfile makes.
    for left in path.parent.iterdir():
        if ours.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            _remove_if_left(left, path)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as work,
        open(pathlib.Path(work, _OWNER), "wb", opener=opener) as owner,
    ):
        with contextlib.suppress(UserError):  # The file system may not support locks.
            file_lock.take(owner)
        yield pathlib.Path(work)


def _remove_if_left(left: pathlib.Path, path: pathlib.Path) -> None:
    with contextlib.suppress(OSError, UserError):
        try:
            owner = open(left / _OWNER, "rb", opener=opener)  # noqa: SIM115
        except FileNotFoundError:
            # The process has not made the file yet, or was killed before it did. If the folder is
            # older than 60 s, the process was killed. rmdir() fails if the folder holds files.
            if time.time() - left.stat().st_mtime > 60:
                left.rmdir()
            return
        with owner:
            if not file_lock.take(owner):
                return
            if (left / "old").is_dir() and not os.path.lexists(path):
                (left / "old").rename(path)
            shutil.rmtree(left, ignore_errors=True)
