"""Folders in which something is made before it gets its name, and which a kill leaves behind.

Each holds a file that its owner has locked. The kernel lets go of the lock however a process ends,
so that the next one that makes something beside it can tell, and removes what has no owner.
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

_OWNER = "owner"
_YOUNG_SECONDS = 60.0  # An owner locks its file at once after it has made the folder.


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder beside `path`, on the same disk, that goes when the context ends.

    Those that killed processes have left there are removed. Where one died as it put a new folder
    in the place of `path`, what was there before is put back.

    Raises:
      OSError: it cannot be made.
    """
    prefix = f".{path.name}-"
    ours = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")  # as tempfile names them
    for left in path.parent.iterdir():
        if ours.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            _remove_if_left(left, path)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as work,
        open(pathlib.Path(work, _OWNER), "wb", opener=opener) as owner,
    ):
        with contextlib.suppress(UserError):  # Without locks, nobody can tell that it was killed.
            file_lock.take(owner)
        yield pathlib.Path(work)


def _remove_if_left(left: pathlib.Path, path: pathlib.Path) -> None:
    with contextlib.suppress(OSError, UserError):
        try:
            owner = open(left / _OWNER, "rb", opener=opener)  # noqa: SIM115
        except FileNotFoundError:  # Killed, or about to lock it; with files, it is not one of ours.
            if time.time() - left.stat().st_mtime > _YOUNG_SECONDS:
                left.rmdir()
            return
        with owner:
            if not file_lock.take(owner):
                return
            if (left / "old").is_dir() and not os.path.lexists(path):
                (left / "old").rename(path)
            shutil.rmtree(left, ignore_errors=True)
