"""The numbers of a report as tables: by condition, and of every run. A cell is text."""

import dataclasses
from collections.abc import Sequence

from trainer.reports.conditions import UNSET, Condition
from trainer.reports.run_record import RunRecord
from trainer.sweep.seed_statistics import Spread

_FEW = 4  # flags, which fit on paper beside the results


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it, and those of `texts` are not numbers.

    `name` is for who does not see what is above it.
    """

    name: str
    head: list[str]
    rows: list[list[str]]
    texts: set[int]


def reference(conditions: Sequence[Condition]) -> Condition | None:
    """What the others are compared with: the first condition with a run that has ended."""
    return next((each for each in conditions if each.ended), None)


def by_condition(conditions: Sequence[Condition]) -> Table:
    """A row a condition: means over its ended runs, what it saves; and its flags, if few differ."""
    first = reference(conditions)
    name = "results by condition"
    head = ["condition", "runs ended", "top-1, %", "loss", "updates", "updates saved", "seconds"]
    head += ["time saved"]
    rows = []
    for each in conditions:
        seconds = each.spread_of("seconds")
        row = [each.label, f"{len(each.ended)} of {len(each.runs)}"]
        row += [
            _spread(each.spread_of("top1"), 2, 100),
            _spread(each.spread_of("loss"), 3),
            _spread(each.spread_of("updates"), 0),
            _saved(each, first, "updates"),
            _spread(seconds, _digits(seconds.mean if seconds else None)),
            _saved(each, first, "seconds"),
        ]
        rows.append(row)
    differ = flags(conditions)
    if flags_apart(conditions):
        return Table(name, head, rows, {0})
    rows = [row + more[1:] for row, more in zip(rows, differ.rows, strict=True)]
    return Table(name, head + differ.head[1:], rows, {0, *range(len(head), len(head) + _FEW)})


def flags(conditions: Sequence[Condition]) -> Table:
    """A row a condition: the flags in which they differ, but for those that all labels tell."""

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
    """Whether so many flags differ that they have a table of their own."""
    return len(flags(conditions).head) - 1 > _FEW


def by_run(runs: Sequence[RunRecord]) -> Table:
    """A row a run: how it ended, its last values, and what is wrong with it."""
    head = ["run", "state", "seed", "epochs", "updates", "top-1, %", "best top-1, %", "loss"]
    head += ["seconds", "examples per second", "notes"]
    rows = [_run(run) for run in runs]
    return Table("every run", head, rows, {0, 1, len(head) - 1})


def summary(conditions: Sequence[Condition]) -> list[str]:
    """What is seen at a glance."""
    first = reference(conditions)
    if first is None:
        return ["No run has ended yet: the tables and curves show how far each has come."]
    scored = [(top1, each) for each in conditions if (top1 := each.spread_of("top1"))]
    top1, best = max(scored, key=lambda pair: pair[0].mean)
    if len(scored) == 1:
        return [f"Top-1 {top1.percent}."]
    lines = [f"Highest mean top-1: {top1.percent}, of {best.label}."]
    fewest = min((each for _, each in scored), key=lambda each: _mean(each, "updates"))
    ours, theirs = _mean(fewest, "updates"), _mean(first, "updates")
    if 0 < ours < theirs:
        a, b = fewest.spread_of("top1"), first.spread_of("top1")
        lines.append(
            f"Fewest updates: {ours:,.0f}, of {fewest.label}, {theirs / ours:.3g} times fewer than "
            f"{first.label} ({theirs:,.0f}), at {_spread(a, 2, 100)}% against "
            f"{_spread(b, 2, 100)}%."
        )
    return lines


def _run(run: RunRecord) -> list[str]:
    result = run.result or {}
    evaluations = [point for point in run.points_of("eval") if "top1" in point]
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
    """Behind the point, for three in all."""
    return 2 if not seconds or seconds < 10 else 1 if seconds < 100 else 0


def _value(value: float | None, digits: int, scale: float = 1) -> str:
    return UNSET if value is None else f"{scale * value:,.{digits}f}"


def _spread(found: Spread | None, digits: int, scale: float = 1) -> str:
    if found is None:
        return UNSET
    mean = f"{scale * found.mean:,.{digits}f}"
    # Updates are mostly those of the flags, the same for every seed.
    if found.deviation is None or not (found.deviation or digits):
        return mean
    return f"{mean} ± {scale * found.deviation:,.{digits}f}"


def _mean(condition: Condition, name: str) -> float:
    found = condition.spread_of(name)
    assert found is not None  # Of one that has ended.
    return found.mean


def _saved(condition: Condition, first: Condition | None, name: str) -> str:
    """The part of the reference's `name` that `condition` does without, in percent."""
    if first is None or not condition.ended:
        return UNSET
    if condition is first:
        return "reference"
    whole = _mean(first, name)
    if not whole:
        return UNSET
    percent = 100 * (1 - _mean(condition, name) / whole)
    return f"{percent:z.1f}%".replace("-", "−")  # z: not -0.0
