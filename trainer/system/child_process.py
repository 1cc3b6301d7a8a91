"""Processes of the program that this one starts on its machine, each on a share of the cores."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def start(
    arguments: Sequence[str],
    cores: set[int],
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Starts the program with `arguments` on `cores` (empty: all); what it prints goes to `output`.

    Its environment is this process's, unless given. Signals from the terminal do not reach it. On
    Linux it gets SIGTERM when the thread that called this ends, however that happens: a sweep that
    is killed leaves nothing running. Of a caller with several threads it gets one from each, as it
    is handed on from one to the next, and a second one means to leave without a checkpoint.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        """In the child, before it becomes the program."""
        if cores and hasattr(os, "sched_setaffinity"):  # macOS has no such call.
            os.sched_setaffinity(0, cores)
        if libc:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # Which has ended meanwhile.
                os.kill(os.getpid(), signal.SIGTERM)

    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=prepare,
    )
