"""Finds the cores that this process may use; a scheduler or the parent may allow only some."""

import os


def usable() -> list[int]:
    """Returns the numbers of the usable cores, in ascending order."""
    if hasattr(os, "sched_getaffinity"):  # macOS lacks this call, and cannot limit the cores.
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split_cores(n: int) -> list[set[int]]:
    """Splits the usable cores into `n` near-equal sets, which share cores if there are too few."""
    cores = usable()
    return [
        set(cores[i * len(cores) // n : (i + 1) * len(cores) // n]) or {cores[i % len(cores)]}
        for i in range(n)
    ]
