"""Compiles the computations of a replica by XLA, and finds out whether XLA can compile them."""

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# TensorFlow raises these errors for operations that XLA does not have, and for varying shapes.
_CANNOT = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.UnimplementedError,
    tf.errors.InternalError,
)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that computes `function`, compiled by XLA for each replica separately."""
    by_xla = tf.function(function, jit_compile=True, autograph=False)
    # Without the lambda, MirroredStrategy would compile all replicas together as one program.
    return lambda *arguments: by_xla(*arguments)


def problem(
    strategy: tf.distribute.Strategy, function: Callable[..., Any], specification: Any
) -> str:
    """Returns why XLA cannot compile `function`, or "" if it can.

    Runs `function` on zeros with the shapes and data types of `specification`.
    """
    zeros = tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), specification)

    @tf.function(autograph=False)
    def once() -> Any:
        given = strategy.experimental_distribute_values_from_function(lambda _: zeros)
        return strategy.experimental_local_results(strategy.run(function, given))

    try:
        once()
    except _CANNOT as error:
        return _reason(str(error.message))
    return ""


def _reason(message: str) -> str:
    """Returns the operations in `message` that XLA lacks, or else the first line of `message`."""
    if lacks := re.search(r"Detected unsupported operations .*? on \S+: (.*)", message):
        return lacks[1].partition(" compatible with node")[0]
    lines = (line.strip() for line in message.splitlines())
    return next((line for line in lines if line and line != "Graph execution error:"), "")
