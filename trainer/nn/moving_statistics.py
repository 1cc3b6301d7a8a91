"""Debiased weights by which an update changes the moving statistics of batch normalization.

A moving mean starts at 0 and a moving variance at 1. After S ghost batches with decay d, this
initial value would still have the weight d^S, for example 64% after 45 ghost batches at d = 0.99.
Kingma & Ba 2015, §3, divide such an average by 1 − d^S. Here, the weights include this division, so
a moving statistic is a weighted mean over the ghost batches that the layer has seen.
"""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from trainer.nn.ghost_batch_norm import GhostBatchNormalization

# Position at which a layer first trained; None if its statistics come from other training (S = ∞).
Start = int | None


def starts(norms: Mapping[str, GhostBatchNormalization]) -> dict[str, Start]:
    """Returns the starts in a new run: 0, or None for a layer whose statistics are not initial."""
    return {name: 0 if _is_initial(norm) else None for name, norm in norms.items()}


def trained_norms(model: keras.Model) -> dict[str, GhostBatchNormalization]:
    """Returns the trainable ghost batch norms by index; the index counts frozen ones too.

    Checkpoints use the index, since the names of layers may differ between processes.
    """
    layers = model._flatten_layers()
    norms = [layer for layer in layers if isinstance(layer, GhostBatchNormalization)]
    return {str(number): norm for number, norm in enumerate(norms) if norm.trainable}


def _is_initial(norm: GhostBatchNormalization) -> bool:
    mean, variance = map(keras.ops.convert_to_numpy, (norm.moving_mean, norm.moving_variance))
    return bool(np.all(mean == 0) and np.all(variance == 1))


def update_weights(
    norms: Mapping[str, GhostBatchNormalization],
    starts: Mapping[str, Start],
    batch_size: int,
    positions: Sequence[int],
) -> np.ndarray:
    """Returns the weight of each update in each layer's statistics, float64 [updates, layers].

    The weight is (1 − dⁿ) / (1 − d^S), where d is the decay. An update has n = B/G ghost batches.
    After the update, the layer has seen S = (position − start) / G ghost batches.

    Args:
        norms: layers by index; d is their `momentum`, G their `ghost_batch_size`, the examples of a
            ghost batch.
        starts: start of each layer, by index.
        batch_size: B, examples of an update.
        positions: number of examples that the run has consumed after each update.
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
