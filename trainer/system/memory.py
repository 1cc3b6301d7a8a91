"""Measures the used and the available memory, and translates out-of-memory errors.

If a GPU's memory is full, TensorFlow raises an error. If RAM is full, the kernel kills the process.
If the address space is full (`ulimit -v`), TensorFlow's library oneDNN ends the process. So callers
first compare the memory that they need with the memory that this module measures.
"""

import contextlib
import dataclasses
import itertools
import math
import operator
import os
import pathlib
import resource
from collections.abc import Iterator, Sequence

import tensorflow as tf

from trainer.errors import UserError
from trainer.system.tensorflow_errors import Translation

# Remedy if a model's smallest micro-batch does not fit in memory.
LESS = (
    "Begin a run with a smaller --ghost_batch_size, --image_size or --image_sizes, or with "
    "--precision=bfloat16."
)
# Remedy if an evaluation does not fit in memory.
LESS_TO_EVALUATE = (
    "Use a smaller --image_size or --eval_image_size, or --precision=bfloat16; a run must begin "
    "anew with them."
)

_PROC, _CGROUP = pathlib.Path("/proc"), pathlib.Path("/sys/fs/cgroup")
# Each key is a controller in /proc/self/cgroup; "" stands for cgroups version 2. The first entry of
# a value is a folder. The next two entries are its files with the limit and the usage. The last
# entry is a field of memory.stat: the size of the file cache that the kernel can drop.
_CGROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@dataclasses.dataclass(frozen=True)
class Use:
    """Bytes of one kind of memory (a GPU's memory, RAM or address space) that this process uses.

    Attributes:
      now: bytes in use now.
      peak: largest number of bytes in use since the last call of `reset_peak_memory`.
      limit: largest number of bytes that this process can use while the other processes keep their
        memory; infinite if there is no limit, or if the limit is unknown.
    """

    now: int
    peak: int
    limit: float


def memory_usage(devices: Sequence[str]) -> list[Use]:
    """Returns the memory use of each GPU, or of this process if all devices are CPUs.

    For CPUs, the first entry is RAM. The second entry is address space, which `ulimit -v` may
    limit. The list is empty if the system does not report memory.
    """
    if _on_cpu(devices):
        try:
            return _process()
        except FileNotFoundError:  # The system is not Linux.
            return []
    infos = [tf.config.experimental.get_memory_info(device) for device in _gpus(devices)]
    return [Use(info["current"], info["peak"], math.inf) for info in infos]


def reset_peak_memory(devices: Sequence[str]) -> None:
    """Resets the peaks of `memory_usage` to the memory in use now, if the system permits it.

    The peak of the address space cannot be reset. The peak of RAM can be reset only if this process
    may write to /proc.
    """
    for device in _gpus(devices):
        tf.config.experimental.reset_memory_stats(device)
    if _on_cpu(devices):
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")


def out_of_memory(what: str, remedy: str) -> Translation:
    """Returns a translation of out-of-memory errors into a UserError with `what` and `remedy`."""

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
    status = _fields(pathlib.Path("/proc/self/status"))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    addresses = math.inf if soft == resource.RLIM_INFINITY else soft
    return [
        Use(status["VmRSS"], status["VmHWM"], status["VmRSS"] + available()),
        Use(status["VmSize"], status["VmPeak"], addresses),
    ]


def ram_limit(proc: pathlib.Path = _PROC, cgroups: pathlib.Path = _CGROUP) -> int:
    """Returns the machine's RAM in bytes, or the lowest cgroup limit if it is below the RAM."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for limit, _ in _limits(proc, cgroups))])


def available(proc: pathlib.Path = _PROC, cgroups: pathlib.Path = _CGROUP) -> int:
    """Returns the bytes of RAM that this process can still take, within all limits."""
    free = [_fields(proc / "meminfo")["MemAvailable"]]
    return max(0, min([*free, *(limit - used for limit, used in _limits(proc, cgroups))]))


def _limits(proc: pathlib.Path, cgroups: pathlib.Path) -> Iterator[tuple[int, int]]:
    """Yields the limit and the usage, in bytes, of each cgroup that limits this process.

    A container, a systemd slice or a scheduler's job is a cgroup, which may lie in another cgroup.
    The usage does not count the file cache that the kernel can drop.
    """
    groups = proc / "self" / "cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        for controller in _CGROUPS.keys() & controllers.split(","):
            name, limit, usage, cache = _CGROUPS[controller]
            # In a container, the root folder may be the container's own cgroup. It may also be the
            # host's root, with the container's cgroup at `path`. So the loop visits the root and
            # all folders down to `path`.
            parts = path.strip("/").split("/")
            for folder in itertools.accumulate(parts, operator.truediv, initial=cgroups / name):
                with contextlib.suppress(OSError):
                    most = (folder / limit).read_text().strip()
                    if most != "max":
                        used = int((folder / usage).read_text())
                        yield int(most), used - _fields(folder / "memory.stat").get(cache, 0)


def _fields(path: pathlib.Path) -> dict[str, int]:
    """Returns sizes in bytes, by name, from a file's lines: `VmRSS:  12 kB` or `cache 12288`."""
    rows = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    return {
        row[0]: int(row[1]) * (1024 if row[2:] == ["kB"] else 1)
        for row in rows
        if len(row) > 1 and row[1].isdigit()
    }
