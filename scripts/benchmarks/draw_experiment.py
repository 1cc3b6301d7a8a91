"""Draws the picture of an experiment that docs/results/NAME.toml describes.

The section [drawn] lists series of points, which are drawn as top-1 against updates. Bars are ± one
sample standard deviation over seeds. The grey band is the same of the reference. If runs have an
average of the parameters, the result without the average is drawn. The section [curves] lists
points whose top-1 is drawn against epochs, as draw_curves.py says. A point of another experiment is
written as NAME/POINT. With the section [batch_sizes], all points are drawn by batch size, as
draw_batch_sizes.py says. The section [noise_scales] lists points whose measured gradient noise
scale is drawn, as draw_measured.py says.

    python scripts/benchmarks/draw_experiment.py growth --output=docs/pictures/growth.png
    python scripts/benchmarks/draw_experiment.py schedules --output=docs/pictures/schedules.png
"""

import argparse
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from draw_batch_sizes import drawer as batch_sizes_drawer
from draw_curves import drawer as curves_drawer
from draw_measured import drawer as noise_scales_drawer
from experiment_rows import finished, read_experiment
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from trainer.reports.plots import Picture, line, png
from trainer.sweep.seed_statistics import Spread, spread

# (updates, top-1) of each point of a series.
Series = Sequence[tuple[int, Spread]]


def measured(name: str, point: str) -> tuple[int, Spread]:
    """Returns the updates and the top-1 of a point, over its seeds."""
    rows = finished(name, point)
    top1 = spread(row.get("plain", row)["top1"] for row in rows)
    assert top1
    return rows[0]["updates"], top1


def draw(
    figure: Figure,
    *,
    series: Mapping[str, Series],
    label: str,
    reference: Spread,
    lowest: float,
) -> None:
    """Draws the series, and the reference's band: its mean ± one sample standard deviation."""
    axes = figure.subplots()
    place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    middle, half = 100 * reference.mean, 100 * (reference.deviation or 0)
    axes.axhspan(middle - half, middle + half, color="#9a9a9a", alpha=0.3, lw=0)
    axes.text(0.99, middle + half, label, color="#666666", fontsize=8.5, **place)
    for i, (name, points) in enumerate(series.items()):
        style = line(i)
        updates, spreads = zip(*sorted(points, key=lambda each: each[0]), strict=True)
        axes.errorbar(
            updates,
            [100 * each.mean for each in spreads],
            yerr=[100 * (each.deviation or 0) for each in spreads],
            color=style.colour,
            linestyle=style.linestyle,
            marker="o",
            markersize=3.5,
            capsize=2.5,
        )
        shown = [(x, 100 * y.mean) for x, y in zip(updates, spreads, strict=True)]
        x, y = min((each for each in shown if each[1] > lowest), key=lambda each: each[0])
        beside = {"textcoords": "offset points", "xytext": (6, -10), "fontsize": 8.5}
        axes.annotate(name, (x, y), color=style.colour, **beside)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(lowest, None)
    axes.set_xlabel("updates")
    axes.set_title("top-1, %")


def drawer(name: str, drawn: Mapping[str, Any]) -> Callable[[Figure], None]:
    """Returns the function that draws what the section [drawn] of the experiment lists."""
    of = functools.partial(measured, name)
    series = {label: [of(point) for point in points] for label, points in drawn["series"].items()}
    updates, reference = of(drawn["reference"])
    label = f"{drawn['reference'].rpartition('/')[2]}, {updates:,} updates"
    parts = {"series": series, "label": label, "reference": reference, "lowest": drawn["lowest"]}
    return functools.partial(draw, **parts)


def main() -> None:
    """Reads the rows, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="name of the experiment, as in docs/results/NAME.toml")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="PNG file")
    options = parser.parse_args()
    experiment = read_experiment(options.name)
    drawers = {
        "drawn": drawer,
        "curves": curves_drawer,
        "batch_sizes": batch_sizes_drawer,
        "noise_scales": noise_scales_drawer,
    }
    sections = drawers.keys() & experiment
    if len(sections) != 1:
        parser.error(f"{options.name}.toml must have one section of: {', '.join(drawers)}")
    (section,) = sections
    picture = Picture(options.name, "", "", drawers[section](options.name, experiment[section]))
    options.output.write_bytes(png(picture))


if __name__ == "__main__":
    main()
