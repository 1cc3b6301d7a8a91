"""Reads run directories for reports, including unfinished, killed, diverged and damaged runs."""

import contextlib
import dataclasses
import os
import pathlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.config import flagfile
from trainer.data.python.dataset import DATASET
from trainer.errors import UserError
from trainer.run_dir import class_evaluation, directory, lineage, metrics, training_data
from trainer.run_dir import result as results
from trainer.run_dir.model_source import is_export
from trainer.sweep import outcomes
from trainer.system import typed_json
from trainer.system.regular_file import read_regular
from trainer.system.typed_json import DamagedError

DIVERGED = "diverged"
_FILES = ("flags.txt", metrics.FILE, "result.json")  # A run directory has one of these files.
_MOST_BYTES = 2**20  # Largest size of a file that should have only a few lines.
_AT_ZERO: Mapping[str, float] = {"epoch": 0, "update": 0}
_LONGEST_NOTE = 300  # Largest number of characters of a note that is taken from a file.


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The records of one run.

    Attributes:
      name: a path that identifies the run in the report.
      flags: values of the flags that change what is learned, by name; {} if flags.txt cannot be
        read. --evaluate_with is included if the run averages its parameters, and --dataset=python
        has a part of the examples' hash.
      points: logged points of all splits, in the order of updates. A forked run also has the last
        evaluations of the run that it began with.
      result: the content of result.json; None if it is missing or cannot be read.
      state: "finished", "running", "killed", DIVERGED, "failed" or "not finished". Only a point of
        a sweep may be "failed". A run is "not finished", for example, after a signal.
      notes: remarks for the reader, for example on damaged files.
      evaluation: the content of evaluation.json; None if it is missing or cannot be read.
      evaluated_with: "ema" if the results were measured with the average of the parameters, "plain"
        if they were measured with the parameters themselves. None if the run has no average.
      begin: epoch and update at which the run began; not 0 for a forked run.
    """

    name: str
    flags: dict[str, str]
    points: list[dict[str, Any]]
    result: dict[str, Any] | None
    state: str
    notes: list[str]
    evaluation: dict[str, Any] | None = None
    evaluated_with: str | None = None
    begin: Mapping[str, float] = dataclasses.field(default_factory=lambda: _AT_ZERO)

    def points_of(self, split: str) -> list[dict[str, Any]]:
        """Returns the points of `split`."""
        return [point for point in self.points if point["split"] == split]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Evaluations of the plain parameters, or of their average if `evaluated_with` is "ema"."""
        return self.points_of("eval_ema" if self.evaluated_with == "ema" else "eval")

    @property
    def is_range_test(self) -> bool:
        """True for a range test, which the report does not compare with other runs."""
        return self.flags.get("anneal") == "range_test"


