"""How workers hear that one of them has died or hangs, whatever they are waiting for meanwhile.

TensorFlow's collectives wait for ever for a worker that is stopped or cut off. So the lines on
which the workers have met stay open, a star about the chief: each end sends a beat now and then,
and takes the other for lost when it hears none for long. The chief passes on who is lost.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping

_BEAT, _BYE, _LOST = b"\n", b"bye\n", b"lost "


class Pulse:
    """The beats of this worker, and an ear for the others'; it lasts until `leave`."""

    def __init__(
        self, lines: Mapping[int, socket.socket], silence: float, lost: Callable[[int], None]
    ) -> None:
        """Begins.

        Args:
          lines: to other workers, by their index, as `rendezvous.meet` returns them.
          silence: seconds without a beat after which one is lost; where its process ends, at once.
          lost: called once, with the first worker that is, in a thread of this object's.
        """
        self._lines, self._lost = lines, lost
        self._ended, self._once = threading.Event(), threading.Lock()
        for index, line in lines.items():
            line.settimeout(silence)
            threading.Thread(target=self._listen, args=(index, line), daemon=True).start()
        threading.Thread(target=self._beat, args=(silence / 10,), daemon=True).start()

    def leave(self, done: bool) -> None:
        """Hears and says no more; unless all is `done`, the others soon take this one for lost."""
        self._ended.set()
        if done:
            self._tell(_BYE)

    def _listen(self, index: int, line: socket.socket) -> None:
        with contextlib.suppress(OSError), line.makefile("rb") as words:  # Silent for too long.
            for word in words:
                if word == _BYE:
                    return
                if word.startswith(_LOST):
                    index = int(word.removeprefix(_LOST))
                    break
        with self._once:
            if self._ended.is_set():
                return
            self._ended.set()
        self._tell(_LOST + b"%d\n" % index)
        self._lost(index)

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self._tell(_BEAT)

    def _tell(self, word: bytes) -> None:
        for line in self._lines.values():
            with contextlib.suppress(OSError):  # Its listener notices.
                line.sendall(word)
