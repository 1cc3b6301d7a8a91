"""Checks that pictures are regular files, and reads their EXIF orientations.

A path that ends in .jpg may lead to a pipe without a writer or to an endless device. TensorFlow
would wait or read forever. So Python opens each path first, without waiting for a writer.
TensorFlow then reads only regular files. Python also reads the orientation from the open file.

Each call from TensorFlow into Python checks many files, because the call itself takes longer than
checking one file.
"""

import os

import numpy as np

from trainer.data import exif
from trainer.system.regular_file import NotRegularError, opener


class UnreadableError(Exception):
    """Raised if a picture's file cannot be read; the error's text is the reason."""


def largest_file(max_pixels: int) -> int:
    """Returns the largest size, in bytes, of a file with a picture of `max_pixels`."""
    # A pixel has at most four channels of 16 bits, uncompressed. Headers and metadata get 1 MiB.
    return 8 * max_pixels + 2**20


def look(paths: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Checks files; returns their paths (bytes [n]) and their orientations (int32 [n]).

    The path of a file is replaced by "" if the file is unreadable or larger than `largest` bytes.
    """
    paths = paths.copy()
    orientations = np.full(len(paths), exif.UPRIGHT, np.int32)
    for number, path in enumerate(paths):
        try:
            orientations[number] = orientation(path, largest)
        except UnreadableError:
            paths[number] = b""
    return paths, orientations


def orientation(path: bytes | str, largest: int) -> int:
    """Returns the EXIF orientation, 1 to 8, of a picture in a file of at most `largest` bytes.

    Raises:
      UnreadableError: if the file cannot be read, is not regular, or is larger than `largest`.
    """
    try:
        with open(path, "rb", buffering=0, opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise UnreadableError(f"it has {size:,} bytes, too many for a picture")
            # The orientation is nearly always in the first 4,096 bytes.
            value = exif.orientation(os.read(file.fileno(), 4096))
            if value is None:
                value = exif.orientation(os.pread(file.fileno(), size, 0))
            return value or exif.UPRIGHT
    except NotRegularError as error:
        raise UnreadableError(error.strerror) from error
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error


def unread(path: bytes | str, largest: int) -> str | None:
    """Returns the reason why a picture's file cannot be read, or None if it can be read."""
    try:
        orientation(path, largest)
    except UnreadableError as error:
        return str(error)
    return None
