"""Compares random erasing with a slow reference, and tests its distributions."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.support.distributions import assert_uniform
from tests.support.hashes import words_of
from trainer.config import augment_list
from trainer.data.augment import augmenter

SEED = 11


def erasing(probability, area):
    asked = augment_list.parse("erasing", erasing_probability=probability, erasing_area=area)
    return augmenter(asked)


def slow_erasing(image, position, probability, area):
    """Zhong et al. 2017, algorithm 1, with an aspect that fits: one image [h, w, c]."""
    height, width, _ = image.shape
    words = words_of(position, SEED, 16 + image.size)
    erased, size, aspect, row, column = ((word >> 11) / 2**53 for word in words[:5])
    if erased >= probability:
        return image
    size = area[0] + (area[1] - area[0]) * size
    lowest, highest = max(0.3, size), min(1 / 0.3, 1 / size)
    aspect = lowest + (highest - lowest) * aspect
    rows = math.floor(math.sqrt(size * aspect) * height + 0.5)
    columns = math.floor(math.sqrt(size / aspect) * width + 0.5)
    y, x = int(row * (height - rows + 1)), int(column * (width - columns + 1))
    noise = b"".join(word.to_bytes(8, "little") for word in words[16:])[: image.size]
    result, place = image.copy(), (slice(y, y + rows), slice(x, x + columns))
    result[place] = np.frombuffer(noise, np.uint8).reshape(image.shape)[place]
    return result


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 20, 3), (5, 7, 2), (1, 1, 1)])
@pytest.mark.parametrize(("probability", "area"), [(0.5, (0.02, 0.4)), (1.0, (0.5, 1.0))])
def test_erasing_equals_reference(shape, probability, area):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, *shape), dtype=np.uint8)
    positions = rng.integers(0, 2**40, 60)
    found = erasing(probability, area)(tf.constant(images), tf.constant(positions), SEED).numpy()
    for image, position, result in zip(images, positions.tolist(), found, strict=True):
        np.testing.assert_array_equal(result, slow_erasing(image, position, probability, area))


def test_share_area_and_aspect_are_those_that_were_asked_for():
    """Reads the rectangles from black images; all noise but 1 in 65,536 values is above 0."""
    n, side = 3000, 64
    black = tf.zeros([n, side, side, 2], tf.uint8)
    found = erasing(0.25, (0.1, 0.3))(black, tf.range(n, dtype=tf.int64), SEED).numpy()
    lit = found.any(axis=-1)
    erased = np.flatnonzero(lit.any(axis=(1, 2)))
    assert abs(len(erased) - n / 4) < 4 * (n * 3 / 16) ** 0.5
    rows, columns = (lit[erased].any(axis=axis).sum(axis=1) for axis in (2, 1))
    area, aspect = rows * columns / side**2, rows / columns
    assert_uniform(area, 0.1, 0.3)
    # Given the area, the aspect is uniform where the rectangle fits: from 0.3 to 3.33 at most.
    assert_uniform((aspect - 0.3) / (np.minimum(1 / 0.3, 1 / area) - 0.3), 0, 1)


def test_no_image_or_every_image_may_be_erased():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    positions = tf.range(40, dtype=tf.int64)
    every = erasing(1.0, (0.9, 1.0))(tf.constant(images), positions, SEED).numpy()
    assert (every != images).any(axis=(1, 2, 3)).all()
    never = erasing(1e-9, (0.9, 1.0))(tf.constant(images), positions, SEED).numpy()
    np.testing.assert_array_equal(never, images)
