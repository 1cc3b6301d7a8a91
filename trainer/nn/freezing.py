"""Freezes the layers whose paths begin with a match of --freeze, a regular expression.

A path consists of the names of a layer and of the layers around it (layer_paths.py). A frozen layer
keeps its parameters and its moving statistics, and computes as in inference. It has neither
gradients nor optimizer slots, and does not take part in the all-reduce.
"""

import re

import keras

from trainer.errors import UserError
from trainer.nn.layer_paths import layer_paths
from trainer.nn.model_head import head
from trainer.nn.transfer import Transfer


def freeze(model: keras.Model, pattern: str) -> list[keras.layers.Layer]:
    """Freezes the layers whose paths begin with a match of `pattern`, and returns them.

    Raises:
        UserError: if no layer with weights matches, or if no trainable parameter is left.
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
        last = (head(model) or list(layers))[-1]
        raise UserError(
            f"--freeze={pattern} matches all {len(layers)} layers, and nothing is left to train.\n"
            f"Leave the last one out, for example with --freeze='(?!{last})'."
        )
    return frozen


def warnings(pattern: str, model: keras.Model, loaded: Transfer | None) -> list[str]:
    """Returns a warning, in a list, if frozen layers would keep random weights; otherwise [].

    Args:
        pattern: value of --freeze.
        model: the model, before its first update.
        loaded: result of loading pretrained weights; None without pretrained weights.
    """
    frozen = [path for path in layer_paths(model) if re.match(pattern, path)]
    if loaded is None:
        return ["--freeze without --init_from: the frozen layers keep their random weights"]
    fresh = {path.rpartition("/")[0] for path in loaded.new}
    random = [path for path in frozen if path in fresh]
    names = f"{', '.join(random[:4])}{' and others' if len(random) > 4 else ''}"
    return [f"frozen layers with random weights, which were not loaded: {names}"] if random else []


def summary(model: keras.Model, frozen: int) -> str:
    """Returns a line about how much of `model` trains; `frozen` is the number of frozen layers."""
    count = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    return (
        f"--freeze: {frozen} of {len(layer_paths(model))} layers are frozen; "
        f"{count:,} of {model.count_params():,} values train"
    )
