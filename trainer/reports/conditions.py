"""Groups the runs of a report into conditions; the runs of a condition differ only in the seed."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config import flagfile
from trainer.reports.run_record import RunRecord
from trainer.sweep.seed_statistics import Spread, spread

UNSET = "–"
_LONGEST_FLAGS = 40  # A list of flags with more characters than this is not used as a label.
# Flags that may be the axes of pictures that compare conditions.
BATCH, RATES = "initial_batch_size", ("base_learning_rate", "initial_learning_rate")


@dataclasses.dataclass(frozen=True)
class Condition:
    """Runs whose flags differ only in the seed.

    Attributes:
      label: a short name, unique in a report.
      values: values of the flags that differ between the conditions of a report.
      runs: the runs, in the order given.
    """

    label: str
    values: dict[str, str]
    runs: list[RunRecord]

    @property
    def ended(self) -> list[RunRecord]:
        """The runs that have a result."""
        return [run for run in self.runs if run.result]

    @property
    def repeats_a_seed(self) -> bool:
        """Whether two runs with a result have the same seed."""
        seeds = [run.flags.get("seed") for run in self.ended]
        return len({*seeds}) < len(seeds)

    def spread_of(self, name: str) -> Spread | None:
        """Returns the spread of the field `name` of result.json; None if no run has a result."""
        return spread(run.result[name] for run in self.runs if run.result)


def differing(runs: Sequence[RunRecord]) -> list[str]:
    """Returns the flags in which `runs` differ, except the seed; ignores runs without flags."""
    known = [run.flags for run in runs if run.flags]

    def differs(name: str) -> bool:
        values = {_value(flags, name) for flags in known}
        # Most results do not depend on the flags in FREE. RunRecord.flags leaves such a flag out if
        # the run's results do not depend on it. Its value is then None, which is ignored here.
        return len(values - {None} if name in flagfile.FREE else values) > 1

    names = dict.fromkeys(name for flags in known for name in flags if name != "seed")
    return list(filter(differs, names))


def conditions(runs: Sequence[RunRecord]) -> list[Condition]:
    """Returns the conditions of `runs`, in the order of their first runs.

    A run without flags is a condition by itself: its flags were not recorded.
    """
    names = differing(runs)
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs:
        key = tuple(_value(run.flags, name) for name in names) if run.flags else run.name
        groups.setdefault(key, []).append(run)
    found: dict[str, Condition] = {}
    for group in groups.values():
        flags = group[0].flags
        values = {
            name: (_value(flags, name) or "").removesuffix(".0") or UNSET for name in names if flags
        }
        label = _label(group, ", ".join(f"{name}={value}" for name, value in values.items()))
        numbers = itertools.count(2)
        unique = label
        while unique in found:
            unique = f"{label} ({next(numbers)})"
        found[unique] = Condition(unique, values, group)
    return list(found.values())


def _value(flags: Mapping[str, str], name: str) -> str | None:
    """Returns the value of a flag; None if it is unset.

    The forks of several seeds each name the run with their seed, so the name's seed is left out.
    """
    value = flags.get(name)
    return _without_seed(value) if name == "fork_from" and value else value


def _without_seed(name: str) -> str:
    """Returns the name of a run without the part that tells its seed, such as _seed_3."""
    return re.sub(r"[\W_]*seed[\W_]*\d+", "", name)


def _label(group: Sequence[RunRecord], flags: str) -> str:
    """Returns a label for a group of runs: the common part of their names, if they have one.

    Otherwise, the label is `flags` if this text is short, or else the name of the first run.
    """
    stripped = {_without_seed(run.name).strip("/_-., =") for run in group}
    if len(stripped) == 1:
        return stripped.pop() or "all seeds"
    letters = zip(*(run.name for run in group), strict=False)
    shared = "".join(same[0] for same in itertools.takewhile(lambda s: len(set(s)) == 1, letters))
    label = re.sub(r"(seed)?[\W_]*$", "", re.sub(r"\d+$", "", shared))
    if label and not shared.endswith("/"):
        return label
    if 0 < len(flags) <= _LONGEST_FLAGS:
        return flags
    return group[0].name + (f" and {len(group) - 1} more" if len(group) > 1 else "")


def number(value: str) -> float | None:
    """Returns a flag's value as a number, or None if the value is not a number."""
    try:
        return float(value)
    except ValueError:
        return None
