"""Converts a Keras model's batch normalization to ghost batch normalization, and back.

In ghost batch normalization, each group of G examples has its own statistics (ghost_batch_norm.py).
Each batch-norm layer gets another class, but keeps its weights, its name and its place in the
graph. This module does not use keras.models.clone_model, which cannot copy subclassed models. A
converted model saves the same Keras files and TensorFlow checkpoints as a model built from
GhostBatchNormalization layers.
"""

import keras

from trainer.errors import UserError
from trainer.nn.ghost_batch_norm import GhostBatchNormalization, Kernel


def ghostify(
    model: keras.Model,
    *,
    ghost_batch_size: int = 32,
    decay: float = 0.99,
    kernel: Kernel = "reshaped",
) -> keras.Model:
    """Turns every BatchNormalization of `model` into a GhostBatchNormalization; returns `model`.

    Epsilon, center, scale and weights do not change. `momentum` becomes `decay`. `synchronized` is
    turned off, since a ghost batch is always on one replica. If a layer is a
    GhostBatchNormalization already, it also gets the new decay, ghost batch size and kernel.

    Call `ghostify` before you trace a function that calls the model. If a subclassed model makes
    layers in its `build`, build the model first. After an error, do not use the
    model, because only some of its layers may be converted.

    Example:
      >>> model = ghostify(keras.applications.MobileNetV2(weights=None), ghost_batch_size=32)

    Args:
        model: the model, which is changed in place.
        ghost_batch_size: number of examples that share statistics.
        decay: factor by which each ghost batch multiplies the old moving statistics.
        kernel: "fused" or "reshaped", as described in ghost_batch_norm.py. Keras' `fit` compiles
            with XLA, under which "fused" is inexact.

    Raises:
        UserError: if a layer has `renorm`, or an axis that is not the last; if a layer is of
            another subclass of BatchNormalization, because its own code would be lost.
    """
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        if type(layer) not in (keras.layers.BatchNormalization, GhostBatchNormalization):
            raise UserError(
                f"layer {layer.name} is a {type(layer).__name__}, a BatchNormalization with code "
                "of its own, which would be lost: use keras.layers.BatchNormalization"
            )
        layer.__class__ = GhostBatchNormalization
        layer.momentum = decay
        layer.synchronized = False
        layer.set_ghost(ghost_batch_size, kernel)
    return model


def unghostify(model: keras.Model) -> keras.Model:
    """Turns every GhostBatchNormalization of `model` into BatchNormalization; returns `model`.

    The results of inference, the weights and the names do not change. Keras can load the files of
    the returned model without this package. `momentum` and `synchronized` keep the values that
    `ghostify` gave them.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, GhostBatchNormalization):
            del layer.ghost_batch_size, layer.kernel
            layer.__class__ = keras.layers.BatchNormalization
    return model
