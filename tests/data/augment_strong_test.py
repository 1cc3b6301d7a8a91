"""Compares the preset `strong` with a slow reference, and tests its distributions."""

import cmath
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.support.distributions import assert_uniform
from tests.support.hashes import hash_of, words_of
from trainer.config import augment_list
from trainer.data import augment_strong
from trainer.data.augment import augmenter
from trainer.data.augment_strong import strong
from trainer.nn.splitmix64 import random_bits

medium = augmenter(augment_list.parse("medium"))


def slow_strong(image: np.ndarray, position: int, seed: int) -> np.ndarray:
    """Shifts, flips, zooms, rotates, shifts grey levels, erases or not: one image [h, w, c]."""
    height, width, channels = image.shape
    bits = hash_of(position, seed)
    words = words_of(position, seed, 8 + image.size)
    flip, top, left = bits & 1, (bits >> 1 & 0x7FFFFFFF) % 9, (bits >> 32) % 9
    draws = [(word >> 11) / 2**53 for word in words[:8]]
    zoom = 0.75 + draws[0] * 0.5
    turn = cmath.exp(-1j * math.radians(-10 + draws[1] * 20))
    level = -50 + draws[2] * 100
    centre = complex(width - 1, height - 1) / 2

    result = np.zeros((height, width, channels))
    for y in range(height):
        for x in range(width):
            source = centre + (complex(x, y) - centre) * turn / zoom
            column, row = source.real, source.imag
            column = (width - 1 - column if flip else column) + left - 4
            row += top - 4
            for i in (math.floor(row), math.floor(row) + 1):
                for j in (math.floor(column), math.floor(column) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        result[y, x] += image[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    result = np.clip(np.floor(result + level + 0.5), 0, 255).astype(np.uint8)

    if draws[3] < 0.5:
        area, aspect = 0.05 + draws[4] * 0.15, 0.2 + draws[5] * 0.6
        rows = math.floor(math.sqrt(area * aspect) * height + 0.5)
        columns = math.floor(math.sqrt(area / aspect) * width + 0.5)
        y, x = int(draws[6] * (height - rows + 1)), int(draws[7] * (width - columns + 1))
        noise = b"".join(word.to_bytes(8, "little") for word in words[8:])[: image.size]
        place = (slice(y, y + rows), slice(x, x + columns))
        result[place] = np.frombuffer(noise, np.uint8).reshape(image.shape)[place]
    return result


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (32, 32, 3), (9, 20, 3), (5, 7, 2), (3, 1, 1), (1, 1, 4)]
)
def test_strong_equals_reference(shape):
    """Allows for rounding: float32 coordinates are off by 1e-6, so 1 value in 1,000 may be by 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (24, *shape), dtype=np.uint8)
    positions = rng.integers(0, 2**40, 24)
    out = strong(tf.constant(images), tf.constant(positions), seed=3).numpy()
    slow = [slow_strong(image, int(p), 3) for image, p in zip(images, positions, strict=True)]
    difference = np.abs(out.astype(int) - np.stack(slow))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1 + difference.size / 1000


def test_strong_without_its_own_changes_is_medium(monkeypatch):
    monkeypatch.setattr(augment_strong, "ZOOM", (1.0, 1.0))
    monkeypatch.setattr(augment_strong, "ROTATION", (0.0, 0.0))
    monkeypatch.setattr(augment_strong, "CHANNEL_SHIFT", (0.0, 0.0))
    monkeypatch.setattr(augment_strong, "ERASING_PROBABILITY", 0.0)
    images = np.random.default_rng(0).integers(0, 256, (100, 9, 14, 3), dtype=np.uint8)
    positions = tf.range(100, dtype=tf.int64)
    np.testing.assert_array_equal(strong(images, positions, 7), medium(images, positions, 7))


def test_projections_are_exact_and_equal_in_any_batch():
    """TensorFlow's float32 sine fails this: a vector's last few elements are computed otherwise."""
    n = 1000
    bits = random_bits(tf.range(n, dtype=tf.int64), 3)
    zoom, angle = np.linspace(1.25, 0.75, n), np.radians(np.linspace(-10, 10, n))
    whole = augment_strong.projections(bits, zoom, angle, 28, 28).numpy()
    # float32 rounds numbers below 2 by up to 6e-8.
    np.testing.assert_allclose(whole[:, 3], -np.sin(angle) / zoom, rtol=0, atol=7e-8)
    np.testing.assert_allclose(whole[:, 4], np.cos(angle) / zoom, rtol=0, atol=7e-8)
    for i in range(n):
        (alone,) = augment_strong.projections(bits[i, None], zoom[i, None], angle[i, None], 28, 28)
        np.testing.assert_array_equal(alone, whole[i])


def movements(positions: np.ndarray, seed: int) -> np.ndarray:
    """Reads the (flip, zoom, degrees, level) [n, 4] of `strong` from ramps that are not erased."""
    # The middle 11 × 11 pixels come from at most 5 · √2 / 0.75 + 4 < 14 pixels off the centre of
    # the 33 × 33, so no border is among them. Levels 60 to 188, shifted by 50, stay in [0, 255].
    ramp = np.broadcast_to(60 + 4 * np.arange(33), (33, 33))
    image = np.stack([ramp, ramp.T, np.full((33, 33), 100)], axis=-1).astype(np.uint8)
    images = np.broadcast_to(image, (len(positions), 33, 33, 3))
    middle = strong(tf.constant(images), tf.constant(positions), seed).numpy()[:, 11:22, 11:22]
    flat = middle[..., 2].reshape(-1, 121).astype(float)
    middle, flat = middle[np.ptp(flat, axis=1) == 0], flat[np.ptp(flat, axis=1) == 0]
    y, x = np.mgrid[-5:6, -5:6].reshape(2, 121)
    planes = np.moveaxis(middle[..., :2].reshape(-1, 121, 2) / 4.0, 1, 0).reshape(121, -1)
    by_x, by_y, _ = np.linalg.lstsq(np.stack([x, y, np.ones(121)], axis=1), planes)[0]
    column_by_x, row_by_x = by_x.reshape(-1, 2).T
    column_by_y, row_by_y = by_y.reshape(-1, 2).T
    flip = column_by_x < 0
    zoom = np.abs(column_by_x * row_by_y - row_by_x * column_by_y) ** -0.5
    degrees = np.degrees(np.arctan2(-row_by_x, row_by_y))
    # The map is only rotation and zoom, so the rows' numbers determine the columns'.
    mirror = np.where(flip, -1, 1)
    np.testing.assert_allclose(column_by_x, mirror * row_by_y, atol=0.03)
    np.testing.assert_allclose(column_by_y, -mirror * row_by_x, atol=0.03)
    return np.stack([flip, zoom, degrees, flat[:, 0] - 100], axis=1)


def test_strong_moves_uniformly_and_independently():
    found = movements(np.arange(6000), seed=11)
    assert len(found) > 3000
    _, zoom, degrees, level = found.T
    # Grey levels are rounded, so a slope has an error of 0.002.
    assert 0.74 < zoom.min() < 0.755
    assert 1.245 < zoom.max() < 1.26
    assert -10.5 < degrees.min() < -9.8
    assert 9.8 < degrees.max() < 10.5
    assert (level.min(), level.max()) == (-50, 50)
    assert_uniform(zoom, 0.75, 1.25)
    assert_uniform(degrees, -10, 10)
    assert_uniform(level, -50, 50)
    correlations = np.corrcoef(found.T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4 / len(found) ** 0.5


def test_strong_erases_half_of_the_images():
    """Finds the rectangles in black images, where the channel shift adds at most 50 grey levels."""
    n, side = 2000, 64
    black = tf.zeros([n, side, side, 4], tf.uint8)
    out = strong(black, tf.range(n, dtype=tf.int64), 11).numpy()
    bright = (out > 50).any(axis=-1)
    erased = np.flatnonzero(bright.any(axis=(1, 2)))
    assert abs(len(erased) - n / 2) < 4 * (n / 4) ** 0.5

    spans = []
    for axis in (2, 1):  # rows and columns with noise in them
        lit = bright[erased].any(axis=axis)
        first = lit.argmax(axis=1)
        spans.append((first, side - lit[:, ::-1].argmax(axis=1) - first))
    (top, rows), (left, columns) = spans
    # Sides are rounded to pixels; the smallest are 6.4 and 16 pixels.
    area, aspect = rows * columns / side**2, rows / columns
    assert 0.05 * 0.9 < area.min() < 0.055
    assert 0.195 < area.max() < 0.2 * 1.1
    assert 0.2 * 0.9 < aspect.min() < 0.21
    assert 0.78 < aspect.max() < 0.8 * 1.1
    assert_uniform(area, 0.05, 0.2)
    assert_uniform(aspect, 0.2, 0.8)
    for first, size in ((top, rows), (left, columns)):
        places = side + 1 - size
        many = places > 20
        assert_uniform((first[many] + 0.5) / places[many], 0, 1)

    noise = [
        out[i, y : y + height, x : x + width].ravel()
        for i, y, height, x, width in zip(erased, top, rows, left, columns, strict=True)
    ]
    counts = np.bincount(np.concatenate(noise), minlength=256)
    chi_squared = np.sum((counts - counts.mean()) ** 2 / counts.mean()) / 255
    assert abs(chi_squared - 1) < 5 * (2 / 255) ** 0.5


def test_strong_differs_in_the_next_epoch_and_with_another_seed():
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
    here = strong(tf.constant(images), tf.range(100, dtype=tf.int64), 11).numpy()
    for first, seed in ((60_000, 11), (0, 12)):
        positions = tf.range(first, first + 100, dtype=tf.int64)
        other = strong(tf.constant(images), positions, seed).numpy()
        assert (here != other).any(axis=(1, 2, 3)).all()
    again = strong(tf.constant(images), tf.range(100, dtype=tf.int64), 11).numpy()
    np.testing.assert_array_equal(again, here)
