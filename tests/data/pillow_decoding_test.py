"""Images that are too large, damaged or of another format: named, and not decoded."""

import contextlib
import pathlib
import re
import struct
import zlib

import pytest
import tensorflow as tf

from tests.support.encoded_images import DECODERS, ERRORS, SHAPE, encoded, patches
from trainer.data.decode import central_crop, whole
from trainer.data.pillow_decoding import reason


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header has another size than its pixels."""
    data = bytearray(encoded(patches(), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(patches(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_of(canvas: tuple[int, int], frame: tuple[int, int]) -> bytes:
    header = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6)
    return header + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x4c\1\0;"


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(patches(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


HOSTILE = {
    "png": png_of(20_000, 20_000),
    "png of 2³¹": png_of(2**31 - 1, 2**31 - 1),
    "png whose product is 0 in 64 bits": png_of(2**32 - 1, 2**32 - 1),
    "jpeg": jpeg_of(65_500, 65_500),
    "gif": gif_of((65_535, 65_535), (1, 1)),
    "gif whose frame exceeds it": gif_of((1, 1), (65_535, 65_535)),
    "bmp": bmp_of(2**30, 2**30),
    "webp": b"RIFF"
    + struct.pack("<I", 22)
    + b"WEBPVP8X"
    + struct.pack("<IB", 10, 0)
    + bytes(3)
    + b"\xff\xff\xff" * 2,
}


def peak():
    """The largest memory of this process since the peak was last reset, in KiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_image_of_too_many_pixels_is_not_decoded(kind):
    data = HOSTILE[kind]
    with contextlib.suppress(OSError):  # Some containers do not have this file.
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # Resets the peak to the present use.
    before = peak()
    for decoded in DECODERS.values():
        with pytest.raises(ERRORS):
            decoded(tf.constant(data), None)
    why = reason(data, 178_956_970)
    if "png of" not in kind and "0 in" not in kind:
        assert why is not None
        assert "more than --max_image_pixels=178956970" in why or "damaged" in why
    assert peak() - before < 2**19  # The smallest would take 1.2 GB.


def test_the_limit_is_in_pixels_and_can_be_raised():
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP"):
        data = encoded(patches(), kind)
        assert whole(tf.constant(data), SHAPE, max_pixels=4800).shape == SHAPE
        for decoded in (whole, central_crop):
            with pytest.raises(ERRORS):
                decoded(tf.constant(data), SHAPE, max_pixels=4799)
        assert reason(data, 4800) is None
        expected = "it has 80 × 60 pixels, more than --max_image_pixels=4799; raise that limit"
        assert reason(data, 4799) == expected


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_cut_off_is_said_to_be_damaged(kind):
    data = encoded(patches(), kind)
    assert reason(data[: len(data) * 2 // 3], 4800).startswith("it is damaged")


def test_a_png_whose_header_says_1_by_1_does_not_crash():
    with contextlib.suppress(*ERRORS):
        assert whole(tf.constant(png_of(1, 1)), SHAPE).shape == SHAPE


@pytest.mark.parametrize(
    "data, name",
    [
        (encoded(patches(), "TIFF"), "TIFF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0\0\0\x1cftypavif" + bytes(20), "AVIF"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
    ],
)
def test_an_unsupported_format_is_named(data, name):
    assert reason(data, 10**6) == f"it holds {name}, and JPEG, PNG, WebP, BMP and GIF are read"
    with pytest.raises(ERRORS):
        whole(tf.constant(data), SHAPE)
