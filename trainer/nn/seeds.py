"""The seeds of a model's stateful randomness (dropout and the like), to be set from outside.

Keras keeps one state variable per random layer, and a global one for `keras.random` without a seed.
Under MirroredStrategy every replica holds the same value, hence draws the same mask, and a resumed
run would have to restore it. A step that runs the model under
`keras.StatelessScope(state_mapping=[(state, value), ...])` decides the masks itself and leaves the
variables alone.
"""

import types

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

from trainer.nn.splitmix64 import random_bits, splitmix64

# Separates these keys from those of the order and of augmentation, which hash the same seed. Any
# number would do; this one is that of Srivastava et al. 2014, "Dropout", in JMLR: 15, 1929.
_DOMAIN = 15_1929
_GLOBAL = -1  # The global generator's place, in front of the layers'.


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Returns every SeedGenerator's state variable in the model, in a fixed order.

    Nested layers are included. Each state is an integer vector [2]: a seed and a counter. Layers
    that draw without a SeedGenerator of their own use Keras' global one, which is not part of a
    model.
    """
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def global_generator() -> keras.random.SeedGenerator:
    """Returns Keras' global SeedGenerator of this thread, made if need be.

    The generator counts up from now on, as layers' own do. Keras lets it jump within a million
    numbers, so that draws would repeat.
    """
    generator = global_seed_generator()

    def count_up(self: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:
        del ordered
        return keras.random.SeedGenerator.next(self, ordered=True)

    generator.next = types.MethodType(count_up, generator)
    return generator


def use_in_this_thread(generator: keras.random.SeedGenerator) -> None:
    """Makes `generator` Keras' global one in this thread.

    MirroredStrategy traces each replica in a thread of its own.
    """
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)


def values(
    states: int, position: tf.Tensor, seed: int, order_version: int
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns the global state's value and those of a model's `states` random layers.

    Each is an int64 vector [2], a function of (seed, layer, position). A layer that draws several
    times counts up the second number. Keras takes both modulo 2³¹ − 2, so that version 2 hashes all
    of the 64 bits into each; in version 1 the second is a small multiple of the seed.

    Args:
        states: how many random layers.
        position: int64 [], of the first example of this replica's run.
        seed: the run's seed.
        order_version: of the run; 1 keeps the masks of runs from before version 2.
    """

    def hashed(layer: int) -> tf.Tensor:
        # As positions of one sequence: the layer chooses the key, the position the place.
        key = random_bits(tf.constant([layer], tf.int64), seed ^ _DOMAIN << 32)[0]
        word = splitmix64(key + tf.cast(position, tf.uint64))
        return tf.bitcast(tf.stack([word, splitmix64(word)]), tf.int64)

    if order_version == 1:
        first = seed * states
        layers = [
            tf.stack([position, tf.constant((first + i) << 16, tf.int64)]) for i in range(states)
        ]
    else:
        layers = [hashed(i) for i in range(states)]
    return hashed(_GLOBAL), layers


def keras_seed(seed: int) -> int:
    """The seed of Keras', numpy's and Python's generators, which take 32 bits: from a run's of 63.

    A seed below 2³¹ is itself; a larger one is the upper half of its splitmix64.
    """
    return seed if seed < 2**31 else int(splitmix64(tf.constant(seed, tf.uint64))) >> 32
