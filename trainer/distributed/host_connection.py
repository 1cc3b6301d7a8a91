"""Connects this program to TensorFlow's servers on all hosts of a TPU slice."""

import contextlib
import socket
import time
from collections.abc import Sequence
from typing import Any

from trainer.errors import LostWorkerError

_SECONDS = 120.0  # Time in which each host must answer; its server may just be starting.


def connect(addresses: Sequence[str]) -> Any:
    """Connects TensorFlow to the servers, and returns the resolver of the slice.

    Raises:
      LostWorkerError: if a host does not answer within two minutes.
    """
    import tensorflow as tf

    for address in addresses:
        _await(address)
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


def _await(address: str) -> None:
    host, port = address.rsplit(":", 1)
    end = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
            return
        if time.monotonic() > end:
            raise LostWorkerError(
                f"the host {address} of --tpu does not answer within {_SECONDS:g} s.\n"
                "Start scripts/tpu/tpu_host.py on each host, and give the addresses of the hosts."
            )
        time.sleep(0.5)


def _own_address(first: str) -> str:
    """Returns a free port of this machine, at the address from which it reaches the first host.

    The hosts connect to it.
    """
    host, port = first.rsplit(":", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route, socket.socket() as listener:
        route.connect((host, int(port)))
        listener.bind((route.getsockname()[0], 0))
        own, free = listener.getsockname()
    return f"{own}:{free}"
