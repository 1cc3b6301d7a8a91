"""Learning rate range test of Smith 2015 (arXiv 1506.01186, section 3.3).

In this test, the learning rate rises during a run. Smith plots accuracy against the rate, and reads
two rates off the plot by eye. At the lower rate, accuracy begins to rise. At the higher rate,
accuracy rises more slowly, gets ragged or falls. This module finds two such rates by a rule, from
accuracies that are smoothed over five points.

Accuracy often hardly changes over a wide range of rates, and chance decides where it is highest.
With 262 photographs and pretrained weights, it was highest at 0.16, 0.32 and 0.93 in three tests,
and training with 0.31 ruined the weights. So the higher rate is the lowest one whose accuracy does
not differ from the highest by more than chance.
"""

import dataclasses
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.reports.run_record import DIVERGED

Point = dict[str, Any]

_REACH = 2  # A smoothed value is the mean of a value and this many neighbours on each side.
# Text on a top-1 that does not fall, by the state of the run.
_NO_FALL = {
    "finished": "does not fall by the end: raise --range_to to see where it does",
    DIVERGED: "does not fall before the loss is not finite",
}
_NOT_YET = "has not fallen yet: the test is not finished"
_STARTED = 0.1  # Learning has started when top-1 has risen by this share of its total rise.
_ENOUGH = 20  # A whole test has at least this many points.
_ERRORS = 3  # Standard errors by which a top-1 may be below the highest one by chance.


@dataclasses.dataclass(frozen=True)
class Interval:
    """Suggested range of learning rates, and the reason for it.

    Attributes:
      lowest: the lowest rate.
      highest: the highest rate; equal to the lowest if all the gain is made at one rate.
      why: sentence on top-1 at these rates.
      is_found: whether top-1 rises at all; if it does not, no rate is suggested.
    """

    lowest: float
    highest: float
    why: str
    is_found: bool = True


def whole(points: Iterable[Point]) -> list[Point]:
    """Returns the points that have a finite learning rate, loss and top-1."""
    names = ("learning_rate", "loss", "top1")
    return [p for p in points if all(math.isfinite(p.get(name, math.nan)) for name in names)]


def suggest(points: Sequence[Point], state: str = "finished") -> Interval:
    """Returns the suggested interval.

    The interval begins where learning has started. It ends at the lowest rate whose smoothed top-1
    is at most three standard errors below the highest: p is then the mean of n answers that are
    right or wrong, and its standard error is √(p (1 − p) / n).

    Args:
      points: points of the run, in the order of rising `learning_rate`.
      state: state of the run, as in RunRecord.
    """
    rates = [point["learning_rate"] for point in points]
    accuracies = smoothed([point["top1"] for point in points])
    # Near both ends, smoothed values have fewer neighbours, and so larger errors. They are left out
    # unless the test was stopped early: then they are most of the points.
    ends = _REACH if len(points) >= _ENOUGH else 0
    reliable = range(ends, len(points) - ends)
    best = max(reliable, key=accuracies.__getitem__)
    at_first = accuracies[ends]
    of_note = at_first, accuracies[best], min(accuracies[best:])
    begin, highest, after = (f"{top1:.3f}" for top1 in of_note)
    if begin == highest:
        is_too_high = after != highest or state == DIVERGED
        remedy = "lower --range_from" if is_too_high else "raise --range_to or --epochs"
        why = f"training top1 does not rise above {begin}, its value at {rates[0]:.3g}: {remedy}."
        return Interval(rates[0], rates[0], why, is_found=False)
    error = _standard_error(points, accuracies, best)
    enough = accuracies[best] - _ERRORS * error
    last = next(i for i in reliable if accuracies[i] >= enough)
    if last == ends < best:
        why = (
            f"training top1 is {begin} at first and at most {highest}, which may be chance: raise "
            "--epochs. If pretrained weights are as good as they get, keep the recipe's rate."
        )
        return Interval(rates[0], rates[0], why, is_found=False)
    start = at_first + _STARTED * (accuracies[best] - at_first)
    # Noise may lift single values above `start`, so `first` follows the last value below `start`.
    first = max((i + 1 for i, top1 in enumerate(accuracies[:last]) if top1 < start), default=0)
    end = f"falls to {after} at higher rates" if after != highest else _NO_FALL.get(state, _NOT_YET)
    near = f"at {rates[last]:.3g}, it is within {_ERRORS} standard errors of its highest; "
    why = (
        f"from {rates[first]:.3g} on, training top1 has made a tenth of its gain, to {start:.3f}; "
        f"{near if last < best else ''}it is highest, {highest}, at {rates[best]:.3g}, and {end}."
    )
    return Interval(rates[first], rates[last], why)


