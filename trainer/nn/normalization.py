"""Makes Keras' Normalization layers compute with their weights after the weights have changed.

An adapted layer computes with tensors that it made of its weights when it was built. Keras makes
them anew only if `adapt` or a loader of Keras' own changes the weights.
"""

import keras


def refresh(model: keras.Model) -> None:
    """Makes each Normalization of `model` compute with the present values of its weights.

    Call this function after you assign to the weights, and before you trace a function that calls
    the model. Old versions did not call it, so the runs that they began go on without it.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
