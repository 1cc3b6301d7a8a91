"""Runs that differ in the seed alone, taken together: a condition, and what is told of it."""

import dataclasses
import itertools
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.config import flagfile
from trainer.reports.run_record import RunRecord

UNSET = "–"
_SHORT = 40  # letters of a label
# Those that say which batch and rate a run starts with, by which comparisons are drawn.
BATCH, RATES = "initial_batch_size", ("base_learning_rate", "initial_learning_rate")


@dataclasses.dataclass(frozen=True)
class Spread:
    """n numbers; `deviation` is the sample standard deviation (n − 1), None of a single one."""

    mean: float
    deviation: float | None
    n: int

    @property
    def percent(self) -> str:
        """Of fractions: with how many they are."""
        more = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f}{more}% (n = {self.n})"


@dataclasses.dataclass(frozen=True)
class Condition:
    """Runs with the same flags but for the seed.

    Attributes:
      label: a short name, no other condition's.
      values: of the flags that differ between the conditions of a report.
      runs: in the order given.
    """

    label: str
    values: dict[str, str]
    runs: list[RunRecord]

    @property
    def ended(self) -> list[RunRecord]:
        """Those with a result."""
        return [run for run in self.runs if run.result]

    def spread_of(self, name: str) -> Spread | None:
        """The spread of `name` in the results, None where there is none."""
        return spread(run.result[name] for run in self.runs if run.result)


def spread(values: Iterable[float]) -> Spread | None:
    """The mean of `values` and how far they are from it; None of none."""
    found = list(values)
    if not found:
        return None
    deviation = statistics.stdev(found) if len(found) > 1 else None
    return Spread(statistics.fmean(found), deviation, len(found))


def differing(runs: Sequence[RunRecord]) -> list[str]:
    """The flags in which `runs` differ, but for the seed; a run without flags differs in none."""
    known = [run.flags for run in runs if run.flags]

    def differs(name: str) -> bool:
        values = {flags.get(name) for flags in known}
        # A flag that only some of them decide by is not in the others' flags.
        return len(values - {None} if name in flagfile.FREE else values) > 1

    names = dict.fromkeys(name for flags in known for name in flags if name != "seed")
    return list(filter(differs, names))


def conditions(runs: Sequence[RunRecord]) -> list[Condition]:
    """`runs` by condition, in the order of each one's first; without flags, each is its own."""
    names = differing(runs)
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs:
        key = tuple(run.flags.get(name, UNSET) for name in names) if run.flags else run.name
        groups.setdefault(key, []).append(run)
    found: dict[str, Condition] = {}
    for group in groups.values():
        flags = group[0].flags
        values = {name: flags.get(name, "").removesuffix(".0") or UNSET for name in names if flags}
        said = ", ".join(f"{name}={value}" for name, value in values.items())
        label = _label(group, said)
        number = itertools.count(2)
        free = label
        while free in found:
            free = f"{label} ({next(number)})"
        found[free] = Condition(free, values, group)
    return list(found.values())


def _label(group: Sequence[RunRecord], said: str) -> str:
    """What the names of `group` share, without the seed; or its flags, where that is nothing."""
    stripped = {re.sub(r"[\W_]*seed[\W_]*\d+", "", run.name).strip("/_-., =") for run in group}
    if len(stripped) == 1:
        return stripped.pop() or "all seeds"
    letters = zip(*(run.name for run in group), strict=False)
    shared = "".join(same[0] for same in itertools.takewhile(lambda s: len(set(s)) == 1, letters))
    label = re.sub(r"(seed)?[\W_]*$", "", re.sub(r"\d+$", "", shared))
    if label and not shared.endswith("/"):
        return label
    if 0 < len(said) <= _SHORT:
        return said
    return group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else "")


def number(value: str) -> float | None:
    """A flag's value as a number, where it is one."""
    try:
        return float(value)
    except ValueError:
        return None
