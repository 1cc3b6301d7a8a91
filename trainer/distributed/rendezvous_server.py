"""The chief's part of the rendezvous: serves all callers at once, and admits the run's workers.

A stranger is a program that connects and does not prove that it knows the run's secret. A stranger
can neither delay a worker nor end the run, whatever it sends.
"""

import asyncio
import collections
import contextlib
import hmac
import json
import socket
from typing import Any

from absl import logging

from trainer.distributed import secure_connection
from trainer.distributed.secure_connection import ForgedError, Line
from trainer.distributed.worker import Worker

MOST_BYTES = 2**20  # Largest message between workers.
# Largest number of callers that are served at the same time. Serving a worker takes milliseconds.
_MOST_CALLERS = 256
_PAUSE = 0.1
_OLD, _OLD_BYTES = b"{", 2**16  # First byte and longest message of protocol version 1.


async def receive(
    server: socket.socket, worker: Worker, greeting: dict[str, Any], end: float
) -> tuple[dict[int, Line], str, str]:
    """Waits until all workers have connected, a worker is refused or the time is `end`.

    Call this function by `asyncio.run`, which then cancels the tasks that still serve callers.

    Args:
      server: socket that listens on the chief's port.
      worker: the chief.
      greeting: values that each worker must send, by name.
      end: time of `time.monotonic` at which the wait ends.

    Returns:
      Three values: the connections, by the index of the worker at the other end; the message that
      refuses a worker's greeting, or ""; and a description of an ignored caller, or "".
    """
    reception = _Reception(worker, greeting)
    server.setblocking(False)
    accepting = asyncio.create_task(reception.accept(server))
    refusal = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(end):
            refusal = await reception.over
    accepting.cancel()  # `asyncio.run` cancels the tasks that still serve callers.
    noted = reception.noted.get("worker") or reception.noted.get("stranger", "")
    return reception.lines, refusal, noted


