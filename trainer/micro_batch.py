"""The measured choice of the micro-batch: which of a few sizes trains the fastest here.

A micro-batch changes nothing that is learned, so it is free to be measured. The choice is kept in
the run directory, so that a resumed run compiles the same.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from trainer.backward import plain_errors
from trainer.cluster.strategy import dealt
from trainer.run_dir.directory import write_whole
from trainer.schedule.layout import divisors, unmeasured
from trainer.schedule.realize import Limits
from trainer.step import TrainingStep

# On CPUs smaller ones pay for their overhead and larger ones for the cache that they overflow.
_SMALLEST, _LARGEST, _EXAMPLES = 64, 256, 1024


def choose(
    path: pathlib.Path,
    step: TrainingStep,
    batches: Callable[[int, int], Iterator[Any]],
    *,
    limits: Limits,
    ghost_batch_size: int,
) -> int:
    """The size of the kept choice in file `path`, or of one measured now and kept there.

    Candidates divide a replica's share of the run's smallest batch, or of its largest where that is
    too small to compare any.
    """
    replicas = step.strategy.num_replicas_in_sync
    # What is not there, or damaged, is measured.
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_bytes())
        if kept["replicas"] == replicas:
            return int(kept["micro_batch_size"])
    smallest = limits.smallest // replicas
    share = smallest if smallest > _SMALLEST else limits.largest // replicas
    sizes = candidates(share, ghost_batch_size)
    rates = {size: _rate(step, batches(0, size), size * replicas) for size in sizes}
    step.zero()
    best = max(rates, key=rates.__getitem__)
    choice = {"micro_batch_size": best, "replicas": replicas, "examples_per_second": rates}
    write_whole(path, json.dumps(choice) + "\n")
    return best


def candidates(share: int, ghost_batch_size: int) -> list[int]:
    """At most three sizes between 64 and 256, or the nearest to 128: multiples of the ghost batch
    that divide `share`, the examples of one replica."""
    sizes = [n * ghost_batch_size for n in divisors(share // ghost_batch_size)]
    return [size for size in sizes if _SMALLEST <= size <= _LARGEST][-3:] or [
        min(sizes, key=lambda size: abs(size - unmeasured(ghost_batch_size)))
    ]


def _rate(step: TrainingStep, iterator: Iterator[Any], examples: int) -> float:
    """Examples per second of forward and backward passes over micro-batches of `examples`."""
    passes = max(2, _EXAMPLES // examples)

    @tf.function
    def accumulate(count: tf.Tensor) -> None:
        for _ in tf.range(count):
            step.strategy.run(step.accumulate, dealt(step.strategy, iterator))

    with plain_errors():
        accumulate(tf.constant(2))  # Traces, and warms up.
    start = time.perf_counter()
    accumulate(tf.constant(passes))
    return passes * examples / (time.perf_counter() - start)
