"""Compares augmentation with a slow reference from the definition, and tests its distributions."""

import cmath
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import augment_list
from trainer.data import augment, decode
from trainer.data.augment import augmenter, further_bits, random_bits, strong

none, medium = augmenter(augment_list.parse("none")), augmenter(augment_list.parse("medium"))

MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15


def splitmix64(word: int) -> int:
    """The output of Vigna's splitmix64.c for the state `word`."""
    z = (word + GAMMA) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def hash_of(position: int, seed: int) -> int:
    return splitmix64((splitmix64(seed) + position) & MASK)


def slow_medium(image: np.ndarray, position: int, seed: int) -> np.ndarray:
    """Pads by 4, crops at a random place, flips or not: one image [h, w, c]."""
    bits = hash_of(position, seed)
    flip, top, left = bits & 1, (bits >> 1 & 0x7FFFFFFF) % 9, (bits >> 32) % 9
    height, width, _ = image.shape
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    crop = padded[top : top + height, left : left + width]
    return crop[:, ::-1] if flip else crop


def slow_strong(image: np.ndarray, position: int, seed: int) -> np.ndarray:
    """Shifts, flips, zooms, rotates, shifts grey levels, erases or not: one image [h, w, c]."""
    height, width, channels = image.shape
    bits = hash_of(position, seed)
    words = [splitmix64((bits + i * GAMMA) & MASK) for i in range(8 + image.size)]
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


