"""Reads single records of an ArrayRecord file of which only parts are at hand.

The last 64 KiB of a file hold its postscript, which has the position of the footer. The footer
lists the position of each chunk of records. So a record can be read with the bytes of its chunk
alone. The format's own reader decodes and verifies the chunk: it gets a sparse file in memory that
holds the footer and the chunks at their positions.

Formats: google/array_record, cpp/layout.proto; google/riegeli, doc/riegeli_records_file_format.md.
"""

import dataclasses
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from trainer.errors import UserError

# Reads the bytes of the file from the first to the second position.
Read = Callable[[int, int], bytes]

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 65536, 24, 40
# Bytes at the end of a file that are read at first. The footer takes about 5 bytes a record.
_TAIL = 2 * _BLOCK
_NONE, _ZSTD = 0, ord("z")
_MOST_BYTES = 2**30  # Largest size of a footer.


class FormatError(Exception):
    """Raised if a file is damaged, or is not an ArrayRecord file that this module can read."""


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Positions of the records in a file.

    Attributes:
      size: size of the file, in bytes.
      footer: position and content of the footer.
      postscript: content of the last 64 KiB, without the zeros at its end.
      starts: position of each chunk, int64 [chunks + 1]; the last element is where the footer
        begins.
      records: number of records before each chunk, int64 [chunks + 1].
    """

    size: int
    footer: tuple[int, bytes]
    postscript: bytes
    starts: np.ndarray
    records: np.ndarray

    def ranges(self, records: Sequence[int]) -> list[tuple[int, int]]:
        """Returns the parts of the file that hold `records`: first positions, and ends."""
        chunks = np.unique(np.searchsorted(self.records, records, side="right") - 1)
        found: list[tuple[int, int]] = []
        for chunk in chunks:
            start, end = int(self.starts[chunk]), int(self.starts[chunk + 1])
            if found and found[-1][1] == start:
                found[-1] = found[-1][0], end
            else:
                found.append((start, end))
        return found


def read_index(read: Read, size: int) -> RecordIndex:
    """Reads the positions of the records of a file that has `size` bytes.

    Raises:
      FormatError: if the file is damaged, or its footer is compressed by another method than zstd.
      UserError: if the package zstandard is not installed.
    """
    if size < 2 * _BLOCK or size % _BLOCK:
        raise FormatError("its size is not that of an ArrayRecord file")
    start = max(0, size - _TAIL)
    tail = read(start, size)
    try:
        (place,) = _fields(next(_records(tail[size - _BLOCK - start :], size - _BLOCK)), 1)
        if not 0 < place < size:
            raise FormatError("its postscript is damaged")
        if place < start:
            start = place // _BLOCK * _BLOCK
            tail = read(start, size)
        footer = tail[place - start : size - _BLOCK - start]
        entries = _records(footer, place)
        next(entries)  # The footer's metadata.
        chunks = np.array([_fields(entry, 1, 3) for entry in entries], np.int64).reshape(-1, 2)
    except (struct.error, IndexError, OverflowError, StopIteration) as error:
        raise FormatError("its footer is damaged") from error
    starts = np.append(chunks[:, 0], place)
    if (np.diff(starts) <= 0).any():
        raise FormatError("its footer is damaged")
    records = np.concatenate([[0], np.cumsum(chunks[:, 1])])
    postscript = tail[size - _BLOCK - start :].rstrip(b"\0")
    return RecordIndex(size, (place, footer), postscript, starts, records)


def read_records(
    read: Read, index: RecordIndex, records: Sequence[int], open_file: Callable[[str], Any]
) -> list[bytes]:
    """Reads `records`, each by the bytes of its chunk.

    Args:
      read: reads bytes of the file.
      index: positions of the records in the file.
      records: numbers of the records.
      open_file: opens the format's own reader for a path.

    Raises:
      RuntimeError, ValueError, IndexError: if the reader finds damage.
    """
    file = os.memfd_create("records", os.MFD_CLOEXEC)
    try:
        os.truncate(file, index.size)
        place, footer = index.footer
        parts = [(place, footer), (index.size - _BLOCK, index.postscript)]
        parts += [(start, read(start, end)) for start, end in index.ranges(records)]
        for start, content in parts:
            os.pwrite(file, content, start)
        return open_file(f"/proc/self/fd/{file}").read(records)
    finally:
        os.close(file)


def _records(data: bytes, place: int) -> Iterator[bytes]:
    """Yields the records of the chunk at the beginning of `data`, which is at `place` in the file.

    A header of 24 bytes interrupts the file at each multiple of 64 KiB.
    """
    first = -place % _BLOCK
    kept = [data[:first]]
    kept += [data[at + _BLOCK_HEADER : at + _BLOCK] for at in range(first, len(data), _BLOCK)]
    data = b"".join(kept)
    size, _, kind, decoded = struct.unpack_from("<8xQQQQ", data)
    count = kind >> 8
    data = data[_CHUNK_HEADER : _CHUNK_HEADER + size]
    if kind & 255 != ord("r") or not data or decoded > _MOST_BYTES:
        raise FormatError("its footer is damaged")
    sizes_size, at = _varint(data, 1)
    sizes = _decompressed(data[0], data[at : at + sizes_size])
    values = _decompressed(data[0], data[at + sizes_size :])
    begin = at = 0
    for _ in range(count):
        size, at = _varint(sizes, at)
        yield values[begin : begin + size]
        begin += size


def _decompressed(method: int, data: bytes) -> bytes:
    if method == _NONE:
        return data
    if method != _ZSTD:
        raise FormatError(f"its footer is compressed by the method {chr(method)!r}, not by zstd")
    try:
        import zstandard  # Only sets in buckets need the package.
    except ImportError as error:
        raise UserError(
            "sets in buckets need the package zstandard, which is not installed.\n"
            "Install it in Crescendo's folder: pip install -e '.[cloud]'"
        ) from error
    size, at = _varint(data, 0)
    if size > _MOST_BYTES:
        raise FormatError("its footer is damaged")
    try:
        return zstandard.ZstdDecompressor().decompress(data[at:], max_output_size=size)
    except zstandard.ZstdError as error:
        raise FormatError("its footer is damaged") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number at `at`, of 7 bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _fields(message: bytes, *wanted: int) -> list[int]:
    """Returns the values of the fields `wanted` of a protocol buffer that has only integers."""
    values, at = {}, 0
    while at < len(message):
        key, at = _varint(message, at)
        values[key >> 3], at = _varint(message, at)
    return [values.get(number, 0) for number in wanted]
