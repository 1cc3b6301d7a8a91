"""Seeds of a model's random layers, such as dropout, set by the training step.

Keras keeps a state variable for each random layer, and a global one for calls of `keras.random`
without a seed. Under MirroredStrategy, all replicas would draw the same masks, since their states
are equal, and a resumed run would have to restore the states. So the training step runs the model
in a `keras.StatelessScope(state_mapping=[(state, value), ...])`. The model then uses these values
in place of the variables, and the variables do not change.
"""

import types

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

from trainer.nn.splitmix64 import random_bits, splitmix64

# Shuffling and augmentation hash the same seed; this arbitrary number gives dropout other keys. It
# is the volume and page of Srivastava et al. 2014, "Dropout", JMLR 15, 1929.
_DOMAIN = 15_1929
_GLOBAL = -1  # Index of the global generator; the layers have 0, 1, ...


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the state variable of every SeedGenerator in the model, in a fixed order.

    Each state is an integer vector [2]: a seed and a counter. Layers without a SeedGenerator use
    Keras' global one, which is not part of a model.
    """
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def global_generator() -> keras.random.SeedGenerator:
    """Returns Keras' global SeedGenerator of this thread; Keras creates it if it does not exist.

    The returned generator counts up, as the generators of layers do. By Keras' own rule, the global
    generator would take each state modulo 933,199, so draws would repeat.
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

    A state is an int64 vector [2], a function of (seed, layer, position). For each further draw, a
    layer adds 1 to the second number. Both numbers are 64-bit hashes. Keras reduces each modulo
    2³¹ − 2, so almost 62 bits remain in all. With order version 1, the state of layer i is
    [position, (seed · states + i) · 2¹⁶], as in runs of older versions.

    Args:
        states: number of random layers.
        position: position of the first example in this call of the model, int64 [].
        seed: seed of the run.
        order_version: --order_version of the run.
    """

    def hashed(layer: int) -> tf.Tensor:
        # Each layer has its own sequence, selected by `key`; the position is the index in it.
        key = random_bits(tf.constant([layer], tf.int64), seed ^ _DOMAIN << 32)[0]
        word = splitmix64(key + tf.cast(position, tf.uint64))
        return tf.bitcast(tf.stack([word, splitmix64(word)]), tf.int64)

    if order_version == 1:
        numbers = [(seed * states + i) << 16 for i in range(states)]
        layers = [tf.stack([position, tf.constant(n, tf.int64)]) for n in numbers]
    else:
        layers = [hashed(i) for i in range(states)]
    return hashed(_GLOBAL), layers


def keras_seed(seed: int) -> int:
    """Returns a 32-bit seed for Keras', numpy's and Python's generators, from the 63-bit `seed`.

    A seed below 2³¹ does not change. A larger seed becomes the upper 32 bits of its splitmix64.
    """
    return seed if seed < 2**31 else int(splitmix64(tf.constant(seed, tf.uint64))) >> 32
