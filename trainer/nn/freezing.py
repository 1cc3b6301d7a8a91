"""Freezes layers: --freeze names them by a regular expression over their paths.

A frozen layer keeps its parameters and its moving statistics, and computes as in inference. It has
no gradient, no optimizer slots, and no part in the all-reduce.
"""

import re

import keras

from trainer.errors import UserError
from trainer.nn.layer_paths import layer_paths


def freeze(model: keras.Model, pattern: str) -> list[keras.layers.Layer]:
    """Freezes the layers whose path matches `pattern` from its start, and returns them.

    Raises:
        UserError: if no layer with weights matches, or nothing is left to train.
    """
    layers = layer_paths(model)
    frozen = [layer for path, layer in layers.items() if re.match(pattern, path)]
    if not frozen:
        raise UserError(
            f"--freeze={pattern} matches no layer.\nThe layers are: {', '.join(layers)}."
        )
    for layer in frozen:
        layer.trainable = False
    if not model.trainable_variables:
        raise UserError(
            f"--freeze={pattern} matches all {len(layers)} layers, and nothing is left to train.\n"
            f"Leave the last one out, for example with --freeze='(?!{list(layers)[-1]})'."
        )
    return frozen


def summary(model: keras.Model, frozen: int) -> str:
    """Returns a line about the `frozen` layers of `model`."""
    count = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    return (
        f"--freeze: {frozen} of {len(layer_paths(model))} layers are frozen; "
        f"{count:,} of {model.count_params():,} values train"
    )
