"""Reads the EXIF orientation of a JPEG or PNG file with TensorFlow's operations alone.

A SavedModel can hold this graph. The graph finds the same orientation as `exif.orientation`. The
first byte of a file has index 0. Indices are int64, because a PNG's chunk may have almost 2³²
bytes.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.data.exif import PNG, UPRIGHT

# Largest number of JPEG segments or PNG chunks to search. The EXIF data are in one of the first
# few. The limit bounds the time that a hostile file takes.
_MOST_SEGMENTS = 1000
_TAG, _WIDE, _ENTRY_BYTES = 0x0112, 4, 12
_LARGEST_READ = 16


class _Bytes:
    """The bytes of a file; bytes after its end are 0."""

    def __init__(self, encoded: tf.Tensor) -> None:
        self._content = tf.concat(
            [tf.io.decode_raw(encoded, tf.uint8), tf.zeros([_LARGEST_READ], tf.uint8)], axis=0
        )
        self.size = tf.size(self._content, tf.int64) - _LARGEST_READ

    def integers(self, at: tf.Tensor, count: int) -> tf.Tensor:
        """Returns `count` bytes from index `at` on: int64 [count]."""
        places = tf.minimum(at, self.size) + tf.range(count, dtype=tf.int64)
        return tf.cast(tf.gather(self._content, places), tf.int64)

    def equal(self, at: tf.Tensor, text: bytes) -> tf.Tensor:
        """Returns whether the bytes from index `at` on are `text`: bool []."""
        expected = tf.constant(list(text), tf.int64)
        return tf.reduce_all(tf.equal(self.integers(at, len(text)), expected))

    def table(self, at: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Returns `rows` EXIF entries from `at` on, then a row of zeros: int64 [rows + 1, 12]."""
        content = tf.cast(self._content[at : at + rows * _ENTRY_BYTES], tf.int64)
        zeros = tf.zeros([_ENTRY_BYTES], tf.int64)
        return tf.reshape(tf.concat([content, zeros], axis=0), [-1, _ENTRY_BYTES])


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the orientation, int32 [] from 1 to 8; `encoded`, bytes [], is a file's content."""
    content = _Bytes(encoded)
    start = tf.case(
        [
            (content.equal(_at(0), b"\xff\xd8\xff"), lambda: _in_jpeg(content)),
            (content.equal(_at(0), PNG), lambda: _in_png(content)),
        ],
        default=lambda: content.size,
    )
    return tf.cast(_tag(content, start), tf.int32)


def _at(position: int) -> tf.Tensor:
    return tf.constant(position, tf.int64)


def _in_jpeg(content: _Bytes) -> tf.Tensor:
    """Returns the index at which a JPEG's EXIF data start; without EXIF data, the file's size."""

    def is_segment(at: tf.Tensor) -> tf.Tensor:
        return (at + 4 <= content.size) & (content.integers(at, 1)[0] == 0xFF)

    def step(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker = content.integers(at + 1, 1)[0]
        ends = ((marker >= 0xC0) & (marker <= 0xC3)) | (marker == 0xD9) | (marker == 0xDA)
        found = (marker == 0xE1) & content.equal(at + 4, b"Exif\0\0")
        length = _number(content.integers(at + 2, 2), tf.constant(False))
        return found, ends, at + tf.where(marker == 0xFF, _at(1), 2 + length)

    return _search(content, _at(2), is_segment, step, 10)


def _in_png(content: _Bytes) -> tf.Tensor:
    """Returns the index of a PNG's EXIF data, if the file has such data before its pixels.

    If the file has no EXIF data there, the result is the file's size.
    """

    def is_chunk(at: tf.Tensor) -> tf.Tensor:
        return at + 8 <= content.size

    def step(at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        found = content.equal(at + 4, b"eXIf")
        ends = content.equal(at + 4, b"IDAT") | content.equal(at + 4, b"IEND")
        length = _number(content.integers(at, 4), tf.constant(False))
        return found, ends, at + 12 + length

    return _search(content, _at(len(PNG)), is_chunk, step, 8)


def _search(
    content: _Bytes,
    first: tf.Tensor,
    is_part: Callable[[tf.Tensor], tf.Tensor],
    step: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    offset: int,
) -> tf.Tensor:
    """Returns the index at which a file's EXIF data start; without EXIF data, the file's size.

    The search visits the parts of the file: the segments of a JPEG or the chunks of a PNG.

    Args:
      content: the file.
      first: index at which the first part starts.
      is_part: maps an index to whether a part can start there.
      step: maps the index of a part to whether it has EXIF data, whether the search ends there,
        and the index of the next part.
      offset: number of bytes from the start of a part to the start of its EXIF data.
    """

    def going(at: tf.Tensor, start: tf.Tensor, ended: tf.Tensor) -> tf.Tensor:
        del start
        return ~ended & is_part(at)

    def body(
        at: tf.Tensor, start: tf.Tensor, ended: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        del ended
        found, ends, following = step(at)
        return following, tf.where(found, at + offset, start), found | ends

    state = first, content.size, tf.constant(False)
    _, start, _ = tf.while_loop(going, body, state, maximum_iterations=_MOST_SEGMENTS)
    return start


def _tag(content: _Bytes, start: tf.Tensor) -> tf.Tensor:
    """Returns the orientation, int64 [], in the EXIF data that start at index `start`."""
    little = content.equal(start, b"II*\0")
    known = little | content.equal(start, b"MM\0*")
    directory = start + _number(content.integers(start + 4, 4), little)
    count = _number(content.integers(directory, 2), little)
    whole = tf.maximum(_at(0), content.size - directory - 2) // _ENTRY_BYTES
    rows = tf.where(known, tf.minimum(count, whole), _at(0))
    entries = content.table(tf.minimum(directory + 2, content.size), rows)
    matches = _number(entries[:, :2], little) == _TAG
    entry = tf.gather(entries, tf.argmax(tf.cast(matches, tf.int32)))
    # The standard stores the value in 16 bits, but some programs write 32 bits.
    wide = _number(entry[2:4], little) == _WIDE
    value = tf.where(wide, _number(entry[8:12], little), _number(entry[8:10], little))
    valid = tf.reduce_any(matches) & (value >= 1) & (value <= 8)
    return tf.where(valid, value, _at(UPRIGHT))


def _number(integers: tf.Tensor, little: tf.Tensor) -> tf.Tensor:
    """Decodes each group of n bytes, int64 [..., n], into one integer: int64 [...].

    If `little` is True, the first byte is the least significant one. Otherwise, the last byte is.
    """
    places = [256**place for place in range(integers.shape[-1])]
    digits = tf.where(little, integers, tf.reverse(integers, [-1]))
    return tf.reduce_sum(digits * tf.constant(places, tf.int64), axis=-1)
