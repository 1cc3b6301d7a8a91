"""Checks the limits, from `ulimit` or a container, at which TensorFlow aborts without a message.

TensorFlow's C++ code ends the process if a thread cannot be started or memory cannot be allocated.
Python cannot report such an end, so this module tests the limits before TensorFlow starts.
"""

import math
import resource
import threading

from absl import logging

from trainer.errors import UserError
from trainer.system.cores import usable

# Training a model of 2,000 parameters on two cores takes 2.2 GB of addresses and 19 threads.
# TensorFlow aborts under a limit of 1.9 GB of addresses, and under a limit of 20 threads.
_ADDRESSES, _ADDRESSES_PER_CORE = 2**31, 2**26
_THREADS, _THREADS_PER_CORE = 24, 4
# AutoGraph writes the code of each function that it compiles into a temporary file.
_FILE_BYTES = 2**16


def check() -> None:
    """Checks the limits of file size, address space and threads; warns if address space is limited.

    Raises:
      UserError: if a limit is too low even for a very small model.
    """
    cores = len(usable())
    files = _limit(resource.RLIMIT_FSIZE)
    if files < _FILE_BYTES:
        raise UserError(
            f"`ulimit -f` allows files of {files:,} bytes, and TensorFlow writes its own code into "
            f"files of up to {_FILE_BYTES:,} bytes.\nRaise the limit: ulimit -f unlimited."
        )
    _check_addresses(_ADDRESSES + cores * _ADDRESSES_PER_CORE)
    _check_threads(_THREADS + cores * _THREADS_PER_CORE)


def reached(error: Exception) -> str:
    """Returns a message of two lines if a limit caused `error`, or else ""."""
    text = str(error)
    if "can't start new thread" in text:
        what = "no thread can be started, since ulimit -u or the container allows no more"
    elif isinstance(error, MemoryError) or "failed to map segment" in text:
        what = "memory ran out, or ulimit -v allows no more"
    else:
        return ""
    return f"{what}.\nRaise the limit, or end other processes."


def _check_addresses(needed: int) -> None:
    limit = _limit(resource.RLIMIT_AS)
    allowed = f"`ulimit -v` allows {limit / 1e9:.1f} GB of addresses"
    if limit < needed:
        raise UserError(
            f"{allowed}, and TensorFlow takes {needed / 1e9:.1f} GB before any model.\n"
            "Raise the limit: ulimit -v unlimited. To limit memory, use a container or cgroup."
        )
    if limit < math.inf:
        logging.warning("%s: if a run needs more, it ends without a message.", allowed)


def _check_threads(needed: int) -> None:
    """Checks that `needed` threads can be started, by starting them.

    The limits alone do not show this, because other processes use up a part of the limits.
    """
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise UserError(
            f"only {len(started)} threads can be started, and TensorFlow needs {needed}.\n"
            "Raise ulimit -u, or the container's limit of processes (pids), or end other processes."
        ) from error
    finally:
        done.set()
        for thread in started:
            thread.join()


def _limit(which: int) -> float:
    soft, _ = resource.getrlimit(which)
    return math.inf if soft == resource.RLIM_INFINITY else soft
