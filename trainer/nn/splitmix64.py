"""Random bits: a 64-bit hash of (seed, position) by splitmix64, vectorised in TensorFlow.

The position of an example is the number of examples that a run consumes before this example. Two
positions with the same seed have different bits. Two seeds have different bits at the same
position. All seeds use the same sequence of 2⁶⁴ words, but each seed starts at another pseudorandom
offset in it. If two runs with different seeds have 10¹² examples each, their parts of the sequence
overlap with probability 1e-7.
"""

import tensorflow as tf

_MASK = 2**64 - 1
# Increment and multipliers from Steele, Lea & Flood 2014, and Vigna's splitmix64.c.
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def shift_right(words: tf.Tensor, bits: int) -> tf.Tensor:
    """Returns uint64 words shifted right by `bits`."""
    return tf.bitwise.right_shift(words, tf.constant(bits, tf.uint64))


def splitmix64(words: tf.Tensor) -> tf.Tensor:
    """Returns the splitmix64 hash of each word; `words` is uint64 of any shape."""
    z = words + tf.constant(_GAMMA, tf.uint64)
    z = tf.bitwise.bitwise_xor(z, shift_right(z, 30)) * tf.constant(_MULTIPLIERS[0], tf.uint64)
    z = tf.bitwise.bitwise_xor(z, shift_right(z, 27)) * tf.constant(_MULTIPLIERS[1], tf.uint64)
    return tf.bitwise.bitwise_xor(z, shift_right(z, 31))


def random_bits(numbers: tf.Tensor, seed: int) -> tf.Tensor:
    """Returns splitmix64(splitmix64(seed) + number), uint64 [n], for `numbers`, int64 [n].

    `numbers` are positions of examples, or other numbers such as indices of layers.
    """
    key = splitmix64(tf.constant(seed & _MASK, tf.uint64))
    return splitmix64(key + tf.cast(numbers, tf.uint64))


def further_bits(bits: tf.Tensor, words: int, first: int = 0) -> tf.Tensor:
    """Returns more random words for each example, uint64 [n, words], from `bits`, uint64 [n].

    `bits` comes from `random_bits`. Each element of `bits` is the initial state of a splitmix64
    sequence. The result has `words` successive elements of each sequence, from index `first` on.
    """
    numbers = tf.range(first, first + words, dtype=tf.int64)
    steps = tf.cast(numbers, tf.uint64) * tf.constant(_GAMMA, tf.uint64)
    return splitmix64(bits[:, None] + steps)
