"""Limits on this process, `ulimit` or a container's, under which TensorFlow aborts without a word.

Its C++ code ends the process where a thread cannot be started or an allocation fails, and no Python
runs any more. What can be known before is looked at before, and said.
"""

import resource
import threading

from absl import logging

from trainer.errors import UserError
from trainer.system.cores import usable

# A model of 2,000 parameters takes 2.2 GB of addresses on two cores; with 1.9 GB it aborts.
_ADDRESSES, _ADDRESSES_PER_CORE = 2**31, 2**26
# Threads that run at once: 19 of that run on two cores, and with 20 allowed it aborts.
_THREADS, _THREADS_PER_CORE = 24, 4
# AutoGraph writes a function's code into a temporary file before it compiles it.
_FILE_BYTES = 2**16


def check() -> None:
    """Refuses limits that are too low for any run; warns of one on addresses.

    Raises:
      UserError: a limit is too low.
    """
    cores = len(usable())
    _check_files()
    _check_addresses(_ADDRESSES + cores * _ADDRESSES_PER_CORE)
    _check_threads(_THREADS + cores * _THREADS_PER_CORE)


def reached(error: Exception) -> str:
    """Returns two lines about an error that a limit causes, or "" for another error."""
    text = str(error)
    if "can't start new thread" in text:
        what = "no thread can be started, since ulimit -u or the container allows no more"
    elif isinstance(error, MemoryError) or "failed to map segment" in text:
        what = "memory ran out, or ulimit -v allows no more"
    else:
        return ""
    return f"{what}.\nRaise the limit, or end other processes."


def _check_files() -> None:
    limit = _limit(resource.RLIMIT_FSIZE)
    if limit is not None and limit < _FILE_BYTES:
        raise UserError(
            f"`ulimit -f` allows files of {limit:,} bytes, and TensorFlow writes its own code into "
            f"temporary ones of up to {_FILE_BYTES:,}.\nRaise it: ulimit -f unlimited."
        )


def _check_addresses(needed: int) -> None:
    limit = _limit(resource.RLIMIT_AS)
    if limit is None:
        return
    if limit < needed:
        raise UserError(
            f"`ulimit -v` allows {_gigabytes(limit)} of addresses, and TensorFlow takes "
            f"{_gigabytes(needed)} before any model.\n"
            "Raise it: ulimit -v unlimited. A container or cgroup limits memory itself."
        )
    logging.warning(
        "`ulimit -v` allows %s of addresses: where that is too little, TensorFlow ends without a "
        "message.",
        _gigabytes(limit),
    )


def _check_threads(needed: int) -> None:
    """Starts as many: a limit counts other processes, and a container has its own."""
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise UserError(
            f"no more than {len(started)} threads can be started, and TensorFlow needs {needed}.\n"
            "Raise ulimit -u, or the container's limit of processes (pids), or end other processes."
        ) from error
    finally:
        done.set()
        for thread in started:
            thread.join()


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
