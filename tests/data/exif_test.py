"""Orientations in the forms in which cameras and programs write them."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from trainer.data.exif import orientation

PIXELS = Image.fromarray(np.zeros((6, 9, 3), np.uint8))


def tiff(order: str, value: int, *, wide: bool = False, before: int = 2) -> bytes:
    """EXIF data with the orientation behind some other entries."""
    mark = "<" if order == "II" else ">"
    entries = [struct.pack(f"{mark}HHII", 0x0100 + i, 4, 1, 7) for i in range(before)]
    field = struct.pack(f"{mark}I", value) if wide else struct.pack(f"{mark}HH", value, 0)
    entries.append(struct.pack(f"{mark}HHI", 0x0112, 4 if wide else 3, 1) + field)
    head = order.encode() + struct.pack(f"{mark}HI", 42, 8)
    return head + struct.pack(f"{mark}H", len(entries)) + b"".join(entries) + bytes(4)


def jpeg_with(exif: bytes, *before: bytes) -> bytes:
    """A JPEG whose EXIF segment follows JFIF's and others."""
    file = io.BytesIO()
    PIXELS.save(file, "JPEG")
    data = file.getvalue()
    at = 4 + int.from_bytes(data[4:6], "big")  # behind JFIF's
    segments = [*before, b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif]
    return data[:at] + b"".join(segments) + data[at:]


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("value", range(1, 9))
def test_of_a_jpeg(value, wide, order):
    assert orientation(jpeg_with(tiff(order, value, wide=wide))) == value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_as_pillow_writes_it(kind):
    for value in range(1, 9):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = value
        PIXELS.save(file, kind, exif=exif)
        assert orientation(file.getvalue()) == value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_without_exif_it_is_upright(kind):
    file = io.BytesIO()
    PIXELS.save(file, kind)
    assert orientation(file.getvalue()) == 1


def test_the_first_bytes_do_not_tell():
    """Another segment of 5,000 bytes precedes: the caller then gives more."""
    other = b"\xff\xe2" + struct.pack(">H", 5002) + bytes(5000)
    data = jpeg_with(tiff("II", 6), b"\xff", other)
    assert orientation(data[:4096]) is None
    assert orientation(data) == 6


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
