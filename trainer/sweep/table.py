"""The points of a sweep as a table, and what several seeds say together of the rest."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence

from trainer.run_dir.result import RESULTS
from trainer.sweep.grid import Point, shown


@dataclasses.dataclass(frozen=True)
class Row:
    """A point: its flags, and how its run ended.

    Attributes:
      folder: name of the run directory.
      flags: the swept flags' values.
      status: of the last attempt; None before its end.
      reason: what it said, where it failed.
      results: those of RESULTS, or None where the run is not finished.
    """

    folder: str
    flags: Point
    status: int | None
    reason: str | None
    results: Mapping[str, float] | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """The points that have the same flags but for the seed.

    Attributes:
      flags: those flags' values.
      n: how many are finished, of `points`.
      mean: of each of RESULTS; None where none is finished.
      spread: the sample standard deviation, with n − 1, of each; None of a single one.
    """

    flags: Point
    n: int
    points: int
    mean: dict[str, float] | None
    spread: dict[str, float] | None


def cells(rows: Iterable[Row]) -> list[Cell]:
    """The cells of a sweep, in its order."""
    together: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        flags = tuple((name, value) for name, value in row.flags.items() if name != "seed")
        together.setdefault(flags, []).append(row)
    found = []
    for flags, of_cell in together.items():
        done = [row.results for row in of_cell if row.results]
        values = {name: [results[name] for results in done] for name in RESULTS}
        mean = {name: statistics.fmean(v) for name, v in values.items()} if done else None
        spread = {name: statistics.stdev(v) for name, v in values.items()} if done[1:] else None
        found.append(Cell(dict(flags), len(done), len(of_cell), mean, spread))
    return found


def best(found: Sequence[Cell]) -> Cell | None:
    """The cell of the highest mean top-1, the first of several; None where nothing is finished."""
    means = [(cell.mean["top1"], cell) for cell in found if cell.mean]
    return max(means, key=lambda each: each[0])[1] if means else None


def text(rows: Sequence[Row]) -> str:
    """The table of points; with several seeds, that of the cells; the best; why points failed."""
    names = list(rows[0].flags)
    parts = [_aligned([[*names, "status", *RESULTS], *map(_cells_of_row, rows)])]
    found = cells(rows)
    others = [name for name in names if name != "seed"]
    if len(others) < len(names):
        header = [*others, "seeds", *RESULTS]
        parts.append(_aligned([header, *map(_cells_of_cell, found)]))
    if top := best(found):
        flags = ", ".join(f"{name}={shown(name, value)}" for name, value in top.flags.items())
        parts.append(f"best{': ' if flags else ''}{flags}: top1 {_number(top, 'top1')}")
    parts += [f"{row.folder}: status {row.status}\n  " + _indented(row) for row in failed(rows)]
    return "\n\n".join(parts)


def failed(rows: Iterable[Row]) -> list[Row]:
    """Those whose last attempt ended, and not well."""
    return [row for row in rows if row.status and not row.results]


def _indented(row: Row) -> str:
    return (row.reason or "").replace("\n", "\n  ")


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
    spread = f" ± {_plain(name, cell.spread[name])}" if cell.spread else ""
    return _plain(name, cell.mean[name]) + spread


def _plain(name: str, value: float) -> str:
    digits = {"top1": 4, "loss": 4, "seconds": 1}.get(name, 0)
    return f"{value:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(lines)