def find(paths: Sequence[pathlib.Path]) -> tuple[list[pathlib.Path], dict[pathlib.Path, str]]:
    """Finds the run directories at and below `paths`.

    Returns:
      The run directories, without duplicates, and a dict. The runs of a sweep are in the order of
      the sweep's grid, and the other runs of a folder are in the order of their names. The dict
      maps each path that is left out to the reason: the path holds no run, or cannot be read.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    left_out: dict[pathlib.Path, str] = {}
    for path in paths:
        unread: dict[pathlib.Path, str] = {}
        runs = list(_runs(path, unread))
        found |= {run.resolve(): run for run in runs if run.resolve() not in found}
        if not runs and not unread:
            left_out[path] = "holds no run"
        left_out |= unread
    return list(found.values()), left_out


def _runs(path: pathlib.Path, unread: dict[pathlib.Path, str]) -> Iterator[pathlib.Path]:
    """Yields the runs at and below `path`; adds each folder that cannot be read to `unread`."""
    waiting = [path]  # Folders may be nested 2,000 deep, which is too deep for recursion.
    while waiting:
        path = waiting.pop()
        if any(os.path.lexists(path / name) for name in _FILES) or _failed(path):
            if not is_export(path):
                yield path
            continue
        try:
            inner = [each for each in path.iterdir() if each.is_dir() and not each.is_symlink()]
        except PermissionError as error:
            unread[path] = f"cannot be read: {error.strerror}"
            continue
        except OSError:  # The path is a file, or does not exist.
            continue
        order = {name: i for i, name in enumerate(_outcomes(path))}
        inner.sort(key=lambda each: (order.get(each.name, len(order)), _natural(each)))
        waiting += reversed(inner)


def _natural(path: pathlib.Path) -> list[tuple[float, str]]:
    """Returns a sort key that puts batch_32 before batch_128."""
    parts = re.findall(r"(\d+(?:\.\d+)?)|(\D)", path.name)
    return [(float(number or "inf"), other) for number, other in parts]


def unread_sweeps(folders: Sequence[pathlib.Path]) -> list[str]:
    """Returns a message for each sweep.json in `folders` that cannot be read."""
    messages = []
    for folder in dict.fromkeys(folders):
        try:
            outcomes.read(folder)
        except (DamagedError, OSError) as error:
            messages.append(f"{folder / outcomes.FILE} {typed_json.problem(error)}")
    return messages


def names(folders: Sequence[pathlib.Path]) -> list[str]:
    """Returns the paths of `folders` relative to their common parent, as valid UTF-8."""
    whole = [pathlib.Path(os.path.abspath(folder)) for folder in folders]
    shared = os.path.commonpath([folder.parent for folder in whole]) if whole else ""
    return [os.fsencode(each.relative_to(shared)).decode(errors="replace") for each in whole]


def read(folder: pathlib.Path, name: str) -> RunRecord:
    """Returns the record of the run in `folder`; its notes name each file that cannot be read."""
    if not (folder / "flags.txt").exists() and (reason := _failed(folder)):
        return RunRecord(name, {}, [], None, "failed", [reason])
    notes: list[str] = []
    flags, counts = _flags(folder / "flags.txt", notes)
    if flags.get("dataset") == DATASET and (digest := training_data.digest_in(folder)):
        flags["dataset"] = f"{DATASET} {digest[:8]}"
    points = _points(folder / metrics.FILE, notes)
    before, begin = _fork(folder, flags, notes)
    points = [*before, *points]
    result = _result(folder, points, notes)
    if result and (resumes := result.get("resumes")):
        notes.append(f"resumed {resumes} times" if resumes > 1 else "resumed")
    evaluation = _evaluation(folder, notes)
    state = _state(folder, result, notes)
    found = RunRecord(name, flags, points, result, state, notes, evaluation, counts, begin)
    return dataclasses.replace(found, notes=[*notes, *_note_on_other_parameters(found)])


def _flags(path: pathlib.Path, notes: list[str]) -> tuple[dict[str, str], str | None]:
    """Returns the values of RunRecord.flags and RunRecord.evaluated_with; extends `notes`."""
    text = _text(path, notes, needed=True)
    if text is None:
        return {}, None
    if wrong := flagfile.not_a_flag(text) if text.strip() else "it is empty":
        notes.append(f"flags.txt is damaged: {wrong}")
        return {}, None
    values = flagfile.values_in(text)
    flags = flagfile.learned(text)
    if "ema_decay" not in values:
        return flags, None
    counts = flagfile.evaluated_with(values)
    # The report groups runs with equal flags. This flag separates results of averaged parameters
    # from results of plain parameters.
    return flags | {"evaluate_with": counts}, counts


def _note_on_other_parameters(run: RunRecord) -> list[str]:
    """Returns a note on the plain and the averaged parameters; [] if the run has no average."""
    other = {"ema": "eval", "plain": "eval_ema"}.get(run.evaluated_with or "")
    found = [point["top1"] for point in run.points_of(other or "") if "top1" in point]
    if not found:
        return []
    ema, plain = "the average", "the plain parameters"
    which, others = (ema, plain) if run.evaluated_with == "ema" else (plain, ema)
    return [f"top-1 and loss are of {which}; {others} ended at {100 * found[-1]:.2f}%"]


def _points(path: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    try:
        points = metrics.read(path, lambda note: notes.append(note.replace(str(path), path.name)))
    except OSError as error:
        notes.append(f"metrics.jsonl {typed_json.problem(error)}")
        return []
    if not path.exists():
        notes.append("metrics.jsonl is missing")
    placed = [point for point in points if "epoch" in point]
    if others := len(points) - len(placed):
        notes.append(f"metrics.jsonl has {others:,} points without an epoch, which are left out")
    return sorted(placed, key=lambda point: point["update"])


def _fork(
    folder: pathlib.Path, flags: Mapping[str, str], notes: list[str]
) -> tuple[list[dict[str, Any]], Mapping[str, float]]:
    """Returns the last evaluations before the run's fork, if any, and where the run began."""
    try:
        found = lineage.read(folder)
    except UserError as error:
        notes.append(f"{lineage.FILE} is damaged: {str(error).partition(chr(10))[0]}")
        return [], _AT_ZERO
    if found is None or found.fork_from != flags.get("fork_from"):
        return [], _AT_ZERO
    notes += found.lines()
    if flags.get("fork_position") == "0":
        return [], _AT_ZERO
    return list(found.evaluations.values()), {"epoch": found.epoch, "update": found.update}