def _standard_error(points: Sequence[Point], accuracies: Sequence[float], i: int) -> float:
    """Returns the standard error of a smoothed top-1; at least that of one wrong answer."""
    answers = (2 * _sides(len(points), i) + 1) * points[-1]["position"] / len(points)
    return math.sqrt(max(accuracies[i] * (1 - accuracies[i]), 1 / answers) / answers)


def smoothed(values: Sequence[float]) -> list[float]:
    """Returns the mean of each value and its neighbours: two on each side, or fewer near an end."""
    sides = [_sides(len(values), i) for i in range(len(values))]
    return [statistics.fmean(values[i - n : i + n + 1]) for i, n in enumerate(sides)]


def _sides(count: int, i: int) -> int:
    """Returns how many neighbours on each side the i-th of `count` smoothed values has."""
    return min(_REACH, i, count - 1 - i)


def csv(points: Sequence[Point]) -> str:
    """Returns the points as CSV: a header, then a line per point."""
    names = ("update", "learning_rate", "loss", "top1")
    rows = [",".join(f"{point[name]:.9g}" for name in names) for point in points]
    return "\n".join([",".join(names), *rows]) + "\n"


def draw(points: Sequence[Point], interval: Interval, scale: str) -> bytes:
    """Returns a PNG of loss and accuracy against the learning rate, with the interval shaded.

    If `scale`, the value of --range_scale, is "linear", the axis of the learning rate is linear.
    """
    # This import takes 0.5 s, so it is here: a run that draws nothing does not need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    plot(figure, points, interval, scale)
    title = f"learning rates from {interval.lowest:.3g} to {interval.highest:.3g}"
    figure.suptitle(title if interval.is_found else "no suggested learning rates")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120)
    return buffer.getvalue()


def plot(figure: Any, points: Sequence[Point], interval: Interval, scale: str) -> None:
    """Draws the picture of `draw` into an empty matplotlib figure."""
    rates = [point["learning_rate"] for point in points]
    xscale = "linear" if scale == "linear" else "log"
    rows: Any = figure.subplots(2, 1, sharex=True)
    labels = {"loss": "training loss", "top1": "training top-1"}
    for axes, (name, label) in zip(rows, labels.items(), strict=True):
        values = [point[name] for point in points]
        axes.plot(rates, values, ".", color="#999999", markersize=4)
        axes.plot(rates, smoothed(values), color="#0072b2")
        axes.axvspan(interval.lowest, interval.highest, color="#0072b2", alpha=0.12, lw=0)
        axes.set(ylabel=label, xscale=xscale, xlim=(rates[0], rates[-1]))
        axes.grid(alpha=0.3, which="both")
    # Without a limit, a diverging loss would hide the decrease of the loss.
    rows[0].set_ylim(0, 2 * points[0]["loss"] or 1)
    rows[1].set_ylim(0, 1)
    rows[1].xaxis.set_major_formatter("{x:g}")
    rows[1].xaxis.set_minor_formatter("{x:g}" if rates[-1] < 10 * rates[0] else "")
    rows[1].set_xlabel("learning rate")
