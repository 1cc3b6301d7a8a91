"""Augmentation: a pure function of (seed, position), vectorised over a micro-batch.

All randomness is one 64-bit hash of (seed, position), so that an example is augmented alike in
whatever batch, replica or restart it falls, and differently in the next epoch, where its position
is another. An augmentation maps (images, positions, seed) to images of the same shape.
"""

from collections.abc import Callable

import tensorflow as tf

Augment = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]

PADDING = 4  # pixels on each side before the crop: He et al. 2016, §4.2

_MASK = 2**64 - 1
# splitmix64's increment and multipliers: Steele, Lea & Flood 2014; Vigna, splitmix64.c
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _shift_right(words: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(words, tf.constant(bits, tf.uint64))


def _splitmix64(words: tf.Tensor) -> tf.Tensor:
    """splitmix64 of uint64 words of any shape."""
    z = words + tf.constant(_GAMMA, tf.uint64)
    z = tf.bitwise.bitwise_xor(z, _shift_right(z, 30)) * tf.constant(_MULTIPLIERS[0], tf.uint64)
    z = tf.bitwise.bitwise_xor(z, _shift_right(z, 27)) * tf.constant(_MULTIPLIERS[1], tf.uint64)
    return tf.bitwise.bitwise_xor(z, _shift_right(z, 31))


def random_bits(positions: tf.Tensor, seed: int) -> tf.Tensor:
    """64 random bits a position: splitmix64(splitmix64(seed) + position).

    Args:
        positions: int64 [n].
        seed: the run's seed.

    Returns:
        uint64 [n].
    """
    key = _splitmix64(tf.constant(seed & _MASK, tf.uint64))
    return _splitmix64(key + tf.cast(positions, tf.uint64))


def none(images: tf.Tensor, positions: tf.Tensor, seed: int) -> tf.Tensor:
    """The images as they are."""
    del positions, seed
    return images


def medium(images: tf.Tensor, positions: tf.Tensor, seed: int) -> tf.Tensor:
    """Pad by 4 black pixels, crop at random to the old size, flip half of the images left to right.

    Of each position's 64 bits, the lowest decides the flip, the next 31 the row and the highest 32
    the column of the crop (their remainders by 9 are uniform to 4e-9).

    The crop and the flip are one gather of pixels, the flip folded into the column's index. With
    the selection of the examples, two threads make 150,000 to 300,000 images/s of 28×28×1 in
    micro-batches of 32 to 512, and 130,000 to 235,000 of 32×32×3. Masking what falls outside
    instead of padding was 1.3 times faster for the former and 1.4 times slower for the latter;
    gathering from the whole set's pixels instead of from the batch's made no difference.

    Args:
        images: uint8 [b, h, w, c].
        positions: int64 [b].
        seed: the run's seed.

    Returns:
        uint8 [b, h, w, c].
    """
    height, width, channels = images.shape[1:]
    pad = [PADDING, PADDING]
    padded = tf.pad(images, [[0, 0], pad, pad, [0, 0]])  # [b, h + 8, w + 8, c]
    _, padded_height, padded_width, _ = padded.shape

    bits = random_bits(positions, seed)  # [b]
    flip = tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint64)) == 1
    row_bits = tf.bitwise.bitwise_and(_shift_right(bits, 1), tf.constant(2**31 - 1, tf.uint64))
    places = 2 * PADDING + 1
    top = tf.cast(tf.cast(row_bits, tf.int64) % places, tf.int32)  # [b], in [0, 8]
    left = tf.cast(tf.cast(_shift_right(bits, 32), tf.int64) % places, tf.int32)

    rows = tf.range(height) + top[:, None]  # [b, h]
    columns = tf.range(width)
    columns = tf.where(flip[:, None], width - 1 - columns, columns) + left[:, None]  # [b, w]
    first_rows = tf.range(tf.shape(images)[0]) * padded_height  # [b]
    pixels = (first_rows[:, None] + rows)[:, :, None] * padded_width + columns[:, None, :]
    return tf.gather(tf.reshape(padded, [-1, channels]), pixels)  # [b, h, w, c]


AUGMENTS: dict[str, Augment] = {"none": none, "medium": medium}
