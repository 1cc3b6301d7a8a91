"""sweep.json: the points of a sweep, their folders, and how each has ended.

    {"points": [{"folder": "momentum=0.9,seed=0", "flags": {"momentum": "0.9", "seed": "0"},
                 "status": 0, "reason": null}, ...]}

`status` is the exit status of the point's last `train`, null before its end, and `reason` what it
said when that was not 0. Whether a point is finished, its result.json says. Several processes may
carry out parts of one sweep, so that each changes the file under a lock.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.sweep.grid import Point, folder
from trainer.system import file_lock, typed_json
from trainer.system.atomic_file import remove, write_json
from trainer.system.regular_file import opener
from trainer.system.typed_json import (
    DamagedError,
    fields,
    file_name,
    integer,
    list_of,
    optional,
    table_of,
    text,
)

FILE, _LOCK = "sweep.json", "sweep.lock"
_ENTRY = fields(
    {
        "folder": file_name,
        "flags": table_of(file_name),
        "status": optional(integer(0, 255)),
        "reason": optional(text),
    }
)
_FIELDS = fields({"points": list_of(_ENTRY)})


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the last attempt at a point ended."""

    status: int | None = None
    reason: str | None = None

    @property
    def failed(self) -> bool:
        """Whether another attempt is likely to end the same way.

        Not where there was no room (74), it was stopped (75), a worker was lost (76), or a signal
        ended it (above 128): there it goes on from its last checkpoint.
        """
        return self.status not in (None, 0, 74, 75, 76) and self.status < 128


def begin(
    path: pathlib.Path, points: Sequence[Point], report: Callable[[str], None] = lambda _: None
) -> None:
    """Makes `path` the folder of a sweep that has `points`, beside those that it has already.

    A sweep.json that is damaged is put aside, and a new one made; `report` is told.

    Raises:
      UserError: where it holds something else, or cannot be written.
    """
    try:
        if path.exists() and not os.path.lexists(path / FILE) and not _empty(path):
            raise UserError(
                f"--model_dir={path} holds something that is no sweep: name a new folder or a "
                "sweep's."
            )
        path.mkdir(parents=True, exist_ok=True)
        with _changed(path, report) as entries:
            for point in points:
                entries.setdefault(folder(point), _entry(point))
    except OSError as error:
        raise UserError(
            f"--model_dir={path} cannot be used: {error.strerror} ({error.filename}).\n"
            "Name a folder that can be written."
        ) from error


def record_outcome(
    path: pathlib.Path, point: Point, end: Outcome, report: Callable[[str], None] = lambda _: None
) -> None:
    """Keeps how `point` of the sweep in `path` has ended; `report` as in `begin`.

    Raises:
      OSError: where it cannot be written.
    """
    with _changed(path, report) as entries:
        entries[folder(point)] = _entry(point) | dataclasses.asdict(end)


def read(path: pathlib.Path) -> dict[str, Outcome]:
    """How the points of the sweep in `path` have ended, by folder; {} if it is not a sweep.

    Raises:
      DamagedError: sweep.json is damaged.
      OSError: it cannot be read.
    """
    try:
        now = (path / FILE).stat()
    except OSError:  # Or it is not there: reading says which.
        return _ends(path)
    found = _known(path, now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size)
    if isinstance(found, Exception):
        raise found
    return found


@functools.lru_cache(maxsize=8)
def _known(path: pathlib.Path, *_: int) -> dict[str, Outcome] | DamagedError | OSError:
    """What `_ends` returns or raises, read once as long as the file is the same.

    A report asks for every run: of 3,000 failed points, it parsed 10 GB of text.
    """
    try:
        return _ends(path)
    except (DamagedError, OSError) as error:
        return error


def _ends(path: pathlib.Path) -> dict[str, Outcome]:
    return {name: Outcome(entry["status"], entry["reason"]) for name, entry in _read(path).items()}


def _entry(point: Point) -> dict[str, Any]:
    """What sweep.json holds of a point before its end."""
    return {"folder": folder(point), "flags": point, "status": None, "reason": None}


@contextlib.contextmanager
def _changed(
    path: pathlib.Path, report: Callable[[str], None]
) -> Iterator[dict[str, dict[str, Any]]]:
    """The entries by folder, written again when the context ends; nobody else does meanwhile."""
    with open(path / _LOCK, "a", encoding="utf-8", opener=opener) as lock:
        file_lock.take(lock, wait=True)
        try:
            entries = _read(path)
        except (DamagedError, OSError) as error:
            aside = path / f"damaged-{FILE}"
            remove(aside)
            (path / FILE).rename(aside)
            report(
                f"{path / FILE} {typed_json.problem(error)}; it is now {aside.name}, and a new "
                "one is made: what had failed is tried once more"
            )
            entries = {}
        yield entries
        write_json(path / FILE, {"points": [*entries.values()]}, indent=1)


def _read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    try:
        found = typed_json.read(path / FILE, _FIELDS)
    except FileNotFoundError:
        return {}
    return {point["folder"]: point for point in found["points"]}


def _empty(path: pathlib.Path) -> bool:
    """But for what another process that begins the same sweep may have written."""
    early = {_LOCK, f"{FILE}.tmp"}
    return path.is_dir() and {entry.name for entry in path.iterdir()} <= early
