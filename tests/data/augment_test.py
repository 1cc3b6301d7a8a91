"""Augmentation against a slow reference written from the definition, and its distribution."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.augment import AUGMENTS, medium, none, random_bits

MASK = 2**64 - 1


def splitmix64(word: int) -> int:
    """Vigna, splitmix64.c: the output for the state `word`."""
    z = (word + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def hash_of(position: int, seed: int) -> int:
    return splitmix64((splitmix64(seed) + position) & MASK)


def slow_medium(image: np.ndarray, position: int, seed: int) -> np.ndarray:
    """Pad 4, crop at a random place, flip or not: one image [h, w, c]."""
    bits = hash_of(position, seed)
    flip, top, left = bits & 1, (bits >> 1 & 0x7FFFFFFF) % 9, (bits >> 32) % 9
    height, width, _ = image.shape
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    crop = padded[top : top + height, left : left + width]
    return crop[:, ::-1] if flip else crop


def test_reference_is_splitmix64():
    """The first three outputs of the published generator at seed 1234567."""
    gamma = 0x9E3779B97F4A7C15
    outputs = [splitmix64((1234567 + i * gamma) & MASK) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(deadline=None, max_examples=30)
@given(
    positions=st.lists(st.integers(0, 2**50), min_size=1, max_size=8),
    seed=st.integers(0, 2**31 - 1),
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


def test_none_changes_nothing():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(none(tf.constant(images), tf.range(4, dtype=tf.int64), 0), images)
    assert {"none": none, "medium": medium} == AUGMENTS


def test_same_position_whatever_the_batch():
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    positions = np.arange(24) + 1000
    whole = medium(tf.constant(images), tf.constant(positions), 5).numpy()
    for parts in (2, 3, 24):
        pieces = [
            medium(tf.constant(some), tf.constant(at), 5).numpy()
            for some, at in zip(np.split(images, parts), np.split(positions, parts), strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def places(positions: np.ndarray, seed: int) -> np.ndarray:
    """(flip, top, left) [n, 3] that `medium` chose, read off images whose pixels say where."""
    # 17 × 17: padded 25, the 9 × 9 crops of which all hold the middle, a bright 2-pixel mark.
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
    """χ² over the 2 × 9 × 9 outcomes at consecutive positions, within 5 standard deviations."""
    found = places(np.arange(32_400), seed=11)
    counts = np.bincount(found @ np.array([81, 9, 1]), minlength=162)
    assert len(counts) == 162
    chi_squared = np.sum((counts - 200) ** 2 / 200) / 161
    assert abs(chi_squared - 1) < 5 * (2 / 161) ** 0.5


def test_next_epoch_and_other_seed_differ():
    """Two independent choices among 162 agree in 1 of 162: 62 ± 8 of 10,000."""
    here = places(np.arange(10_000), seed=11)
    for other in (places(np.arange(10_000) + 60_000, seed=11), places(np.arange(10_000), seed=12)):
        assert 22 < np.count_nonzero((here == other).all(axis=1)) < 102
