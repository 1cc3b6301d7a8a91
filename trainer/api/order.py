"""trainer.shuffle: the order of examples, for a training loop of your own."""

import reprlib
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
      UserError: if a number is not an integer or is out of range.
    """
    if not (_are_positions(positions) and _is_integer(examples, 1) and _is_integer(seed, 0)):
        raise UserError(
            f"trainer.shuffle cannot use positions={reprlib.repr(positions)}, "
            f"examples={reprlib.repr(examples)} and seed={reprlib.repr(seed)}.\n"
            "Give a list of integers from 0, at least one example, and a seed from 0; all below "
            "2⁶³."
        )
    found = np.asarray(positions, np.int64)
    keras_backend.prepare()
    import tensorflow as tf

    from trainer.data.shuffle import example_indices

    with tf.device("CPU:0"):
        return example_indices(tf.constant(found), int(examples), int(seed)).numpy()


def _are_positions(values: object) -> bool:
    """Returns whether `values` is a list of integers from 0 to 2⁶³ − 1; it may be empty."""
    try:
        found = np.asarray(values)
    except ValueError:  # The lists in a list differ in length.
        return False
    if found.ndim != 1 or not found.size:
        return found.ndim == 1
    return found.dtype.kind in "iu" and 0 <= int(found.min()) <= int(found.max()) < 2**63


def _is_integer(value: object, least: int) -> bool:
    """Returns whether `value` is an integer from `least` to 2⁶³ − 1."""
    return isinstance(value, int | np.integer) and least <= int(value) < 2**63
