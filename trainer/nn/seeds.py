"""The seeds of a model's stateful randomness (dropout and the like), to be set from outside.

Keras keeps one state variable per random layer. Under MirroredStrategy every replica holds the same
value, hence draws the same mask, and a resumed run would have to restore it. A step that runs the
model under `keras.StatelessScope(state_mapping=[(state, value), ...])` decides the masks itself and
leaves the variables alone.
"""

import keras

_MASK = 2**64 - 1


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Every SeedGenerator's state variable in the model, nested layers included, in a fixed order.

    Each is an integer vector [2]: a seed and a counter. Layers that draw without a SeedGenerator of
    their own use Keras' global one, which is no part of a model.
    """
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def keras_seed(seed: int) -> int:
    """The seed of Keras', numpy's and Python's generators, which take 32 bits: from a run's of 63.

    A seed below 2³¹ is itself; a larger one is the upper half of its splitmix64.
    """
    if seed < 2**31:
        return seed
    z = (seed + 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return (z ^ (z >> 31)) >> 32
