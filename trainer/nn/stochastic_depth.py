"""Stochastic depth: Huang et al. 2016 (1603.09382), applied to each example separately.

A residual block adds a branch to a shortcut. In training, the block skips its branch for randomly
chosen examples. For the other examples, the block divides the branch by the probability of
keeping the branch. In inference, the block always adds the branch.

The random choice is a hash of (seed, layer, position). The position is the number of examples that
the run consumes before the example. So the choice does not depend on how replicas and micro-batches
divide a batch, and a resumed run makes the same choices.
"""

import contextlib
import threading
from collections.abc import Iterator

import keras
import tensorflow as tf

from trainer.nn.splitmix64 import random_bits, shift_right, splitmix64

# An arbitrary number, combined with the run's seed, so that stochastic depth does not get the same
# hashes as other random choices. It is the volume and page of the paper: ECCV 2016, LNCS 9908, 646.
_DOMAIN = 9908_0646


class _Examples(threading.local):
    """Position of a call's first example, and the run's seed: one pair per thread of a replica."""

    first: tuple[tf.Tensor, int] | None = None


_examples = _Examples()


@contextlib.contextmanager
def examples_from(position: tf.Tensor, seed: int) -> Iterator[None]:
    """Tells StochasticDepth layers the positions of their examples during the `with` block.

    `position` is the position of the first example in the call, int64 []; `seed` is the run's seed.
    """
    outer = _examples.first
    _examples.first = position, seed
    try:
        yield
    finally:
        _examples.first = outer


class StochasticDepth(keras.layers.Layer):
    """Adds the branch of a residual block to its shortcut, in place of keras.layers.Add.

    Attributes:
      rate: probability that the layer skips the branch for an example.
      number: index of the layer among the shortcut additions of its model, from 0 on.
    """

    def __init__(self, rate: float, number: int, name: str) -> None:
        super().__init__(name=name)
        self.rate, self.number = rate, number

    def call(self, inputs: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns shortcut + branch · mask / (1 − rate) in training, else shortcut + branch."""
        shortcut, branch = inputs
        if not training:
            return shortcut + branch
        if _examples.first is None:
            raise RuntimeError(f"{self.name} needs examples_from in training")
        position, seed = _examples.first
        kept = mask(position, branch.shape[0], seed, self.number, self.rate)
        factors = tf.cast(kept, branch.dtype) / (1 - self.rate)
        return shortcut + branch * tf.reshape(factors, [-1] + [1] * (len(branch.shape) - 1))

    def compute_output_shape(
        self, input_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the shortcut."""
        return input_shape[0]


def joined(
    shortcut: keras.KerasTensor, branch: keras.KerasTensor, rate: float, number: int, name: str
) -> keras.KerasTensor:
    """Returns shortcut + branch, with stochastic depth if `rate` is not 0.

    One layer computes the sum, with or without stochastic depth. So the rate does not change the
    order of a model's weights, and a checkpoint fits a model with any rate.
    """
    layer = StochasticDepth(rate, number, name) if rate else keras.layers.Add(name=name)
    return layer([shortcut, branch])


def mask(position: tf.Tensor, count: int, seed: int, number: int, rate: float) -> tf.Tensor:
    """Returns whether layer `number` keeps the branch of each of `count` examples, bool [count].

    `position` is the position of the first of these examples. `rate` is the probability that the
    layer skips the branch.
    """
    key = random_bits(tf.constant([number], tf.int64), seed ^ _DOMAIN << 32)[0]
    positions = tf.cast(position + tf.range(count, dtype=tf.int64), tf.uint64)
    bits = splitmix64(key + positions)
    return tf.cast(shift_right(bits, 40), tf.float32) * 2**-24 >= rate


def rates(most: float, blocks: int) -> list[float]:
    """Returns each block's rate; rates rise evenly from 0 in the first block to `most` in the last.

    This is the rule of DeiT and timm. By the paper's rule, the first block would have the rate
    `most / blocks`.
    """
    return [most * block / max(1, blocks - 1) for block in range(blocks)]
