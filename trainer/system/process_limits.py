"""Checks the limits of `ulimit` and containers under which TensorFlow aborts without a message.

TensorFlow's C++ code ends the process if a thread cannot be started or an allocation fails, and
Python cannot report that. So this module checks the limits first, as far as possible.
"""

import resource
import threading

from absl import logging

from trainer.errors import UserError
from trainer.system.cores import usable

# On two cores, a model of 2,000 parameters takes 2.2 GB of addresses. TensorFlow aborts at 1.9 GB.
_ADDRESSES, _ADDRESSES_PER_CORE = 2**31, 2**26
# Training that model on two cores runs 19 threads at once; a limit of 20 makes TensorFlow abort.
_THREADS, _THREADS_PER_CORE = 24, 4
# AutoGraph writes a function's code into a temporary file before it compiles it.
_FILE_BYTES = 2**16


def check() -> None:
    """Refuses limits that are too low for any run, and warns of any limit on address space.

    Raises:
      UserError: if a limit is too low.
    """
    cores = len(usable())
    _check_files()
    _check_addresses(_ADDRESSES + cores * _ADDRESSES_PER_CORE)
    _check_threads(_THREADS + cores * _THREADS_PER_CORE)


def reached(error: Exception) -> str:
    """Returns a message of two lines if a limit caused the error, else ""."""
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
            f"files of up to {_FILE_BYTES:,} bytes.\nRaise the limit: ulimit -f unlimited."
        )


def _check_addresses(needed: int) -> None:
    limit = _limit(resource.RLIMIT_AS)
    if limit is None:
        return
    if limit < needed:
        raise UserError(
            f"`ulimit -v` allows {_gigabytes(limit)} of addresses, and TensorFlow takes "
            f"{_gigabytes(needed)} before any model.\n"
            "Raise the limit: ulimit -v unlimited. To limit memory, use a container or cgroup."
        )
    logging.warning(
        "`ulimit -v` allows %s of addresses: if that is too little, TensorFlow ends without a "
        "message.",
        _gigabytes(limit),
    )


def _check_threads(needed: int) -> None:
    """Tries to start `needed` threads, because the limits also count other processes' threads."""
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


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
