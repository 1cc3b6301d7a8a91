"""Makes loops in traced functions without AutoGraph, which would take seconds to convert them."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def repeat(
    count: tf.Tensor,
    body: Callable[..., tuple[Any, ...]],
    *values: Any,
    parallel_iterations: int = 1,
) -> tuple[Any, ...]:
    """Runs `values = body(i, *values)` for i = 0 to `count` − 1, and returns the last `values`.

    The values are tensors or TensorArrays. `parallel_iterations` is the largest number of
    iterations whose independent operations TensorFlow may compute at the same time.
    """
    _, *last = tf.while_loop(
        lambda i, *_: i < count,
        lambda i, *current: (i + 1, *body(i, *current)),
        (tf.constant(0), *values),
        parallel_iterations=parallel_iterations,
    )
    return tuple(last)
