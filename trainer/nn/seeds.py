"""Computes the states of a model's random layers, such as dropout, for the training step.

Keras keeps the state of each random layer in a variable. All calls of `keras.random` without a seed
share one more variable, the state of Keras' global generator. Under MirroredStrategy, these
variables are equal on all replicas, so all replicas would draw the same dropout masks. A resumed
run would have to restore the variables. So the training step computes a value for each state, and
runs the model in a `keras.StatelessScope(state_mapping=[(variable, value), ...])`. The model then
uses the values in place of the variables, and the variables do not change.
"""

import types

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

from trainer.nn.splitmix64 import random_bits, splitmix64

# An arbitrary number, combined with the run's seed, so that dropout gets other hashes than
# shuffling and augmentation. It is the volume and page of "Dropout": Srivastava et al. 2014, JMLR.
_DOMAIN = 15_1929
_GLOBAL = -1  # Index of the global generator; the random layers have the indices 0, 1, ...


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the state variable of every SeedGenerator in the model, in a fixed order.

    Each state is an integer vector [2]: a seed and a counter. The state of Keras' global generator
    is not in the list, since this generator is not part of a model.
    """
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def global_generator() -> keras.random.SeedGenerator:
    """Returns Keras' global SeedGenerator of this thread; Keras creates it if it does not exist.

    The returned generator adds 1 to its counter for each draw, as the generators of layers do.
    Keras' own rule for the global generator reduces its state modulo 933,199, so draws would
    repeat.
    """
    generator = global_seed_generator()

    def count_up(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
        del ordered
        return keras.random.SeedGenerator.next(self, ordered=True)

    generator.next = types.MethodType(count_up, generator)
    return generator


def use_in_this_thread(generator: keras.random.SeedGenerator) -> None:
    """Makes `generator` the global SeedGenerator of Keras in this thread.

    Each replica needs this call, since MirroredStrategy traces each replica in its own thread.
    """
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)


def values(
    states: int, position: tf.Tensor, seed: int, order_version: int
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns the state of the global generator, and the states of a model's random layers.

    A state is an int64 vector [2] of two 64-bit hashes of (seed, layer, position). For each further
    draw, the layer adds 1 to the second number. Keras takes each number modulo 2³¹ − 2, so almost
    62 bits remain in all. With order version 1, the state of layer i is instead
    [position, (seed · states + i) · 2¹⁶ modulo 2⁶⁴], as in runs of older versions of this program.

    Args:
        states: number of random layers.
        position: number of examples that the run consumes before this call, int64 [].
        seed: seed of the run.
        order_version: --order_version of the run, which selects one of the two rules above.
    """

    def hashed(layer: int) -> tf.Tensor:
        # `key` selects the layer's own sequence of hashes; the position is an index in it.
        key = random_bits(tf.constant([layer], tf.int64), seed ^ _DOMAIN << 32)[0]
        word = splitmix64(key + tf.cast(position, tf.uint64))
        return tf.bitcast(tf.stack([word, splitmix64(word)]), tf.int64)

    if order_version == 1:
        numbers = [_signed((seed * states + i) << 16) for i in range(states)]
        layers = [tf.stack([position, tf.constant(n, tf.int64)]) for n in numbers]
    else:
        layers = [hashed(i) for i in range(states)]
    return hashed(_GLOBAL), layers


def _signed(number: int) -> int:
    """Returns `number` modulo 2⁶⁴ as a signed 64-bit integer; most numbers do not change."""
    return (number + 2**63) % 2**64 - 2**63


def keras_seed(seed: int) -> int:
    """Returns a 32-bit seed for Keras', numpy's and Python's generators, from the 63-bit `seed`.

    A seed below 2³¹ does not change. A larger seed becomes the upper half of its splitmix64 hash.
    """
    return seed if seed < 2**31 else int(splitmix64(tf.constant(seed, tf.uint64))) >> 32
