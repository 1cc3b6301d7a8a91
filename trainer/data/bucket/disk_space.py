"""Finds room on the disk for the files of a folder in a bucket.

The folder above holds the files of other folders in buckets too. If the disk is full, those that no
process uses are removed, the longest unused one first.
"""

import contextlib
import datetime
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Callable
from typing import IO

from trainer.errors import UserError
from trainer.system import file_lock
from trainer.system.output import log
from trainer.system.regular_file import opener

_USED = ".used"  # Name of a file that each process using a folder has locked.
# Name of a folder of `open_folders` while `remove_if_unused` removes it. No process holds it.
_REMOVED = re.compile(r"\..+-[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}")
_HOLDING: list[IO[bytes]] = []  # Locks that this process keeps until it ends.


def hold(folder: pathlib.Path) -> None:
    """Keeps other processes from removing `folder` until this process ends.

    Raises:
      OSError: if the folder cannot be written.
      UserError: if its file system has no locks.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # Another process has removed the folder.
            # NFS allows a shared lock only of a file that is open for reading.
            lock = open(folder / _USED, "a+b", opener=opener)  # noqa: SIM115
            file_lock.take(lock, shared=True, wait=True)
            if _is_file(lock, folder / _USED):
                os.utime(folder / _USED)
                _HOLDING.append(lock)
                return
            lock.close()


def _is_file(file: IO[bytes], path: pathlib.Path) -> bool:
    """Returns whether `file` is the file that is at `path` now."""
    own, now = os.fstat(file.fileno()), os.stat(path)
    return (own.st_dev, own.st_ino) == (now.st_dev, now.st_ino)


def make_room(folder: pathlib.Path, size: int, refusal: Callable[[int], str]) -> None:
    """Makes the disk of `folder` have `size` free bytes.

    Args:
      folder: folder that this process holds.
      size: number of bytes to be written in the folder.
      refusal: returns a message for a disk with too few free bytes; it gets their number.

    Raises:
      UserError: if the disk has too little room.
    """
    others = [each for each in folder.parent.iterdir() if each != folder and each.is_dir()]
    for other in sorted(others, key=_last_use):
        if shutil.disk_usage(folder).free >= size:
            return
        remove_if_unused(other, "because the disk is full")
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(refusal(free))


def _last_use(folder: pathlib.Path) -> float:
    """Returns the time of a folder's last use, in seconds since 1970; 0 if it is not known."""
    try:
        return (folder / _USED).stat().st_mtime
    except OSError:
        return 0


def remove_if_unused(folder: pathlib.Path, why: str = "") -> None:
    """Removes a folder that no process holds; if `why` is given, reports it."""
    if _REMOVED.fullmatch(folder.name):  # A process was killed while it removed this folder.
        shutil.rmtree(folder, ignore_errors=True)
        return
    with (
        contextlib.suppress(OSError, UserError),
        # NFS allows an exclusive lock only of a file that is open for writing.
        open(folder / _USED, "r+b", opener=opener) as lock,
    ):
        if not file_lock.take(lock):
            return
        if why:
            day = datetime.date.fromtimestamp(_last_use(folder))
            log(f"removing {folder}, last used on {day}, from the cache, {why}")
        # A process that waits for the lock then finds that the folder is gone.
        removed = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
