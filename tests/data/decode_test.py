"""Compares crops with their source pixels, and decodes every kind of file in image folders."""

import contextlib
import io
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from trainer.data.decode import CROP_AREA, CROP_ASPECT, central_crop, random_crop, whole
from trainer.data.pillow_decoding import UndecodableError, reason
from trainer.nn.splitmix64 import random_bits

POSITIONS = tf.range(10**9, 10**9 + 600, dtype=tf.int64)


def ramps(height: int, width: int) -> np.ndarray:
    """An image whose red is the pixel's row and whose green is its column."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, height)[:, None]
    pixels[..., 1] = np.linspace(0, 255, width)[None]
    return pixels


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("height, width", [(375, 500), (64, 40), (9, 7), (1, 1)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_central_crop_is_the_middle(height, width, kind):
    data = encoded(ramps(height, width), kind, **({"subsampling": 0} if kind == "JPEG" else {}))
    pixels = tf.io.decode_image(data, 3)
    side = max(1, round(0.875 * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    expected = tf.image.resize(pixels[top : top + side, left : left + side], (32, 32))
    found = central_crop(tf.constant(data), (32, 32, 3)).numpy()

    assert np.abs(found - expected.numpy()).max() <= 0.51


def corners(crop: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """First and last row and column, in pixels, of a crop of `ramps`, and whether it is flipped."""
    rows = crop[[0, -1], 16, 0] / 255 * (height - 1)
    columns = crop[16, [0, -1], 1] / 255 * (width - 1)
    return rows, np.sort(columns), bool(columns[0] > columns[1])


def test_random_crops_have_the_papers_area_and_aspect():
    height, width = 300, 400
    data = tf.constant(encoded(ramps(height, width), "PNG"))
    crop = tf.function(lambda bits: random_crop(data, bits, (33, 33, 3)))
    areas, aspects, flips, tops, lefts = [], [], [], [], []
    for bits in random_bits(POSITIONS, seed=4):
        rows, columns, flipped = corners(crop(bits).numpy().astype(float), height, width)
        # Samples are at half-pixel centres, so 33 of them span 32/33 of the crop.
        high, wide = np.ptp(rows) * 33 / 32, np.ptp(columns) * 33 / 32
        areas.append(high * wide / (height * width))
        aspects.append(wide / high)
        flips.append(flipped)
        tops.append(rows.mean() / height)
        lefts.append(columns.mean() / width)
    assert min(areas) >= CROP_AREA[0] * 0.95
    assert max(areas) <= 1.02
    assert min(areas) < 0.1
    assert max(areas) > 0.8
    assert min(aspects) >= CROP_ASPECT[0] * 0.95
    assert max(aspects) <= CROP_ASPECT[1] * 1.05
    assert np.ptp(aspects) > 0.5
    assert abs(np.mean(flips) - 0.5) < 0.07  # 3.4 standard deviations
    for centres in (tops, lefts):
        assert abs(np.mean(centres) - 0.5) < 0.03
    # The flip is independent of the crop.
    assert abs(np.corrcoef(flips, areas)[0, 1]) < 0.15
    assert abs(np.corrcoef(flips, lefts)[0, 1]) < 0.15


def test_a_crop_is_a_function_of_its_bits():
    data = tf.constant(encoded(ramps(80, 60), "JPEG"))
    bits = random_bits(POSITIONS[:8], seed=0)
    once, again = (
        np.stack([random_crop(data, each, (16, 16, 3)) for each in bits]) for _ in range(2)
    )
    in_graph = tf.map_fn(
        lambda each: random_crop(data, each, (16, 16, 3)), bits, fn_output_signature=tf.uint8
    )
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, in_graph)
    assert len({crop.tobytes() for crop in once}) == 8


def test_a_cropped_jpeg_equals_the_crop_of_the_whole():
    """Compares the fused crop with the same window of the whole decoded image."""
    data = encoded(ramps(200, 300), "JPEG", quality=95)
    png = encoded(tf.io.decode_jpeg(data, channels=3).numpy(), "PNG")
    for bits in random_bits(POSITIONS[:20], seed=1):
        fused, cut = (
            random_crop(tf.constant(each), bits, (32, 32, 3)).numpy().astype(int)
            for each in (data, png)
        )
        assert np.abs(fused - cut).max() <= 2  # Chroma interpolation differs at the borders.


KINDS = {
    "jpeg": lambda image: encoded(image, "JPEG"),
    "progressive jpeg": lambda image: encoded(image, "JPEG", progressive=True),
    "grayscale jpeg": lambda image: encoded(image.convert("L"), "JPEG"),
    "cmyk jpeg": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "png": lambda image: encoded(image, "PNG"),
    "grayscale png": lambda image: encoded(image.convert("L"), "PNG"),
    "png of one bit": lambda image: encoded(image.convert("1"), "PNG"),
    "palette png": lambda image: encoded(image.convert("P"), "PNG"),
    "png with alpha": lambda image: encoded(image.convert("RGBA"), "PNG"),
    "png of 16 bits": lambda image: encoded(
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_decoded(kind):
    image = Image.fromarray(ramps(60, 80))
    data = tf.constant(KINDS[kind](image))
    seen = image.convert("L") if "gray" in kind or "bit" in kind else image
    expected = np.asarray(seen.convert("RGB").resize((24, 24), Image.Resampling.BOX), float)
    # Some kinds are dithered to 2 or 256 colours, or converted to CMYK and back.
    tolerance = {"png of one bit": 60, "palette png": 12}.get(kind, 6)
    found = whole(data, (24, 24, 3)).numpy()
    assert np.abs(found - expected).mean() < tolerance
    for crop in (
        central_crop(data, (24, 24, 3)),
        random_crop(data, tf.constant(7, tf.uint64), (24, 24, 3)),
    ):
        assert crop.shape == (24, 24, 3)
        assert crop.dtype == tf.uint8
        assert np.std(crop) > 5


def test_an_image_of_the_right_size_is_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(whole(tf.constant(encoded(pixels, "PNG")), (5, 7, 3)), pixels)


# In a graph, TensorFlow turns an UndecodableError into an InvalidArgumentError.
ERRORS = (tf.errors.InvalidArgumentError, UndecodableError)
BAD = {
    "empty": b"",
    "text": b"not an image\n",
    "half": encoded(ramps(60, 80), "JPEG")[:700],
    "header": encoded(ramps(60, 80), "JPEG")[:20],
    "half png": (lambda data: data[: len(data) // 2])(encoded(ramps(60, 80), "PNG")),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_not_an_image_is_an_error(kind):
    data, bits = tf.constant(BAD[kind]), tf.constant(0, tf.uint64)
    for decoded in (
        lambda: whole(data, (8, 8, 3)),
        lambda: central_crop(data, (8, 8, 3)),
        lambda: random_crop(data, bits, (8, 8, 3)),
    ):
        with pytest.raises(ERRORS):
            decoded()


def patches() -> np.ndarray:
    """A 60 × 80 image of 48 flat squares of random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return np.kron(colours, np.ones((10, 10, 1), np.uint8))


