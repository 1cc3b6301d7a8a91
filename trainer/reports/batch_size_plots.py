"""Pictures of accuracy against batch size, and against learning rate and batch size.

A condition is a group of runs that differ only in the seed. The conditions of one line, or of one
heat map, are a family.
"""

import functools
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from trainer.reports.conditions import BATCH, RATES, UNSET, Condition, number
from trainer.reports.plots import Picture, line
from trainer.sweep.seed_statistics import Spread

# Users may choose a value of these flags for each batch size. If such a flag has only one value at
# each batch size, it does not divide conditions into families.
_FOLLOW = {"ghost_batch_size", "max_batch_size", "initial_learning_rate", "warmup_epochs"}
# The font size of a heat map with n columns is this number divided by n, but at most 10 points.
_COLUMN_POINTS = 90
# Maps (batch size,), or (batch size, learning rate), to the condition with these values.
_Grid = dict[tuple[float, ...], Condition]


def against_batch(conditions: Sequence[Condition]) -> list[Picture]:
    """Returns a list with one picture of accuracy against batch size.

    Each family has its own line. The list is empty if no line has two points.
    """
    families, tied = _families(conditions, [BATCH])
    if not families:
        return []
    curves = {label: _accuracies(grid) for label, grid in families.items()}
    description = "; ".join(
        f"{label or 'all'}: "
        + ", ".join(f"{100 * y.mean:.1f}% at {x:g}" for (x,), y in sorted(points.items()))
        for label, points in curves.items()
    )
    many = any(y.n > 1 for points in curves.values() for y in points.values())
    bars = "Bars: ± one sample standard deviation over seeds. " if many else "One run per point. "
    picture = Picture(
        name="accuracy_batch_size",
        alt=f"Line chart of final top-1 against initial batch size. {description}.",
        caption=f"{bars}{_tied_note(tied)}The axis of top-1 does not begin at 0.",
        draw=functools.partial(_draw_against, curves=curves),
        legend=True,
    )
    return [picture]


def heat_maps(conditions: Sequence[Condition]) -> list[Picture]:
    """Returns heat maps of top-1, with a row per learning rate and a column per batch size.

    Each family has its own map. The list is empty if learning rate or batch size does not vary.
    """
    pictures = []
    for rate in RATES:
        families, tied = _families(conditions, [BATCH, rate])
        means = [100 * y.mean for grid in families.values() for y in _accuracies(grid).values()]
        for i, (label, grid) in enumerate(families.items()):
            top1 = _accuracies(grid)
            best = max(top1, key=lambda at: top1[at].mean)
            result = f"{top1[best].percent} at batch size {best[0]:g} and {rate} {best[1]:g}"
            draw = functools.partial(_draw_map, grid=grid, best=best, rate=rate, label=label)
            picture = Picture(
                name=f"heat_map_{rate}" + (f"_{i}" if len(families) > 1 else ""),
                alt=(f"{label}: " if label else "")
                + f"heat map of final top-1 by {rate} and {BATCH}. Highest: {result}.",
                caption=f"Highest, framed: {result}. {_tied_note(tied)}"
                "Darker is lower; –: no run; ×: no run ended.",
                draw=functools.partial(draw, limits=(min(means), max(means))),
                height=1.3 + 0.42 * len({r for _, r in grid}),
            )
            pictures.append(picture)
    return pictures


def _families(
    conditions: Sequence[Condition], names: Sequence[str]
) -> tuple[dict[str, _Grid], set[str]]:
    """Groups conditions into families; in a family, only the flags `names` and `tied` differ.

    A family is left out if any flag in `names` has fewer than two values among the family's
    conditions with results.

    Returns:
      The grid of each family, by the family's label; and `tied`, the flags in `_FOLLOW` that vary,
      but have only one value for each combination of values of the flags `names`.
    """
    placed: list[tuple[tuple[float, ...], Condition]] = []
    for each in conditions:
        values = [number(each.values.get(name, UNSET)) for name in names]
        if None not in values:
            placed.append((tuple(v for v in values if v is not None), each))
    tied = {
        flag
        for flag in _FOLLOW - set(names)
        if any(flag in each.values for _, each in placed)
        and len({(at, each.values[flag]) for at, each in placed}) == len({at for at, _ in placed})
    }
    families: dict[tuple[tuple[str, str], ...], _Grid] = {}
    for at, each in placed:
        rest = tuple((k, v) for k, v in each.values.items() if k not in {*names, *tied})
        families.setdefault(rest, {})[at] = each
    families = {
        rest: grid
        for rest, grid in families.items()
        if (ended := list(_accuracies(grid)))
        and all(len(set(values)) > 1 for values in zip(*ended, strict=True))
    }
    drawn = [each for grid in families.values() for each in grid.values()]
    tied = {flag for flag in tied if len({each.values[flag] for each in drawn}) > 1}
    return {_label(rest, list(families)): grid for rest, grid in families.items()}, tied


