"""Compares whole lists of --augment with Pillow, position by position, and tests the draws."""

import numpy as np
import pytest
import tensorflow as tf

from tests.data.augment_operations_test import (
    by_pillow,
    randaugment_numbers,
    trivialaugment_numbers,
)
from tests.data.augment_test import slow_medium
from tests.support.distributions import assert_equally_frequent
from tests.support.hashes import words_of
from trainer.config import augment_list
from trainer.data.augment import augmenter
from trainer.data.augment_cases import OPERATIONS
from trainer.data.augment_policies import drawn
from trainer.data.in_memory import InMemoryDataset
from trainer.data.pipeline import ExampleStream
from trainer.errors import UserError
from trainer.nn.splitmix64 import further_bits, random_bits

SEED = 3


def slow_policy(image, position, layers, magnitude):
    """The operations of one position in turn; without a magnitude, one of TrivialAugment."""
    height, width, _ = image.shape
    for word in words_of(position, SEED, 16)[8 : 8 + layers]:
        operation, sign = OPERATIONS[(word >> 32) % 14], -1 if word & 1 else 1
        if magnitude is None:
            numbers = trivialaugment_numbers((word >> 1 & 0x7FFFFFFF) % 31, sign)
        else:
            numbers = randaugment_numbers(magnitude, sign, height, width)
        image = by_pillow(image, operation, numbers)
    return image


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 20, 3)])
@pytest.mark.parametrize(
    ("augment", "layers", "magnitude"),
    [
        ("randaugment", 2, 9.0),
        ("medium,randaugment", 3, 4.5),
        ("flip,crop,trivialaugment", 1, None),
    ],
)
def test_a_policy_equals_pillow_at_each_position(augment, layers, magnitude, shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, *shape), dtype=np.uint8)
    positions = rng.integers(0, 2**40, 100)
    asked = augment_list.parse(augment, layers=layers, magnitude=magnitude or 9.0)
    found = augmenter(asked)(tf.constant(images), tf.constant(positions), SEED).numpy()
    for image, position, result in zip(images, positions.tolist(), found, strict=True):
        if asked.crop:
            image = slow_medium(image, position, SEED)
        expected = slow_policy(image, position, layers, magnitude)
        np.testing.assert_array_equal(result, expected)


def test_operations_signs_and_strengths_are_equally_frequent():
    words = further_bits(random_bits(tf.range(200_000, dtype=tf.int64), 11), 3, 8)
    first, second = (drawn(words[:, layer], 1).numpy() for layer in (0, 1))
    assert_equally_frequent(first, 14 * 2)
    assert_equally_frequent(first * 28 + second, 28**2)  # The layers are independent.
    assert_equally_frequent(first[:-1] * 28 + first[1:], 28**2)  # And so are neighbours.
    assert_equally_frequent(drawn(words[:, 2], 31).numpy(), 14 * 31 * 2)


def test_draws_differ_in_the_next_epoch_and_with_another_seed():
    def cases(first, seed):
        positions = tf.range(first, first + 28_000, dtype=tf.int64)
        return drawn(further_bits(random_bits(positions, seed), 1, 8)[:, 0], 1).numpy()

    here = cases(0, 11)
    for other in (cases(60_000, 11), cases(0, 12)):
        assert abs(np.count_nonzero(here == other) - 1000) < 5 * 1000**0.5


def test_a_policy_is_what_it_is_without_the_other_items():
    """Flips and erasing have random bits of their own, so a list may grow."""
    images = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
    positions = tf.range(60, dtype=tf.int64)

    def augmented(some, augment):
        return augmenter(augment_list.parse(augment))(some, positions, SEED).numpy()

    parts = augmented(augmented(augmented(images, "flip"), "randaugment"), "erasing")
    np.testing.assert_array_equal(augmented(images, "erasing,randaugment,flip"), parts)
    assert (parts != augmented(images, "flip,randaugment")).any()


@pytest.mark.parametrize("channels", [2, 4])
def test_a_policy_for_other_than_1_or_3_channels_is_rejected(channels):
    images = np.zeros((4, 3, 3, channels), np.uint8)
    source = InMemoryDataset(images, np.zeros(4, np.int64), ("a",), "infrared train")
    for augment in ("randaugment", "trivialaugment"):
        with pytest.raises(UserError) as error:
            ExampleStream(source, augment_list.parse(augment), 0)
        assert str(error.value) == (
            f"--augment={augment} needs images of 1 or 3 channels, and those of infrared train "
            f"have {channels}: leave {augment} out."
        )
    ExampleStream(source, augment_list.parse("medium,erasing"), 0)
