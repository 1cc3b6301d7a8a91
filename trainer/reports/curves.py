"""Pictures of a run over time: loss and accuracy, and the values of the schedule."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from trainer.reports.conditions import Condition
from trainer.reports.plots import GREY, Line, Picture, line
from trainer.reports.run_record import DIVERGED, RunRecord

Point = dict[str, Any]
# Only this many conditions have a colour of their own; the others are grey.
COLOURED = 8
# A loss above this multiple of the first loss is off the axis, or it would hide the decrease.
_LOSS_ABOVE = 2.0
# The axis of updates is logarithmic if the longest run has this many times the shortest's updates.
_MANY = 8
# If the ratio of a logarithmic axis' ends is smaller, too few of its ticks are at 1, 2 and 5.
_NEAR = 5
# A mean is drawn if all runs logged points at this share or more of the shortest run's updates.
_SHARED = 0.8

_LEARNED = {
    ("eval", "top1"): "evaluation top-1 (%)",
    ("eval", "loss"): "evaluation loss (log scale)",
    ("train", "loss"): "training loss (log scale)",
}
_AGAINST = {"epoch": "epochs", "update": "updates"}
_SCHEDULE = {
    "batch_size": ("batch size", "examples per update (log scale)"),
    "learning_rate": ("learning rate", "learning rate (log scale)"),
    "momentum": ("momentum", "momentum"),
    "noise_scale": ("predicted noise scale g ≈ εN / (B(1 − m))", "g (log scale)"),
    "gradient_noise_scale": (
        "measured gradient noise scale tr Σ / ‖G‖²",
        "examples (log scale)",
    ),
}


def lines(conditions: Sequence[Condition]) -> dict[str, Line]:
    """Returns each condition's line, by label: the first and the best conditions in colour."""

    def rank(i: int) -> float:
        top1 = conditions[i].spread_of("top1")
        return -math.inf if i == 0 else math.inf if top1 is None else -top1.mean

    best = sorted(range(len(conditions)), key=rank)[:COLOURED]
    coloured = {i: line(k) for k, i in enumerate(sorted(best))}
    return {each.label: coloured.get(i, GREY) for i, each in enumerate(conditions)}


def learned(conditions: Sequence[Condition], drawn: Mapping[str, Line]) -> list[Picture]:
    """Returns pictures of loss and accuracy against epochs and updates, if a run logged them."""
    pictures = []
    for (split, name), label in _LEARNED.items():
        get = functools.partial(_points, split=split, name=name)
        if not any(get(run) for each in conditions for run in each.runs):
            continue
        limits = _accuracies(conditions) if name == "top1" else _losses(conditions, get)
        for x, against in _AGAINST.items():
            what = label.partition(" (")[0]
            unit = "%" if name == "top1" else ""
            ends = "; ".join(_ends(conditions, get, unit))
            pictures.append(
                Picture(
                    name=f"{split}_{name}_{against}",
                    alt=f"Line chart of {what} against {against}. Last values: {ends}.",
                    caption=_axis_note(name, limits, conditions, get),
                    draw=functools.partial(
                        _draw,
                        conditions=conditions,
                        drawn=drawn,
                        get=get,
                        chart=_Chart(
                            x, f"{what[0].upper()}{what[1:]} against {against}", label, limits
                        ),
                    ),
                )
            )
    return pictures


