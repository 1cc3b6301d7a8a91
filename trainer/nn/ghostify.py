"""Any Keras model's batch normalization made ghost, in place, and Keras' own again.

A layer object keeps its identity, weights, name and place in the model's graph and only changes
class. keras.models.clone_model, the other way, cannot copy subclassed models. Keras files and
TensorFlow checkpoints of the result are those of a model that was built from ghost layers.
"""

import keras

from trainer.errors import UserError
from trainer.nn.ghost_batch_norm import GhostBatchNormalization, Kernel


def ghostify(
    model: keras.Model, *, ghost_batch_size: int, decay: float, kernel: Kernel
) -> keras.Model:
    """Turns every BatchNormalization of the model into a GhostBatchNormalization.

    Epsilon, center, scale and weights stay. `synchronized` is turned off, since ghost batches are
    local. Layers that are ghosts already take the new sizes. Call it before any function that calls
    the model is traced.

    Args:
        model: Sequential, functional, subclassed or nested of these. Of a subclassed model, layers
            that its `build` makes are reached once it is built.
        ghost_batch_size: G, examples.
        decay: d, per ghost batch.
        kernel: "fused" or "reshaped"; see trainer.nn.ghost_batch_norm.

    Returns:
        The same model.

    Raises:
        UserError: for a subclass of BatchNormalization, whose own code the swap would discard, a
            layer with `renorm`, or an axis that is not the last.
    """
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        if type(layer) not in (keras.layers.BatchNormalization, GhostBatchNormalization):
            raise UserError(
                f"layer {layer.name} is a {type(layer).__name__}, a BatchNormalization with code "
                "of its own; use keras.layers.BatchNormalization, which can be made ghost"
            )
        layer.__class__ = GhostBatchNormalization
        layer.momentum = decay
        layer.synchronized = False
        layer.set_ghost(ghost_batch_size, kernel)
    return model


def unghostify(model: keras.Model) -> keras.Model:
    """Turns every GhostBatchNormalization of the model back into Keras' BatchNormalization.

    Inference, weights and names stay, and Keras files of the model load without this package.

    Returns:
        The same model.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, GhostBatchNormalization):
            del layer.ghost_batch_size, layer.kernel
            layer.__class__ = keras.layers.BatchNormalization
    return model