def _result(
    folder: pathlib.Path, points: list[dict[str, Any]], notes: list[str]
) -> dict[str, Any] | None:
    try:
        found = results.read(folder)
    except (DamagedError, OSError) as error:
        notes.append(f"{results.FILE} {typed_json.problem(error)}")
        return None
    if found is None:
        return None
    last, updates = points[-1]["update"] if points else 0, found["updates"]
    if last < updates and (points or not any("metrics.jsonl" in note for note in notes)):
        notes.append(f"metrics.jsonl ends at update {last} of {updates}")
    if last > updates:
        notes.append(f"metrics.jsonl goes on to update {last}: the result is of update {updates}")
    return found


def _evaluation(folder: pathlib.Path, notes: list[str]) -> dict[str, Any] | None:
    try:
        return class_evaluation.read(folder)
    except (DamagedError, OSError) as error:
        notes.append(f"{class_evaluation.FILE} {typed_json.problem(error)}")
        return None


def _text(path: pathlib.Path, notes: list[str], *, needed: bool = False) -> str | None:
    try:
        # A page must be UTF-8, so each byte that is not UTF-8 becomes an escape such as \xff.
        return read_regular(path, _MOST_BYTES).decode(errors="backslashreplace")
    except FileNotFoundError:
        if needed:
            notes.append(f"{path.name} is missing")
    except OSError as error:
        notes.append(f"{path.name} {typed_json.problem(error)}")
    return None


def _failed(folder: pathlib.Path) -> str | None:
    """Returns why the run in `folder` failed; None if it is not a failed point of a sweep."""
    outcome = _outcomes(folder.parent).get(folder.name, outcomes.Outcome())
    if not outcome.failed:
        return None
    return " ".join((outcome.reason or f"status {outcome.status}").split())[:_LONGEST_NOTE]


def _outcomes(path: pathlib.Path) -> dict[str, outcomes.Outcome]:
    """Returns the outcomes of the sweep in `path`; {} if sweep.json is missing or unusable."""
    try:
        return outcomes.read(path)
    except (DamagedError, OSError):
        return {}


def _state(folder: pathlib.Path, result: dict[str, Any] | None, notes: list[str]) -> str:
    if result:
        return "finished"
    if why := _text(folder / directory.DIVERGED, notes):
        notes.append(why.partition("\n")[0][:_LONGEST_NOTE])
        return DIVERGED
    if reason := _failed(folder):
        notes.append(reason)
        return "failed"
    # A process empties its lock file when it ends, unless it is killed.
    owner = directory.OWNER.fullmatch((_text(folder / "lock", notes) or "").strip())
    if not owner:
        return "not finished"
    with contextlib.suppress(OSError, UserError):  # The file system may not support locks.
        if directory.is_held(folder):
            return "running"
        if owner[1] == socket.gethostname():
            return "killed"
    notes.append(f"{owner[0]} is training this run, or was killed")
    return "not finished"
