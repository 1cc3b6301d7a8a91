"""Connects this program to TensorFlow's servers on all hosts of a TPU slice."""

import socket
from collections.abc import Sequence
from typing import Any


def connect(addresses: Sequence[str]) -> Any:
    """Connects TensorFlow to the servers, and returns the resolver of the slice.

    Their processes must run: `host_monitor.watched` waits for them.
    """
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
        ",".join(f"grpc://{address}" for address in addresses),
        coordinator_name="coordinator",
        coordinator_address=_own_address(addresses[0]),
    )
    # By default, the first host would also run what this process does by itself, such as reading
    # the data.
    tf.config.experimental_connect_to_cluster(
        resolver, job_name="coordinator", make_master_device_default=False
    )
    return resolver


def _own_address(first: str) -> str:
    """Returns ADDRESS:PORT of this machine: a free port, at the address that the hosts reach."""
    host, port = first.rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route, socket.socket() as listener:
        route.connect((host, int(port)))
        listener.bind((route.getsockname()[0], 0))
        own, free = listener.getsockname()
    return f"{own}:{free}"
