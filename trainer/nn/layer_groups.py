"""Groups a model's layers by depth, and gives each group a factor on the learning rate.

Layers near the input of a pretrained model need smaller changes than layers near its logits. So
Clark et al. 2020 (2003.10555) and Bao et al. 2021 (2106.08254) multiply the learning rate of each
block by a power of a decay factor. Here, a block is a series of consecutive layers whose names
share a prefix, such as group1_block2. A group has one or more blocks.
"""

import re
from collections.abc import Sequence

import keras

from trainer.errors import UserError
from trainer.nn.layer_paths import layer_paths, weight_paths

_MOST_GROUPS = 24
# Matches the name of a block at the start of a layer's name: conv2_block1 in
# conv2_block1_1_conv, block_3 in block_3_expand, and block1a in block1a_project_conv.
_BLOCK = re.compile(
    r".*?(?:block|stage|group|layer|conv(?![123]d)|cell)_?\d+[a-z]?(?:_block_?\d+[a-z]?)*", re.I
)
# For other names, matches the start up to and including the first number: conv_dw_1 in
# conv_dw_1_bn. If the name has no number, matches the start before the first underscore.
_OTHER = re.compile(r".*?_\d+(?![^_/])|[^_]*")
_SMALL = 0.001  # A group with a smaller factor hardly trains, and `table` warns of it.


def group(paths: Sequence[str]) -> list[list[str]]:
    """Returns at most 24 groups of layer paths, from the input to the logits.

    Each block is a group. If there are more than 24 blocks, neighbouring blocks are merged evenly.
    """
    whole: list[list[str]] = []
    before = None
    for path in paths[:-1]:
        match = _BLOCK.match(path) or _OTHER.match(path)
        assert match is not None  # _OTHER matches every text.
        if match[0] != before:
            whole.append([])
        before = match[0]
        whole[-1].append(path)
    whole.append([paths[-1]])  # The last layer, which computes the logits.
    count = min(len(whole), _MOST_GROUPS)
    groups: list[list[str]] = [[] for _ in range(count)]
    for number, block in enumerate(whole):
        groups[number * count // len(whole)] += block
    return groups


def factors(model: keras.Model, decay: float) -> dict[str, float]:
    """Returns the factor of each layer, by path: 1 in the last group, smaller in earlier groups.

    Args:
        model: the model; its frozen layers also belong to groups.
        decay: ratio of a group's factor to the factor of the group after it.
    """
    groups = group(list(layer_paths(model)))
    return {
        path: decay ** (len(groups) - 1 - number)
        for number, paths in enumerate(groups)
        for path in paths
    }


def rate_factors(model: keras.Model, decay: float) -> list[float]:
    """Returns the factor of each trainable parameter, in the order of trainable_variables."""
    rates = factors(model, decay)
    weights = weight_paths(model).items()
    return [rates[path.rpartition("/")[0]] for path, weight in weights if weight.trainable]


def table(model: keras.Model, decay: float) -> str:
    """Returns a line per group (factor, first and last layer), and warns of factors below 0.001.

    Raises:
        UserError: if `model` contains a subclassed model, because the order of its layers is not
            known.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model) and not getattr(layer, "inputs", None):
            raise UserError(
                f"--layer_decay={decay:g} needs the order of the layers, which is unknown in "
                f"{layer.name}, a {type(layer).__name__}.\n"
                "Leave --layer_decay out, or build the model with Keras' functional API."
            )
    rates = factors(model, decay)
    lines = [f"factor on the learning rate, by --layer_decay={decay:g}:"]
    groups = group(list(rates))
    for paths in groups:
        others = f" to {paths[-1]}" if len(paths) > 1 else ""
        lines.append(f"  {rates[paths[0]]:<8.3g} {paths[0]}{others}")
    small = sum(rates[paths[0]] < _SMALL for paths in groups)
    if small:
        lines.append(
            f"warning: {small} of {len(groups)} groups have a factor below {_SMALL:g} and hardly "
            "train: raise --layer_decay, or freeze their layers"
        )
    return "\n".join(lines)
