"""Looks at the files of pictures before they are read: are they regular, and how do they lie.

A name that ends in .jpg may lead to anything, or be replaced by anything after it was listed: a
pipe without a writer, a device that never ends. So a file is opened without waiting for a writer,
and TensorFlow reads it, milliseconds later, only if what was opened is a regular file. Its first
bytes, which hold its orientation, are read meanwhile.

Python does so for a chunk of files at a time: a call of Python costs more than the look at a file.
"""

import os

import numpy as np

from trainer.data import exif
from trainer.system.regular_file import NotRegularError, opener

# EXIF data are nearly always among the first of them.
_HEAD = 4096
# Of 16 bits in four channels, without compression.
_BYTES_PER_PIXEL = 8


class UnreadableError(Exception):
    """A picture's file cannot be read; the text says why."""


def largest_file(max_pixels: int) -> int:
    """Bytes that a file of so many pixels may have."""
    return _BYTES_PER_PIXEL * max_pixels + 2**20


def look(paths: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """bytes [n] → the same paths, or empty if a file cannot be read; orientations int32 [n]."""
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
      UnreadableError: there is no such file, or it is not a regular file, or larger.
    """
    try:
        with open(path, "rb", buffering=0, opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise UnreadableError(f"it has {size:,} bytes, too many for a picture")
            found = exif.orientation(os.read(file.fileno(), _HEAD))
            if found is None:
                found = exif.orientation(os.pread(file.fileno(), size, 0))
            return found or exif.UPRIGHT
    except NotRegularError as error:
        raise UnreadableError(error.strerror) from error
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error


def as_bytes(value: bytes | np.ndarray) -> bytes:
    """Returns the bytes of a string from TensorFlow, which outside of graphs is in an array."""
    return value.item() if isinstance(value, np.ndarray) else value