SHAPE = (24, 30, 3)
BITS = tf.constant(987654321, tf.uint64)
DECODERS = {
    "whole": lambda data, orientation: whole(data, SHAPE, orientation),
    "central": lambda data, orientation: central_crop(data, SHAPE, orientation),
    "random": lambda data, orientation: random_crop(data, BITS, SHAPE, orientation),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_decoded_as_pillow_shows_it(orientation, decoder):
    image = Image.fromarray(patches())
    image.getexif()[0x0112] = orientation
    seen = np.asarray(ImageOps.exif_transpose(image))
    decoded = DECODERS[decoder]
    stored = tf.constant(encoded(patches(), "PNG"))
    found = decoded(stored, tf.constant(orientation)).numpy().astype(int)
    expected = decoded(tf.constant(encoded(seen, "PNG")), None).numpy().astype(int)
    assert np.abs(found - expected).max() <= 1
    # For a JPEG, only the crop is decoded, at its place in the stored image.
    jpeg = tf.constant(encoded(patches(), "JPEG", quality=100, subsampling=0))
    assert np.abs(decoded(jpeg, tf.constant(orientation)).numpy() - found).mean() < 8


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "animated GIF", "animated WEBP"])
def test_the_first_frame_of_other_formats_is_decoded(kind):
    image = Image.fromarray(patches())
    more = {"save_all": True, "append_images": [Image.new("RGB", image.size)] * 3}
    options = more if "animated" in kind else {}
    if "WEBP" in kind:
        options["lossless"] = True
    data = tf.constant(encoded(image, kind.removeprefix("animated "), **options))
    in_graph = tf.function(lambda data: whole(data, (60, 80, 3)))
    for found in (whole(data, (60, 80, 3)), in_graph(data)):
        np.testing.assert_array_equal(found, patches())


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
