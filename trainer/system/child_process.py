"""Starts this program in a child process, on some of the machine's cores."""

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # Defined in <linux/prctl.h>.


def start(
    arguments: Sequence[str],
    cores: set[int],
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Starts the program with `arguments` on `cores` (empty: all); the child prints to `output`.

    The child gets no signals from the terminal. On Linux, the kernel sends SIGTERM to the child
    when the calling thread ends. So if the command `sweep` is killed, the trainings that it started
    end, too. If the command has several threads, the child may get SIGTERM for each of them, and
    stop_signals.py counts these signals as one.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=functools.partial(_prepare, cores, os.getpid()),
    )


def _prepare(cores: set[int], parent: int) -> None:
    """Sets the child's cores, and asks the kernel for a SIGTERM when the process `parent` ends.

    This function runs in the child, before the child executes the program.
    """
    if cores and hasattr(os, "sched_setaffinity"):  # macOS lacks this call.
        with contextlib.suppress(OSError):  # The cores may have been taken from this process.
            os.sched_setaffinity(0, cores)
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # The parent ended before prctl was called.
            os.kill(os.getpid(), signal.SIGTERM)
