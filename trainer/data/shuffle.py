"""Computes the order of examples, a pure function of (seed, position).

The position of an example is the number of examples that the run consumes before it. With N
training examples, position p is element p mod N of epoch p div N. Each epoch is another
pseudo-random permutation of the N examples. A shuffle buffer is not needed, so a pipeline can start
at any position at once. Batch sizes, replicas and restarts cannot change the order.

TensorFlow's raw op RandomIndexShuffle permutes indices with a block cipher of several rounds. The
order has two versions. A run keeps the version that it began with:

1. The op permutes each epoch once, with 24 rounds. The keys are a constant, the seed and the epoch.
   The op represents an index by 2m bits, with m at least 8, and uses only the lowest m bits of each
   key. So if N is at most 65,537, the order repeats after 256 epochs, and two seeds that differ by
   256 have the same order. At ImageNet's N, the order repeats after 2,048 epochs. If N is 3 to 5,
   the permutations are not equally frequent. If N is 2¹⁶ + 1, 2¹⁸ + 1 and so on, the op uses one
   bit too few: the last example never appears, and another example appears twice.
2. A 64-bit hash of (seed, epoch) determines random words. If N is at most 4,096, the indices are
   sorted by such words. For larger N, the op permutes the indices in two passes, each with 8 rounds
   and three words as keys. After each pass, a random offset is added mod N. The orders of 1,500
   epochs pass statistical tests even with 6 rounds per pass, so 8 rounds leave a margin.

On one thread of an AMD EPYC, version 2 computes 1 to 10 million indices/s in calls of 1,024
indices, and 0.5 to 1.4 million/s in calls of 128 (0.1 to 0.25 ms per call). Version 1 computes 5
million/s at N = 60,000, but 0.25 million/s at N = 1,000 and 0.06 million/s at N = 240.

The op's public wrapper, `tf.random.experimental.index_shuffle`, is not used: it always takes 4
rounds. With 4 rounds, the orders of consecutive epochs correlate up to 0.91 at N = 60,000.
"""

from collections.abc import Callable

import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.nn.splitmix64 import further_bits, random_bits, splitmix64

# First key of version 1; no other use of the seed has this key. The number is arbitrary (the arXiv
# number of Smith et al. 2018). With another key or number of rounds, the order would change, and
# old runs could not be resumed.
ORDER_KEY = 171100489
ROUNDS = 24

# Version 2 hashes the seed with this position. Augmentation hashes the seed with the positions of
# examples. No run reaches this position, so version 2 and augmentation do not share random bits.
_DOMAIN = 2**63 - 1
PASSES = 2
_ROUNDS_A_PASS = 8
KEYS = 3  # Keys of one pass, one word each; the op uses 8 to 32 bits of each word.
WORDS = PASSES * (KEYS + 1)  # Words of an epoch: each pass's offset and keys.
# Up to this N, each call sorts whole epochs, which takes 0.2 ms for N = 4,096. The op would compute
# about 2¹⁶ / N values of its cipher per index: 17 µs per index if N = 240, and 1 ms if N = 5.
SORTED = 4096

VERSIONS = (1, NEWEST_ORDER)


def example_indices(
    positions: tf.Tensor, examples: int, seed: int, version: int = NEWEST_ORDER
) -> tf.Tensor:
    """Returns the index of the example at each position.

    Args:
        positions: int64 [n], each at least 0, of one or several epochs.
        examples: N, the number of training examples, at least 1.
        seed: the run's seed, from 0 to 2⁶³ - 1; version 1 uses only its lowest 8 to 32 bits.
        version: one of `VERSIONS`.

    Returns:
        int64 [n], each in [0, N). The N positions of an epoch give each example once, except with
        version 1 if N is 2¹⁶ + 1, 2¹⁸ + 1 and so on.
    """
    positions = tf.convert_to_tensor(positions, tf.int64)
    places, epochs = positions % examples, positions // examples  # [n]
    if version == 1:
        keys = [tf.fill(tf.shape(positions), tf.constant(k, tf.int64)) for k in (ORDER_KEY, seed)]
        return _shuffled(places, tf.stack([*keys, epochs], axis=1), examples, ROUNDS)
    # Most calls have positions of one or two epochs. Each epoch's random words are computed once.
    epochs, row = tf.unique(epochs)  # [e], [n]
    # [e]: distinct epochs have distinct bits.
    bits = splitmix64(epochs_key(seed) + tf.cast(epochs, tf.uint64))
    order: Callable[..., tf.Tensor] = _sorted if examples <= SORTED else _passed
    return order(places, row, bits, examples)


