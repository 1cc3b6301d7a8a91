"""Draws the experiment noise_scale: is it the noise scale alone that decides?

Three pictures, from docs/results/noise_scale.jsonl: training losses against epochs, the loss at the
end against the noise scale g, and the loss at the end against the batch size at one g. Bars are
± one sample standard deviation over seeds; a point without a bar has one seed. Runs that diverged
are left out and named.

    python scripts/benchmarks/draw_noise_scale.py --folder=docs/pictures
"""

import argparse
import collections
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from experiment_rows import RESULTS, current, read_experiment, read_rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from trainer.reports.plots import Picture, line, png
from trainer.sweep.seed_statistics import spread

EXAMPLES = 20_000  # N of the flags in noise_scale.toml.
LAST = 3  # The loss at the end is the mean of so many epochs.


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs that differ only in the seed: ε, B, m, the ghost batch size, and losses by epoch."""

    rate: float
    batch: int
    momentum: float
    ghost: int
    losses: list[list[float]]

    @property
    def noise_scale(self) -> float:
        """g = εN/(B(1−m)), rounded so that equal noise scales are equal numbers."""
        return float(f"{self.rate * EXAMPLES / (self.batch * (1 - self.momentum)):.3g}")

    def mean(self) -> list[float]:
        """Returns the mean loss over the seeds, for each epoch."""
        return [sum(each) / len(each) for each in zip(*self.losses, strict=True)]

    def end(self) -> tuple[float, float]:
        """Returns mean and deviation over the seeds of the loss in the last epochs."""
        found = spread(sum(each[-LAST:]) / LAST for each in self.losses)
        assert found
        return found.mean, found.deviation or 0.0


def value(flags: Iterable[str], name: str, default: float) -> float:
    """Returns the number that the last flag `name` of a command line gives."""
    given = [flag.partition("=")[2] for flag in flags if flag.startswith(f"--{name}=")]
    return float(given[-1]) if given else default


def runs(rows: Iterable[dict[str, Any]]) -> list[Runs]:
    """Returns the runs of the rows, by point."""
    by_point: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in rows:
        by_point[row["point"]].append(row)
    found = []
    for point, all_rows in by_point.items():
        group = [row for row in all_rows if "diverged" not in row]
        if len(group) < len(all_rows):
            print(f"{point}: {len(all_rows) - len(group)} of {len(all_rows)} runs diverged")
        if not group:
            continue
        of = functools.partial(value, group[0]["flags"])
        losses = [[loss for _, loss in row["training_losses"]] for row in group]
        sizes = int(of("base_batch_size", 128)), of("base_momentum", 0.9)
        ghost = int(of("ghost_batch_size", 32))
        found.append(Runs(of("base_learning_rate", 0.1), *sizes, ghost, losses))
    return found


def numbered(axis: Any, digits: tuple[float, ...] = (1, 3)) -> None:
    """Gives a logarithmic axis plain numbers that begin with `digits`."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_locator(NullLocator())


def draw_curves(figure: Figure, *, found: list[Runs]) -> None:
    """Draws losses against epochs; all runs of one noise scale have one colour."""
    axes = figure.subplots()
    for i, scale in enumerate(sorted({each.noise_scale for each in found}, reverse=True)):
        equal = [each.mean() for each in found if each.noise_scale == scale]
        label = f"g {scale:,g}, {len(equal)} settings" if len(equal) > 1 else f"g {scale:,g}"
        for losses in equal:
            epochs = range(1, len(losses) + 1)
            axes.plot(epochs, losses, color=line(i).colour, lw=1, label=label)
    axes.set_xlabel("epoch")
    axes.set_title("training loss")


