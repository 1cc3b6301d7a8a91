"""The order of examples: a pure function of (seed, position) that knows nothing else.

Position p is example p mod N of epoch p div N, and every epoch is its own pseudo-random permutation
of the N examples. There is no shuffle buffer, so a pipeline starts at any position at once, and
batch sizes, replicas and restarts cannot change which example comes when.

There are two versions, and a run keeps the one that it began with:

1. One pass of TensorFlow's raw op RandomIndexShuffle with 24 rounds and the key (seed, epoch). The
   op cuts each key to half of the index's bits, so that the order repeats: after 256 epochs, and
   for seeds 256 apart, if N is at most 65,537, and after 2,048 at ImageNet's N. The permutations
   of N = 3 to 5 are not equally frequent. At N = 2¹⁶ + 1, 2¹⁸ + 1 and so on the op has a bit too
   few: the last example never comes, and in its place another one twice.
2. A key of 64 bits from (seed, epoch), from which all else is drawn. If N is at most 4,096, the
   epoch is the indices sorted by random words. Above it is two passes of the op, 8 rounds each,
   with three words as each pass's keys, and an offset mod N behind each pass. Two passes of 6
   rounds were already random by the tests' statistics over 1,500 epochs, so that 8 leave a margin.

One thread of an AMD EPYC makes 1 to 10 million indices/s of version 2 in calls of 1,024, and 0.5 to
1.4 million in calls of 128: 0.1 to 0.25 ms a micro-batch. Of version 1 it makes 5 million at
N = 60,000, but 0.25 at N = 1,000 and 0.06 at N = 240.

The public wrapper of the op, `tf.random.experimental.index_shuffle`, hides the rounds and uses 4:
its consecutive epochs correlate up to 0.91 at N = 60,000.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.nn.splitmix64 import further_bits, random_bits, splitmix64

# Version 1's domain, so that no other use of the same seed meets the same key. Any number would do;
# this one is that of Smith et al. 2018 at arXiv. It and the rounds fix the order of every run:
# changing any of these numbers would make old runs impossible to resume.
ORDER_KEY = 171100489
ROUNDS = 24

# Version 2's domain: the bits of a position that no run reaches, so that none of its augmentations
# starts from them.
_DOMAIN = 2**63 - 1
_PASSES = 2
_ROUNDS_A_PASS = 8
_KEYS = 3  # that the op takes, of which it keeps 8 to 32 bits each
# Up to here a call sorts whole epochs, which takes 0.2 ms at 4,096. The op tries 2¹⁶ / N values of
# its block cipher for each index: 240 examples would take it 17 µs each, and 5 examples 1 ms.
_SORTED = 4096

VERSIONS = (1, NEWEST_ORDER)


def example_indices(
    positions: tf.Tensor, examples: int, seed: int, version: int = NEWEST_ORDER
) -> tf.Tensor:
    """The examples at some positions: shuffle(position mod N; seed, position div N).

    Args:
        positions: int64 [n], each at least 0; they may belong to several epochs.
        examples: N, at least 1.
        seed: the run's seed, from 0 to 2⁶³ - 1; version 1 keeps its lowest 8 to 32 bits.
        version: of the order, in `VERSIONS`.

    Returns:
        int64 [n], each in [0, N). Any N consecutive positions that start at a multiple of N give
        each example once.
    """
    positions = tf.convert_to_tensor(positions, tf.int64)
    places, epochs = positions % examples, positions // examples  # [n]
    if version == 1:
        keys = [tf.fill(tf.shape(positions), tf.constant(k, tf.int64)) for k in (ORDER_KEY, seed)]
        return _shuffled(places, tf.stack([*keys, epochs], axis=1), examples, ROUNDS)
    # Most calls have one or two epochs: their words are drawn once.
    epochs, row = tf.unique(epochs)  # [e], [n]
    order: Callable[..., tf.Tensor] = _sorted if examples <= _SORTED else _passed
    return order(places, row, _epoch_bits(epochs, seed), examples)


def _epoch_bits(epochs: tf.Tensor, seed: int) -> tf.Tensor:
    """The key of each epoch, 64 bits: int64 [e] → uint64 [e].

    For one seed no two epochs have the same.
    """
    key = random_bits(tf.constant(_DOMAIN, tf.int64), seed)
    return splitmix64(key + tf.cast(epochs, tf.uint64))


def _sorted(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Version 2 for small N: the indices in the order of a random word of each.

    Args:
        places: int64 [n] in [0, N).
        row: int32 [n], which of `bits` is that of a place's epoch.
        bits: uint64 [e].
        examples: N.

    Returns:
        int64 [n].
    """
    words = tf.bitcast(further_bits(bits, examples), tf.int64)  # [e, N]
    order = tf.math.top_k(words, examples).indices  # [e, N]; equal words by index
    places = tf.cast(places, tf.int32)
    return tf.cast(tf.gather_nd(order, tf.stack([row, places], axis=1)), tf.int64)


def _passed(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Version 2 for larger N: as `_sorted`, by two passes of the op with offsets behind them."""
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
    # The op takes 2¹⁶ for a number of 16 bits, and permutes 2¹⁶ numbers. Among N + 1 it has 18:
    # what then leads out of [0, N) goes on from there, which leads back.
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
