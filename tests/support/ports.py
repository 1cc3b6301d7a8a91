"""Ports for the servers of TPU hosts."""

import contextlib
import random
import socket

from trainer.distributed import host_monitor

# Below Linux's first ephemeral port, so that no connection takes a port before its server does.
_PORTS = range(10_000, 32_000)
_taken = set()  # Ports that `host_port` has returned, and those of their heartbeats.


def host_port():
    """Returns a port that is free, as is the one for the host's heartbeats."""
    while True:
        first = random.SystemRandom().choice(_PORTS)
        both = {first, first + host_monitor.PORT_OFFSET}
        if both & _taken:
            continue
        with contextlib.suppress(OSError):
            for each in both:
                socket.create_server(("", each)).close()
            _taken.update(both)
            return first
