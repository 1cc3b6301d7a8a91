"""The kernel's locks on open files, with a message of its own where a file system has none."""

import errno
import fcntl
from typing import Any

from trainer.errors import UserError

# What flock says on NFS without a lock manager, and on file systems that do not know locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def take(file: Any, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file; returns whether it could, without `wait` at once.

    Raises:
      UserError: its file system has no locks.
      OSError: it cannot be locked for another reason.
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
                "Name a folder on a local disk, or mount that one with locks (NFS: -o local_lock="
                "flock)."
            ) from error
        raise
    return True
