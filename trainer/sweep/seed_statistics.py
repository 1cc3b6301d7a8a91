"""Computes the mean and standard deviation of a result over runs that differ only in the seed."""

import dataclasses
import statistics
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n numbers; `deviation` is None if n is 1."""

    mean: float
    deviation: float | None
    n: int

    @property
    def percent(self) -> str:
        """Mean and deviation of fractions, as a text in percent: "91.20 ± 0.30% (n = 3)"."""
        more = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f}{more}% (n = {self.n})"


def spread(values: Iterable[float]) -> Spread | None:
    """Returns the spread of `values`, or None if `values` is empty."""
    numbers = list(values)
    if not numbers:
        return None
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Spread(statistics.fmean(numbers), deviation, len(numbers))
