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

from trainer.buckets.objects import ConflictError, MissingError, Objects, UnavailableError
from trainer.run_dir import checkpoint_names, manifest, metrics
from trainer.run_dir.manifest import Files, Manifest, Part
from trainer.system.output import log
from trainer.system.regular_file import chunks, opener

# Name of the file that ties a local run directory to the bucket; it is not copied.
ORIGIN = "bucket.json"
# Names of files in a run directory that belong to one machine.
_OWN = {"lock", "secret", ORIGIN}
_MOST_PARTS = 64  # A log with more parts is uploaded whole again.
_CHUNK = 2**20
# Kinds of files that only grow while a process writes them.
_LOG, _EVENTS = metrics.FILE, "events.out.tfevents."
# A record of an events file: length (8 bytes), checksum (4), content, checksum (4).
_HEADER, _RECORD_BYTES = struct.Struct("<Q4x"), 16
_SHARD = re.compile(r"checkpoint\.data-[0-9]{5}-of-([0-9]{5})")


@dataclasses.dataclass(frozen=True)
class _Copied:
    """Copy of a file: what `_seen` returned when the file was read, and the parts of the copy."""

    seen: tuple[int, int, int]
    parts: tuple[Part, ...]


class Mirror:
    """Copies the run directory `folder` to `objects`, as the owner of one generation.

    One thread may use a mirror at a time.

    Args:
      objects: objects of the run.
      folder: run directory.
      generation: number of the owner's generation.
      keep_lower: whether to keep the objects of lower generations, because `folder` lacks some.
    """

    def __init__(
        self, objects: Objects, folder: pathlib.Path, generation: int, *, keep_lower: bool = False
    ) -> None:
        self._objects, self._folder, self._generation = objects, folder, generation
        self._keep_lower = keep_lower
        self._copied: dict[str, _Copied] = {}
        # The newest manifest and the one before, which readers may still use.
        self._committed: list[Manifest] = []
        # Numbers of the last upload and manifest. Each attempt has a new number: if the answer to a
        # request was lost, its object may exist.
        self._upload_number = self._manifest_number = 0
        self._left_out: set[str] = set()

    def copy(self) -> bool:
        """Uploads what changed, and commits it as a manifest; returns whether anything changed.

        Raises:
          UnavailableError: if a request failed. What was uploaded is used by the next call.
          OSError: if a file of the run cannot be read.
        """
        if not (self._folder / "flags.txt").exists():  # The run has not been set up yet.
            return False
        files = self._upload_all()
        if self._committed and files == self._committed[-1].files:
            return False
        self._committed = [*self._committed[-1:], self._commit(files)]
        return True

    def _commit(self, files: Files) -> Manifest:
        self._manifest_number += 1
        state = Manifest(self._generation, self._manifest_number, files)
        name = manifest.name(self._generation, self._manifest_number)
        try:
            self._objects.create(name, state.encoded())
        except ConflictError as error:
            # The request may have been repeated, because the answer to its first attempt was lost.
            with contextlib.suppress(MissingError):
                if self._objects.read(name)[0] == state.encoded():
                    return state
            raise UnavailableError(f"{name} cannot be created") from error
        return state

    def clean(self) -> None:
        """Deletes the objects that neither of the two newest manifests names.

        Objects of higher generations belong to other owners and are kept.

        Raises:
          UnavailableError: if a request failed. The next call deletes the rest.
        """
        own = manifest.folder(self._generation)
        used = {manifest.name(state.generation, state.number) for state in self._committed}
        for state in self._committed:
            used |= {part.name for parts in state.files.values() for part in parts}
        for name in self._objects.names("generation-"):
            lower = name < own and not self._keep_lower
            if name not in used and (lower or name.startswith(own)):
                self._objects.delete(name)

    def _upload_all(self) -> Files:
        """Uploads the changed parts of all files; returns the parts of each file."""
        found: dict[str, _Copied] = {}
        changed: dict[str, BinaryIO | None] = {}
        with contextlib.ExitStack() as stack:
            for path in _paths(self._folder):
                if not self._has_name(path):
                    continue
                # The run deletes old checkpoints. An open file stays readable.
                with contextlib.suppress(FileNotFoundError):
                    before = self._copied.get(path)
                    if before and before.seen == _seen(os.stat(self._folder / path)):
                        found[path] = before
                    elif path.startswith("checkpoints/"):
                        opened = open(self._folder / path, "rb", opener=opener)  # noqa: SIM115
                        changed[path] = stack.enter_context(opened)
                    else:
                        changed[path] = None
            for path in _incomplete([*found, *changed]):
                found.pop(path, None)
                changed.pop(path, None)
            for path, file in changed.items():
                with contextlib.suppress(FileNotFoundError):
                    found[path] = self._copied[path] = self._upload(path, file)
        return {path: found[path].parts for path in sorted(found)}

    def _has_name(self, path: str) -> bool:
        """Returns whether an object may have the name of the file; reports a file once if not."""
        if path.isprintable():
            return True
        if path not in self._left_out:
            log(f"{path!r} is not copied to the bucket, because its name is not printable")
        self._left_out.add(path)
        return False

    def _upload(self, path: str, file: BinaryIO | None) -> _Copied:
        """Uploads the new end of a log, or the whole file if it changed otherwise."""
        if file is None:
            with open(self._folder / path, "rb", opener=opener) as opened:
                return self._upload(path, opened)
        status, before = os.fstat(file.fileno()), self._copied.get(path)
        parts: tuple[Part, ...] = ()
        start = 0
        name = pathlib.PurePosixPath(path).name
        if before and before.seen[0] == status.st_ino and _grows(name):
            copied = sum(part.size for part in before.parts)
            if copied <= status.st_size and len(before.parts) < _MOST_PARTS:
                parts, start = before.parts, copied
        size = _whole(file, name, start, status.st_size) - start
        if size:
            parts += (self._put(path, file, start, size),)
        return _Copied(_seen(status), parts)

    def _put(self, path: str, file: BinaryIO, start: int, size: int) -> Part:
        self._upload_number += 1
        name = f"{manifest.folder(self._generation)}{path}.{self._upload_number:06d}"
        digest = hashlib.sha256()
        file.seek(start)
        for chunk in chunks(file, size, _CHUNK):
            digest.update(chunk)
        file.seek(start)
        self._objects.upload(name, file, size)
        return Part(name, size, digest.hexdigest())


def _seen(status: os.stat_result) -> tuple[int, int, int]:
    """Returns what differs if a file has changed: its inode, size and time of change."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _paths(folder: pathlib.Path) -> Iterator[str]:
    """Yields the paths in a run directory that are copied, relative to it.

    result.json is looked for before the other files. If it exists, the other files are complete.
    """

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # The run deletes old checkpoints meanwhile.
            raise error

    finished = (folder / "result.json").exists()
    for parent, folders, names in os.walk(folder, onerror=failed):
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