def epochs_key(seed: int) -> tf.Tensor:
    """Returns the key of version 2, uint64 []; epoch e has the bits splitmix64(key + e)."""
    return random_bits(tf.constant(_DOMAIN, tf.int64), seed)


def needs_more_bits(examples: int) -> bool:
    """Returns whether `examples` is 2ᵏ + 1 for an even k; the op has a bit too few if k ≥ 16."""
    bits = (examples - 1).bit_length() - 1
    return examples - 1 == 2**bits and not bits % 2


def shuffled_once(places: tf.Tensor, keys: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
    """Calls the op once, with the rounds of version 2; returns the new places, int64 [n].

    `places` is int64 [n], `keys` is int64 [n, 3], and `examples`, int64 [n], has N for each place.
    """
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=keys, max_index=examples - 1, rounds=_ROUNDS_A_PASS
    )


def _sorted(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Returns version 2's indices, int64 [n], for N up to `SORTED`: sorts [0, N) by random words.

    Args:
        places: int64 [n], places in the epochs, in [0, N).
        row: int32 [n], index of each place's epoch in `bits`.
        bits: uint64 [e], random bits of each epoch.
        examples: N, the number of training examples.
    """
    words = tf.bitcast(further_bits(bits, examples), tf.int64)  # [e, N]
    order = tf.math.top_k(words, examples).indices  # [e, N]; equal words keep their order
    places = tf.cast(places, tf.int32)
    return tf.cast(tf.gather_nd(order, tf.stack([row, places], axis=1)), tf.int64)


def _passed(places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, examples: int) -> tf.Tensor:
    """Returns version 2's indices for N above `SORTED`; takes the same arguments as `_sorted`."""
    words = further_bits(bits, WORDS)  # [e, 8]
    offsets = tf.cast(words[:, :PASSES] % tf.constant(examples, tf.uint64), tf.int64)  # [e, 2]
    keys = tf.bitcast(words[:, PASSES:], tf.int64)  # [e, 6]
    for i in range(PASSES):
        own = tf.gather(keys[:, i * KEYS : (i + 1) * KEYS], row)  # [n, 3]
        moved = _passed_once(places, own, examples) + tf.gather(offsets[:, i], row)
        places = tf.where(moved < examples, moved, moved - examples)
    return places


def _passed_once(places: tf.Tensor, keys: tf.Tensor, examples: int) -> tf.Tensor:
    """Applies one pass of version 2: places int64 [n], keys int64 [n, 3] → places int64 [n]."""
    if not needs_more_bits(examples):
        return _shuffled(places, keys, examples, _ROUNDS_A_PASS)
    # If N is 2¹⁶ + 1, for example, the op would use 16 bits and permute only 2¹⁶ numbers. So it
    # permutes N + 1 numbers here, with 18 bits. One place may move to N, which is outside [0, N).
    # That place then gets the number to which N moves, because this number is inside [0, N).
    moved = _shuffled(places, keys, examples + 1, _ROUNDS_A_PASS)
    last = tf.fill(tf.shape(places), tf.constant(examples, tf.int64))
    back = _shuffled(last, keys, examples + 1, _ROUNDS_A_PASS)
    return tf.where(moved < examples, moved, back)


def _shuffled(places: tf.Tensor, keys: tf.Tensor, examples: int, rounds: int) -> tf.Tensor:
    """Applies TensorFlow's op once: places int64 [n], keys int64 [n, 3] → places int64 [n]."""
    return tf.raw_ops.RandomIndexShuffle(
        index=places, seed=keys, max_index=tf.constant(examples - 1, tf.int64), rounds=rounds
    )
