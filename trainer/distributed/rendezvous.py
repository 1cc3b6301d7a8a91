"""Rendezvous: the workers of a run connect to the first worker, the chief, before TensorFlow does.

In the chief, TensorFlow waits for the other workers without a time limit, and Python handles no
signal during the wait. So the workers first connect to the chief by this module, on the port that
TensorFlow uses later. Both ends of a connection prove that they know the run's secret. The chief
answers when all workers have connected and have sent the same values.
"""

import asyncio
import contextlib
import errno
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from trainer.distributed import rendezvous_server, secure_connection, shared_secret
from trainer.distributed.secure_connection import ForgedError, Line
from trainer.distributed.worker import Worker
from trainer.errors import LostWorkerError, UserError

_PAUSE = 0.1
# Largest number of connections that wait to be accepted. Linux delays further connections by 1 s.
_BACKLOG = 1024
_PATIENCE = 5.0  # Seconds to wait for an answer on one connection.


def rendezvous(worker: Worker, same: Mapping[str, Any], timeout: float) -> dict[int, Line]:
    """Waits until all workers have connected; returns connections, by the other worker's index.

    The chief gets a connection to each other worker. Each other worker gets only the connection to
    the chief.

    Args:
      worker: this process.
      same: JSON values that must be the same in all workers, by name.
      timeout: seconds to wait for the other workers.

    Raises:
      LostWorkerError: if a worker does not connect in time, or does not know the secret.
      UserError: if a worker has other addresses or values, or this worker's port is taken.
    """
    with _listening(worker) as server:
        end = time.monotonic() + timeout
        greeting = {"addresses": list(worker.addresses), **same}
        if worker.chief:
            return _receive(worker, server, greeting, end, timeout)
        return {0: _call(worker, greeting, end, timeout)}


def _listening(worker: Worker) -> socket.socket:
    """Listens on the worker's port, so that no other program takes it before TensorFlow does."""
    try:
        # TensorFlow listens on all interfaces, so the port must be free on all of them.
        with _on_all_interfaces(worker.port):
            pass
        return _on_own_address(worker) or _on_all_interfaces(worker.port)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{worker} cannot listen on its port: {error.args[-1]}.\n"
            "Stop the program that uses it, or give the worker another address."
        ) from error


def _on_all_interfaces(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=_BACKLOG)


def _on_own_address(worker: Worker) -> socket.socket | None:
    """Listens on this worker's own address; returns None if this machine does not have the address.

    The address may belong to a router (NAT), or the host name may not be known yet. On Debian, a
    machine's own name resolves to a loopback address. Other machines cannot reach that address, so
    the function skips it, unless all workers are on this machine.
    """
    try:
        found = socket.getaddrinfo(*worker.at(worker.index), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    for family, _, _, _, address in found:
        if str(address[0]).startswith(("127.", "::1")) and not worker.local:
            continue
        try:
            return socket.create_server(address, family=family, backlog=_BACKLOG)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return None


def _receive(
    worker: Worker, server: socket.socket, greeting: dict[str, Any], end: float, timeout: float
) -> dict[int, Line]:
    """Waits for all other workers, and answers them; only the chief calls this function."""
    missing = set(range(1, len(worker.addresses)))
    if not missing:
        return {}
    lines, refusal, stranger = asyncio.run(rendezvous_server.receive(server, worker, greeting, end))
    missing -= lines.keys()
    with contextlib.ExitStack() as held:
        for each in lines.values():
            held.callback(each.close)
            each.connection.settimeout(_PATIENCE)
        if missing and not refusal:
            raise _missing(worker, min(missing), timeout, stranger)
        for each in lines.values():
            rendezvous_server.tell(each, refusal)  # The heartbeat later reports a lost worker.
        if refusal:
            raise UserError(refusal)
        held.pop_all()
    return lines


def _call(worker: Worker, greeting: dict[str, Any], end: float, timeout: float) -> Line:
    """Calls the chief repeatedly, until the chief answers that all workers have connected."""
    strange = ""
    while time.monotonic() < end:
        try:
            found = socket.getaddrinfo(*worker.at(0), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # Kubernetes may not know the name yet.
            found = []
        for family, _, _, _, address in found:
            try:
                return _meet_chief(worker, greeting, family, address, end)
            except ForgedError as error:  # The chief may have another address, or start later.
                strange = f"the program at its address is not the chief ({error})"
            except OSError:
                pass  # The chief has not started yet.
        time.sleep(_PAUSE)
    raise _missing(worker, 0, timeout, strange)


def _meet_chief(
    worker: Worker, greeting: dict[str, Any], family: int, address: Any, end: float
) -> Line:
    """Connects to the chief at `address`; waits until all workers have connected.

    Raises:
      ForgedError: if the program at `address` does not know the secret.
      OSError: if no program listens at `address`, or the connection ends.
      UserError: if the chief refuses this worker.
    """
    with contextlib.ExitStack() as held:
        connection = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        soon = min(end, time.monotonic() + _PATIENCE)
        connection.settimeout(max(0.01, soon - time.monotonic()))
        connection.connect(address)
        count = len(worker.addresses)
        found = secure_connection.call(connection, worker.secret, worker.index, count, soon)
        found.send(json.dumps(greeting).encode())
        try:
            refusal = json.loads(found.receive(rendezvous_server.MOST_BYTES, end))
        except (ValueError, RecursionError) as error:
            raise ForgedError("its answer cannot be read") from error
        if refusal:
            raise UserError(str(refusal))
        held.pop_all()
        return found


def _missing(worker: Worker, index: int, timeout: float, reason: str = "") -> LostWorkerError:
    reason = reason and f": {reason}"
    return LostWorkerError(
        f"{worker.name(index)} did not join within {timeout:g} s, so {worker} ends{reason}.\n"
        f"Start all workers together, with the same {shared_secret.VARIABLE} and version of "
        "Crescendo, or give a longer --worker_timeout."
    )
