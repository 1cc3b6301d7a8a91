"""Remembers for which devices this process has set up TensorFlow, which cannot change them later.

On the command line, a process runs one command. A Python program may call several functions.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ProcessDevices:
    """Values of the flags of the same names, with which TensorFlow was set up."""

    strategy: str
    virtual_devices: int | None
    deterministic: bool


_first: list[ProcessDevices] = []


def remember(devices: ProcessDevices) -> None:
    """Remembers `devices`, unless TensorFlow was set up before."""
    if not _first:
        _first.append(devices)


def first() -> ProcessDevices | None:
    """Returns the devices that were remembered first; None if TensorFlow is not set up yet."""
    return _first[0] if _first else None
