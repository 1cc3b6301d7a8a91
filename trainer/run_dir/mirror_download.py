"""Reads the files of a run from its bucket, and verifies them."""

import hashlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from trainer.buckets.objects import MissingError, ReadableObjects
from trainer.errors import UserError
from trainer.run_dir import lineage, manifest, metrics, training_data
from trainer.run_dir.manifest import Manifest, Part
from trainer.system.atomic_file import remove
from trainer.system.output import log

_CHECKPOINT = re.compile(r"checkpoints/[^/]+/")
# A run cannot resume without these files.
_NEEDED = ("flags.txt", training_data.FILE, lineage.FILE)
_LOG = metrics.FILE
_MOST_ATTEMPTS = 10


class _DamagedError(Exception):
    """Raised if an object is not the one that the manifest describes."""


def download(
    objects: ReadableObjects,
    place: str,
    folder: pathlib.Path,
    wanted: Callable[[str], bool] = lambda path: True,
) -> tuple[Manifest, list[str]] | None:
    """Replaces the content of `folder` by the files of the newest manifest.

    Damaged files are reported and left out, a checkpoint as a whole; the log of the run keeps the
    lines before the damage.

    Args:
      objects: objects of the run.
      place: URL of the run, for messages.
      folder: the folder to fill, which must exist.
      wanted: returns whether to write the file at a path in the run directory.

    Returns:
      The manifest, and the names of the damaged objects; None if the bucket has no manifest.

    Raises:
      UserError: if a file without which the run cannot resume, or every checkpoint, is damaged.
      UnavailableError: if the bucket does not answer.
    """
    for _ in range(_MOST_ATTEMPTS):
        state = manifest.newest(objects, place)
        if state is None:
            return None
        for entry in folder.iterdir():  # Files of an earlier attempt.
            remove(entry)
        try:
            return state, _write_all(objects, place, state, folder, wanted)
        except MissingError as error:
            newer = manifest.newest(objects, place)
            if newer == state:  # Otherwise, the owner has replaced the state that was being read.
                raise UserError(
                    f"{place} is damaged: {error} is in its manifest {state.number} and does not "
                    "exist.\nRestore the object, or delete the manifest to use the one before it."
                ) from error
    raise UserError(f"{place} changes faster than it can be read: give the same command again.")


def _write_all(
    objects: ReadableObjects,
    place: str,
    state: Manifest,
    folder: pathlib.Path,
    wanted: Callable[[str], bool],
) -> list[str]:
    """Writes the files of `state`; returns the names of damaged objects.

    Raises:
      MissingError: if an object does not exist.
    """
    damaged: list[str] = []
    units = {path: found[0] for path in state.files if (found := _CHECKPOINT.match(path))}
    wrong: set[str] = set()
    for path, parts in state.files.items():
        unit = units.get(path, path)
        if not wanted(path) or unit in wrong:
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(target, "wb") as file:
                _write(objects, parts, file)
        except _DamagedError as error:
            damaged.append(str(error))
            _report(place, str(error), path, unit)
            if path != _LOG:
                remove(folder / unit)
                wrong.add(unit)
    checkpoints = {unit for path, unit in units.items() if wanted(path)}
    if checkpoints and checkpoints <= wrong:
        raise UserError(
            f"every checkpoint of {place} is damaged.\n"
            "Restore the objects from a copy, or name a new --model_dir to start a new run."
        )
    return damaged


def _report(place: str, name: str, path: str, unit: str) -> None:
    """Reports a damaged object; raises a UserError if the run cannot resume without its file."""
    if path in _NEEDED:
        raise UserError(
            f"{place}/{name} is damaged, and the run cannot resume without {path}.\n"
            "Restore the object from a copy."
        )
    what = "its lines and all later ones are" if path == _LOG else f"{unit.rstrip('/')} is"
    log(f"{place}/{name} is damaged, and {what} left out")


def _write(objects: ReadableObjects, parts: Sequence[Part], file: Any) -> None:
    """Writes the parts to `file`, but nothing of a damaged part, and nothing after it."""
    for part in parts:
        begin, digest = file.tell(), _Digest(file)
        objects.download(part.name, digest)  # type: ignore[arg-type]
        if (digest.size, digest.sha.hexdigest()) != (part.size, part.sha256):
            file.truncate(begin)
            raise _DamagedError(part.name)


class _Digest:
    """Writes to a file, and computes the size and SHA-256 of what was written."""

    def __init__(self, file: Any) -> None:
        self._file, self.sha, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.sha.update(content)
        self.size += len(content)
        return self._file.write(content)
