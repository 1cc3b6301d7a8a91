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
# The axis of the loss ends at most at this multiple of the median of the runs' first losses. Larger
# losses would make the decrease of the loss too small to see.
_LOSS_ABOVE = 2.0
# If the longest run has this many times the updates of the shortest, the x axis is logarithmic.
_MANY = 8
# If a logarithmic axis ends below this multiple of its start, ticks at 1, 2, 5 and 10 are too few.
_NEAR = 5
# The mean of several curves is drawn if the curves share enough updates: at least this fraction of
# the updates of the curve with the fewest points.
_SHARED = 0.8

_LEARNED = {
    ("eval", "top1"): "evaluation top-1 (%)",
    ("eval", "loss"): "evaluation loss (log scale)",
    ("eval_ema", "top1"): "evaluation top-1 of the averaged parameters (%)",
    ("eval_ema", "loss"): "evaluation loss of the averaged parameters (log scale)",
    ("train", "loss"): "training loss (log scale)",
}
_AGAINST = {"epoch": "epochs", "update": "updates"}
_SCHEDULE = {
    "batch_size": ("batch size", "examples per update (log scale)"),
    "learning_rate": ("learning rate", "learning rate (log scale)"),
    "momentum": ("momentum", "momentum"),
    "noise_scale": ("predicted noise scale g ≈ εN / (B(1 − m))", "g (log scale)"),
    "image_size": ("side of the training images", "pixels"),
    "gradient_noise_scale": ("measured gradient noise scale tr Σ / ‖G‖²", "examples (log scale)"),
    "gradient_noise_scale_adam": (
        "measured gradient noise scale of gradients as Adam scales them",
        "examples (log scale)",
    ),
    "gradient_clipped": ("fraction of updates whose gradient was clipped", "fraction"),
}


@dataclasses.dataclass(frozen=True)
class _Chart:
    """Line chart of one value.

    Attributes:
      conditions: conditions to draw.
      drawn: line style of each condition, by the condition's label.
      get: function that returns the points of a run; `y` is the value of a point.
      x: key of a point's value on the horizontal axis, "epoch" or "update".
      title: title above the axes.
      ylabel: label of the vertical axis.
      limits: range of the vertical axis; None means the range of the curves.
      steps: whether curves are step functions.
    """

    conditions: Sequence[Condition]
    drawn: Mapping[str, Line]
    get: Callable[[RunRecord], list[Point]]
    x: str
    title: str
    ylabel: str
    limits: tuple[float, float] | None = None
    steps: bool = False

    def picture(self, name: str, alt: str, unit: str, caption: str) -> Picture:
        """Returns the picture, described by `alt` and by the last values of the coloured lines."""
        ends = []
        for each in (each for each in self.conditions if self.drawn[each.label] != GREY):
            if curves := _curves([each], self.get):
                last = statistics.fmean(curve[-1]["y"] for curve in curves)
                ends.append(f"{each.label} {last:.4g}{unit}")
        alt = f"Line chart of {alt}. Last values: {'; '.join(ends)}."
        return Picture(name, alt, caption, functools.partial(_draw, chart=self))


def lines(conditions: Sequence[Condition]) -> dict[str, Line]:
    """Returns the line style of each condition, by the condition's label.

    The first condition, and the conditions with the highest top-1, are in colour.
    """

    def rank(i: int) -> float:
        top1 = conditions[i].spread_of("top1")
        return -math.inf if i == 0 else math.inf if top1 is None else -top1.mean

    best = sorted(range(len(conditions)), key=rank)[:COLOURED]
    coloured = {i: line(k) for k, i in enumerate(sorted(best))}
    return {each.label: coloured.get(i, GREY) for i, each in enumerate(conditions)}


