"""Tables of a report: results by condition, flags by condition, and every run.

A condition is a group of runs that differ only in the seed.
"""

import dataclasses
from collections.abc import Sequence

from trainer.reports.conditions import UNSET, Condition
from trainer.reports.run_record import RunRecord
from trainer.sweep.seed_statistics import Spread

_FEW = 4  # Largest number of flags that fit beside the results on a printed page.


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose cells are text.

    Attributes:
      name: description for screen readers.
      head: names of the columns.
      rows: the cells of each row; the first cell names the row.
      texts: indices of the columns that hold words, not numbers.
    """

    name: str
    head: list[str]
    rows: list[list[str]]
    texts: set[int]


def reference(conditions: Sequence[Condition]) -> Condition | None:
    """Returns the reference for comparisons: the first condition with a finished run."""
    return next((each for each in conditions if each.ended), None)


def by_condition(conditions: Sequence[Condition]) -> Table:
    """Returns the results by condition; the table includes the differing flags if these are few."""
    first = reference(conditions)
    head = ["condition", "runs ended", "top-1, %", "loss", "updates", "updates saved", "seconds"]
    head += ["time saved"]
    rows = []
    for each in conditions:
        seconds = each.spread_of("seconds")
        row = [each.label, f"{len(each.ended)} of {len(each.runs)}"]
        row += [_spread(each.spread_of("top1"), 2, 100), _spread(each.spread_of("loss"), 3)]
        row += [_spread(each.spread_of("updates"), 0), _saved(each, first, "updates")]
        digits = _digits(seconds.mean if seconds else None)
        row += [_spread(seconds, digits), _saved(each, first, "seconds")]
        rows.append(row)
    texts = {0}
    if not flags_apart(conditions):
        differ = flags(conditions)
        rows = [row + more[1:] for row, more in zip(rows, differ.rows, strict=True)]
        texts |= set(range(len(head), len(head) + _FEW))
        head += differ.head[1:]
    return Table("results by condition", head, rows, texts)


def flags(conditions: Sequence[Condition]) -> Table:
    """Returns a table with a row per condition, and a column per flag that differs between rows.

    A flag is left out if the label of each condition contains the flag's value.
    """
    names = [
        name
        for name in dict.fromkeys(name for each in conditions for name in each.values)
        if not all(
            f"{name}={each.values.get(name)}" in each.label.split(",") for each in conditions
        )
    ]
    rows = [[each.label, *(each.values.get(name, "?") for name in names)] for each in conditions]
    return Table("flags by condition", ["condition", *names], rows, set(range(len(names) + 1)))


def flags_apart(conditions: Sequence[Condition]) -> bool:
    """Returns whether so many flags differ that they need a separate table."""
    return len(flags(conditions).head) - 1 > _FEW


def by_run(runs: Sequence[RunRecord]) -> Table:
    """Returns a table with a row per run: its state, its last values, and notes on its files."""
    head = ["run", "state", "seed", "epochs", "updates", "top-1, %", "best top-1, %", "loss"]
    head += ["seconds", "examples per second", "notes"]
    return Table("every run", head, [_run(run) for run in runs], {0, 1, len(head) - 1})


def summary(conditions: Sequence[Condition]) -> list[str]:
    """Returns the main results as sentences: the highest top-1, and the fewest updates."""
    first = reference(conditions)
    if first is None:
        return ["No run has finished yet: tables and curves show the progress of each run."]
    scored = [(top1, each) for each in conditions if (top1 := each.spread_of("top1"))]
    top1, best = max(scored, key=lambda pair: pair[0].mean)
    if len(scored) == 1:
        return [f"Top-1 {top1.percent}."]
    lines = [f"Highest mean top-1: {top1.percent}, by {best.label}."]
    fewest = min((each for _, each in scored), key=lambda each: _mean(each, "updates"))
    low, high = _mean(fewest, "updates"), _mean(first, "updates")
    if 0 < low < high:
        a, b = fewest.spread_of("top1"), first.spread_of("top1")
        lines.append(
            f"Fewest updates: {low:,.0f}, by {fewest.label}, {high / low:.3g} times fewer than "
            f"{first.label} ({high:,.0f}). Top-1: {_spread(a, 2, 100)}% against "
            f"{_spread(b, 2, 100)}%."
        )
    return lines


def _run(run: RunRecord) -> list[str]:
    result = run.result or {}
    evaluations = [point for point in run.evaluations if "top1" in point]
    last = evaluations[-1] if evaluations else {}
    newest = run.points[-1] if run.points else {}
    best = max((point["top1"] for point in evaluations), default=None)
    return [
        run.name,
        run.state,
        run.flags.get("seed", "?"),
        _value(result.get("epochs", newest.get("epoch")), 2),
        _value(result.get("updates", newest.get("update")), 0),
        _value(result.get("top1", last.get("top1")), 2, 100),
        _value(best, 2, 100),
        _value(result.get("loss", last.get("loss")), 3),
        _value(result.get("seconds"), _digits(result.get("seconds"))),
        _value(result.get("examples_per_second"), 0),
        "; ".join(run.notes),
    ]


def _digits(seconds: float | None) -> int:
    """Returns the number of decimals for a time in seconds: 2 below 10, 1 below 100, else 0."""
    return 2 if not seconds or seconds < 10 else 1 if seconds < 100 else 0


def _value(value: float | None, digits: int, scale: float = 1) -> str:
    return UNSET if value is None else f"{scale * value:,.{digits}f}"


def _spread(found: Spread | None, digits: int, scale: float = 1) -> str:
    if found is None:
        return UNSET
    mean = f"{scale * found.mean:,.{digits}f}"
    # A deviation of 0 is left out if no decimals are shown. For example, all seeds usually have the
    # same number of updates.
    if found.deviation is None or not (found.deviation or digits):
        return mean
    return f"{mean} ± {scale * found.deviation:,.{digits}f}"


def _mean(condition: Condition, name: str) -> float:
    found = condition.spread_of(name)
    assert found is not None  # Callers pass conditions with a finished run.
    return found.mean


def _saved(condition: Condition, first: Condition | None, name: str) -> str:
    """Returns the percentage of updates or seconds that a condition saves compared with `first`."""
    if condition is first:
        return "reference"
    if first is None or not condition.ended or not (whole := _mean(first, name)):
        return UNSET
    percent = 100 * (1 - _mean(condition, name) / whole)
    return f"{percent:z.1f}%".replace("-", "−")  # The option z turns -0.0 into 0.0.
