"""The seeds of a model's stateful randomness (dropout and the like), to be set from outside.

Keras keeps one state variable per random layer. Under MirroredStrategy every replica holds the same
value, hence draws the same mask, and a resumed run would have to restore it. A step that runs the
model under `keras.StatelessScope(state_mapping=[(state, value), ...])` decides the masks itself and
leaves the variables alone.
"""

import keras


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Every SeedGenerator's state variable in the model, nested layers included, in a fixed order.

    Each is an integer vector [2]: a seed and a counter. Layers that draw without a SeedGenerator of
    their own use Keras' global one, which is no part of a model.
    """
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]
