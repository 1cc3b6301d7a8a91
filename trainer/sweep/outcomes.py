"""Reads and writes sweep.json: the points of a sweep, their folders, and how each run ended.

A point is a combination of flag values with which one run is trained:

    {"precision": "bfloat16",
     "points": [{"folder": "momentum=0.9,seed=0", "flags": {"momentum": "0.9", "seed": "0"},
                 "status": 0, "reason": null}, ...]}

`precision` replaces --precision=auto in new points, on all machines of the sweep. It is null until
a process of the sweep chooses it. If the field is missing, an earlier version of this program wrote
the file, and the precision is float32. `status` is the exit status of the point's last `train`, or
null before the first `train` ends. `reason` is the error message of the last `train`, or null if
the status is 0. Several processes may each run a part of one sweep, a shard, so each process
changes the file under a lock.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.config.model_flags import BFLOAT16, FLOAT32
from trainer.errors import UserError
from trainer.run_dir import directory
from trainer.sweep.grid import Point, folder
from trainer.system import file_lock, typed_json
from trainer.system.atomic_file import remove, write_atomic
from trainer.system.output import log
from trainer.system.regular_file import opener
from trainer.system.typed_json import DamagedError

FILE, _LOCK = directory.SWEEP, "sweep.lock"
ASIDE = f"damaged-{FILE}"  # Name of a damaged sweep.json, or of its copy in a bucket.
# 10,000 failed points take 240 MB if their reasons are long and JSON escapes each letter of them.
_MOST_BYTES = 2**28
_ENTRY = {
    "folder": typed_json.file_name,
    "flags": typed_json.table_of(typed_json.file_name),
    "status": typed_json.optional(typed_json.integer(0, 255)),
    "reason": typed_json.optional(typed_json.text),
}
_FIELDS = typed_json.fields(
    {"points": typed_json.list_of(typed_json.fields(_ENTRY))},
    {"precision": typed_json.optional(typed_json.one_of(FLOAT32, BFLOAT16))},
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Exit status and message of a point's last `train`; None before the first `train` ends."""

    status: int | None = None
    reason: str | None = None

    @property
    def failed(self) -> bool:
        """True if another `train` of the point would probably end in the same way.

        After a full disk (status 74), a stop (75), a lost worker (76) or the end by a signal (above
        128), another `train` can resume from the last checkpoint.
        """
        return self.status not in (None, 0, 74, 75, 76) and self.status < 128


@dataclasses.dataclass
class Content:
    """Content of sweep.json: the entries of points, by folder, and the sweep's precision."""

    entries: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    precision: str | None = None

    def add(self, points: Sequence[Point], precision: str | None) -> None:
        """Adds points, and the precision if none is chosen; what exists stays as it is."""
        self.precision = self.precision or precision
        for point in points:
            self.entries.setdefault(folder(point), _entry(point))

    def record_late(self, point: Point, end: Outcome) -> None:
        """Sets the outcome of a point, unless another machine has recorded a more final one.

        A finished run stays finished. A failure is not replaced by an outcome after which another
        `train` could resume, such as a stop.
        """
        found = self.outcomes().get(folder(point), Outcome())
        resumable = end.status != 0 and not end.failed
        if not (found.status == 0 and end.status != 0) and not (found.failed and resumable):
            self.record(point, end)

    def record(self, point: Point, end: Outcome) -> None:
        """Sets the outcome of a point."""
        self.entries[folder(point)] = _entry(point) | dataclasses.asdict(end)

    def outcomes(self) -> dict[str, Outcome]:
        """Returns the outcome of each point, by folder."""
        return {name: Outcome(e["status"], e["reason"]) for name, e in self.entries.items()}

    def encoded(self) -> bytes:
        """Returns the content as JSON."""
        found = {"precision": self.precision, "points": [*self.entries.values()]}
        return f"{json.dumps(found, indent=1)}\n".encode()


def decoded(text: bytes) -> Content:
    """Returns the content of a sweep.json.

    Raises:
      WrongError: if the text is damaged.
    """
    return _content(typed_json.parsed(text, _FIELDS))


