"""The order of examples: a pure function of (seed, position).

Position p is element p mod N of epoch p div N, and every epoch is its own pseudo-random permutation
of the N examples. There is no shuffle buffer, so a pipeline starts at any position at once, and
batch sizes, replicas and restarts cannot change the order.

There are two versions, and a run keeps the one that it began with:

1. One pass of TensorFlow's raw op RandomIndexShuffle with 24 rounds and the key (seed, epoch). The
   op cuts each key to half of the index's bits, so the order repeats: after 256 epochs, and for
   seeds 256 apart, if N is at most 65,537, and after 2,048 epochs at ImageNet's N. The permutations
   of N = 3 to 5 are not equally frequent. At N = 2¹⁶ + 1, 2¹⁸ + 1 and so on the op has a bit too
   few: the last example never appears, and another one appears twice.
2. A key of 64 bits from (seed, epoch) determines everything else. If N is at most 4,096, the epoch
   is the indices sorted by random words. For larger N it is two passes of the op. Each pass has 8
   rounds, three words as keys, and an offset mod N after it. Two passes of 6 rounds already
   pass the tests' statistics over 1,500 epochs, so 8 leave a margin.

For version 2, one thread of an AMD EPYC makes 1 to 10 million indices/s in calls of 1,024, and 0.5
to 1.4 million in calls of 128: 0.1 to 0.25 ms a micro-batch. For version 1 it makes 5 million at
N = 60,000, but 0.25 at N = 1,000 and 0.06 at N = 240.

The public wrapper of the op, `tf.random.experimental.index_shuffle`, hides the rounds and uses 4:
its consecutive epochs correlate up to 0.91 at N = 60,000.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.nn.splitmix64 import further_bits, random_bits, splitmix64

# Separates version 1's keys from all other uses of the seed. The number itself is arbitrary (the
# arXiv number of Smith et al. 2018). It and the rounds fix the order of every run: with any other
# values, old runs could not be resumed.
ORDER_KEY = 171100489
ROUNDS = 24

# Separates version 2's keys: a position that no run reaches, so that no augmentation shares it.
_DOMAIN = 2**63 - 1
_PASSES = 2
_ROUNDS_A_PASS = 8
_KEYS = 3  # seeds of the op, which keeps 8 to 32 bits of each
# Up to this N a call sorts whole epochs, which takes 0.2 ms at 4,096. The op tries 2¹⁶ / N values
# of its block cipher for each index, which takes 17 µs at N = 240 and 1 ms at N = 5.
_SORTED = 4096

VERSIONS = (1, NEWEST_ORDER)


def example_indices(
    positions: tf.Tensor, examples: int, seed: int, version: int = NEWEST_ORDER
) -> tf.Tensor:
    """Returns the example at each position: shuffle(position mod N; seed, position div N).

    Args:
        positions: int64 [n], each at least 0; they may belong to several epochs.
        examples: N, at least 1.
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
    # Most calls have one or two epochs, whose words are drawn once.
    epochs, row = tf.unique(epochs)  # [e], [n]
    order: Callable[..., tf.Tensor] = _sorted if examples <= _SORTED else _passed
    return order(places, row, _epoch_bits(epochs, seed), examples)


def _epoch_bits(epochs: tf.Tensor, seed: int) -> tf.Tensor:
    """The 64-bit key of each epoch, distinct for one seed: int64 [e] → uint64 [e]."""
    key = random_bits(tf.constant(_DOMAIN, tf.int64), seed)
    return splitmix64(key + tf.cast(epochs, tf.uint64))


def _sorted(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Version 2 for small N: sorts the indices by random words.

    Args:
        places: int64 [n] in [0, N).
        row: int32 [n], index into `bits` of each place's epoch.
        bits: uint64 [e], keys of the epochs.
        examples: N.

    Returns:
        int64 [n].
    """
    words = tf.bitcast(further_bits(bits, examples), tf.int64)  # [e, N]
    order = tf.math.top_k(words, examples).indices  # [e, N]; equal words by index
    places = tf.cast(places, tf.int32)
    return tf.cast(tf.gather_nd(order, tf.stack([row, places], axis=1)), tf.int64)


def _passed(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Version 2 for larger N: two passes of the op, each followed by an offset."""
    words = further_bits(bits, _PASSES * (_KEYS + 1))  # [e, 8]
    offsets = tf.cast(words[:, :_PASSES] % tf.constant(examples, tf.uint64), tf.int64)  # [e, 2]
    keys = tf.bitcast(words[:, _PASSES:], tf.int64)  # [e, 6]
    for i in range(_PASSES):
        own = tf.gather(keys[:, i * _KEYS : (i + 1) * _KEYS], row)  # [n, 3]
        moved = _passed_once(places, own, examples) + tf.gather(offsets[:, i], row)
        places = tf.where(moved < examples, moved, moved - examples)
    return places


def _passed_once(places: tf.Tensor, keys: tf.Tensor, examples: int) -> tf.Tensor:
    """One pass of version 2: int64 [n], [n, 3] → int64 [n]."""
    bits = (examples - 1).bit_length() - 1
    if examples - 1 != 2**bits or bits % 2:
        return _shuffled(places, keys, examples, _ROUNDS_A_PASS)
    # The op takes 2¹⁶ for a number of 16 bits, and permutes only 2¹⁶ numbers. With N + 1 it has 18
    # bits. An index that moves to N, outside [0, N), takes the place to which N itself moves.
    moved = _shuffled(places, keys, examples + 1, _ROUNDS_A_PASS)
    back = _shuffled(
        tf.fill(tf.shape(places), tf.constant(examples, tf.int64)),
        keys,
        examples + 1,
        _ROUNDS_A_PASS,
    )
    return tf.where(moved < examples, moved, back)


def _shuffled(places: tf.Tensor, keys: tf.Tensor, examples: int, rounds: int) -> tf.Tensor:
    """One pass of TensorFlow's op: int64 [n], [n, 3] → int64 [n]."""
    return tf.raw_ops.RandomIndexShuffle(
        index=places,
        seed=keys,
        max_index=tf.constant(examples - 1, tf.int64),
        rounds=rounds,
    )
