"""Checks that pictures are regular files, and finds orientations, before TensorFlow reads them.

A path that ends in .jpg may be a pipe without a writer or an endless device, even if it was a file
when it was listed. So Python opens each path without waiting for a writer. TensorFlow reads it
milliseconds later, and only if it is a regular file. The file's first bytes give the orientation.

One call of Python checks a chunk of files, because a call costs more than checking one file.
"""

import os

import numpy as np

from trainer.data import exif
from trainer.system.regular_file import NotRegularError, opener

_HEAD = 4096  # First bytes, which nearly always include the EXIF data.
_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed


class UnreadableError(Exception):
    """Raised if a picture's file cannot be read; the text is the reason."""


def largest_file(max_pixels: int) -> int:
    """Returns the largest size, in bytes, of a file with a picture of `max_pixels`."""
    return _BYTES_PER_PIXEL * max_pixels + 2**20


def look(paths: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the paths, bytes [n], with unreadable ones empty, and orientations, int32 [n]."""
    paths = paths.copy()
    orientations = np.full(len(paths), exif.UPRIGHT, np.int32)
    for number, path in enumerate(paths):
        try:
            orientations[number] = orientation(path, largest)
        except UnreadableError:
            paths[number] = b""
    return paths, orientations


def orientation(path: bytes | str, largest: int) -> int:
    """Returns the orientation of a picture in a regular file of at most `largest` bytes.

    Raises:
      UnreadableError: if the file cannot be read, is not regular, or is larger.
    """
    try:
        with open(path, "rb", buffering=0, opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise UnreadableError(f"it has {size:,} bytes, too many for a picture")
            value = exif.orientation(os.read(file.fileno(), _HEAD))
            if value is None:
                value = exif.orientation(os.pread(file.fileno(), size, 0))
            return value or exif.UPRIGHT
    except NotRegularError as error:
        raise UnreadableError(error.strerror) from error
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error


def as_bytes(value: bytes | np.ndarray) -> bytes:
    """Returns a TensorFlow string as bytes; in eager calls, it arrives as an array of bytes."""
    return value.item() if isinstance(value, np.ndarray) else value