def begin(path: pathlib.Path, points: Sequence[Point], precision: str | None = None) -> str | None:
    """Makes `path` the folder of a sweep, or adds `points` to the sweep in this folder.

    A damaged sweep.json is reported, renamed, and replaced by a new one.

    Args:
      path: folder of the sweep.
      points: points to add, unless sweep.json has them already.
      precision: precision for the sweep, used only if the sweep does not have a precision yet. If
        it is None, this function does not choose a precision.

    Returns:
      The sweep's precision, or None if it is not chosen yet.

    Raises:
      UserError: if `path` is not the folder of a sweep, or cannot be written.
    """
    try:
        # Files of a sweep are looked for last, because another process may make one meanwhile. Only
        # the damaged file may exist, because the disk was full when a new one was written.
        known = (path / FILE, path / ASIDE)
        if path.exists() and not _empty(path) and not any(map(os.path.lexists, known)):
            raise UserError(
                f"--model_dir={path} exists and is not the folder of a sweep: name a new folder, "
                "or that of a sweep."
            )
        path.mkdir(parents=True, exist_ok=True)
        with _changed(path) as content:
            content.add(points, precision)
            return content.precision
    except OSError as error:
        raise UserError(
            f"--model_dir={path} cannot be used: {error.strerror} ({error.filename}).\n"
            "Name a folder that you can write."
        ) from error


def record_outcome(path: pathlib.Path, point: Point, end: Outcome) -> None:
    """Records how `point` of the sweep in `path` ended; handles a damaged file as `begin` does.

    Raises:
      OSError: if sweep.json cannot be written.
    """
    with _changed(path) as content:
        content.record(point, end)


def replace(path: pathlib.Path, new: Content) -> None:
    """Replaces the content of sweep.json in `path`.

    Raises:
      OSError: if sweep.json cannot be written.
    """
    with _changed(path) as content:
        content.entries, content.precision = new.entries, new.precision


def read(path: pathlib.Path) -> dict[str, Outcome]:
    """Returns the outcome of each point of a sweep, by folder; {} if `path` has no sweep.json.

    Raises:
      DamagedError: if sweep.json is damaged.
      OSError: if sweep.json cannot be read.
    """
    try:
        now = (path / FILE).stat()
    except OSError:
        return _ends(path)  # Raises the error, or returns {} if the file is missing.
    found = _known(path, now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size)
    if isinstance(found, Exception):
        raise found
    return found


@functools.lru_cache(maxsize=8)
def _known(path: pathlib.Path, *_: int) -> dict[str, Outcome] | DamagedError | OSError:
    """Returns the result or the error of `_ends`; reads the file again only if it has changed.

    The further arguments are the file's device, inode, time and size. A report calls this function
    for every run. Without the cache, a report of 3,000 failed points parsed 10 GB.
    """
    try:
        return _ends(path)
    except (DamagedError, OSError) as error:
        return error


def _ends(path: pathlib.Path) -> dict[str, Outcome]:
    return _read(path).outcomes()


def _entry(point: Point) -> dict[str, Any]:
    """Returns the entry of a point in sweep.json before its run ends."""
    return {"folder": folder(point), "flags": point, "status": None, "reason": None}


@contextlib.contextmanager
def _changed(path: pathlib.Path) -> Iterator[Content]:
    """Yields the content of sweep.json under a lock; writes it when the `with` block ends."""
    with open(path / _LOCK, "a", encoding="utf-8", opener=opener) as lock:
        file_lock.take(lock, wait=True)
        try:
            content = _read(path)
        except (DamagedError, OSError) as error:
            aside = path / ASIDE
            remove(aside)
            (path / FILE).rename(aside)
            log(
                f"{path / FILE} {typed_json.problem(error)}; renamed it to {aside.name}; "
                "a new one is made, and failed points are run once more"
            )
            content = Content()
        yield content
        write_atomic(path / FILE, content.encoded())


def _read(path: pathlib.Path) -> Content:
    found = typed_json.read_existing(path / FILE, _FIELDS, _MOST_BYTES)
    return Content() if found is None else _content(found)


def _content(found: dict[str, Any]) -> Content:
    entries = {point["folder"]: point for point in found["points"]}
    return Content(entries, found.get("precision", FLOAT32))


def _empty(path: pathlib.Path) -> bool:
    """Returns whether `path` is a folder that is empty, except for files made before sweep.json."""
    early = {_LOCK, f"{FILE}.tmp"}
    return path.is_dir() and {entry.name for entry in path.iterdir()} <= early
