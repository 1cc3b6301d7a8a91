"""sweep.json: the points of a sweep, their folders, and how each has ended.

    {"points": [{"folder": "momentum=0.9,seed=0", "flags": {"momentum": "0.9", "seed": "0"},
                 "status": 0, "reason": null}, ...]}

`status` is the exit status of the point's last `train`, null before its end, and `reason` what it
said when that was not 0. Whether a point is finished, its result.json says. Several processes may
carry out parts of one sweep, so that each changes the file under a lock.
"""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.grid import Point, folder
from trainer.regular_file import opener, read_regular
from trainer.run_dir.directory import write_whole

_FILE, _LOCK = "sweep.json", "sweep.lock"


@dataclasses.dataclass(frozen=True)
class End:
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


def begin(path: pathlib.Path, points: Sequence[Point]) -> None:
    """Makes `path` the folder of a sweep that has `points`, beside those that it has already.

    Raises:
      UserError: where it holds something else, or cannot be written.
    """
    try:
        if path.exists() and not (path / _FILE).exists() and not _empty(path):
            raise UserError(
                f"--model_dir={path} holds something that is no sweep: name a new folder or a "
                "sweep's."
            )
        path.mkdir(parents=True, exist_ok=True)
        with _changed(path) as entries:
            for point in points:
                unknown = {"folder": folder(point), "flags": point, "status": None, "reason": None}
                entries.setdefault(folder(point), unknown)
    except OSError as error:
        raise UserError(
            f"--model_dir={path} cannot be used: {error.strerror} ({error.filename}).\n"
            "Name a folder that can be written."
        ) from error


def note(path: pathlib.Path, point: Point, end: End) -> None:
    """Keeps how `point` of the sweep in `path` has ended.

    Raises:
      OSError: where it cannot be written.
    """
    with _changed(path) as entries:
        entries[folder(point)] |= dataclasses.asdict(end)


def read(path: pathlib.Path) -> dict[str, End]:
    """How the points of the sweep in `path` have ended, by folder.

    Raises:
      UserError: where sweep.json is damaged.
    """
    return {name: End(entry["status"], entry["reason"]) for name, entry in _read(path).items()}


@contextlib.contextmanager
def _changed(path: pathlib.Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The entries by folder, written again when the context ends; nobody else does meanwhile."""
    with open(path / _LOCK, "a", encoding="utf-8", opener=opener) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        entries = _read(path)
        yield entries
        write_whole(path / _FILE, json.dumps({"points": [*entries.values()]}, indent=1) + "\n")


def _read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    file = path / _FILE
    if not file.exists():
        return {}
    try:
        points = json.loads(read_regular(file))["points"]
        return {p["folder"]: {**p, "status": p["status"], "reason": p["reason"]} for p in points}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is damaged.\nDelete it: the same command makes it again, and tries once more "
            "what had failed."
        ) from error


def _empty(path: pathlib.Path) -> bool:
    """But for what another process that begins the same sweep may have written."""
    early = {_LOCK, f"{_FILE}.tmp"}
    return path.is_dir() and {entry.name for entry in path.iterdir()} <= early
