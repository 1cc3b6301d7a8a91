"""Makes the loops of traced functions; AutoGraph would take seconds to convert such functions."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def repeat(
    count: tf.Tensor,
    body: Callable[..., tuple[Any, ...]],
    *values: Any,
    parallel_iterations: int = 1,
) -> tuple[Any, ...]:
    """Returns `values` after `values = body(i, *values)` for i = 0, 1, ... below `count`.

    The values are tensors or TensorArrays. `parallel_iterations` is the number of iterations that
    TensorFlow may compute at the same time, as far as they do not depend on each other.
    """
    _, *last = tf.while_loop(
        lambda i, *_: i < count,
        lambda i, *current: (i + 1, *body(i, *current)),
        (tf.constant(0), *values),
        parallel_iterations=parallel_iterations,
    )
    return tuple(last)
