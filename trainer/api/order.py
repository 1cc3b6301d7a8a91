"""trainer.shuffle: the order of examples, for a training loop of your own."""

from collections.abc import Sequence

import numpy as np

from trainer.api import keras_backend
from trainer.errors import UserError


def shuffle(positions: Sequence[int] | np.ndarray, *, examples: int, seed: int = 0) -> np.ndarray:
    """Returns the index of the example at each position, as a run with this seed reads it.

    A position is the number of examples that a run consumes before the example. The order of an
    epoch is a permutation that only the seed and the epoch decide. So a loop can begin at any
    position, with any batch size, and reads the same examples.

    Example:
      >>> trainer.shuffle(range(128, 192), examples=60_000, seed=1)

    Args:
      positions: positions [n], each 0 or above.
      examples: N, the number of training examples.
      seed: the run's seed, from 0 to 2⁶³ − 1.

    Returns:
      int64 [n], each from 0 to N − 1.

    Raises:
      UserError: if a number is out of range.
    """
    found = np.asarray(positions, np.int64)
    if found.ndim != 1 or examples < 1 or not 0 <= seed < 2**63 or np.any(found < 0):
        raise UserError(
            f"trainer.shuffle cannot use positions of the shape {found.shape}, examples={examples} "
            f"and seed={seed}.\n"
            "Give a list of positions from 0, at least one example, and a seed from 0."
        )
    keras_backend.prepare()
    import tensorflow as tf

    from trainer.data.shuffle import example_indices

    with tf.device("CPU:0"):
        return example_indices(tf.constant(found), examples, seed).numpy()
