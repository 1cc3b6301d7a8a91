"""Signals that ask a training to stop: SIGTERM, SIGINT, and a closed terminal's SIGHUP."""

import contextlib
import os
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

from trainer.errors import ExitStatus

# Makes a context in which a function reports whether a signal that asks to stop has arrived.
Watched = Callable[[], contextlib.AbstractContextManager[Callable[[], bool]]]
_SAME_SECONDS = 1.0  # Time in which the death of a parent can cause several signals.


def asking() -> list[signal.Signals]:
    """Returns the signals that ask to stop; an ignored SIGINT or SIGHUP is left out.

    `nohup` ignores SIGHUP, and a shell's script ignores SIGINT in its background jobs. Schedulers
    send SIGTERM for a checkpoint, so it asks to stop even if a parent process ignored it.
    """
    optional = (signal.SIGINT, signal.SIGHUP)
    obeyed = [each for each in optional if signal.getsignal(each) != signal.SIG_IGN]
    return [signal.SIGTERM, *obeyed]


def is_repeated_hangup(number: int, stopping: bool) -> bool:
    """Returns whether the signal is a SIGHUP and the program is already `stopping`.

    When a terminal closes, the shell and the kernel send one SIGHUP each, 0.4 ms apart. The second
    SIGHUP is not a second request to stop.
    """
    return stopping and number == signal.SIGHUP


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], bool]]:
    """Yields a function that reports whether a signal that asks to stop has arrived.

    A signal before the first call of the yielded function ends the process at once, because there
    is nothing to save yet. A second signal also ends the process at once, but if the parent process
    has ended, a second SIGTERM within one second is ignored. An end at once is safe, because the
    files on the disk are complete at any time. A thread receives the signals, because Python's own
    handlers would wait until TensorFlow returns.
    """
    received, asked = threading.Event(), threading.Event()
    signals, parent, first = asking(), os.getppid(), float("-inf")

    def watch() -> None:
        nonlocal first
        while number := os.read(out, 1):
            if number[0] not in signals or is_repeated_hangup(number[0], received.is_set()):
                continue
            if number[0] == signal.SIGTERM and time.monotonic() - first < _SAME_SECONDS:
                # If a sweep is killed, the kernel sends SIGTERM for each of its threads.
                time.sleep(0.1)  # The parent may be between two of its threads' ends.
                if os.getppid() != parent:
                    continue
            first = time.monotonic()
            if received.is_set() or not asked.is_set():
                os._exit(ExitStatus.STOPPED)
            received.set()

    def stopped() -> bool:
        asked.set()
        return received.is_set()

    out, into = os.pipe()
    os.set_blocking(into, False)
    outer = signal.set_wakeup_fd(into)  # Before the handlers, which drop a signal.
    before = {each: signal.signal(each, lambda *_: None) for each in signals}
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield stopped
    finally:
        signal.set_wakeup_fd(outer)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(into)
        watcher.join()
        os.close(out)


@contextlib.contextmanager
def shared_with_caller() -> Iterator[Callable[[], bool]]:
    """Yields the same function as `watched`, in a process that is not this program's alone.

    The first signal after the first call of the function asks to stop. Any other goes to the
    caller's own handler: Python's handler of SIGINT raises KeyboardInterrupt, for example while
    data are loaded. The caller's handlers are restored after the block. They also receive a signal
    that asked to stop after the last call of the function. Only the main thread of Python can watch
    signals, so in another thread the function returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received, asked, told = threading.Event(), threading.Event(), threading.Event()
    last = signal.SIGINT
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: types.FrameType | None) -> None:
        nonlocal last
        if is_repeated_hangup(number, received.is_set()):
            return
        if asked.is_set() and not received.is_set():
            last = signal.Signals(number)
            received.set()
        elif callable(handler := before[signal.Signals(number)]):
            handler(number, frame)
        else:
            signal.signal(number, handler)
            os.kill(os.getpid(), number)

    def stopped() -> bool:
        asked.set()
        if received.is_set():
            told.set()
        return received.is_set()

    for each in asking():
        # None is a handler that Python did not set; it could not be restored.
        if signal.getsignal(each) not in (None, signal.SIG_IGN):
            before[each] = signal.signal(each, handle)
    try:
        yield stopped
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if received.is_set() and not told.is_set():  # It arrived after the block's last question.
        os.kill(os.getpid(), last)
