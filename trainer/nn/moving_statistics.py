"""Computes debiased weights by which an update changes the moving statistics of batch norms.

A ghost batch is a group of examples that share statistics. A moving mean starts at 0, and a moving
variance at 1. After S ghost batches with decay d, a plain moving average still gives this initial
value the weight d^S. For example, the weight is 64% after 45 ghost batches at d = 0.99. Kingma & Ba
2015, §3, remove this bias of a moving average that starts at 0: they divide the average by 1 − d^S.
Here, the weight of an update includes this division. So a moving statistic is a weighted mean over
only the ghost batches that the layer has seen.
"""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from trainer.nn.ghost_batch_norm import GhostBatchNormalization

# Position at which a layer first trained: the number of examples that the run had consumed. None if
# the layer's statistics come from another training, as with pretrained weights: S is then ∞.
Start = int | None


def starts(norms: Mapping[str, GhostBatchNormalization]) -> dict[str, Start]:
    """Returns each layer's start in a new run: 0 if the mean is 0 and the variance 1, else None."""
    return {name: 0 if _is_initial(norm) else None for name, norm in norms.items()}


def trained_norms(model: keras.Model) -> dict[str, GhostBatchNormalization]:
    """Returns the trainable ghost batch norms of `model` by index, written as a decimal string.

    The index is the layer's number among all ghost batch norms, frozen or not. Checkpoints use the
    index, since the names of layers may differ between processes.
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

    The weight is (1 − dⁿ) / (1 − d^S), where d is the decay per ghost batch. An update has n = B/G
    ghost batches. After the update, the layer has seen S = (position − start) / G ghost batches.

    Args:
        norms: layers by index. A layer's `momentum` is d; its `ghost_batch_size` is G, the number
            of examples in a ghost batch.
        starts: start of each layer, by index.
        batch_size: B, the number of examples in each update.
        positions: for each update, the number of examples that the run has consumed after it.
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