def learned(conditions: Sequence[Condition], drawn: Mapping[str, Line]) -> list[Picture]:
    """Returns pictures of each loss and accuracy that a run logged, by epochs and by updates."""
    pictures = []
    for (split, name), label in _LEARNED.items():
        get = functools.partial(_points, split=split, name=name)
        if not (curves := _curves(conditions, get)):
            continue
        limits = _accuracies(curves) if name == "top1" else _losses(curves)
        caption, unit = _axis_note(name, limits, curves), "%" if name == "top1" else ""
        if split == "eval" and _curves(conditions, functools.partial(get, split="eval_ema")):
            whose = "Measured with the parameters themselves, not with their average."
            caption = f"{whose} {caption}".strip()
        for x, against in _AGAINST.items():
            what = f"{label.partition(' (')[0]} against {against}"
            chart = _Chart(conditions, drawn, get, x, _capital(what), label, limits)
            pictures.append(chart.picture(f"{split}_{name}_{against}", what, unit, caption))
    return pictures


def schedule(
    conditions: Sequence[Condition], drawn: Mapping[str, Line]
) -> tuple[list[Picture], list[str]]:
    """Returns pictures of the schedule's values, and a sentence for each constant value."""
    pictures, still = [], []
    for name, (what, label) in _SCHEDULE.items():
        get = functools.partial(_points, split=None, name=name)
        values = [p["y"] for curve in _curves(conditions, get) for p in curve]
        if not values:
            continue
        measured = name.startswith("gradient_noise_scale")
        # The values may differ by rounding. A single measurement says nothing of the whole run.
        if math.isclose(min(values), max(values)) and not measured:
            still.append(f"The {what} is {values[0]:g} throughout.")
            continue
        chart = _Chart(conditions, drawn, get, "epoch", _capital(what), label, steps=not measured)
        alt = f"{what} over the epochs, from {min(values):.3g} to {max(values):.3g}"
        caption = "A batch well below this scale wastes few examples." if measured else ""
        pictures.append(chart.picture(f"schedule_{name}", alt, "", caption))
    return pictures, still


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _points(run: RunRecord, split: str | None, name: str) -> list[Point]:
    """Returns the points of `split` with a finite value `name`; adds this value to them as `y`.

    If `split` is None, the points of all splits are searched. In `y`, top-1 is in percent.
    """
    scale = 100 if name == "top1" else 1
    return [
        {**point, "y": scale * point[name], "begin": run.begin}
        for point in (run.points_of(split) if split else run.points)
        if math.isfinite(point.get(name, math.nan))
    ]


def _curves(
    conditions: Iterable[Condition], get: Callable[[RunRecord], list[Point]]
) -> list[list[Point]]:
    """Returns the points that `get` finds for each run; runs without points are left out."""
    return [points for each in conditions for run in each.runs if (points := get(run))]


def _draw(figure: Figure, chart: _Chart) -> None:
    axes: Axes = figure.subplots()
    for each in chart.conditions:
        _draw_condition(axes, each, chart)
    axes.set(title=chart.title, xlabel=_AGAINST[chart.x], ylabel=chart.ylabel)
    if chart.limits:
        axes.set_ylim(*chart.limits)
    if "log scale" in chart.ylabel:
        axes.set_yscale("log")
        _name_ticks(axes.yaxis, *axes.get_ylim())
    runs = [run for each in chart.conditions for run in each.runs if chart.get(run)]
    # The last point of an unfinished run does not show how long the run will be.
    ended = [run for run in runs if run.result]
    ends = [chart.get(run)[-1][chart.x] for run in ended or runs]
    if chart.x == "update" and max(ends) >= _MANY * min(ends):
        axes.set(xscale="log", xlabel="updates (log scale)")
        _name_ticks(axes.xaxis, *axes.get_xlim())
    else:
        axes.set_xlim(left=0)


