"""Opening files that must be regular ones: not a FIFO, device, socket or folder.

A plain `open` waits without end for the writer of a FIFO, and reads /dev/zero until memory is full.
`opener` opens without waiting, and looks at what it has opened, so that nobody can exchange the
file in between.
"""

import errno
import os
import stat

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class NotRegularError(OSError):
    """The file at `filename` is not a regular file; `strerror` says what it is instead."""


def opener(path: str | os.PathLike[str], flags: int) -> int:
    """Opens a regular file: what the built-in `open` takes as its `opener`.

    Raises:
      NotRegularError: if the path, or what a link there leads to, is not a regular file.
      OSError: if it cannot be opened.
    """
    name = os.fspath(path)
    try:
        descriptor = os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # A socket, or a FIFO to write to that nobody reads.
            raise _not_regular("a FIFO, a socket or a device", name) from error
        if error.errno == errno.EISDIR:  # A folder to write to.
            raise _not_regular("a folder", name) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(_KINDS.get(stat.S_IFMT(mode), "special"), name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: str | os.PathLike[str], most_bytes: int | None = None) -> bytes:
    """Returns the content of a regular file.

    Args:
      path: of the file, or of a link to it.
      most_bytes: the largest file that is read; None: any.

    Raises:
      NotRegularError: if it is not a regular file.
      OSError: if it cannot be read, or is larger than `most_bytes`.
    """
    with open(path, "rb", opener=opener) as file:
        if most_bytes is None:
            return file.read()
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes", os.fspath(path))
    return content


def _not_regular(kind: str, name: str) -> NotRegularError:
    return NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file", name)
