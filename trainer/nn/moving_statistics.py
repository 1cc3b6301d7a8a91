"""Debiased weights by which an update changes the moving statistics of batch normalization.

A moving statistic starts at 0 (mean) or 1 (variance), whatever the data are. After S ghost batches
with decay d, the initial value would still have the weight d^S: 64% after 45 ghost batches at
d = 0.99. Kingma & Ba 2015, §3, divide such an average by 1 − d^S. Here, the weights include this
division, so the stored statistic is a weighted mean over the ghost batches that the layer has seen.
"""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from trainer.nn.ghost_batch_norm import GhostBatchNormalization

# Position at which a layer first trained; None if its statistics come from other training (S = ∞).
Start = int | None


def starts(
    norms: Mapping[str, GhostBatchNormalization], position: int, kept: Mapping[str, Start]
) -> dict[str, Start]:
    """Returns the start of each layer, by the layer's name in the checkpoint.

    Args:
        norms: layers that train from `position` on, by name in the checkpoint.
        position: examples consumed.
        kept: starts in the checkpoint, which do not change.
    """
    new = {
        name: None if _is_settled(norm) else position
        for name, norm in norms.items()
        if name not in kept
    }
    return {**kept, **new}


def trained_norms(model: keras.Model) -> dict[str, GhostBatchNormalization]:
    """Returns the trainable ghost batch norms by index; the index counts frozen ones too.

    Layer names may differ between processes, but the order of the layers does not.
    """
    layers = model._flatten_layers()
    norms = [layer for layer in layers if isinstance(layer, GhostBatchNormalization)]
    return {str(number): norm for number, norm in enumerate(norms) if norm.trainable}


def _is_settled(norm: GhostBatchNormalization) -> bool:
    """Returns True unless all means are 0 and all variances 1, as in a new layer."""
    mean, variance = (
        keras.ops.convert_to_numpy(v) for v in (norm.moving_mean, norm.moving_variance)
    )
    return bool(np.any(mean != 0) or np.any(variance != 1))


def update_weights(
    norms: Mapping[str, GhostBatchNormalization],
    starts: Mapping[str, Start],
    batch_size: int,
    positions: Sequence[int],
) -> np.ndarray:
    """Returns the weight of each update in each layer's statistics, float64 [updates, layers].

    The weight is (1 − dⁿ) / (1 − d^S). An update has n = B/G ghost batches. After the update, the
    layer has seen S = (position after the update − start) / G ghost batches.

    Args:
        norms: layers by name; d is their `momentum`, G their `ghost_batch_size`.
        starts: position at which each layer first trained, by the same names.
        batch_size: B, examples.
        positions: examples consumed after each update.
    """
    table = np.empty((len(positions), len(norms)))
    for column, (name, norm) in enumerate(norms.items()):
        start = starts[name]
        size, decay = norm.ghost_batch_size, norm.momentum
        log_decay = math.log(decay) if decay > 0 else -math.inf
        weight = -math.expm1(batch_size / size * log_decay)
        for row, position in enumerate(positions):
            seen = math.inf if start is None else (position - start) / size
            table[row, column] = weight / -math.expm1(seen * log_decay)
    return table
