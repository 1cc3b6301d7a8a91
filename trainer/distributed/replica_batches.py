"""Takes the batches of this process's replicas from a dataset's iterator, in turn."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.distributed import hosts


def next_per_replica(strategy: tf.distribute.Strategy, iterator: Any) -> Any:
    """Returns the next elements of a dataset's iterator, one for each replica of this process.

    If this program drives several hosts, `iterator` is a tuple with an iterator for each host.

    This function avoids TensorFlow's distributed datasets. They make an iterator with an autotuning
    thread for each device, even if the dataset's options disable autotuning. The thread sleeps for
    up to a minute, and deleting the iterator waits for the thread.
    """
    if not isinstance(iterator, tuple):
        return strategy.experimental_distribute_values_from_function(lambda _: iterator.get_next())
    host_of = {replica: host for host in hosts.of(strategy) for replica in host.replicas}

    def take(context: tf.distribute.experimental.ValueContext) -> Any:
        # TensorFlow takes an element on the device of its iterator.
        return iterator[host_of[context.replica_id_in_sync_group].index].get_next()

    return strategy.experimental_distribute_values_from_function(take)


class ReplicaBatches:
    """Batches that a tf.while_loop takes from an iterator, one for each replica in each iteration.

    If `ahead`, the next batches are copied to the devices while the devices compute the present
    ones. The loop then carries the next batches among its values.
    """

    def __init__(self, strategy: tf.distribute.Strategy, iterator: Any, *, ahead: bool) -> None:
        """Takes the batches from `iterator`; if `ahead`, this program must drive only one host."""
        self._strategy, self._iterator, self._ahead = strategy, iterator, ahead

    def carried(self, count: tf.Tensor) -> list[tf.Tensor]:
        """Returns the loop's first values, for `count` ≥ 1 iterations.

        The loop takes only the batches of these iterations from the iterator.
        """
        return [count, *self._on_devices(self._fetch())] if self._ahead else []

    def take(self, carried: Sequence[tf.Tensor]) -> tuple[Any, list[tf.Tensor]]:
        """Returns the present batches, one for each replica, and the values for the next iteration.

        `carried` are the values of this iteration.
        """
        if not self._ahead:
            return next_per_replica(self._strategy, self._iterator), []
        count, *values = carried
        # TensorFlow places a condition's result on one device, which must not be another GPU.
        with tf.device("CPU:0"):
            found = tf.cond(count > 1, self._fetch, self._empty)
        structure = self._iterator.element_spec
        size = len(tf.nest.flatten(structure))
        batches = iter(
            tf.nest.pack_sequence_as(structure, values[i : i + size])
            for i in range(0, len(values), size)
        )
        take = self._strategy.experimental_distribute_values_from_function
        return take(lambda _: next(batches)), [count - 1, *self._on_devices(found)]

    @property
    def _devices(self) -> Sequence[str]:
        return self._strategy.extended.worker_devices  # Those of this process.

    def _fetch(self) -> list[tf.Tensor]:
        """Returns the tensors of the next batches, replica by replica."""
        return tf.nest.flatten([self._iterator.get_next() for _ in self._devices])

    def _empty(self) -> list[tf.Tensor]:
        """Returns zeros in place of the batches after the last ones."""
        specs = tf.nest.flatten(self._iterator.element_spec) * len(self._devices)
        return [tf.zeros(spec.shape, spec.dtype) for spec in specs]

    def _on_devices(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        size = len(tensors) // len(self._devices)
        moved = []
        for i, tensor in enumerate(tensors):
            with tf.device(self._devices[i // size]):
                moved.append(tf.identity(tensor))
        return moved
