"""How workers find each other before TensorFlow connects them.

TensorFlow's first worker waits for the others without a bound, and Python waits with it, deaf to
signals. So all of them meet here first: the others call on the chief, on the port that TensorFlow
listens on later, and the chief lets them go on once it has heard from all, and the same.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from trainer.cluster.workers import Worker
from trainer.errors import LostWorkerError, UserError

_MOST_BYTES = 2**20
_PAUSE = 0.1
_PATIENCE = 5.0  # with a caller that says nothing


def meet(worker: Worker, same: Mapping[str, Any], timeout: float) -> dict[int, socket.socket]:
    """Returns once all workers of `worker`'s run have called it.

    Args:
      worker: this one.
      same: what all of them have to agree on, by its name, as JSON can hold it.
      timeout: seconds to wait for the others.

    Returns:
      The lines that stay open, by the worker at the other end: the chief's to all others, and
      theirs to the chief.

    Raises:
      LostWorkerError: where one does not come in time.
      UserError: where one is of another run, or this one's port is taken.
    """
    with _listening(worker) as server:
        end = time.monotonic() + timeout
        greeting = {"index": worker.index, "addresses": list(worker.addresses), **same}
        if worker.chief:
            return _receive(worker, server, greeting, end, timeout)
        return {0: _call(worker, greeting, end, timeout)}


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
) -> dict[int, socket.socket]:
    """The chief's part: hears all others, and answers once they are there."""
    calls: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as held:
        while missing := set(range(1, len(worker.addresses))) - calls.keys():
            try:
                server.settimeout(max(0.01, end - time.monotonic()))
                call, _ = server.accept()
            except TimeoutError:
                raise _missing(worker, min(missing), timeout) from None
            with contextlib.ExitStack() as stray:
                stray.enter_context(call)
                with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # No worker's.
                    call.settimeout(_PATIENCE)
                    other = json.loads(_line(call))
                    refusal = _refusal(worker, other, greeting)
                    calls[int(other["index"])] = call
                    if refusal:
                        _tell(calls, refusal)
                        raise UserError(refusal)
                    held.push(stray.pop_all())
        _tell(calls, "")
        held.pop_all()
    return calls


def _tell(calls: Mapping[int, socket.socket], refusal: str) -> None:
    for call in calls.values():
        with contextlib.suppress(OSError):  # It left, as its line will say.
            call.sendall(json.dumps(refusal).encode() + b"\n")


def _refusal(worker: Worker, other: dict[str, Any], greeting: dict[str, Any]) -> str:
    """Why `other` greets from another run; empty where it does not."""
    for name in greeting.keys() - {"index"}:
        theirs, ours = other[name], greeting[name]
        if theirs == ours:
            continue
        if isinstance(ours, list) and len(theirs) == len(ours):  # Or the message has no end.
            pairs = [(t, o) for t, o in zip(theirs, ours, strict=True) if t != o]
            theirs, ours = (", ".join(part) for part in zip(*pairs, strict=True))
        return (
            f"worker {other['index']} has the {name} {theirs}, and {worker} {ours}:\n"
            "start all workers with the same."
        )
    return ""


def _call(worker: Worker, greeting: dict[str, Any], end: float, timeout: float) -> socket.socket:
    """The others' part: calls on the chief until it answers that all are there."""
    host, _, port = worker.addresses[0].rpartition(":")
    while time.monotonic() < end:
        # An OSError: it is not there yet. A ValueError: TensorFlow listens there, of an old chief.
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as held:
            call = held.enter_context(
                socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE)
            )
            call.sendall(json.dumps(greeting).encode() + b"\n")
            call.settimeout(max(0.01, end - time.monotonic()))
            if answer := _line(call):
                if refusal := json.loads(answer):
                    raise UserError(refusal)
                held.pop_all()
                return call
        time.sleep(_PAUSE)
    raise _missing(worker, 0, timeout)


def _line(call: socket.socket) -> bytes:
    # Unbuffered: what comes behind it is the pulse's.
    with call.makefile("rb", buffering=0) as stream:
        return stream.readline(_MOST_BYTES)


def _missing(worker: Worker, index: int, timeout: float) -> LostWorkerError:
    return LostWorkerError(
        f"{worker.name(index)} did not come within {timeout:g} s, and {worker} has left.\n"
        "Start all workers together, or give a longer --worker_timeout."
    )
