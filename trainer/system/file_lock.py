"""Locks open files with flock; the error on a file system without locks names a remedy."""

import errno
import fcntl
from typing import Any

from trainer.errors import UserError


def take(file: Any, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file; returns False if another process has the lock, and `wait` is False.

    Raises:
      UserError: if the file system has no locks.
      OSError: if the file cannot be locked for another reason.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise UserError(
            f"{file.name} cannot be locked, because its file system has no locks: "
            f"{error.strerror}.\nChoose a folder on a local disk, or mount the file system with "
            "locks (NFS: -o local_lock=flock)."
        ) from error
    return True
