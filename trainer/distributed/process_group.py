"""Exchanges values between the processes of a run, so that all make the same decisions.

All processes compute the same numbers, apart from rounding. But the time, signals and files may
differ between processes. So all processes use the values of the first process, the chief. A request
to stop may come from any process. All processes must call the functions at the same point of the
run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.distributed.worker import Worker


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, and the `index` of this process; the default is one process.

    Attributes:
      all_reduce: function from an array of this process to the sum of the arrays of all processes.
        The arrays are float64, and must have the same shape.
      all_gather: function from the text of this process to the texts of all processes, by index.
    """

    index: int = 0
    count: int = 1
    all_reduce: Callable[[np.ndarray], np.ndarray] = lambda values: values
    all_gather: Callable[[str], list[str]] = lambda text: [text]

    @property
    def chief(self) -> bool:
        """Whether this process decides for all processes, and writes the run directory."""
        return self.index == 0

    def local(self, replicas: int) -> range:
        """Returns the indices of this process's replicas among `replicas`."""
        n = replicas // self.count
        return range(self.index * n, (self.index + 1) * n)

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        """Returns the chief's `values` as float64; all processes must pass the same shape."""
        values = values.astype(np.float64)
        return self.all_reduce(values if self.chief else np.zeros_like(values))

    def broadcast_text(self, text: str) -> str:
        """Returns the chief's text; the texts of the other processes are not sent."""
        return self.all_gather(text if self.chief else "")[0]

    def agree(self, flag: bool, *numbers: int) -> tuple[bool, list[int]]:
        """Returns whether `flag` is true in any process, and the chief's numbers."""
        own = numbers if self.chief else [0] * len(numbers)
        flags, *chiefs = self.all_reduce(np.array([flag, *own], np.float64))
        return bool(flags), [int(number) for number in chiefs]


def create_process_group(
    strategy: tf.distribute.Strategy, worker: Worker | None, exchange: Callable[[str], list[str]]
) -> ProcessGroup:
    """Returns the group of the processes that share `strategy`.

    Args:
      strategy: the strategy over the replicas of all processes.
      worker: this process; None if the run has only one process.
      exchange: function that `multi_worker.worker_session` yields.
    """
    if worker is None:
        return ProcessGroup()

    @tf.function(autograph=False, reduce_retracing=True)
    def all_reduce(values: tf.Tensor) -> tf.Tensor:
        def part() -> tf.Tensor:
            context: Any = tf.distribute.get_replica_context()
            # Only the first replica of each process contributes.
            contributes = context.replica_id_in_sync_group % local == 0
            own = tf.where(contributes, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        first, *_ = strategy.experimental_local_results(strategy.run(part))
        return first

    local = strategy.num_replicas_in_sync // len(worker.addresses)
    return ProcessGroup(
        worker.index,
        len(worker.addresses),
        lambda values: all_reduce(tf.constant(values, tf.float64)).numpy(),
        exchange,
    )
