"""How workers find each other before TensorFlow connects them.

TensorFlow's first worker waits for the others without a bound, and Python waits with it, deaf to
signals. So all of them meet here first: the others call on the chief, on the port that TensorFlow
listens on later, and the chief lets them go on once it has heard from all.
"""

import contextlib
import json
import socket
import time
from typing import Any, NoReturn

from trainer.cluster.workers import Worker
from trainer.config import UserError

_MOST_BYTES = 2**20
_PAUSE = 0.1
_PATIENCE = 5.0  # with a caller that says nothing
_GO = b"go\n"


def meet(worker: Worker, devices: int, timeout: float) -> None:
    """Returns once all workers of `worker`'s run have called it.

    Args:
      worker: this one.
      devices: that it computes on; all have as many.
      timeout: seconds to wait for the others.

    Raises:
      UserError: where one does not come in time, is of another run or has another number of
        devices, or this one's port is taken.
    """
    with _listening(worker) as server:
        end = time.monotonic() + timeout
        greeting: dict[str, Any] = {
            "addresses": list(worker.addresses),
            "index": worker.index,
            "devices": devices,
        }
        if worker.chief:
            _receive(worker, server, greeting, end, timeout)
        else:
            _call(worker, greeting, end, timeout)


def _listening(worker: Worker) -> socket.socket:
    """On the worker's port, so that nobody has it until TensorFlow takes it."""
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", worker.port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        return socket.create_server(("", worker.port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{worker} cannot listen on its port: {error.args[-1]}.\n"
            "Stop what uses it, or give the worker another address."
        ) from error


def _receive(
    worker: Worker, server: socket.socket, greeting: dict[str, Any], end: float, timeout: float
) -> None:
    """The chief's part: hears all others, and answers once they are there."""
    calls: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as held:
        while missing := set(range(1, len(worker.addresses))) - calls.keys():
            try:
                server.settimeout(max(0.01, end - time.monotonic()))
                call = held.enter_context(server.accept()[0])
            except TimeoutError:
                _missing(worker, min(missing), timeout)
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # No worker's.
                call.settimeout(_PATIENCE)
                other = json.loads(_line(call))
                calls[_checked(worker, other, greeting)] = call
        for call in calls.values():
            with contextlib.suppress(OSError):  # It left: TensorFlow will miss it.
                call.sendall(_GO)


def _checked(worker: Worker, other: dict[str, Any], greeting: dict[str, Any]) -> int:
    """Whose greeting `other` is.

    Raises:
      UserError: where it is of another run.
    """
    index = int(other["index"])
    for name in ("addresses", "devices"):
        if other[name] != greeting[name]:
            raise UserError(
                f"worker {index} has the {name} {other[name]}, and {worker} {greeting[name]}:\n"
                "start all workers with the same."
            )
    return index


def _call(worker: Worker, greeting: dict[str, Any], end: float, timeout: float) -> None:
    """The others' part: calls on the chief until it answers that all are there."""
    host, _, port = worker.addresses[0].rpartition(":")
    while time.monotonic() < end:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as call:
                call.sendall(json.dumps(greeting).encode() + b"\n")
                call.settimeout(max(0.01, end - time.monotonic()))
                if _line(call) == _GO:
                    return
        except OSError:
            pass  # Not there yet, or it has just left and is started again.
        time.sleep(_PAUSE)
    _missing(worker, 0, timeout)


def _line(call: socket.socket) -> bytes:
    with call.makefile("rb") as stream:
        return stream.readline(_MOST_BYTES)


def _missing(worker: Worker, index: int, timeout: float) -> NoReturn:
    raise UserError(
        f"{worker.name(index)} did not come within {timeout:g} s, and {worker} has left.\n"
        "Start all workers together, or give a longer --worker_timeout."
    )
