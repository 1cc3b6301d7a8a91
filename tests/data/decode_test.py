"""Compares crops with their source pixels, and decodes every kind of file in image folders."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.support.encoded_images import DECODERS, ERRORS, encoded, patches
from trainer.data.decode import CROP_AREA, CROP_ASPECT, central_crop, random_crop, whole
from trainer.nn.splitmix64 import random_bits

POSITIONS = tf.range(10**9, 10**9 + 600, dtype=tf.int64)


def ramps(height: int, width: int) -> np.ndarray:
    """An image whose red is the pixel's row and whose green is its column."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, height)[:, None]
    pixels[..., 1] = np.linspace(0, 255, width)[None]
    return pixels


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
