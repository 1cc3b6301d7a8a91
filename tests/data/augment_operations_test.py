"""Compares each operation at each strength with Pillow's: every pixel is equal."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from trainer.data import augment_cases
from trainer.data.augment_cases import OPERATIONS, STRENGTHS, randaugment, tabulate, trivialaugment
from trainer.data.augment_operations import move
from trainer.data.augment_policies import applied

ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}
SHAPES = [(28, 28, 1), (32, 32, 3), (9, 20, 3), (21, 8, 1), (2, 3, 3), (1, 1, 1)]


def randaugment_numbers(magnitude, sign, height, width):
    """Cubuk et al. 2018, table 6, over 331: what Pillow's functions are called with, by operation.

    The ends of the ranges are at magnitude 10, and 0 changes nothing.
    """
    return {
        "shear": sign * 0.3 * magnitude / 10,
        "translate_x": sign * int(150 / 331 * width * magnitude / 10),
        "translate_y": sign * int(150 / 331 * height * magnitude / 10),
        "rotate": sign * 30 * magnitude / 10,
        "solarize": 256 - int(256 * magnitude / 10),
        "posterize": 8 - int(4 * magnitude / 10),
        "enhance": 1 + sign * 0.9 * magnitude / 10,
    }


def trivialaugment_numbers(strength, sign):
    """The wide space in the code of Müller & Hutter 2021, with 31 strengths."""
    return {
        "shear": sign * strength * 0.99 / 30,
        "translate_x": sign * int(strength * 32 / 30),
        "translate_y": sign * int(strength * 32 / 30),
        "rotate": sign * int(strength * 135 / 30),
        "solarize": 256 - int(strength * 256 / 30),
        "posterize": 8 - int(strength * 6 / 30),
        "enhance": strength * 1.99 / 30 + 0.01,
    }


def by_pillow(image, operation, numbers):
    """The operation on an image [h, w, c] by Pillow, with `numbers`."""
    pillow = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)

    def moved(*affine):
        return pillow.transform(pillow.size, Image.Transform.AFFINE, affine)

    match operation:
        case "identity":
            result = pillow
        case "autocontrast":
            result = ImageOps.autocontrast(pillow)
        case "equalize":
            result = ImageOps.equalize(pillow)
        case "rotate":
            result = pillow.rotate(numbers["rotate"])
        case "solarize":
            result = ImageOps.solarize(pillow, numbers["solarize"])
        case "posterize":
            result = ImageOps.posterize(pillow, numbers["posterize"])
        case "shear_x":
            result = moved(1, numbers["shear"], 0, 0, 1, 0)
        case "shear_y":
            result = moved(1, 0, 0, numbers["shear"], 1, 0)
        case "translate_x":
            result = moved(1, 0, numbers["translate_x"], 0, 1, 0)
        case "translate_y":
            result = moved(1, 0, 0, 0, 1, numbers["translate_y"])
        case _:
            result = ENHANCERS[operation](pillow).enhance(numbers["enhance"])
    return np.asarray(result).reshape(image.shape)


def pictures(shape):
    """Noise, few dark levels, a ramp, and one level: uint8 [4, h, w, c]."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(20, 230, np.prod(shape)).reshape(shape)
    kinds = [rng.integers(0, 256, shape), rng.integers(3, 7, shape), ramp, np.full(shape, 77)]
    return np.stack(kinds).astype(np.uint8)


def assert_equal_to_pillow(shape, strengths, numbers):
    """Applies all cases to all pictures; `numbers` are of each strength and sign, in order."""
    images = pictures(shape)
    cases = tabulate(strengths, *shape)
    every = list(itertools.product(OPERATIONS, numbers))
    repeated = np.repeat(np.arange(len(every)), len(images)).astype(np.int32)
    batch = np.tile(images, (len(every), 1, 1, 1))
    found = applied(tf.constant(batch), tf.constant(repeated), cases).numpy()
    found = found.reshape(len(every), *images.shape)
    for (operation, values), results in zip(every, found, strict=True):
        for image, result in zip(images, results, strict=True):
            expected = by_pillow(image, operation, values)
            np.testing.assert_array_equal(result, expected, err_msg=f"{operation}, {values}")


@pytest.mark.parametrize("shape", SHAPES)
def test_randaugment_equals_pillow(shape):
    height, width, _ = shape
    for magnitude in (0, 1, 5.5, 9, 10):
        numbers = [randaugment_numbers(magnitude, sign, height, width) for sign in (1, -1)]
        assert_equal_to_pillow(shape, [randaugment(magnitude, height, width)], numbers)


@pytest.mark.parametrize("shape", SHAPES)
def test_trivialaugment_equals_pillow(shape):
    strengths = [trivialaugment(strength) for strength in range(STRENGTHS)]
    numbers = [trivialaugment_numbers(k, sign) for k in range(STRENGTHS) for sign in (1, -1)]
    assert_equal_to_pillow(shape, strengths, numbers)


def test_magnitude_0_only_equalizes_and_stretches():
    images = pictures((24, 20, 3))
    cases = tabulate([randaugment(0, 24, 20)], 24, 20, 3)
    for case in range(len(cases.kind)):
        found = applied(tf.constant(images), tf.fill([4], case), cases).numpy()
        changing = OPERATIONS[case // 2] in ("autocontrast", "equalize")
        assert np.array_equal(found, images) != changing


def test_a_rotation_by_interpolation_differs_where_grey_levels_do():
    """Bilinear rotation by 27 degrees differs by half of the pixels' own differences, if smooth."""
    y, x = np.mgrid[:64, :64]
    smooth = (127 + 60 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)[..., None]
    affine = tabulate([randaugment(9, 64, 64)], 64, 64, 1).affine[2 * OPERATIONS.index("rotate")]
    nearest = move(tf.constant(smooth[None]), tf.constant(affine[None])).numpy()[0, ..., 0]
    rotated = Image.fromarray(smooth[..., 0]).rotate(27, Image.Resampling.BILINEAR)
    inside = np.asarray(Image.fromarray(np.full((64, 64), 1, np.uint8)).rotate(27)) == 1
    difference = np.abs(nearest.astype(int) - np.asarray(rotated))[inside]
    steps = np.abs(np.diff(smooth[..., 0].astype(int), axis=0)).max()
    assert difference.max() <= steps + 1
    assert 0.5 < difference.mean() < 2


def test_every_kind_may_be_absent_or_the_only_one():
    images = pictures((6, 5, 3))
    cases = tabulate([randaugment(9, 6, 5)], 6, 5, 3)
    assert {*cases.kind.tolist()} == {*augment_cases.Kind}
    for case in range(len(cases.kind)):
        alone = applied(tf.constant(images[:1]), tf.constant([case]), cases)
        assert alone.shape == (1, 6, 5, 3)
    empty = applied(tf.zeros([0, 6, 5, 3], tf.uint8), tf.zeros([0], tf.int32), cases)
    assert empty.shape == (0, 6, 5, 3)
