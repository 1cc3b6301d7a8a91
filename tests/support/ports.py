"""Ports for the servers of TPU hosts."""

import contextlib
import random
import socket

from trainer.distributed import host_monitor

# Below Linux's first ephemeral port, so that no connection takes a port before its server does.
_PORTS = range(10_000, 32_000)


def host_port():
    """Returns a port that is free, as is the one for the host's heartbeats."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.suppress(OSError):
            for each in (port, port + host_monitor.PORT_OFFSET):
                socket.create_server(("", each)).close()
            return port
