"""Draws top-1 against epochs, with a line for each of an experiment's points.

A line is the mean over seeds, and its band is ± one sample standard deviation. Runs are evaluated
after each epoch. The label of a line has the updates of the run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiment_rows import finished
from matplotlib.figure import Figure

from trainer.reports.plots import line
from trainer.sweep.seed_statistics import Spread, spread

# Height of a label, as a share of the height of the axes.
_LABEL = 0.06


def curve(name: str, point: str) -> tuple[str, list[Spread]]:
    """Returns the label of a point, and its top-1 after each epoch over the seeds."""
    rows = finished(name, point)
    by_epoch = zip(*([top1 for _, top1 in row["evaluations"]] for row in rows), strict=True)
    spreads = [found for each in by_epoch if (found := spread(each))]
    return f"{point.rpartition('/')[2]}, {rows[0]['updates']:,} updates", spreads


def apart(wanted: Sequence[float], least: float) -> list[float]:
    """Returns places near `wanted` with distances of at least `least`, in the order of `wanted`.

    >>> apart([0.5, 0.5, 0.9], 0.1)
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[
        list[int]
    ] = []  # Of neighbours that touch, and lie around the mean of their places.

    def ends(group: list[int]) -> tuple[float, float]:
        middle, half = sum(wanted[i] for i in group) / len(group), least * (len(group) - 1) / 2
        return middle - half, middle + half

    for i in order:
        groups.append([i])
        while len(groups) > 1 and ends(groups[-1])[0] - ends(groups[-2])[1] < least * (1 - 1e-9):
            groups[-2:] = [groups[-2] + groups[-1]]
    places = [0.0] * len(wanted)
    for group in groups:
        for k, i in enumerate(group):
            places[i] = round(ends(group)[0] + k * least, 6)
    return places


def draw(figure: Figure, *, curves: Mapping[str, Sequence[Spread]], lowest: float) -> None:
    """Draws the curves; their labels stand at the right, at the heights of the curves' ends."""
    axes = figure.subplots()
    for i, spreads in enumerate(curves.values()):
        style, epochs = line(i), range(1, len(spreads) + 1)
        middle = [100 * each.mean for each in spreads]
        half = [100 * (each.deviation or 0) for each in spreads]
        axes.plot(epochs, middle, color=style.colour, linestyle=style.linestyle)
        band = [[m + sign * h for m, h in zip(middle, half, strict=True)] for sign in (-1, 1)]
        axes.fill_between(epochs, *band, color=style.colour, alpha=0.15, lw=0)
    highest = max(100 * (s.mean + (s.deviation or 0)) for found in curves.values() for s in found)
    axes.set_ylim(lowest, highest + 0.2)
    low, high = axes.get_ylim()
    ends = [(100 * spreads[-1].mean - low) / (high - low) for spreads in curves.values()]
    for i, (label, place) in enumerate(zip(curves, apart(ends, _LABEL), strict=True)):
        beside = {"transform": axes.transAxes, "va": "center", "fontsize": 9}
        axes.text(1.01, place, label, color=line(i).colour, **beside)
    axes.set_xlim(1, max(map(len, curves.values())))
    axes.set_xlabel("epoch")
    axes.set_title("top-1, %")


def drawer(name: str, drawn: Mapping[str, Any]) -> Callable[[Figure], None]:
    """Returns the function that draws what the section [curves] of the experiment lists."""
    curves = dict(curve(name, point) for point in drawn["points"])
    return functools.partial(draw, curves=curves, lowest=drawn["lowest"])
