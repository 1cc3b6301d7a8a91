"""Checks that pictures are regular files, and reads their orientation, before TensorFlow does.

A name that ends in .jpg may lead to a pipe without a writer or a device that never ends, even if it
was a file when it was listed. So each file is opened without waiting for a writer, and TensorFlow
reads it, milliseconds later, only if it is regular. Its first bytes give its orientation.

One call of Python checks a chunk of files, because a call costs more than checking one file.
"""

import os

import numpy as np

from trainer.data import exif
from trainer.system.regular_file import NotRegularError, opener

_HEAD = 4096  # bytes, which nearly always hold the EXIF data
_BYTES_PER_PIXEL = 8  # four channels of 16 bits, uncompressed


class UnreadableError(Exception):
    """A picture's file cannot be read; the text says why."""


def largest_file(max_pixels: int) -> int:
    """Most bytes that the file of a picture of `max_pixels` may have."""
    return _BYTES_PER_PIXEL * max_pixels + 2**20


def look(paths: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the paths, bytes [n], emptied if unreadable, and the orientations, int32 [n]."""
    paths = paths.copy()
    orientations = np.full(len(paths), exif.UPRIGHT, np.int32)
    for number, path in enumerate(paths):
        try:
            orientations[number] = orientation(path, largest)
        except UnreadableError:
            paths[number] = b""
    return paths, orientations


def orientation(path: bytes | str, largest: int) -> int:
    """The orientation of a picture in a regular file of at most `largest` bytes.

    Raises:
      UnreadableError: the file is missing, not regular, or larger.
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
    """Returns the bytes of a TensorFlow string, which is an array outside of graphs."""
    return value.item() if isinstance(value, np.ndarray) else value