def _draw_condition(axes: Axes, condition: Condition, chart: _Chart) -> None:
    """Draws the mean of a condition's runs, and a thin curve per run if there are several."""
    style = chart.drawn[condition.label]
    # Dashed lines lie above solid ones, so that both are visible at equal values.
    below = 1.9 if style == GREY else 2 + 0.1 * len(style.dashes)
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.linestyle}
    look |= {"zorder": below, "drawstyle": "steps-pre" if chart.steps else "default"}
    look |= {"linewidth": 0.8 if style == GREY else 1.6}
    label = "other conditions" if style == GREY else condition.label
    curves = [chart.get(run) for run in condition.runs]
    mean = _mean([chart.get(run) for run in condition.ended] or curves)
    # This call also adds the condition to the legend, so it is made even if `mean` is empty.
    axes.plot(*_xy(mean, chart), label=label, marker=_marker(mean), **look)
    for run, curve in zip(condition.runs, curves, strict=True):
        if len(condition.runs) > 1 or not mean:
            thin: dict[str, Any] = {"linestyle": "-", "marker": _marker(curve), "markersize": 3}
            thin |= {"linewidth": 0.7, "alpha": 0.45} if mean else {"linewidth": 1.1}
            axes.plot(*_xy(curve, chart), **(look | thin))
        if curve and run.state == DIVERGED:
            last = curve[-1]
            low, high = chart.limits or (last["y"], last["y"])
            # A cross marks the last point. If its value is off the axis, the cross is on the edge.
            at = min(max(last["y"], low), high)
            axes.plot(last[chart.x], at, "x", color=style.colour, markersize=8, clip_on=False)


def _name_ticks(axis: Any, low: float, high: float) -> None:
    """Labels a logarithmic axis with plain numbers; a longer axis has fewer ticks per decade."""
    near = high < _NEAR * low
    subs = (1, 2, 5) if high < 1000 * low else (1,)
    axis.set_major_locator(MaxNLocator(6) if near else LogLocator(subs=subs))
    axis.set_major_formatter(
        lambda value, _: f"{value:,.0f}" if 1e3 <= value < 1e7 else f"{value:g}"
    )
    axis.set_minor_formatter("")


def _marker(points: Sequence[Point]) -> str:
    """Returns the marker of a curve: a dot if the curve has a single point, otherwise nothing."""
    return "o" if len(points) == 1 else ""


def _xy(points: Sequence[Point], chart: _Chart) -> tuple[list[float], list[float]]:
    """Returns the coordinates of `points`; a step function begins where the run began."""
    xs, ys = [p[chart.x] for p in points], [p["y"] for p in points]
    if chart.steps and xs:
        return [points[0]["begin"][chart.x], *xs], [ys[0], *ys]
    return xs, ys


def _mean(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Returns the mean curve at the updates that all curves have; [] if they share too few."""
    at = [{point["update"]: point for point in curve} for curve in curves if curve]
    shared = sorted(set.intersection(*map(set, at))) if at else []
    if not shared or len(shared) < _SHARED * min(map(len, at)):
        return []
    return [{**at[0][u], "y": statistics.fmean(each[u]["y"] for each in at)} for u in shared]


def _accuracies(curves: Sequence[Sequence[Point]]) -> tuple[float, float]:
    """Returns axis limits, in percent, that show the top-1 of each run after its first quarter."""
    found = [p["y"] for curve in curves for p in curve if p["epoch"] >= curve[-1]["epoch"] / 4]
    low, high = min(found), max(found)
    room = max(0.06 * (high - low), 0.5)
    if high - low > 50:
        low = 0
    return max(0, low - room), min(100, high + room)


def _losses(curves: Sequence[Sequence[Point]]) -> tuple[float, float]:
    """Returns axis limits for the losses; see `_LOSS_ABOVE` for the upper limit."""
    values = [p["y"] for curve in curves for p in curve]
    most = _LOSS_ABOVE * max(statistics.median(curve[0]["y"] for curve in curves), 1e-9)
    low = min((v for v in values if v > 0), default=most / 10)
    return 0.9 * low, max(min(1.1 * max(values), most), 1.1 * low)


def _axis_note(name: str, limits: tuple[float, float], curves: Sequence[Sequence[Point]]) -> str:
    """Returns a caption on the start of the axis, or on values that are off the axis; may be ""."""
    values = [p["y"] for curve in curves for p in curve]
    low, high = limits
    if name == "top1":
        off = "; lower values early in a run are off the axis" if min(values) < low else ""
        return f"The axis begins at {low:.0f}%, not at 0{off}." if low > 0 else ""
    return f"Losses above {high:.3g} are off the axis." if max(values) > high else ""
