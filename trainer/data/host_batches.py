"""Datasets of a program that drives several hosts: each host makes the batches of its replicas.

The program places a small dataset on the CPU of each host. Each element calls the host's own Python
function, which takes the next batch of the host's own input pipeline (trainer/training/host.py). So
each host reads and decodes only its share.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer.data.datasets import with_options
from trainer.distributed import hosts
from trainer.distributed.host_monitor import TOKEN
from trainer.distributed.hosts import Host

# The function that makes an element waits for the host's input pipeline. If the function ran in
# TensorFlow's pool of threads, it could take a thread that the input pipeline needs.
_THREADS = 2
_PREFETCH = 2  # The host's input pipeline has prefetched further elements.

_numbers = itertools.count(1)


def begin(batches: Any) -> Any:
    """Returns the iterator of a dataset, or the tuple of iterators of a HostBatches."""
    return batches.iterators() if isinstance(batches, HostBatches) else iter(batches)


class HostBatches:
    """Batches that several hosts make, each for its own replicas in turn.

    Attributes:
      element_spec: specification of an element.
    """

    def __init__(
        self,
        found: Sequence[Host],
        request: Mapping[str, Any],
        one_process: Callable[[], tf.data.Dataset],
        count: int | None = None,
    ) -> None:
        """Prepares the datasets.

        Args:
          found: the hosts.
          request: what the hosts make, as `training.host` reads it, but without the replicas.
          one_process: returns the dataset that one process makes for all replicas.
          count: number of elements on each host; None: endless.
        """
        self._hosts, self._request, self._count = found, request, count
        self._one_process = one_process
        self.element_spec = one_process().element_spec

    def iterators(self) -> tuple[Any, ...]:
        """Returns an iterator for each host, which begins at the first element."""
        # A host that gets a new number begins anew, and ends what had the number before.
        request = {**self._request, "number": next(_numbers)}
        iterators = tuple(self._on_host(host, request) for host in self._hosts)
        # Each host answers after it has made its iterator. TensorFlow does not wait for this.
        hosts.ask_all(self._hosts, {"do": "wait"})
        return iterators

    def as_numpy_iterator(self) -> Any:
        """Returns the batches of all replicas in turn, which this process makes itself."""
        return self._one_process().as_numpy_iterator()

    def _on_host(self, host: Host, request: Mapping[str, Any]) -> Any:
        replicas = [host.replicas.start, host.replicas.stop]
        text = json.dumps({**request, "replicas": replicas, "token": TOKEN})
        specs = tf.nest.flatten(self.element_spec)

        @tf.autograph.experimental.do_not_convert
        def element(number: tf.Tensor) -> Any:
            made = host.make(text, number, [spec.dtype for spec in specs])
            pairs = zip(made, specs, strict=True)
            shaped = [tf.ensure_shape(values, spec.shape) for values, spec in pairs]
            return tf.nest.pack_sequence_as(self.element_spec, shaped)

        with tf.device(host.device):
            counter = tf.data.Dataset.counter()
            numbers = counter if self._count is None else counter.take(self._count)
            return iter(with_options(numbers.map(element).prefetch(_PREFETCH), _THREADS))
