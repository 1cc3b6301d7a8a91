"""Draws measured gradient noise scales and batch sizes against epochs, a panel below the other.

A solid line is the gradient noise scale of a point's runs, in Adam's metric if they have it: the
median of each half epoch, over all seeds. The dashed line of its colour is the batch size.
"""

import collections
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiment_rows import finished
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from trainer.reports.plots import line

# Distance of two labels, as a share of the height of the axes.
_LABEL = 0.07
# (epoch, batch size, gradient noise scale) of each half epoch.
Measured = Sequence[tuple[float, float, float]]


def measured(name: str, point: str) -> Measured:
    """Returns the medians of a point's measurements in each half epoch, over its seeds."""
    halves: dict[int, list[tuple[float, ...]]] = collections.defaultdict(list)
    points = [each for row in finished(name, point) for each in row["noise_scales"]]
    longest = max(map(len, points))  # A point may lack the noise scale in Adam's metric.
    for epoch, batch_size, *noise_scales in (each for each in points if len(each) == longest):
        halves[int(2 * epoch)].append((epoch, batch_size, noise_scales[-1]))
    medians = (map(statistics.median, zip(*halves[half], strict=True)) for half in sorted(halves))
    return [(epoch, batch_size, scale) for epoch, batch_size, scale in medians]


def draw(figure: Figure, *, panels: Mapping[str, Mapping[str, Measured]]) -> None:
    """Draws a panel for each title, with the points by their names."""
    figure.set_figheight(2.6 * len(panels))
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, points) in zip(every, panels.items(), strict=True):
        for i, (name, found) in enumerate(points.items()):
            epochs, sizes, scales = zip(*found, strict=True)
            colour, place = line(i).colour, {"transform": axes.transAxes, "va": "top"}
            axes.plot(epochs, scales, color=colour)
            dashes = {"linestyle": (0, (2, 1.5)), "drawstyle": "steps-mid", "lw": 1.1}
            axes.plot(epochs, sizes, color=colour, **dashes)
            axes.text(0.03, 0.98 - _LABEL * i, name, color=colour, fontsize=9, **place)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_title(title)
    every[-1].set_xlabel("epoch")


def drawer(name: str, section: Mapping[str, Any]) -> Callable[[Figure], None]:
    """Returns the function that draws what the section [noise_scales] of the experiment lists."""
    panels = {
        title: {point: measured(name, point) for point in points}
        for title, points in section["panels"].items()
    }
    return functools.partial(draw, panels=panels)
