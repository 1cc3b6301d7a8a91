"""Finds the cores that this process may use; a scheduler or the parent may allow only some."""

import itertools
import os


def usable() -> list[int]:
    """Returns the numbers of the usable cores, in ascending order."""
    if hasattr(os, "sched_getaffinity"):  # macOS lacks this call, and cannot limit the cores.
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split_cores(n: int) -> list[set[int]]:
    """Splits the usable cores into `n` near-equal sets, which share cores evenly if too few."""
    cores = usable()
    starts = [i * len(cores) // n for i in range(n + 1)]
    return [set(cores[a : max(b, a + 1)]) for a, b in itertools.pairwise(starts)]
