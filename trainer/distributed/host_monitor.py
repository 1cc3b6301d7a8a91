"""Ends the program if a host of its slice is lost, because TensorFlow may then wait forever."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from trainer.errors import LostWorkerError
from trainer.system.output import say

_INTERVAL = 1.0  # Seconds between two checks of a host.
# Seconds in which the program may end by itself, with TensorFlow's reason for the loss.
_GRACE = 10.0


@contextlib.contextmanager
def watched(addresses: Sequence[str], timeout: float) -> Iterator[None]:
    """Checks in the block that each host accepts connections; otherwise ends the program.

    Args:
      addresses: `host:port` of each host; if there are none, nothing is checked.
      timeout: seconds after which a host that does not answer is lost. A host that refuses a
        connection is lost at once, because its process has ended.
    """
    done = threading.Event()
    if addresses:
        arguments = (addresses, timeout, done)
        threading.Thread(target=_watch, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(addresses: Sequence[str], timeout: float, done: threading.Event) -> None:
    answered = dict.fromkeys(addresses, time.monotonic())
    while not done.wait(_INTERVAL):
        for index, address in enumerate(addresses):
            host, port = address.rsplit(":", 1)
            reason = ""
            try:
                socket.create_connection((host, int(port)), timeout=min(timeout, 5)).close()
                answered[address] = time.monotonic()
            except ConnectionRefusedError:
                reason = "its process has ended"
            except OSError as error:
                if time.monotonic() - answered[address] > timeout:
                    reason = f"it does not answer within {timeout:g} s: {error}"
            if reason:
                _end(f"host {index} ({address}) is lost: {reason}.", done)
                return


def _end(problem: str, done: threading.Event) -> None:
    """Ends the program with the status of a LostWorkerError, unless it ends by itself."""
    if done.wait(_GRACE):
        return
    remedy = "Start all hosts and the program again: the run resumes from its last checkpoint."
    say(f"crescendo train: {problem}\n{remedy}", to=sys.stderr)
    os._exit(LostWorkerError.status)
