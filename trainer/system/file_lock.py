"""Locks open files with flock, and explains the failure on a file system without locks."""

import errno
import fcntl
from typing import Any

from trainer.errors import UserError

# Errors of flock on NFS without a lock manager, and on file systems without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def take(file: Any, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file; without `wait`, returns False if another process holds the lock.

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
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"{file.name} cannot be locked, because its file system has no locks: "
                f"{error.strerror}.\n"
                "Choose a folder on a local disk, or mount this one with locks (NFS: -o local_lock="
                "flock)."
            ) from error
        raise
    return True