def draw_ends(figure: Figure, *, found: list[Runs]) -> None:
    """Draws the loss at the end against g; colours tell batch sizes, and markers momenta.

    Points of equal g are drawn side by side.
    """
    axes = figure.subplots()
    batches = sorted({each.batch for each in found})
    momenta = sorted({each.momentum for each in found})
    for each in sorted(found, key=lambda each: (each.batch, each.momentum)):
        loss, deviation = each.end()
        axes.errorbar(
            each.noise_scale * 1.06 ** (batches.index(each.batch) - 1),
            loss,
            yerr=deviation,
            color=line(batches.index(each.batch)).colour,
            marker="osv"[momenta.index(each.momentum)],
            markersize=5,
            linestyle="",
            capsize=2.5,
            label=f"B {each.batch}, m {each.momentum:g}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    numbered(axes.xaxis)
    numbered(axes.yaxis, (1, 4, 5, 6, 8))
    axes.set_xlabel("noise scale g = εN / (B(1 − m))")
    axes.set_title("training loss of the last three epochs")


def draw_batches(figure: Figure, *, found: list[Runs]) -> None:
    """Draws the loss at the end against the batch size, a line for each noise scale."""
    axes = figure.subplots()
    for i, scale in enumerate(sorted({each.noise_scale for each in found}, reverse=True)):
        points = sorted((each.batch, *each.end()) for each in found if each.noise_scale == scale)
        batches, losses, deviations = zip(*points, strict=True)
        style = line(i)
        drawn = {"color": style.colour, "marker": "o", "markersize": 4, "capsize": 2.5}
        axes.errorbar(batches, losses, yerr=deviations, linestyle=style.linestyle, **drawn)
        beside = {"textcoords": "offset points", "xytext": (6, 8), "fontsize": 8.5}
        axes.annotate(f"g {scale:,g}", (batches[0], losses[0]), color=style.colour, **beside)
    axes.axvline(EXAMPLES / 10, color="#9a9a9a", lw=1)
    place = {"transform": axes.get_xaxis_transform(), "va": "top", "fontsize": 8.5}
    axes.text(EXAMPLES / 10 * 1.05, 0.98, "N/10", color="#666666", **place)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    numbered(axes.yaxis, (1, 2, 4, 6))
    axes.set_xlabel("batch size")
    axes.set_title("training loss of the last three epochs")
    limit(axes, found)


def limit(axes: Axes, found: list[Runs]) -> None:
    """Ends the axis of losses at that of a guess, log 10, or at the highest loss below it."""
    highest = max(loss + deviation for loss, deviation in (each.end() for each in found))
    axes.set_ylim(None, min(1.05 * highest, 1.05 * math.log(10)))


def main() -> None:
    """Reads the rows, and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="folder of PNG files")
    folder = parser.parse_args().folder
    rows = read_rows(RESULTS / "noise_scale.jsonl")
    found = runs(current(read_experiment("noise_scale"), rows))
    grid = [
        each
        for each in found
        if each.rate in (0.025, 0.1, 0.4) and each.batch in (32, 128, 512) and each.ghost == 32
    ]
    reference = next(
        each.noise_scale
        for each in grid
        if (each.rate, each.batch, each.momentum) == (0.1, 128, 0.9)
    )
    # Unequal noise scales by the learning rate alone, and the reference's noise scale by all routes
    # in which the velocity averages over at most 5,120 examples.
    curves = [
        each
        for each in found
        if each.ghost == 32
        and ((each.batch, each.momentum) == (128, 0.9) or each.noise_scale == reference)
        and round(each.batch / (1 - each.momentum)) <= 5120
    ]
    # The noise scales of the reference and of a sixteenth of it, by linear scaling of the rate.
    scaled = [
        each
        for each in found
        if each.momentum == 0.9
        and (each.ghost == 32 or each.batch == 8)
        and any(math.isclose(each.noise_scale, reference / k, rel_tol=0.01) for k in (1, 16))
    ]
    drawers: dict[str, tuple[Callable[..., None], list[Runs]]] = {
        "noise_scale_curves": (draw_curves, curves),
        "noise_scale_ends": (draw_ends, grid),
        "noise_scale_batches": (draw_batches, scaled),
    }
    for name, (draw, shown) in drawers.items():
        picture = Picture(name, "", "", functools.partial(draw, found=shown))
        (folder / f"{name}.png").write_bytes(png(picture))


if __name__ == "__main__":
    main()
