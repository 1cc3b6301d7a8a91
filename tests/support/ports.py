"""Ports for the servers of TPU hosts."""

import contextlib
import random
import socket

from trainer.distributed import host_monitor

# Below Linux's first ephemeral port, so that no connection takes a port before its server does.
_PORTS = range(10_000, 32_000)
_RETURNED = set()  # All ports for which `host_port` has looked.


def host_port():
    """Returns a port that is free, as is the one for the host's heartbeats."""
    while True:
        first = random.SystemRandom().choice(_PORTS)
        both = {first, first + host_monitor.PORT_OFFSET}
        with contextlib.suppress(OSError):
            for each in both - _RETURNED:
                socket.create_server(("", each)).close()
            if not both & _RETURNED:
                _RETURNED.update(both)
                return first
