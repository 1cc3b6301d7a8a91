"""Connects a program to the hosts of a slice that it drives, so that both notice each other's loss.

TensorFlow may wait forever for a host that hangs, and a host would answer every program. So the
program stays connected to a second port of each host, and both ends send heartbeats. While a
program is connected, the host refuses other programs.
"""

import contextlib
import functools
import os
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from trainer.distributed.heartbeat import Heartbeat
from trainer.distributed.secure_connection import Line, exactly
from trainer.errors import LostWorkerError, TryAgainError
from trainer.system.output import say

# The port for heartbeats is this much above the port of TensorFlow's server.
PORT_OFFSET = 10
# A program sends _GREETING, its token, and the seconds of silence after which the other end is
# lost. The host answers with one byte.
_HELLO = struct.Struct("!16s16sd")
_GREETING = b"crescendo host 1"
_MOST_SECONDS = 1e6  # Sockets cannot wait for much longer.
_ADMITTED, _REFUSED = b"+", b"-"
# A host answers only the program that has this token.
TOKEN = secrets.token_hex(8)
# Neither end has a secret: whoever reaches TensorFlow's server can use the host without one.
_NO_SECRET = b""

_FIRST_ANSWER = 120.0  # Seconds in which each host must answer; its process may just be starting.
_HELLO_SECONDS = 10.0
_GRACE = 10.0  # Seconds to wait for TensorFlow's own error, whose message is more exact.
_REMEDY = "Start all hosts and the program again: the run resumes from its last checkpoint."


class _Loss:
    """The first loss of a host that this process has noticed."""

    noticed = threading.Event()
    host = ""


class Programs:
    """The program that may use this host: the first one that connects, while it is connected."""

    def __init__(self) -> None:
        """Admits no program yet."""
        self._lock = threading.Lock()
        self._token = ""

    def listen(self, port: int) -> None:
        """Begins to answer programs; `port` is that of TensorFlow's server."""
        server = socket.create_server(("", port + PORT_OFFSET))
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def admitted(self, token: str) -> bool:
        """Returns whether the program with this token is connected."""
        return token == self._token != ""

    def _accept(self, server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            hello = exactly(connection, _HELLO.size, time.monotonic() + _HELLO_SECONDS)
            greeting, token, silence = _HELLO.unpack(hello)
            known = greeting == _GREETING and 0 < silence <= _MOST_SECONDS
            if known and self._admit(token.decode("ascii")):
                line = Line(connection, _NO_SECRET, hello, chief=False)
                left = functools.partial(self._left, line, token.decode("ascii"))
                try:
                    connection.sendall(_ADMITTED)
                    Heartbeat({0: line}, silence, lambda _: left())
                except (OSError, RuntimeError):  # The program has left, or no thread can start.
                    left()
                return
            connection.sendall(_REFUSED)
        connection.close()

    def _admit(self, token: str) -> bool:
        with self._lock:
            if self._token:
                return False
            self._token = token
            return True

    def _left(self, line: Line, token: str) -> None:
        with self._lock:
            if self._token == token:  # A second call must not remove the program that follows.
                self._token = ""
        line.close()


@contextlib.contextmanager
def watched(addresses: Sequence[str], timeout: float) -> Iterator[None]:
    """Connects to each host while the block runs; ends the program if a host is lost.

    Args:
      addresses: `host:port` of each host; if there are none, nothing is done.
      timeout: seconds without a heartbeat after which a host is lost. If a connection ends, the
        host is lost at once.

    Raises:
      LostWorkerError: if a host does not answer within two minutes.
      TryAgainError: if another program uses a host.
    """
    done, first = threading.Event(), threading.Lock()
    _Loss.noticed.clear()

    def lost(host: int, index: int) -> None:
        if not first.acquire(blocking=False):
            return  # The program already ends because of another host.
        problem = f"this program was silent for {timeout:g} s, and its hosts gave it up."
        if index:
            _Loss.host = f"host {host} ({addresses[host]})"
            _Loss.noticed.set()
            problem = f"{_Loss.host} is lost: it has ended, or was silent for {timeout:g} s."
        _end(problem, done)

    with contextlib.ExitStack() as stack:
        stack.callback(done.set)
        for host, address in enumerate(addresses):
            line = _connect(host, address, timeout)
            stack.callback(line.close)
            # A host counts the program's silence from its answer on, and the next host may answer
            # much later. So each host has a Heartbeat of its own. In it, this program has index 0.
            heartbeat = Heartbeat({1: line}, timeout, functools.partial(lost, host))
            stack.callback(heartbeat.leave, False)
        yield


def lost_host(seconds: float = 2.0) -> str:
    """Returns the first lost host, as text; "" if no loss is noticed within some seconds."""
    return _Loss.host if _Loss.noticed.wait(seconds) else ""


def _connect(index: int, address: str, timeout: float) -> Line:
    host, port = address.rsplit(":", 1)
    end = time.monotonic() + _FIRST_ANSWER
    hello = _HELLO.pack(_GREETING, TOKEN.encode(), min(timeout, _MOST_SECONDS))
    while True:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, int(port) + PORT_OFFSET), timeout=5)
            connection.sendall(hello)
            if exactly(connection, 1, time.monotonic() + _HELLO_SECONDS) == _ADMITTED:
                return Line(connection, _NO_SECRET, hello, chief=True)
            connection.close()
            raise TryAgainError(
                f"host {index} ({address}) is in use by another program: wait for it, or end it."
            )
        if time.monotonic() > end:
            raise LostWorkerError(
                f"host {index} ({address}) of --tpu does not answer within {_FIRST_ANSWER:g} s.\n"
                "Run `bash scripts/tpu/tpu_worker.sh host` on each host, and check the addresses."
            )
        time.sleep(0.5)


def _end(problem: str, done: threading.Event) -> None:
    """Ends the program with the status of a LostWorkerError, unless it ends by itself."""
    if done.wait(_GRACE):
        return
    # The message may wait for whatever reads it.
    last = threading.Timer(5, os._exit, (LostWorkerError.status,))
    last.daemon = True
    last.start()
    say(f"crescendo train: {problem}\n{_REMEDY}", to=sys.stderr)
    os._exit(LostWorkerError.status)