def schedule(
    conditions: Sequence[Condition], drawn: Mapping[str, Line]
) -> tuple[list[Picture], list[str]]:
    """Returns pictures of the schedule's values, and a sentence per value that never changes."""
    pictures, still = [], []
    for name, (what, label) in _SCHEDULE.items():
        get = functools.partial(_points, split=None, name=name)
        values = [p[name] for each in conditions for run in each.runs for p in get(run)]
        if not values:
            continue
        if math.isclose(min(values), max(values)):  # Equal up to rounding.
            still.append(f"The {what} is {values[0]:g} throughout.")
            continue
        measured = name == "gradient_noise_scale"
        pictures.append(
            Picture(
                name=f"schedule_{name}",
                alt=f"Line chart of {what} over the epochs, from {min(values):.3g} to "
                f"{max(values):.3g}. Last values: {'; '.join(_ends(conditions, get, ''))}.",
                caption="A batch well below this scale wastes few examples." if measured else "",
                draw=functools.partial(
                    _draw,
                    conditions=conditions,
                    drawn=drawn,
                    get=get,
                    chart=_Chart(
                        "epoch",
                        f"{what[0].upper()}{what[1:]}",
                        label,
                        log=name != "momentum",
                        steps=not measured,
                    ),
                ),
            )
        )
    return pictures, still


def _points(run: RunRecord, split: str | None, name: str) -> list[Point]:
    """Returns the points with a finite `name`; top-1 is in percent."""
    found = run.points if split is None else run.points_of(split)
    scale = 100 if name == "top1" else 1
    return [
        {**p, name: scale * p[name], "y": scale * p[name]}
        for p in found
        if math.isfinite(p.get(name, math.nan))
    ]


@dataclasses.dataclass(frozen=True)
class _Chart:
    """Axes of a chart.

    Attributes:
      x: key of the values on the horizontal axis.
      title: title above the axes.
      ylabel: label of the vertical axis.
      limits: range of the vertical axis; None: the range of the curves.
      log: whether the vertical axis is logarithmic, unless it shows top-1.
      steps: whether curves are step functions.
    """

    x: str
    title: str
    ylabel: str
    limits: tuple[float, float] | None = None
    log: bool = True
    steps: bool = False


def _draw(
    figure: Figure,
    conditions: Sequence[Condition],
    drawn: Mapping[str, Line],
    get: Callable[[RunRecord], list[Point]],
    chart: _Chart,
) -> None:
    axes: Axes = figure.subplots()
    for each in conditions:
        _draw_condition(axes, each, drawn[each.label], get, chart)
    axes.set(title=chart.title, xlabel=_AGAINST[chart.x], ylabel=chart.ylabel)
    if chart.limits:
        axes.set_ylim(*chart.limits)
    if chart.log and "top-1" not in chart.ylabel:
        axes.set_yscale("log")
        _name_ticks(axes.yaxis, *axes.get_ylim())
    runs = [run for each in conditions for run in each.runs if get(run)]
    # An unfinished run does not show its final length.
    ended = [run for run in runs if run.result]
    ends = [get(run)[-1][chart.x] for run in ended or runs]
    if chart.x == "update" and max(ends) >= _MANY * min(ends):
        axes.set(xscale="log", xlabel="updates (log scale)")
        _name_ticks(axes.xaxis, *axes.get_xlim())
    else:
        axes.set_xlim(left=0)


def _draw_condition(
    axes: Axes,
    condition: Condition,
    style: Line,
    get: Callable[[RunRecord], list[Point]],
    chart: _Chart,
) -> None:
    """Draws the mean of a condition's runs, and thin curves of the runs if there are several."""
    # Dashed lines are above solid ones, so that both are seen where values are equal.
    below = 1.9 if style == GREY else 2 + 0.1 * len(style.dashes)
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.linestyle}
    look |= {"zorder": below, "drawstyle": "steps-pre" if chart.steps else "default"}
    look |= {"linewidth": 0.8 if style == GREY else 1.6}
    label = "other conditions" if style == GREY else condition.label
    curves = [get(run) for run in condition.runs]
    mean = _mean([get(run) for run in condition.ended] or curves)
    if mean:
        axes.plot(*_xy(mean, chart.x, chart.steps), label=label, marker=_marker(mean), **look)
    for run, curve in zip(condition.runs, curves, strict=True):
        if len(condition.runs) > 1 or not mean:
            thin: dict[str, Any] = {"linewidth": 1.1}
            if mean:
                thin = {"linewidth": 0.7, "alpha": 0.45}
            thin |= {"linestyle": "-", "marker": _marker(curve), "markersize": 3}
            axes.plot(*_xy(curve, chart.x, chart.steps), **(look | thin))
        if curve and run.state == DIVERGED:
            last = curve[-1]
            low, high = chart.limits or (last["y"], last["y"])
            at = min(max(last["y"], low), high)  # On the edge if the value is off the axis.
            axes.plot(last[chart.x], at, "x", color=style.colour, markersize=8, clip_on=False)
    if not mean:
        axes.plot([], [], label=label, **look)


