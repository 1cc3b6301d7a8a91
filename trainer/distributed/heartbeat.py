"""How workers hear that one of them has died or hangs, whatever they are waiting for meanwhile.

TensorFlow's collectives wait for ever for a worker that is stopped or cut off. So the lines on
which the workers have met stay open, a star about the chief: each end sends a beat now and then,
and takes the other for lost when it hears none for long. The chief passes on who is lost.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping

from trainer.distributed.secure_connection import Line

_BEAT, _BYE, _LOST = b"", b"bye", b"lost "
_MOST_BYTES = 32  # of a word


class Heartbeat:
    """The beats of this worker, and an ear for the others'; it lasts until `leave`."""

    def __init__(
        self, lines: Mapping[int, Line], silence: float, lost: Callable[[int], None]
    ) -> None:
        """Begins.

        Args:
          lines: to other workers, by their index, as `rendezvous` returns them.
          silence: seconds without a beat after which one is lost; where its process ends, at once.
          lost: called once, with the first worker that is, in a thread of this object's.
        """
        self._lines, self._lost, self._silence = lines, lost, silence
        self._ended, self._settled = threading.Event(), threading.Event()
        self._once = threading.Lock()
        self._heard_out = {index: threading.Event() for index in lines}
        for index, line in lines.items():
            line.connection.settimeout(silence)
            threading.Thread(target=self._listen, args=(index, line), daemon=True).start()
        threading.Thread(target=self._beat, args=(silence / 10,), daemon=True).start()

    def leave(self, done: bool) -> None:
        """Takes nobody for lost any more; unless all is `done`, the others soon do this one.

        Where it is, returns once the others have come as far, or are silent: a collective that has
        ended here may still need this process to end elsewhere.
        """
        self._settled.set()
        if done:
            chief = 0 not in self._lines
            if not chief:
                self._tell(_BYE)
            for heard_out in self._heard_out.values():
                heard_out.wait(self._silence)
            if chief:  # It has heard from all, and lets them go.
                self._tell(_BYE)
        self._ended.set()

    def _listen(self, index: int, line: Line) -> None:
        lost = self._hear(index, line)
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

    def _hear(self, index: int, line: Line) -> int | None:
        """Which worker is lost, as the one at the other end, or its end, says; None: it leaves."""
        # Silent for too long, or what it says is not its own, or not a word of ours.
        with contextlib.suppress(OSError, ValueError):
            while (word := line.receive(_MOST_BYTES)) != _BYE:
                if word != _BEAT:
                    return int(word.removeprefix(_LOST))
            return None
        return index

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self._tell(_BEAT)

    def _tell(self, word: bytes) -> None:
        for line in self._lines.values():
            with contextlib.suppress(OSError):  # Its listener notices.
                line.send(word)
