"""The cores that are this process's: a scheduler or a parent may have given it a part of them."""

import os


def usable() -> list[int]:
    """Their numbers, in order; all of the machine's where the system, macOS, does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split_cores(n: int) -> list[set[int]]:
    """Those in `n` even parts; one each, in turn, where they are fewer."""
    cores = usable()
    return [
        set(cores[i * len(cores) // n : (i + 1) * len(cores) // n]) or {cores[i % len(cores)]}
        for i in range(n)
    ]
