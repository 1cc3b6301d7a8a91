"""Computes the order of --sampling=balanced, a pure function of (seed, position).

A position is the number of examples that a run consumes before an example. A round is C consecutive
positions, for C classes: position p belongs to round k = p div C. A round draws one example of each
class, in an order that (seed, k) decides. So round k has the k-th draw of every class. Class c has
N_c examples. Its k-th draw is element k mod N_c of a shuffle of the class. The shuffle depends
only on (seed, c, k div N_c). So a class repeats an example only after all its N_c examples were
drawn. Batch sizes, replicas and restarts do not change the order.

Each class has its own seed. The shuffles of a class are the epochs of version 2 of
`shuffle.example_indices` with the class's seed. The functions below compute the shuffles of many
classes at once. For classes of at most 4,096 examples, they sort random words. Each such shuffle
takes as many words as the largest of these classes has examples.
For larger classes, they use TensorFlow's op RandomIndexShuffle. In calls of 128 positions, one
thread of a busy EPYC makes 28,000 indices/s for 10 classes of 1,000 examples, and 5,000 indices/s
for 1,000 classes of 1,281 examples.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.data import shuffle
from trainer.nn.splitmix64 import further_bits, random_bits, splitmix64

# Separates the seeds of the shuffles from other uses of the run's seed. The number is arbitrary
# (volume and page of Cui et al. 2019, "Class-balanced loss", CVPR, 9268).
_DOMAIN = 2019_9268
# RandomIndexShuffle also runs for small classes, but its result for them is not used. The op gets
# this number as the size of a small class, because the op is slow for small sizes.
_UNUSED = 2**16


def seeds(seed: int, count: int) -> list[int]:
    """Returns seeds from 0 to 2⁶³ − 1: one for the rounds, and one for each of `count` classes."""
    words = random_bits(tf.range(count + 1, dtype=tf.int64), seed ^ _DOMAIN << 32)
    return [int(word) >> 1 for word in words.numpy()]


def balanced_order(labels: np.ndarray, classes: int, seed: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that maps positions, int64 [n], to indices of examples, int64 [n].

    Args:
        labels: int64, one for each training example, from 0 to `classes` − 1, or −1 for an example
            that is never drawn.
        classes: C, the number of classes; each has at least one example.
        seed: seed of the run.
    """
    labelled = np.flatnonzero(labels >= 0)
    sizes = np.bincount(labels[labelled], minlength=classes)
    rounds_seed, *class_seeds = seeds(seed, classes)
    with tf.device("CPU:0"):
        # Indices of the examples of class 0, then of class 1, and so on, each in ascending order.
        members = tf.constant(labelled[np.argsort(labels[labelled], kind="stable")], tf.int64)
        starts = tf.constant(np.cumsum(sizes) - sizes, tf.int64)
        keys = tf.stack([shuffle.epochs_key(each) for each in class_seeds])
    shuffled = _shuffles(sizes, keys)

    def order(positions: tf.Tensor) -> tf.Tensor:
        draws = positions // classes  # [n]
        drawn = shuffle.example_indices(positions, classes, rounds_seed)
        return tf.gather(members, tf.gather(starts, drawn) + shuffled(drawn, draws))

    return order


def _shuffles(sizes: np.ndarray, keys: tf.Tensor) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the function that maps draws to places of the drawn examples in their classes.

    The function takes the classes and the numbers k of their draws, both int64 [n], and returns
    int64 [n]. The number of a class's shuffle, k div N_c, is called an epoch.

    Args:
        sizes: number N_c of examples of each class, [C].
        keys: key of each class's shuffles, uint64 [C].
    """
    classes, small = len(sizes), sizes <= shuffle.SORTED
    most = int(sizes[small].max(initial=1))
    with tf.device("CPU:0"):
        sizes_of = tf.constant(sizes, tf.int64)
        capped = tf.constant(np.where(small, sizes, 1), tf.int64)
        large = tf.constant(np.where(small, _UNUSED, sizes), tf.int64)
        is_small = tf.constant(small)

    def places(drawn: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        own = tf.gather(sizes_of, drawn)  # [n]
        place, epoch = draws % own, draws // own
        # Most calls have few pairs of class and epoch. Each pair's random words are computed once.
        pairs, row = tf.unique(epoch * classes + drawn)  # [e], [n]
        pair_class = pairs % classes
        bits = splitmix64(tf.gather(keys, pair_class) + tf.cast(pairs // classes, tf.uint64))
        if not small.any():
            return _passed(place, row, bits, tf.gather(large, pair_class), sizes)
        sorted_place = tf.minimum(place, tf.gather(capped, drawn) - 1)
        found = _sorted(sorted_place, row, bits, tf.gather(capped, pair_class), most)
        if small.all():
            return found
        in_small = tf.gather(is_small, drawn)
        passed_place = tf.where(in_small, tf.zeros_like(place), place)
        passed = _passed(passed_place, row, bits, tf.gather(large, pair_class), sizes)
        return tf.where(in_small, found, passed)

    return places


def _sorted(
    places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, sizes: tf.Tensor, most: int
) -> tf.Tensor:
    """Returns n elements of e shuffles; a shuffle sorts the numbers in [0, size) by random words.

    Args:
        places: int64 [n], place of each element in its shuffle.
        row: int32 [n], index of each element's shuffle in `bits`.
        bits: uint64 [e], key of each shuffle.
        sizes: int64 [e], size of each shuffle, at most `most`.
        most: largest size.
    """
    words = tf.bitcast(further_bits(bits, most), tf.int64)  # [e, most]
    inside = tf.range(most, dtype=tf.int64)[None, :] < sizes[:, None]
    # Each shuffle has `most` words; those beyond its size get the least value. They come last,
    # because `top_k` sorts in descending order and keeps the order of equal words.
    order = tf.math.top_k(tf.where(inside, words, tf.int64.min), most).indices
    at = tf.stack([row, tf.cast(places, tf.int32)], axis=1)
    return tf.cast(tf.gather_nd(order, at), tf.int64)


def _passed(
    places: tf.Tensor, row: tf.Tensor, bits: tf.Tensor, sizes: tf.Tensor, all_sizes: np.ndarray
) -> tf.Tensor:
    """Returns n elements of e shuffles of [0, size), by two passes of RandomIndexShuffle.

    The arguments are the same as for `_sorted`, but `all_sizes`, the sizes of all classes, replaces
    `most`.
    """
    own = tf.gather(sizes, row)  # [n]
    words = further_bits(bits, shuffle.WORDS)  # [e, 8]
    offsets = tf.cast(words[:, : shuffle.PASSES] % tf.cast(sizes, tf.uint64)[:, None], tf.int64)
    keys = tf.bitcast(words[:, shuffle.PASSES :], tf.int64)  # [e, 6]
    odd = [int(size) for size in np.unique(all_sizes) if shuffle.needs_more_bits(int(size))]
    limits = own
    for size in odd:
        limits = tf.where(own == size, own + 1, limits)
    for i in range(shuffle.PASSES):
        key = tf.gather(keys[:, i * shuffle.KEYS : (i + 1) * shuffle.KEYS], row)  # [n, 3]
        moved = shuffle.shuffled_once(places, key, limits)
        # For the sizes in `odd`, the op permutes size + 1 numbers, from 0 to `size`. But `size` is
        # outside of the shuffle. An index that moves to it gets the number to which `size` moves.
        if odd:
            moved = tf.where(moved < own, moved, shuffle.shuffled_once(limits - 1, key, limits))
        moved += tf.gather(offsets[:, i], row)
        places = tf.where(moved < own, moved, moved - own)
    return places
