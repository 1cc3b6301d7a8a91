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
    host_of = {replica: host for host in hosts.from_strategy(strategy) for replica in host.replicas}

    def take(context: tf.distribute.experimental.ValueContext) -> Any:
        # TensorFlow takes an element on the device of its iterator.
        return iterator[host_of[context.replica_id_in_sync_group].index].get_next()

    return strategy.experimental_distribute_values_from_function(take)


class ReplicaBatches:
    """Batches that a tf.while_loop takes from an iterator, one for each replica in each iteration.

    If `ahead`, each iteration first takes the next batches from the iterator, and then returns the
    present ones. The copies of the next batches to the devices may thus overlap the computation.
    The loop carries the next batches among its values.
    """

    def __init__(self, strategy: tf.distribute.Strategy, iterator: Any, *, ahead: bool) -> None:
        """Prepares to take batches from `iterator`.

        If `ahead`, this program must drive only one host, and shapes must be static.
        """
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
        # TensorFlow places all results of a tf.cond on one device. If this were a GPU, the batches
        # of the other GPUs would pass through it.
        with tf.device("CPU:0"):
            found = tf.cond(count > 1, self._fetch, self._empty)
        # TensorFlow's copy to a GPU waits for the computations that were started before it. So
        # the present batches are computed only when the next ones are ready to be copied.
        with tf.control_dependencies(found):
            values = self._on_devices(values)
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
        return self._strategy.extended.worker_devices  # These are the local devices.

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