def test_words_are_splitmix64():
    """Compares with the first three outputs of the published generator at seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64((1234567 + i * GAMMA) & MASK) for i in range(3)] == published
    assert further_bits(tf.constant([1234567], tf.uint64), 3).numpy().tolist() == [published]


@settings(deadline=None, max_examples=30)
@given(
    positions=st.lists(st.integers(0, 2**62), min_size=1, max_size=8),
    seed=st.integers(0, 2**63 - 1),
)
def test_bits_equal_reference(positions, seed):
    bits = random_bits(tf.constant(positions, tf.int64), seed).numpy()
    assert bits.tolist() == [hash_of(position, seed) for position in positions]


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (5, 7, 2), (3, 1, 1), (1, 1, 4)])
def test_medium_equals_reference(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (50, *shape), dtype=np.uint8)
    positions = rng.integers(0, 2**40, 50)
    out = medium(tf.constant(images), tf.constant(positions), seed=3).numpy()
    slow = [slow_medium(image, int(p), 3) for image, p in zip(images, positions, strict=True)]
    np.testing.assert_array_equal(out, np.stack(slow))


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
    monkeypatch.setattr(augment, "ZOOM", (1.0, 1.0))
    monkeypatch.setattr(augment, "ROTATION", (0.0, 0.0))
    monkeypatch.setattr(augment, "CHANNEL_SHIFT", (0.0, 0.0))
    monkeypatch.setattr(augment, "ERASING_PROBABILITY", 0.0)
    images = np.random.default_rng(0).integers(0, 256, (100, 9, 14, 3), dtype=np.uint8)
    positions = tf.range(100, dtype=tf.int64)
    np.testing.assert_array_equal(strong(images, positions, 7), medium(images, positions, 7))


def test_projections_are_exact_and_equal_in_any_batch():
    """TensorFlow's float32 sine fails this: a vector's last few elements are computed otherwise."""
    n = 1000
    bits = random_bits(tf.range(n, dtype=tf.int64), 3)
    zoom, angle = np.linspace(1.25, 0.75, n), np.radians(np.linspace(-10, 10, n))
    whole = augment.projections(bits, zoom, angle, 28, 28).numpy()
    # float32 rounds numbers below 2 by up to 6e-8.
    np.testing.assert_allclose(whole[:, 3], -np.sin(angle) / zoom, rtol=0, atol=7e-8)
    np.testing.assert_allclose(whole[:, 4], np.cos(angle) / zoom, rtol=0, atol=7e-8)
    for i in range(n):
        (alone,) = augment.projections(bits[i, None], zoom[i, None], angle[i, None], 28, 28)
        np.testing.assert_array_equal(alone, whole[i])


def test_none_leaves_images_unchanged():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(none(tf.constant(images), tf.range(4, dtype=tf.int64), 0), images)


@pytest.mark.parametrize("name", ["medium", "strong"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (5, 7, 3)])
def test_a_position_is_augmented_alike_in_any_batch(name, shape):
    images = np.random.default_rng(0).integers(0, 256, (120, *shape), dtype=np.uint8)
    positions = np.arange(120) + 1000
    augmented = tf.function(lambda some, at: augmenter(augment_list.parse(name))(some, at, 5))
    whole = augmented(tf.constant(images), tf.constant(positions)).numpy()
    for parts in (2, 8, 40, 120):
        pieces = [
            augmented(tf.constant(some), tf.constant(at)).numpy()
            for some, at in zip(np.split(images, parts), np.split(positions, parts), strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    order = np.random.default_rng(1).permutation(120)
    mixed = augmented(tf.constant(images[order]), tf.constant(positions[order])).numpy()
    np.testing.assert_array_equal(mixed, whole[order])


def places(positions: np.ndarray, seed: int) -> np.ndarray:
    """Reads the (flip, top, left) [n, 3] of `medium` from images that carry a mark."""
    # All 9 × 9 possible crops of a 17 × 17 image, padded to 25 × 25, contain the 2-pixel mark in
    # the middle.
    image = np.zeros((17, 17, 1), np.uint8)
    image[8, 8], image[8, 9] = 1, 2
    images = np.broadcast_to(image, (len(positions), 17, 17, 1))
    out = medium(tf.constant(images), tf.constant(positions), seed).numpy()[..., 0]
    _, row, one = np.nonzero(out == 1)
    _, _, two = np.nonzero(out == 2)
    flip = two < one
    left = np.where(flip, 16 - one, one)
    return np.stack([flip, 12 - row, 12 - left], axis=1)


def test_flips_and_places_are_uniform_and_independent():
    """Tests χ² over the 2 × 9 × 9 outcomes of consecutive positions: 5 standard deviations."""
    found = places(np.arange(32_400), seed=11)
    counts = np.bincount(found @ np.array([81, 9, 1]), minlength=162)
    assert len(counts) == 162
    chi_squared = np.sum((counts - 200) ** 2 / 200) / 161
    assert abs(chi_squared - 1) < 5 * (2 / 161) ** 0.5


def test_the_next_epoch_and_another_seed_differ():
    """Two independent choices among 162 agree in 1 of 162 cases: 62 ± 8 of 10,000."""
    here = places(np.arange(10_000), seed=11)
    for other in (places(np.arange(10_000) + 60_000, seed=11), places(np.arange(10_000), seed=12)):
        assert 22 < np.count_nonzero((here == other).all(axis=1)) < 102


def assert_uniform(samples: np.ndarray, lowest: float, highest: float) -> None:
    """Applies the Kolmogorov-Smirnov test, which a uniform sample fails once in 8,000."""
    expected = (np.sort(samples) - lowest) / (highest - lowest)
    ranks = (np.arange(len(samples)) + 0.5) / len(samples)
    assert np.abs(expected - ranks).max() < 2.2 / len(samples) ** 0.5


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


@pytest.mark.parametrize("bit", [1, 31, 32, 63])
def test_a_crop_follows_every_bit_of_its_position(bit):
    """TensorFlow uses the bits as the key of imagenet's crop, and must not cut them."""
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1) * 15
    encoded = tf.io.encode_png(image)
    crops = [
        decode.random_crop(encoded, tf.constant(bits, tf.uint64), (16, 16, 1)).numpy()
        for bits in (2, 2 ^ 2**bit)
    ]
    assert not np.array_equal(*crops)
