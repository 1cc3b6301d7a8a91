"""Opens files that must be regular files, not a FIFO, device, socket or folder.

A plain `open` waits forever for the writer of a FIFO, and a plain `read` fills the memory from
/dev/zero. `opener` opens a path without waiting, and then checks the kind of the open file. So no
other file can replace the checked file before it is read or written.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class NotRegularError(OSError):
    """Raised if the file at `filename` is not a regular file; `strerror` names its kind."""


class ReadError(OSError):
    """Raised if the file at `filename` exists but cannot be read; `strerror` is the reason."""


def opener(path: str | os.PathLike[str], flags: int) -> int:
    """Opens a regular file and returns its descriptor; pass this function to the built-in `open`.

    Raises:
      NotRegularError: if the path, or the target of a link there, is not a regular file.
      OSError: if the file cannot be opened.
    """
    name = os.fspath(path)
    try:
        descriptor = os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # A socket, or a FIFO without a reader.
            raise _not_regular("a FIFO, a socket or a device", name) from error
        if error.errno == errno.EISDIR:  # The path is a folder, opened for writing.
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


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], most_bytes: int) -> Iterator[BinaryIO]:
    """Yields a regular file of at most `most_bytes` that is open for reading.

    Raises:
      FileNotFoundError: if the file does not exist.
      NotRegularError: if the file is not a regular file.
      ReadError: if the file cannot be opened or read, or has more than `most_bytes`.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb", opener=opener) as file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes")
            yield file
    except (FileNotFoundError, NotRegularError):
        raise
    except NotADirectoryError as error:  # A parent folder of the path is a file.
        raise FileNotFoundError(error.errno, error.strerror, name) from error
    except OSError as error:  # If a read fails, the system's error does not name the file.
        raise ReadError(error.errno, error.strerror, name) from error


def read_regular(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Returns the content of a regular file of at most `most_bytes`; raises as `reading` does."""
    with reading(path, most_bytes) as file:
        # The file may have grown since its size was read, and files in /proc report no size.
        content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise OSError(errno.EFBIG, f"it has more than {most_bytes:,} bytes")
        return content


def chunks(file: BinaryIO, size: int, most: int) -> Iterator[bytes]:
    """Yields the next `size` bytes of an open file, at most `most` bytes at once.

    Raises:
      OSError: if the file has fewer bytes, because another process shortened it.
    """
    while size:
        chunk = file.read(min(size, most))
        if not chunk:
            raise OSError(errno.EIO, "it became shorter while it was read")
        size -= len(chunk)
        yield chunk


def _not_regular(kind: str, name: str) -> NotRegularError:
    return NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file", name)
