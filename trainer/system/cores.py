"""Cores that this process may use: a scheduler or the parent process may have limited them."""

import os


def usable() -> list[int]:
    """Returns the numbers of the usable cores, in order; on macOS, which cannot limit them, all."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split_cores(n: int) -> list[set[int]]:
    """Splits the usable cores into `n` near-equal sets, and reuses cores if there are too few."""
    cores = usable()
    return [
        set(cores[i * len(cores) // n : (i + 1) * len(cores) // n]) or {cores[i % len(cores)]}
        for i in range(n)
    ]
