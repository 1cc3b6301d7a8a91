"""What the processes of a run tell each other besides updates, so that all do the same.

Each computes the same numbers, so that they need to agree only on what comes from outside: clocks,
signals and the disk. The chief, the first of them, decides by its own; a wish to stop may be
anyone's. All have to ask at the same point of the run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.distributed.worker import Worker


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, seen from one of them; without arguments it is alone.

    Attributes:
      index: of this one.
      count: of all.
      summed: the sum over all of them of an array float64, which has one shape on all.
    """

    index: int = 0
    count: int = 1
    all_reduce: Callable[[np.ndarray], np.ndarray] = lambda values: values

    @property
    def chief(self) -> bool:
        """Whether this one decides, and writes the run directory."""
        return self.index == 0

    def local(self, replicas: int) -> range:
        """Which of all `replicas` are this process's."""
        n = replicas // self.count
        return range(self.index * n, (self.index + 1) * n)

    def broadcast(self, values: np.ndarray) -> np.ndarray:
        """The chief's `values`, which have one shape on all, as float64."""
        values = values.astype(np.float64)
        return self.all_reduce(values if self.chief else np.zeros_like(values))

    def agree(self, wish: bool, *numbers: int) -> tuple[bool, list[int]]:
        """Whether anyone has the wish, and the chief's numbers."""
        own = numbers if self.chief else [0] * len(numbers)
        wishes, *agreed = self.all_reduce(np.array([wish, *own], np.float64))
        return bool(wishes), [int(number) for number in agreed]

    def all_gather(self, text: str) -> list[str]:
        """The text of each."""
        own = np.frombuffer(text.encode(), np.uint8)
        sizes = np.zeros(self.count)
        sizes[self.index] = own.size
        ends = np.cumsum(self.all_reduce(sizes)).astype(int)
        whole = np.zeros(ends[-1])
        whole[ends[self.index] - own.size : ends[self.index]] = own
        parts = np.split(self.all_reduce(whole).astype(np.uint8), ends[:-1])
        return [part.tobytes().decode() for part in parts]


def create_process_group(strategy: tf.distribute.Strategy, worker: Worker | None) -> ProcessGroup:
    """The processes that share `strategy`, seen from `worker`; None: it is alone."""
    if worker is None:
        return ProcessGroup()

    @tf.function(reduce_retracing=True)
    def total(values: tf.Tensor) -> tf.Tensor:
        def part() -> tf.Tensor:
            context: Any = tf.distribute.get_replica_context()
            # Of several replicas of a process, one speaks.
            speaks = context.replica_id_in_sync_group % local == 0
            own = tf.where(speaks, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

        first, *_ = strategy.experimental_local_results(strategy.run(part))
        return first

    local = strategy.num_replicas_in_sync // len(worker.addresses)
    return ProcessGroup(
        worker.index,
        len(worker.addresses),
        lambda values: total(tf.constant(values, tf.float64)).numpy(),
    )
