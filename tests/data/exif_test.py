"""Reads orientations in all forms that cameras and programs write."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from trainer.data.exif import orientation

PIXELS = Image.fromarray(np.zeros((6, 9, 3), np.uint8))


def tiff(order: str, value: int, *, wide: bool = False, before: int = 2) -> bytes:
    """EXIF data with `before` other entries before the orientation."""
    mark = "<" if order == "II" else ">"
    entries = [struct.pack(f"{mark}HHII", 0x0100 + i, 4, 1, 7) for i in range(before)]
    field = struct.pack(f"{mark}I", value) if wide else struct.pack(f"{mark}HH", value, 0)
    entries.append(struct.pack(f"{mark}HHI", 0x0112, 4 if wide else 3, 1) + field)
    head = order.encode() + struct.pack(f"{mark}HI", 42, 8)
    return head + struct.pack(f"{mark}H", len(entries)) + b"".join(entries) + bytes(4)


def jpeg_with(exif: bytes, *before: bytes) -> bytes:
    """A JPEG whose EXIF segment follows JFIF's and the segments `before`."""
    file = io.BytesIO()
    PIXELS.save(file, "JPEG")
    data = file.getvalue()
    at = 4 + int.from_bytes(data[4:6], "big")  # after JFIF's segment
    segments = [*before, b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif]
    return data[:at] + b"".join(segments) + data[at:]


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_of_a_jpeg_is_read(value, wide, order):
    assert orientation(jpeg_with(tiff(order, value, wide=wide))) == value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_that_pillow_writes_is_read(kind):
    for value in range(1, 9):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = value
        PIXELS.save(file, kind, exif=exif)
        assert orientation(file.getvalue()) == value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_an_image_without_exif_is_upright(kind):
    file = io.BytesIO()
    PIXELS.save(file, kind)
    assert orientation(file.getvalue()) == 1


def test_too_few_bytes_give_none():
    """A segment of 5,000 bytes precedes the EXIF data, so the caller must pass more bytes."""
    other = b"\xff\xe2" + struct.pack(">H", 5002) + bytes(5000)
    data = jpeg_with(tiff("II", 6), b"\xff", other)
    assert orientation(data[:4096]) is None
    assert orientation(data) == 6


@pytest.mark.parametrize("most", range(4080, 4104))
def test_a_header_that_is_cut_off_is_unknown(most):
    """The first bytes of a file may end inside of the EXIF data's header."""
    whole = jpeg_with(tiff("II", 6), b"\xff\xe2" + struct.pack(">H", 4052) + bytes(4050))
    assert orientation(whole[:most]) in (None, 6)
    assert orientation(whole) == 6


@pytest.mark.parametrize("mark", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("order", ["II", "MM"])
def test_a_webp_that_is_cut_off_is_unknown(mark, order):
    """The first bytes of a file may end anywhere in the EXIF chunk, which is the last one."""
    exif = mark + tiff(order, 6)
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes(10) + b"VP8 " + struct.pack("<I", 8) + bytes(8)
    chunks += b"EXIF" + struct.pack("<I", len(exif)) + exif
    whole = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    assert orientation(whole) == 6
    assert {orientation(whole[:end]) for end in range(16, len(whole))} == {None, 6}


def test_damaged_exif_is_upright_or_unknown():
    whole = jpeg_with(tiff("MM", 6, before=9))
    assert orientation(jpeg_with(b"nonsense")) == 1
    for value in (0, 9, 65535):
        assert orientation(jpeg_with(tiff("II", value))) == 1
    for end in range(len(whole)):
        assert orientation(whole[:end]) in (1, 6, None)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        data = bytearray(whole)
        for at in rng.integers(2, len(data), 3):
            data[at] = rng.integers(256)
        assert orientation(bytes(data)) in (*range(1, 9), None)
