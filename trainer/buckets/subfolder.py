"""Gives access to a folder within a folder of a bucket, through the same client."""

from collections.abc import Iterator
from typing import BinaryIO

from trainer.buckets.objects import Objects, Stat


class Subfolder:
    """Implements `Objects` for the folder `name` below the folder of `objects`.

    A client of its own for each of a thousand folders would connect a thousand times.
    """

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._above = objects, f"{name}/"

    def create(self, name: str, content: bytes) -> str:
        return self._objects.create(self._above + name, content)

    def replace(self, name: str, content: bytes, version: str) -> str:
        return self._objects.replace(self._above + name, content, version)

    def read(self, name: str) -> tuple[bytes, str]:
        return self._objects.read(self._above + name)

    def upload(self, name: str, file: BinaryIO, size: int) -> None:
        self._objects.upload(self._above + name, file, size)

    def download(self, name: str, file: BinaryIO) -> Stat:
        return self._objects.download(self._above + name, file)

    def read_range(self, name: str, start: int, stop: int) -> tuple[bytes, Stat]:
        return self._objects.read_range(self._above + name, start, stop)

    def stats(self) -> Iterator[tuple[str, Stat]]:
        for name, stat in self._objects.stats():
            if name.startswith(self._above):
                yield name.removeprefix(self._above), stat

    def names(self, prefix: str) -> list[str]:
        found = self._objects.names(self._above + prefix)
        return [name.removeprefix(self._above) for name in found]

    def delete(self, name: str) -> None:
        self._objects.delete(self._above + name)
