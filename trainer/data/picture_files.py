"""Checks that pictures are regular files and finds their orientations, before they are read.

A path that ends in .jpg may lead to a pipe without a writer or to an endless device, which
TensorFlow would read forever. So Python opens each path first, without waiting for a writer, and
TensorFlow gets only the paths of regular files. The first bytes of a file give its orientation.

Each call from TensorFlow into Python checks many files, because the call itself takes longer than
checking one file.
"""

import os

import numpy as np

from trainer.data import exif
from trainer.system.regular_file import NotRegularError, opener


class UnreadableError(Exception):
    """Raised if a picture's file cannot be read; the text is the reason."""


def largest_file(max_pixels: int) -> int:
    """Returns the largest size, in bytes, of a file with a picture of `max_pixels`."""
    # A pixel has at most four channels of 16 bits, uncompressed. Headers and metadata get 1 MiB.
    return 8 * max_pixels + 2**20


def look(paths: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the paths (bytes [n]; empty if unreadable) and the orientations (int32 [n])."""
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
      UnreadableError: if the file cannot be read, is not regular, or is larger.
    """
    try:
        with open(path, "rb", buffering=0, opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise UnreadableError(f"it has {size:,} bytes, too many for a picture")
            # The first 4,096 bytes nearly always have the orientation.
            value = exif.orientation(os.read(file.fileno(), 4096))
            if value is None:
                value = exif.orientation(os.pread(file.fileno(), size, 0))
            return value or exif.UPRIGHT
    except NotRegularError as error:
        raise UnreadableError(error.strerror) from error
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error


def unread(path: bytes | str, largest: int) -> str | None:
    """Returns why `orientation` cannot read a picture's file; None if it can read the file."""
    try:
        orientation(path, largest)
    except UnreadableError as error:
        return str(error)
    return None
