"""Reads the files of pictures, each with its orientation, without waiting or reading for ever.

A name that ends in .jpg may lead to anything, or be replaced by anything after it was listed: a
pipe without a writer, a device that never ends. So a file is opened without waiting for a writer,
and read if what was opened is a regular file, up to the size that it has.

Python reads a chunk of files at a time, which costs as much as TensorFlow's own reading (two cores
busy otherwise, 52 KB a file: 37 µs each, and 42 µs by tf.io.read_file).
"""

import os
import stat

import numpy as np

from trainer.data import exif

# Larger files are read one by one, right before they are decoded: chunks of them would take
# gigabytes, since several are read ahead for each thread.
_AT_ONCE = 2**18
LATER = 0  # in place of an orientation: the file has not been read
# Of 16 bits in four channels, without compression.
_BYTES_PER_PIXEL = 8


class UnreadableError(Exception):
    """A picture's file cannot be read; the text says why."""


class TooLargeError(UnreadableError):
    """It is a regular file of more bytes than are to be read."""


def read(path: bytes | str, largest: int) -> bytes:
    """The content of a regular file of at most `largest` bytes.

    Raises:
      UnreadableError: there is no such file, or it is not a regular file, or larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableError("it is not a regular file")
            if status.st_size > largest:
                raise TooLargeError(f"it has {status.st_size:,} bytes, too many for a picture")
            return _content(descriptor, status.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error


def largest_file(max_image_pixels: int) -> int:
    """Bytes that a file of so many pixels may have."""
    return _BYTES_PER_PIXEL * max_image_pixels + 2**20


def read_chunk(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bytes [n] → the same paths, or empty if a file cannot be read; contents [n]; orientations
    int32 [n], or `LATER` if the file is too large to be read with others."""
    paths = paths.copy()
    contents = np.full(len(paths), b"", object)
    orientations = np.full(len(paths), exif.UPRIGHT, np.int32)
    for number, path in enumerate(paths):
        try:
            contents[number] = read(path, _AT_ONCE)
            orientations[number] = exif.orientation(contents[number])
        except TooLargeError:
            orientations[number] = LATER
        except UnreadableError:
            paths[number] = b""
    return paths, contents, orientations


def read_large(path: bytes | np.ndarray, largest: int) -> tuple[bytes, np.int32]:
    """As `read_chunk`, one large file; empty if it cannot be read."""
    try:
        content = read(as_bytes(path), largest)
    except UnreadableError:
        return b"", np.int32(exif.UPRIGHT)
    return content, np.int32(exif.orientation(content))


def as_bytes(value: bytes | np.ndarray) -> bytes:
    """What TensorFlow passes to Python for a string: an array of it outside of graphs."""
    return value.item() if isinstance(value, np.ndarray) else value


def _content(descriptor: int, size: int) -> bytes:
    """At most `size` bytes: a file may grow while it is read."""
    content = os.read(descriptor, size)
    while 0 < len(content) < size and (more := os.read(descriptor, size - len(content))):
        content += more
    return content
