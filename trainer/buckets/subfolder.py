"""Reads a folder within a folder of a bucket, through the same client."""

from typing import BinaryIO

from trainer.buckets.objects import ReadableObjects, Stat


class Subfolder:
    """Implements `ReadableObjects` for the folder `name` below the folder of `objects`.

    A client of its own for each of a thousand folders would connect a thousand times.
    """

    def __init__(self, objects: ReadableObjects, name: str) -> None:
        self._objects, self._above = objects, f"{name}/"

    def read(self, name: str) -> tuple[bytes, str]:
        return self._objects.read(self._above + name)

    def download(self, name: str, file: BinaryIO) -> Stat:
        return self._objects.download(self._above + name, file)

    def names(self, prefix: str) -> list[str]:
        found = self._objects.names(self._above + prefix)
        return [name.removeprefix(self._above) for name in found]
