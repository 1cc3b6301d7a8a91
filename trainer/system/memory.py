"""How much memory there is and how much of it is taken, and what is said when it runs out.

A GPU that is full raises an error, and training goes on with less. A CPU's memory raises none: the
kernel kills the process, or, where its address space is limited, oneDNN ends it. So what a CPU
shall hold is asked for here beforehand.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import resource
from collections.abc import Iterator, Sequence

import tensorflow as tf

from trainer.errors import UserError
from trainer.system.tensorflow_errors import Translation

# What makes a model's smallest micro-batch smaller.
LESS = "Use a smaller --ghost_batch_size or --image_size, or --precision=bfloat16."

_PROC, _CGROUP = pathlib.Path("/proc"), pathlib.Path("/sys/fs/cgroup")
# By /proc/self/cgroup's name of the controller, "" for version 2: the folder, and the files with
# the limit and the bytes taken, and what memory.stat calls files that can be dropped from it.
_CGROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


@dataclasses.dataclass(frozen=True)
class Use:
    """Bytes of one memory.

    Attributes:
      now: taken by this process.
      peak: the most that it took since `restart`.
      limit: that it can take, with what others leave of it; infinite where that is not known.
    """

    now: int
    peak: int
    limit: float


def memory_usage(devices: Sequence[str]) -> list[Use]:
    """That of each GPU of `devices`; for CPUs the process's, and nothing where no one tells.

    A process's first is what it has in RAM, and the second, if that is limited (`ulimit -v`), its
    address space.
    """
    if _on_cpu(devices):
        try:
            return _process()
        except FileNotFoundError:  # No Linux.
            return []
    found = [tf.config.experimental.get_memory_info(device) for device in _gpus(devices)]
    return [Use(info["current"], info["peak"], math.inf) for info in found]


def reset_peak_memory(devices: Sequence[str]) -> None:
    """Lets the peaks of `uses` begin at what is taken now.

    But not an address space's, nor where this process may not: they are of its whole life then.
    """
    for device in _gpus(devices):
        tf.config.experimental.reset_memory_stats(device)
    if _on_cpu(devices):
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")


def out_of_memory(what: str, remedy: str) -> Translation:
    """Returns the translation of an error of exhausted memory: `what` does not fit."""

    def translation(error: tf.errors.OpError) -> UserError | None:
        if isinstance(error, tf.errors.ResourceExhaustedError):
            return UserError(f"{what} does not fit in memory.\n{remedy}")
        return None

    return translation


def _on_cpu(devices: Sequence[str]) -> bool:
    return all("CPU" in device for device in devices)


def _gpus(devices: Sequence[str]) -> list[str]:
    return [device for device in devices if "GPU" in device]


def _process() -> list[Use]:
    taken = _fields(pathlib.Path("/proc/self/status"))
    found = [Use(taken["VmRSS"], taken["VmHWM"], taken["VmRSS"] + available())]
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        found.append(Use(taken["VmSize"], taken["VmPeak"], most))
    return found


def ram_limit(proc: pathlib.Path = _PROC, cgroups: pathlib.Path = _CGROUP) -> int:
    """Bytes of RAM that this process may ever take: the machine's, or its container's if less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(most for most, _ in _limits(proc, cgroups))])


def available(proc: pathlib.Path = _PROC, cgroups: pathlib.Path = _CGROUP) -> int:
    """Bytes of RAM that this process can still take: what the machine has, or its container."""
    free = [_fields(proc / "meminfo")["MemAvailable"]]
    return max(0, min([*free, *(most - taken for most, taken in _limits(proc, cgroups))]))


def _limits(proc: pathlib.Path, cgroups: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Bytes that a container, slice or job may take, and has taken, where there is a limit.

    Those of the cgroups that this process is in, of version 1 or 2, and those that these are in.
    """
    groups = proc / "self" / "cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        for controller in _CGROUPS.keys() & controllers.split(","):
            name, limit, usage, cache = _CGROUPS[controller]
            # A container sees its own as the root, or in it the path that its host knows.
            for folder in (cgroups / name, *_below(cgroups / name, path)):
                with contextlib.suppress(OSError):
                    most = (folder / limit).read_text().strip()
                    if most != "max":
                        taken = int((folder / usage).read_text())
                        yield int(most), taken - _fields(folder / "memory.stat").get(cache, 0)


def _below(root: pathlib.Path, path: str) -> Iterator[pathlib.Path]:
    """The folders on the way from `root` down along `path`."""
    for part in path.strip("/").split("/"):
        root /= part
        yield root


def _fields(path: pathlib.Path) -> dict[str, int]:
    """The numbers of a file of lines such as `VmRSS:  12 kB` or `cache 12288`, in bytes."""
    rows = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    return {
        row[0]: int(row[1]) * (1024 if row[2:] == ["kB"] else 1)
        for row in rows
        if len(row) > 1 and row[1].isdigit()
    }
