"""Copies the files of a run directory to a bucket, where each copied state has a manifest.

manifest.py describes the objects. Only what changed is uploaded: logs that grew get an object with
their new end, and all other files are uploaded whole.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from trainer.buckets.objects import ConflictError, Objects, UnavailableError
from trainer.run_dir import checkpoint_names, manifest
from trainer.run_dir.manifest import Files, Manifest, Part
from trainer.system.regular_file import opener

# Name of the file that ties a local run directory to the bucket; it is not copied.
ORIGIN = "bucket.json"
# Names of files in a run directory that belong to one machine.
_OWN = {"lock", "secret", ORIGIN}
_MOST_PARTS = 64  # A log with more parts is uploaded whole again.
_CHUNK = 2**20
# Kinds of files that only grow while a process writes them.
_LOG, _EVENTS = "metrics.jsonl", "events.out.tfevents."
# A record of an events file: length (8 bytes), checksum (4), content, checksum (4).
_HEADER, _RECORD_BYTES = struct.Struct("<Q4x"), 16
_SHARD = re.compile(r"checkpoint\.data-[0-9]{5}-of-([0-9]{5})")


@dataclasses.dataclass(frozen=True)
class _Copied:
    """Copy of a file: its inode, size and time of change when it was read, and its parts."""

    inode: int
    size: int
    changed: int
    parts: tuple[Part, ...]


class Mirror:
    """Copies the run directory `folder` to `objects`, as the owner of one generation.

    One thread may use a mirror at a time.
    """

    def __init__(self, objects: Objects, folder: pathlib.Path, generation: int) -> None:
        self._objects, self._folder, self._generation = objects, folder, generation
        self._copied: dict[str, _Copied] = {}
        self._newest: Manifest | None = None
        self._uploads = 0
        # Names of objects that may be deleted once a manifest without them is the newest but one.
        self._unused: set[str] = set()
        self._current: set[str] = set()

    def copy(self) -> bool:
        """Uploads what changed, and commits it as a manifest; returns whether anything changed.

        Raises:
          UnavailableError: if a request failed. What was uploaded is used by the next call.
          OSError: if a file of the run cannot be read.
        """
        if not (self._folder / "flags.txt").exists():  # The run has not been set up yet.
            return False
        files = self._upload_all()
        if self._newest is not None and files == self._newest.files:
            return False
        number = 1 if self._newest is None else self._newest.number + 1
        state = Manifest(self._generation, number, files)
        with contextlib.suppress(ConflictError):  # An answer was lost, and the request repeated.
            self._objects.create(manifest.name(self._generation, number), state.encoded())
        self._clean(state)
        return True

    def _upload_all(self) -> Files:
        """Uploads the changed parts of all files; returns the parts of each file."""
        with contextlib.ExitStack() as stack:
            opened = {}
            for path in _paths(self._folder):
                # The run deletes old checkpoints. An open file stays readable.
                with contextlib.suppress(FileNotFoundError):
                    file = open(self._folder / path, "rb", opener=opener)  # noqa: SIM115
                    opened[path] = stack.enter_context(file)
            for path in _incomplete([*opened]):
                opened.pop(path)
            for path, file in opened.items():
                self._copied[path] = self._upload(path, file)
        return {path: self._copied[path].parts for path in sorted(opened)}

    def _upload(self, path: str, file: BinaryIO) -> _Copied:
        """Uploads the new end of a log, or the whole file if it changed otherwise."""
        status, before = os.fstat(file.fileno()), self._copied.get(path)
        seen = status.st_ino, status.st_size, status.st_mtime_ns
        if before and seen == (before.inode, before.size, before.changed):
            return before
        parts: tuple[Part, ...] = ()
        start = 0
        name = pathlib.PurePosixPath(path).name
        if before and before.inode == status.st_ino and _grows(name):
            copied = sum(part.size for part in before.parts)
            if copied <= status.st_size and len(before.parts) < _MOST_PARTS:
                parts, start = before.parts, copied
        size = _whole(file, name, start, status.st_size) - start
        if size:
            parts += (self._put(path, file, start, size),)
        return _Copied(*seen, parts)

    def _put(self, path: str, file: BinaryIO, start: int, size: int) -> Part:
        self._uploads += 1  # A failed upload may have left an object, so its name is not reused.
        name = f"{manifest.folder(self._generation)}{path}.{self._uploads:06d}"
        digest = hashlib.sha256()
        for chunk in _chunks(file, start, size):
            digest.update(chunk)
        file.seek(start)
        self._unused.add(name)
        self._objects.upload(name, file, size)
        return Part(name, size, digest.hexdigest())

    def _clean(self, state: Manifest) -> None:
        """Deletes objects that neither `state` nor the manifest before it names.

        A reader may still read the manifest before. Failed deletions are repeated after the next
        manifest.
        """
        if self._newest is None:  # The first manifest replaces those of all lower generations.
            with contextlib.suppress(UnavailableError):
                own = manifest.folder(self._generation)
                self._unused |= {each for each in self._objects.names("generation-") if each < own}
        current = {part.name for parts in state.files.values() for part in parts}
        used = current | self._current
        if self._newest is not None and self._newest.number > 1:
            self._unused.add(manifest.name(self._generation, self._newest.number - 1))
        for name in sorted(self._unused - used):
            with contextlib.suppress(UnavailableError):
                self._objects.delete(name)
                self._unused.discard(name)
        self._newest, self._current = state, current


def _paths(folder: pathlib.Path) -> Iterator[str]:
    """Yields the paths in a run directory that are copied, relative to it.

    result.json is looked for before the other files. If it exists, the other files are complete.
    """
    finished = (folder / "result.json").exists()
    for parent, folders, names in os.walk(folder):
        at_top = pathlib.Path(parent) == folder
        if pathlib.Path(parent) == folder / "checkpoints":
            folders[:] = [each for each in folders if checkpoint_names.NAME.fullmatch(each)]
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = pathlib.Path(parent, name)
            skipped = at_top and (name in _OWN or (name == "result.json" and not finished))
            regular = path.is_file() and not path.is_symlink()
            if regular and not skipped and not name.endswith(".tmp"):
                yield str(path.relative_to(folder))


def _incomplete(opened: Sequence[str]) -> list[str]:
    """Returns the paths of checkpoints whose files were not all opened, because the run removed it.

    A checkpoint has the file checkpoint.index, and data files with their number in their names.
    """
    names = collections.defaultdict(set)
    for path in opened:
        checkpoint, _, name = path.rpartition("/")
        if checkpoint.startswith("checkpoints/"):
            names[checkpoint].add(name)
    wrong = []
    for checkpoint, files in names.items():
        shards = [match for each in files if (match := _SHARD.fullmatch(each))]
        if "checkpoint.index" not in files or not shards or len(shards) != int(shards[0][1]):
            wrong += [f"{checkpoint}/{name}" for name in files]
    return wrong


def _grows(name: str) -> bool:
    return name == _LOG or name.startswith(_EVENTS)


def _whole(file: BinaryIO, name: str, start: int, end: int) -> int:
    """Returns the end of the last whole line or record between `start` and `end` of a log.

    Returns `end` for files that are not logs.
    """
    if name == _LOG:
        file.seek(start)
        return start + file.read(end - start).rfind(b"\n") + 1
    if not name.startswith(_EVENTS):
        return end
    position = start
    while position + _RECORD_BYTES <= end:
        file.seek(position)
        (length,) = _HEADER.unpack(file.read(_HEADER.size))
        if position + _RECORD_BYTES + length > end:
            break
        position += _RECORD_BYTES + length
    return position


def _chunks(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    file.seek(start)
    while size:
        chunk = file.read(min(_CHUNK, size))
        if not chunk:
            raise OSError("a file of the run became shorter while it was read")
        size -= len(chunk)
        yield chunk