def _label(rest: tuple[tuple[str, str], ...], every: Sequence[tuple[tuple[str, str], ...]]) -> str:
    """Returns name=value for each flag of `rest` that differs between the families in `every`.

    Flags that are not set are left out if another flag is named.
    """
    differ = [each for each in rest if any(each not in other for other in every)]
    named = [(name, value) for name, value in differ if value != UNSET] or differ
    return ", ".join(f"{name}={value}" for name, value in named)


def _accuracies(grid: _Grid) -> dict[tuple[float, ...], Spread]:
    return {at: top1 for at, each in grid.items() if (top1 := each.spread_of("top1"))}


def _tied_note(tied: set[str]) -> str:
    return f"These flags follow the batch size: {', '.join(sorted(tied))}. " if tied else ""


def _draw_against(figure: Figure, curves: dict[str, dict[tuple[float, ...], Spread]]) -> None:
    axes: Axes = figure.subplots()
    for i, (label, points) in enumerate(curves.items()):
        sizes = [size for (size,) in sorted(points)]
        deviations = [100 * (points[size,].deviation or 0) for size in sizes]
        style = line(i)
        axes.errorbar(
            sizes,
            [100 * points[size,].mean for size in sizes],
            yerr=deviations if any(deviations) else None,  # A single seed has no deviation.
            color=style.colour,
            linestyle=style.linestyle,
            marker="osD^v"[i % 5],
            markersize=5,
            capsize=3,
            label=label or None,
        )
    axes.set(
        title="Final top-1 against batch size",
        xlabel="initial batch size (examples, log scale)",
        ylabel="evaluation top-1 (%)",
    )
    axes.set_xscale("log", base=2)
    every = sorted({size for points in curves.values() for (size,) in points})
    axes.set_xticks(every, [f"{size:g}" for size in every])
    axes.minorticks_off()


def _draw_map(
    figure: Figure,
    grid: _Grid,
    best: tuple[float, ...],
    rate: str,
    label: str,
    limits: tuple[float, float],
) -> None:
    axes: Axes = figure.subplots()
    sizes, rates = sorted({b for b, _ in grid}), sorted({r for _, r in grid})
    top1 = _accuracies(grid)
    cells = [[100 * top1[b, r].mean if (b, r) in top1 else math.nan for b in sizes] for r in rates]
    low, high = limits
    axes.imshow(
        cells, cmap="cividis", origin="lower", aspect="auto", vmin=low, vmax=max(high, low + 0.1)
    )
    size = min(10, _COLUMN_POINTS / len(sizes))
    for y, r in enumerate(rates):
        for x, b in enumerate(sizes):
            top = cells[y][x]
            text = f"{top:.1f}" if (b, r) in top1 else "×" if (b, r) in grid else "–"
            ink = "white" if top < (low + high) / 2 else "black"
            weight = "bold" if (b, r) == best else "normal"
            axes.text(x, y, text, color=ink, weight=weight, size=size, ha="center", va="center")
    x, y = sizes.index(best[0]), rates.index(best[1])
    frame = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=3)
    frame.set_clip_on(False)
    axes.add_patch(frame)
    axes.set_xticks(range(len(sizes)), [f"{b:g}" for b in sizes], fontsize=size)
    axes.set_yticks(range(len(rates)), [f"{r:.3g}" for r in rates])
    axes.set(xlabel="initial batch size (examples)", ylabel=rate.replace("_", " "))
    axes.set_title("Final top-1 (%)" + (f"\n{label}" if label else " by rate and batch size"))
    axes.grid(visible=False)