class _Reception:
    """The callers of one rendezvous, and the connections to those callers that are workers."""

    def __init__(self, worker: Worker, greeting: dict[str, Any]) -> None:
        self.lines: dict[int, Line] = {}
        self.noted: dict[str, str] = {}
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._worker, self._greeting = worker, greeting
        self._count = len(worker.addresses)
        # Maps the task that serves a caller to the caller's machine; the oldest task is first.
        self._callers: dict[asyncio.Task[None], str] = {}

    async def accept(self, server: socket.socket) -> None:
        """Serves callers until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(server)
            except OSError:  # The caller has left, or this process has no free file descriptor.
                await asyncio.sleep(0 if self._drop_oldest() else _PAUSE)
                continue
            connection.setblocking(False)
            if len(self._callers) >= _MOST_CALLERS:
                self._drop_oldest()
            task = asyncio.create_task(self._serve(connection, address[0]))
            self._callers[task] = address[0]
            task.add_done_callback(lambda done: self._callers.pop(done, None))
            # Lets other tasks run, because sock_accept does not do so while connections wait.
            await asyncio.sleep(0)

    def _drop_oldest(self) -> bool:
        """Drops the oldest caller of the machine with most callers.

        Returns False if there are no callers. A machine that floods the chief with calls thus loses
        only its own calls.
        """
        if not self._callers:
            return False
        ((most, _),) = collections.Counter(self._callers.values()).most_common(1)
        oldest = next(task for task, host in self._callers.items() if host == most)
        del self._callers[oldest]
        oldest.cancel()
        return True

    async def _serve(self, connection: socket.socket, host: str) -> None:
        """Serves one caller; keeps the connection if the caller is a worker of this run."""
        with contextlib.ExitStack() as held:
            held.enter_context(connection)
            try:
                index, count, found = await self._admit(connection)
                refusal = self._refusal(index, json.loads(await _message(found)))
            # No message from a caller may end this run.
            except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
                self._note("stranger", f"a caller from {host} is not a worker ({error})")
                return
            if count != self._count or not 0 < index < self._count:
                text = f"worker {index} of {count} calls {self._worker}, the chief of {self._count}"
                self._note("worker", text)
                tell(found, f"{text}:\nstart all workers with the same addresses.")
                return
            if self.over.done():
                return
            held.pop_all()
            self._keep(index, found)
            if refusal or len(self.lines) == self._count - 1:
                self.over.set_result(refusal)

    async def _admit(self, connection: socket.socket) -> tuple[int, int, Line]:
        """Authenticates a caller; returns the index and the worker count that it sent, and a Line.

        Raises:
          ForgedError: if the caller has another version, or does not know the secret.
          OSError: if the caller ends the connection.
        """
        loop = asyncio.get_running_loop()
        first = await _exactly(connection, 1)
        if first == _OLD:
            await loop.sock_recv(connection, _OLD_BYTES)
            text = f"{self._worker} runs a newer version of Crescendo:\nupdate all workers."
            await loop.sock_sendall(connection, json.dumps(text).encode() + b"\n")
            raise ForgedError("it runs an older version of Crescendo")
        second = secure_connection.answer()
        if first[0] != secure_connection.VERSION:
            await loop.sock_sendall(connection, second)
            raise ForgedError(f"its version is {first[0]}, not {secure_connection.VERSION}")
        first += await _exactly(connection, secure_connection.HELLO.size - 1)
        await loop.sock_sendall(connection, second)
        secret, transcript = self._worker.secret, first + second
        theirs = await _exactly(connection, secure_connection.PROOF_BYTES)
        right = secure_connection.proof(secret, transcript, chief=False)
        if not hmac.compare_digest(theirs, right):
            raise ForgedError("it does not know the secret")
        await loop.sock_sendall(connection, secure_connection.proof(secret, transcript, chief=True))
        _, _, index, count = secure_connection.HELLO.unpack(first)
        return index, count, Line(connection, secret, transcript, chief=True)

    def _refusal(self, index: int, other: dict[str, Any]) -> str:
        """Returns a message about the first wrong value of worker `index`, or ""."""
        for name, ours in self._greeting.items():
            theirs = other[name]
            if theirs == ours:
                continue
            if isinstance(ours, list) and len(theirs) == len(ours):  # Shows only differences.
                pairs = [(t, o) for t, o in zip(theirs, ours, strict=True) if t != o]
                theirs, ours = (", ".join(part) for part in zip(*pairs, strict=True))
            return (
                f"worker {index} has the {name} {theirs}, and {self._worker} {ours}:\n"
                f"start all workers with the same {name}."
            )
        return ""

    def _keep(self, index: int, found: Line) -> None:
        """Keeps the connection of worker `index`; refuses and closes an earlier connection."""
        if before := self.lines.pop(index, None):
            text = f"another process has called {self._worker} as worker {index}"
            tell(before, f"{text}:\nstart each worker once, with an index of its own.")
            before.close()
        self.lines[index] = found

    def _note(self, kind: str, text: str) -> None:
        """Logs only the first ignored caller of each kind, so that callers cannot fill the log."""
        if kind not in self.noted:
            logging.warning("%s; it is ignored, and further ones are not logged", text)
            self.noted[kind] = text


def tell(found: Line, refusal: str) -> None:
    """Answers a worker: sends the reason to refuse its call, or "" to accept the call."""
    with contextlib.suppress(OSError):  # The worker has left, or does not read.
        found.send(json.dumps(refusal).encode())


async def _message(found: Line) -> bytes:
    """Returns the next message, as `Line.receive` does; lets other tasks run during the wait."""
    header = await _exactly(found.connection, secure_connection.HEADER.size)
    message = await _exactly(found.connection, found.size(header, MOST_BYTES))
    found.check(header, message)
    return message


async def _exactly(connection: socket.socket, size: int) -> bytes:
    """Returns exactly `size` bytes, and lets other tasks run during the wait."""
    found = b""
    while len(found) < size:
        piece = await asyncio.get_running_loop().sock_recv(connection, size - len(found))
        if not piece:
            raise ConnectionError("it has left")
        found += piece
    return found
