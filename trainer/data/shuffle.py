"""Computes the order of examples, a pure function of (seed, position).

A position is the number of examples that a run consumes before an example. With N training
examples, position p is element p mod N of epoch p div N. Each epoch is another pseudo-random
permutation of the N examples. A shuffle buffer is not needed, so a pipeline can start at any
position at once. Batch sizes, replicas and restarts cannot change the order.

The order has two versions. A run keeps the version that it began with:

1. An epoch is one pass of TensorFlow's raw op RandomIndexShuffle with 24 rounds and the key (seed,
   epoch). The op cuts each key to half of the index's bits, so the order repeats: after 256 epochs
   and for seeds 256 apart if N is at most 65,537, and after 2,048 epochs at ImageNet's N. If N is 3
   to 5, the permutations are not equally frequent. If N is 2¹⁶ + 1, 2¹⁸ + 1 and so on, the op uses
   one bit too few: the last example never appears, and another one appears twice.
2. A 64-bit key from (seed, epoch) determines the permutation. If N is at most 4,096, the indices
   are sorted by random words. For larger N, the op makes two passes, each with 8 rounds and three
   words as keys. After each pass, an offset is added mod N. Two passes of 6 rounds already pass the
   tests' statistics over 1,500 epochs, so 8 rounds leave a margin.

With version 2, one thread of an AMD EPYC makes 1 to 10 million indices/s in calls of 1,024, and 0.5
to 1.4 million/s in calls of 128 (0.1 to 0.25 ms per call). With version 1, it makes 5 million/s at
N = 60,000, but 0.25 million/s at N = 1,000 and 0.06 million/s at N = 240.

The op's public wrapper, `tf.random.experimental.index_shuffle`, always uses 4 rounds. With 4,
consecutive epochs correlate up to 0.91 at N = 60,000.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.nn.splitmix64 import further_bits, random_bits, splitmix64

# Version 1's key, which no other use of the seed shares. The number is arbitrary (the arXiv number
# of Smith et al. 2018). With another key or number of rounds, the order would change, and old runs
# could not be resumed.
ORDER_KEY = 171100489
ROUNDS = 24

# Version 2's keys hash this position, which no run reaches. So no augmentation uses the same bits.
_DOMAIN = 2**63 - 1
PASSES = 2
_ROUNDS_A_PASS = 8
KEYS = 3  # Words that key a pass; the op keeps 8 to 32 bits of each.
WORDS = PASSES * (KEYS + 1)  # Words of an epoch: an offset and the keys of each pass.
# Up to this N, each call sorts whole epochs, which takes 0.2 ms for N = 4,096. The op would try
# 2¹⁶ / N values of its block cipher per index, which takes 17 µs if N = 240 and 1 ms if N = 5.
SORTED = 4096

VERSIONS = (1, NEWEST_ORDER)


def example_indices(
    positions: tf.Tensor, examples: int, seed: int, version: int = NEWEST_ORDER
) -> tf.Tensor:
    """Returns the example at each position: shuffle(position mod N; seed, position div N).

    Args:
        positions: int64 [n], each at least 0, of one or several epochs.
        examples: N, the number of training examples, at least 1.
        seed: the run's seed, from 0 to 2⁶³ - 1; version 1 keeps its lowest 8 to 32 bits.
        version: one of `VERSIONS`.

    Returns:
        int64 [n], each in [0, N). Any N consecutive positions that start at a multiple of N give
        each example once.
    """
    positions = tf.convert_to_tensor(positions, tf.int64)
    places, epochs = positions % examples, positions // examples  # [n]
    if version == 1:
        keys = [tf.fill(tf.shape(positions), tf.constant(k, tf.int64)) for k in (ORDER_KEY, seed)]
        return _shuffled(places, tf.stack([*keys, epochs], axis=1), examples, ROUNDS)
    # Most calls have positions of one or two epochs; the words of each epoch are drawn once.
    epochs, row = tf.unique(epochs)  # [e], [n]
    # [e], distinct keys for distinct epochs
    bits = splitmix64(epochs_key(seed) + tf.cast(epochs, tf.uint64))
    order: Callable[..., tf.Tensor] = _sorted if examples <= SORTED else _passed
    return order(places, row, bits, examples)


def epochs_key(seed: int) -> tf.Tensor:
    """Returns the key of version 2's epochs, uint64 []: epoch e uses splitmix64(key + e)."""
    return random_bits(tf.constant(_DOMAIN, tf.int64), seed)


def needs_more_bits(examples: int) -> bool:
    """Returns whether the op uses too few bits to permute N = `examples`, such as 2¹⁶ + 1."""
    bits = (examples - 1).bit_length() - 1
    return examples - 1 == 2**bits and not bits % 2


def shuffled_once(places: tf.Tensor, keys: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
    """Applies one pass of version 2: int64 [n], [n, 3], N of each place [n] → int64 [n]."""
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=keys, max_index=examples - 1, rounds=_ROUNDS_A_PASS
    )


def _sorted(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Returns version 2's indices, int64 [n], for small N, by sorting [0, N) by random words.

    Args:
        places: int64 [n] in [0, N).
        row: int32 [n], index of each place's epoch in `bits`.
        bits: uint64 [e], keys of the epochs.
        examples: N, the number of training examples.
    """
    words = tf.bitcast(further_bits(bits, examples), tf.int64)  # [e, N]
    order = tf.math.top_k(words, examples).indices  # [e, N]; equal words keep their order
    places = tf.cast(places, tf.int32)
    return tf.cast(tf.gather_nd(order, tf.stack([row, places], axis=1)), tf.int64)


def _passed(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Returns version 2's indices for large N; the arguments are those of `_sorted`."""
    words = further_bits(bits, WORDS)  # [e, 8]
    offsets = tf.cast(words[:, :PASSES] % tf.constant(examples, tf.uint64), tf.int64)  # [e, 2]
    keys = tf.bitcast(words[:, PASSES:], tf.int64)  # [e, 6]
    for i in range(PASSES):
        own = tf.gather(keys[:, i * KEYS : (i + 1) * KEYS], row)  # [n, 3]
        moved = _passed_once(places, own, examples) + tf.gather(offsets[:, i], row)
        places = tf.where(moved < examples, moved, moved - examples)
    return places


def _passed_once(places: tf.Tensor, keys: tf.Tensor, examples: int) -> tf.Tensor:
    """Permutes [0, N) once for version 2: int64 [n], [n, 3] → int64 [n]."""
    if not needs_more_bits(examples):
        return _shuffled(places, keys, examples, _ROUNDS_A_PASS)
    # If N - 1 is 2¹⁶, for example, the op uses 16 bits, which permutes only 2¹⁶ numbers. For N + 1
    # numbers, it uses 18 bits. If an index moves to N, outside [0, N), it goes on to the place to
    # which N moves, which is inside.
    moved = _shuffled(places, keys, examples + 1, _ROUNDS_A_PASS)
    last = tf.fill(tf.shape(places), tf.constant(examples, tf.int64))
    back = _shuffled(last, keys, examples + 1, _ROUNDS_A_PASS)
    return tf.where(moved < examples, moved, back)


def _shuffled(places: tf.Tensor, keys: tf.Tensor, examples: int, rounds: int) -> tf.Tensor:
    """Applies one pass of TensorFlow's op: int64 [n], [n, 3] → int64 [n]."""
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=keys, max_index=tf.constant(examples - 1, tf.int64), rounds=rounds
    )
