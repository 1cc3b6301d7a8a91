"""Heartbeats and texts between workers, on the connections that `rendezvous` returns.

TensorFlow's collective operations wait forever for a worker that is stopped or cut off. So worker
0, the chief, stays connected to each other worker. Both ends of a connection regularly send a beat,
which is an empty message. A worker that is silent for too long counts as lost, and the chief tells
all workers.
"""

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Mapping

from trainer.distributed.secure_connection import Line
from trainer.system import typed_json

_BEAT, _BYE, _LOST, _TEXT = b"", b"bye", b"lost ", b"text "
# The largest text lists the examples that a worker cannot decode: 10 MB for 100,000 examples.
_MOST_BYTES = 2**28


class Heartbeat:
    """Exchanges beats and texts with other workers until `leave` is called."""

    def __init__(
        self, lines: Mapping[int, Line], silence: float, lost: Callable[[int], None]
    ) -> None:
        """Starts the threads that send and receive.

        Args:
          lines: the result of `rendezvous`: connections by the index of the other worker.
          silence: seconds without a message after which a worker counts as lost. If a connection
            ends, the other worker counts as lost at once.
          lost: called with the index of the first lost worker, at most once, in another thread.
        """
        self._lines, self._lost, self._silence = lines, lost, silence
        # After `_ended` is set, this worker sends no beats. After `_settled` is set, it reports no
        # worker as lost.
        self._ended, self._settled = threading.Event(), threading.Event()
        self._once = threading.Lock()
        self._heard_out = {index: threading.Event() for index in lines}
        self._texts: dict[int, queue.SimpleQueue[str]] = {i: queue.SimpleQueue() for i in lines}
        for index, line in lines.items():
            line.connection.settimeout(silence)
            threading.Thread(target=self._listen, args=(index, line), daemon=True).start()
        threading.Thread(target=self._beat, args=(silence / 10,), daemon=True).start()

    def exchange(self, text: str) -> list[str]:
        """Returns the texts of all workers by index; all workers must call this at the same point.

        If another worker is lost during the call, `lost` is called, and `exchange` never returns.
        """
        if 0 in self._lines:
            self._tell(_TEXT + text.encode())
            return list(typed_json.parsed(self._texts[0].get(), typed_json.anything))
        texts = [text, *(self._texts[index].get() for index in sorted(self._lines))]
        self._tell(_TEXT + json.dumps(texts).encode())
        return texts

    def leave(self, done: bool) -> None:
        """Stops monitoring the other workers.

        If `done` is false, this worker sends no more beats, and the others soon count it as lost.
        If `done` is true, the function first waits until the connected workers are done or silent.
        Without this wait, the process could end while it is still needed: a collective operation
        that has ended in this worker may still run in another worker.
        """
        self._settled.set()
        if done:
            chief = 0 not in self._lines
            if not chief:
                self._tell(_BYE)
            for heard_out in self._heard_out.values():
                heard_out.wait(self._silence)
            if chief:  # The other workers have sent _BYE, and wait for the chief's _BYE.
                self._tell(_BYE)
        self._ended.set()

    def _listen(self, index: int, line: Line) -> None:
        lost = self._receive(index, line)
        self._heard_out[index].set()
        if lost is None:
            return
        with self._once:
            if self._settled.is_set():
                return
            self._settled.set()
        self._ended.set()
        self._tell(_LOST + b"%d" % lost)
        self._lost(lost)

    def _receive(self, index: int, line: Line) -> int | None:
        """Receives until worker `index` leaves; returns the index of a lost worker, if any."""
        # An error means a long silence, a closed connection or a message from another program.
        with contextlib.suppress(OSError, ValueError):
            while (word := line.receive(_MOST_BYTES)) != _BYE:
                if word.startswith(_TEXT):
                    self._texts[index].put(word.removeprefix(_TEXT).decode())
                elif word != _BEAT:
                    return int(word.removeprefix(_LOST))
            return None
        return index

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self._tell(_BEAT)

    def _tell(self, word: bytes) -> None:
        for line in self._lines.values():
            with contextlib.suppress(OSError):  # The thread that receives reports the failure.
                line.send(word)
