"""Formats the points of a sweep as text tables, and computes means over the seeds.

A point is one combination of flag values, with which one run is trained (grid.py).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from trainer.run_dir.result import RESULTS
from trainer.sweep.grid import Point, shown
from trainer.sweep.seed_statistics import spread
from trainer.system.output import aligned


@dataclasses.dataclass(frozen=True)
class Row:
    """A point of a sweep, and how its run ended; --format=json prints the attributes.

    Attributes:
      folder: name of the run directory.
      flags: values of the swept flags.
      status: exit status of the last `train` of the point; None before the first `train` ends.
      reason: error message of the last `train`, if it failed.
      results: the results that RESULTS names; None if the run is not finished.
      evaluated_with: parameters with which top1 and loss were measured: "plain", or "ema" for their
        moving average. None if the run is not finished or does not have an average.
    """

    folder: str
    flags: Point
    status: int | None
    reason: str | None
    results: Mapping[str, float] | None
    evaluated_with: str | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """Points of a sweep that differ only in the seed; --format=json prints the attributes.

    Attributes:
      flags: values of the swept flags, without the seed.
      n: number of finished points.
      points: number of points, finished or not.
      mean: mean of each result over the finished points; None if no point is finished.
      spread: sample standard deviation of each result; None if fewer than two points are finished.
    """

    flags: Point
    n: int
    points: int
    mean: dict[str, float] | None
    spread: dict[str, float] | None


def cells(rows: Iterable[Row]) -> list[Cell]:
    """Returns the cells of a sweep, in the order of its points."""
    together: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        flags = tuple((name, value) for name, value in row.flags.items() if name != "seed")
        together.setdefault(flags, []).append(row)
    found = []
    for flags, of_cell in together.items():
        done = [row.results for row in of_cell if row.results]
        spreads = {name: spread(results[name] for results in done) for name in RESULTS}
        mean = {name: s.mean for name, s in spreads.items() if s}
        deviation = {n: s.deviation for n, s in spreads.items() if s and s.deviation is not None}
        found.append(Cell(dict(flags), len(done), len(of_cell), mean or None, deviation or None))
    return found


def best(found: Sequence[Cell]) -> Cell | None:
    """Returns the first cell with the highest mean top-1, or None if no point is finished."""
    means = [(cell.mean["top1"], cell) for cell in found if cell.mean]
    return max(means, key=lambda each: each[0])[1] if means else None


def text(rows: Sequence[Row]) -> str:
    """Returns a table of points, a table of cells if the seed is swept, the best cell, failures."""
    names = list(rows[0].flags)
    parts = [_table([*names, "status", *RESULTS], map(_cells_of_row, rows))]
    found = cells(rows)
    others = [name for name in names if name != "seed"]
    if len(others) < len(names):
        parts.append(_table([*others, "seeds", *RESULTS], map(_cells_of_cell, found)))
    if top := best(found):
        flags = ", ".join(f"{name}={shown(name, value)}" for name, value in top.flags.items())
        parts.append(f"best{': ' if flags else ''}{flags}: top1 {_number(top, 'top1')}")
    if averaged := sum(row.evaluated_with == "ema" for row in rows):
        finished = sum(row.results is not None for row in rows)
        which = "" if averaged == finished else f" at {averaged} of {finished} points"
        parts.append(f"top1 and loss are of the average of the parameters{which}")
    for row in failed(rows):
        reason = (row.reason or "").replace("\n", "\n  ")
        parts.append(f"{row.folder}: status {row.status}\n  {reason}")
    return "\n\n".join(parts)


def failed(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows that have an exit status other than 0 and do not have results."""
    return [row for row in rows if row.status and not row.results]


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(aligned([header, *rows]))


def _cells_of_row(row: Row) -> list[str]:
    values = [shown(name, value) for name, value in row.flags.items()]
    status = "0" if row.results else "" if row.status is None else str(row.status)
    results = row.results or {}
    return [*values, status, *(_plain(n, results[n]) if n in results else "" for n in RESULTS)]


def _cells_of_cell(cell: Cell) -> list[str]:
    values = [shown(name, value) for name, value in cell.flags.items()]
    return [*values, f"{cell.n} of {cell.points}", *(_number(cell, name) for name in RESULTS)]


def _number(cell: Cell, name: str) -> str:
    if cell.mean is None:
        return ""
    deviation = f" ± {_plain(name, cell.spread[name])}" if cell.spread else ""
    return _plain(name, cell.mean[name]) + deviation


def _plain(name: str, value: float) -> str:
    digits = {"top1": 4, "loss": 4, "seconds": 1}.get(name, 0)
    return f"{value:.{digits}f}"
