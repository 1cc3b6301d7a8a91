"""Manifests of a run in a bucket: each lists the objects that hold the run's files.

    lease.json                                             who owns the run (buckets/lease.py)
    generation-000003/manifest-000012.json                 the twelfth manifest of the third owner
    generation-000003/metrics.jsonl.000001                 a part of a file
    generation-000003/checkpoints/000000120/checkpoint.index.000004

A state of the run exists in the bucket once its manifest does: the objects of its files are created
before it. No object is rewritten. Each owner writes and deletes objects of its own generation, and
deletes those of lower generations. So an owner that lost its lease without noticing it cannot harm
the files of the next owner. Readers take the newest manifest of the highest generation.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping

from trainer.buckets import lease
from trainer.buckets.objects import PROBE, MissingError, Objects, ReadableObjects
from trainer.errors import UserError
from trainer.system import typed_json
from trainer.system.typed_json import fields, file_name, integer, list_of, table_of, text

_NAME = re.compile(r"generation-([0-9]{6,12})/manifest-([0-9]{6,12})\.json")
_GENERATION = re.compile(r"generation-([0-9]{6,12})/")
# Names of objects that a process creates before the first ones of a generation.
_EARLY = (PROBE, lease.NAME)
_OBJECT = re.compile(r"generation-[0-9]{6,12}/.+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Part:
    """Object that holds a part of a file.

    Attributes:
      name: name of the object.
      size: size of the part, in bytes.
      sha256: SHA-256 of the part, as hexadecimal digits.
    """

    name: str
    size: int
    sha256: str


# Parts of each file in their order, by the path of the file in the run directory.
Files = Mapping[str, tuple[Part, ...]]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """State of a run in a bucket.

    Attributes:
      generation: number of the generation that has the manifest.
      number: number of the manifest in its generation.
      files: parts of each file of the run.
    """

    generation: int
    number: int
    files: Files

    def encoded(self) -> bytes:
        """Returns the manifest's content, as JSON."""
        files = {
            path: [dataclasses.asdict(part) for part in parts] for path, parts in self.files.items()
        }
        return f"{json.dumps({'version': 1, 'files': files}, indent=1)}\n".encode()


def folder(generation: int) -> str:
    """Returns the name that the objects of a generation begin with."""
    return f"generation-{generation:06d}/"


def name(generation: int, number: int) -> str:
    """Returns the name of a manifest."""
    return f"{folder(generation)}manifest-{number:06d}.json"


def unused_generation(objects: Objects, place: str) -> int:
    """Returns the lowest generation above all that have objects; 1 if no generation has any.

    Args:
      objects: objects of the run.
      place: URL of the run, for messages.

    Raises:
      UserError: if the folder has objects, and none of a run.
      UnavailableError: if the bucket does not answer.
    """
    names = objects.names("")
    found = [int(match[1]) for each in names if (match := _GENERATION.match(each))]
    if not found and any(not each.startswith(_EARLY) for each in names):
        raise UserError(
            f"--model_dir={place} exists and is not a run directory: name a new folder, or that of "
            "a run."
        )
    return 1 + max(found, default=0)


def newest(objects: ReadableObjects, place: str) -> Manifest | None:
    """Reads the newest manifest of the highest generation; returns None if there is none.

    Args:
      objects: objects of the run.
      place: URL of the run, for messages.

    Raises:
      UserError: if the manifest is damaged.
      UnavailableError: if the bucket does not answer.
    """
    for _ in range(10):  # The owner may delete a manifest while it is being read.
        found = [m for each in objects.names("generation-") if (m := _NAME.fullmatch(each))]
        if not found:
            return None
        last = max(found, key=lambda match: (int(match[1]), int(match[2])))
        try:
            content, _ = objects.read(last[0])
        except MissingError:
            continue
        try:
            files = typed_json.parsed(content, _CONTENT)["files"]
        except typed_json.WrongError as error:
            raise UserError(
                f"{place}/{last[0]} is damaged: {error}.\n"
                "Delete it in the bucket to use the manifest before it."
            ) from error
        return Manifest(int(last[1]), int(last[2]), files)
    raise UserError(f"{place} changes faster than it can be read: give the same command again.")


def _part(value: object) -> Part:
    checked = fields({"name": text, "size": integer(), "sha256": text})(value)
    if not _OBJECT.fullmatch(checked["name"]):
        raise typed_json.WrongError("is not the name of a generation's object", "name")
    if not _SHA256.fullmatch(checked["sha256"]):
        raise typed_json.WrongError("is not a SHA-256", "sha256")
    return Part(checked["name"], checked["size"], checked["sha256"])


def _files(value: object) -> Files:
    files = table_of(list_of(_part))(value)
    for path in files:
        file_name(path)
        pure = pathlib.PurePosixPath(path)
        # The bucket must not make this program write outside of the run directory.
        outside = not pure.parts or pure.is_absolute() or ".." in pure.parts
        if outside or "\0" in path or len(path) > 1000:
            raise typed_json.WrongError("is not a path in a run directory", path[:100])
    return {path: tuple(found) for path, found in files.items()}


_CONTENT = fields({"version": typed_json.integer(1, 1), "files": _files})