def _name_ticks(axis: Any, low: float, high: float) -> None:
    """Labels a logarithmic axis with plain numbers: at 1, 2 and 5, or only at powers of ten."""
    near = high < _NEAR * low
    subs = (1, 2, 5) if high < 1000 * low else (1,)
    axis.set_major_locator(MaxNLocator(6) if near else LogLocator(subs=subs))
    axis.set_major_formatter(
        lambda value, _: f"{value:,.0f}" if 1e3 <= value < 1e7 else f"{value:g}"
    )
    axis.set_minor_formatter("")


def _marker(points: Sequence[Point]) -> str:
    """Returns the marker of a curve: a dot if the curve is a single point."""
    return "o" if len(points) == 1 else ""


def _xy(points: Sequence[Point], x: str, steps: bool) -> tuple[list[float], list[float]]:
    """Returns the coordinates of `points`; the first step begins at x = 0."""
    xs, ys = [p[x] for p in points], [p["y"] for p in points]
    return ([0, *xs], [ys[0], *ys]) if steps and xs else (xs, ys)


def _mean(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Returns the mean over seeds at the updates that all curves have; [] if there are too few."""
    at = [{point["update"]: point for point in curve} for curve in curves if curve]
    shared = sorted(set.intersection(*map(set, at))) if at else []
    if not shared or len(shared) < _SHARED * min(map(len, at)):
        return []
    return [{**at[0][u], "y": statistics.fmean(each[u]["y"] for each in at)} for u in shared]


def _accuracies(conditions: Sequence[Condition]) -> tuple[float, float]:
    """Returns axis limits in percent that show every run's top-1 after its first quarter."""
    found = []
    for run in (run for each in conditions for run in each.runs):
        points = _points(run, "eval", "top1")
        last = points[-1]["epoch"] if points else 0
        found += [p["y"] for p in points if p["epoch"] >= last / 4]
    low, high = min(found), max(found)
    room = max(0.06 * (high - low), 0.5)
    if high - low > 50:
        low = 0
    return max(0, low - room), min(100, high + room)


def _losses(
    conditions: Sequence[Condition], get: Callable[[RunRecord], list[Point]]
) -> tuple[float, float]:
    found = [points for each in conditions for run in each.runs if (points := get(run))]
    values = [p["y"] for points in found for p in points]
    most = _LOSS_ABOVE * max(statistics.median(points[0]["y"] for points in found), 1e-9)
    low = min((v for v in values if v > 0), default=most / 10)
    return 0.9 * low, max(min(1.1 * max(values), most), 1.1 * low)


def _axis_note(
    name: str,
    limits: tuple[float, float],
    conditions: Sequence[Condition],
    get: Callable[[RunRecord], list[Point]],
) -> str:
    values = [p["y"] for each in conditions for run in each.runs for p in get(run)]
    low, high = limits
    if name == "top1":
        off = "; lower values early in a run are off the axis" if min(values) < low else ""
        return f"The axis begins at {low:.0f}%, not at 0{off}." if low > 0 else ""
    return f"Losses above {high:.3g} are off the axis." if max(values) > high else ""


def _ends(
    conditions: Sequence[Condition], get: Callable[[RunRecord], list[Point]], unit: str
) -> Iterable[str]:
    for each in conditions[:COLOURED]:
        ends = [points[-1]["y"] for run in each.runs if (points := get(run))]
        if ends:
            yield f"{each.label} {statistics.fmean(ends):.4g}{unit}"
