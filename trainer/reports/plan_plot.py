"""Draws a plan over the epochs: batch size, noise scale and the other values of the schedule."""

import functools
import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule.noise_scale import Setting
from trainer.schedule.plan import CONTROLLED, Ramp
from trainer.schedule.trajectory import Trajectory
from trainer.system.atomic_file import write_atomic

_POINTS = 1500  # Approximate number of points of a line; the picture is 1,500 pixels wide.
# Least number of points of a ramp (updates of one batch size), if the ramp has enough updates.
_FEWEST_POINTS = 20
# Values of --anneal with linear axes. Other schedules are straight lines on a logarithmic axis.
_LINEAR = ("cosine", "polynomial", "cyclical", "range_test")
_IMAGE_SIZE = "image size\n(pixels)"  # Label of the panel that shows the image sizes.
_WORKERS = "workers"
_Curve = tuple[Sequence[float], Sequence[float]]  # Epochs, and values at these epochs.
_MOST_TICKS = 5  # Largest number of ticks of an axis; more would be too close together.


def draw(
    schedule: Trajectory,
    ramps: Sequence[Ramp],
    config: Config,
    path: str,
    workers: Sequence[int] | None = None,
) -> None:
    """Draws the plan into the image file `path`.

    Args:
      schedule: trajectory of the run.
      ramps: ramps of `schedule`.
      config: flags of the plan.
      path: path of the picture.
      workers: number of workers in each ramp; None: this panel is left out.

    Raises:
      UserError: if the file cannot be written, or matplotlib cannot write files with its suffix.
    """
    # This import takes 0.5 s, so it is here: a plan without a plot does not need it.
    from trainer.reports import plots

    panels = _panels(schedule, ramps, workers)
    picture = plots.Picture(
        name="plan",
        alt="",
        caption="",
        draw=functools.partial(_draw, config=config, schedule=schedule, ramps=ramps, panels=panels),
        height=1.2 + 2 * len(panels),
    )
    try:
        kind = pathlib.Path(path).suffix[1:].lower() or "png"
        write_atomic(pathlib.Path(path), plots.rendered(picture, kind))
    except ValueError as error:
        raise UserError(f"--plot={path} cannot be written: {error}.\nName a .png file.") from error
    except OSError as error:
        raise UserError(
            f"--plot={path} cannot be written: {error.strerror}.\n"
            "Name a file in an existing folder that you can write and that has space left."
        ) from error


def _panels(
    schedule: Trajectory, ramps: Sequence[Ramp], workers: Sequence[int] | None
) -> dict[str, _Curve]:
    """Returns the line of each panel, by the panel's label."""
    drawn = points(schedule, ramps)
    epochs = [position / schedule.examples for position, _ in drawn]
    settings = [setting for _, setting in drawn]
    values: dict[str, list[float]] = {
        "batch size\n(examples)": [setting.batch_size for setting in settings],
        "learning rate": [setting.learning_rate for setting in settings],
        "momentum": [setting.momentum for setting in settings],
        "noise scale g": [schedule.noise_scale(setting) for setting in settings],
    }
    if len({setting.momentum for setting in settings}) == 1:
        del values["momentum"]
    panels: dict[str, _Curve] = {label: (epochs, ys) for label, ys in values.items()}
    if schedule.image_sizes:
        panels[_IMAGE_SIZE] = image_sizes(schedule, ramps)
    if workers:
        panels[_WORKERS] = _steps(schedule, ramps, workers)
    return panels


def _draw(
    figure: Any,
    config: Config,
    schedule: Trajectory,
    ramps: Sequence[Ramp],
    panels: Mapping[str, _Curve],
) -> None:
    """Draws the panels into an empty matplotlib figure."""
    geometric = config.anneal == "range_test" and config.range_scale == "geometric"
    linear = config.anneal in _LINEAR and not geometric
    figure.set_figwidth(7.5)
    end = max(schedule.epochs, max(panels["learning rate"][0]))
    rows: Any = figure.subplots(len(panels), 1, sharex=True)
    for axes, (label, (xs, ys)) in zip(rows, panels.items(), strict=True):
        axes.plot(xs, ys, color="#0072b2", linewidth=1.5)
        axes.set(ylabel=label, xlim=(0, end))
        always = label in ("momentum", _IMAGE_SIZE, _WORKERS)
        _scale(axes, ys, always or (linear and label != "batch size\n(examples)"))
        axes.grid(alpha=0.3)
    rows[-1].set_xlabel("epochs")
    figure.suptitle(_title(config, schedule, ramps), fontsize=11)


def points(schedule: Trajectory, ramps: Sequence[Ramp]) -> list[tuple[int, Setting]]:
    """Returns points of the schedule: pairs of a position and the Setting at this position.

    A position is a number of consumed examples. A Setting is a batch size, a learning rate and a
    momentum. A ramp is flat if all its updates have the same Setting. The points of a flat ramp are
    its two ends, so that a step between two flat ramps is vertical. The points of any other ramp
    are evenly spaced updates, including the first and the last update.
    """
    total = sum(ramp.first.updates for ramp in ramps)
    found: list[tuple[int, Setting]] = []
    for ramp in ramps:
        start, last = ramp.position, ramp.first.updates - 1
        if ramp.flat:
            setting = schedule.at(start)
            found += [(start, setting), (start + (last + 1) * setting.batch_size, setting)]
            continue
        parts = max(1, min(last, max(_FEWEST_POINTS, math.ceil(_POINTS * last / total))))
        at = (start + last * i // parts * ramp.first.batch_size for i in range(parts + 1))
        found += [(position, schedule.at(position)) for position in at]
    return found


def image_sizes(schedule: Trajectory, ramps: Sequence[Ramp]) -> tuple[list[float], list[float]]:
    """Returns the line of the image sizes: epochs, and sides in pixels. Its steps are vertical."""
    return _steps(schedule, ramps, [ramp.first.image_size or 0 for ramp in ramps])


def _steps(
    schedule: Trajectory, ramps: Sequence[Ramp], values: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Returns the line of a value of each ramp, against epochs. Its steps are vertical."""
    ends = [*(ramp.position for ramp in ramps[1:]), schedule.end]
    places = [at for ramp, end in zip(ramps, ends, strict=True) for at in (ramp.position, end)]
    ys = [float(value) for value in values for _ in range(2)]
    return [at / schedule.examples for at in places], ys


def _title(config: Config, schedule: Trajectory, ramps: Sequence[Ramp]) -> str:
    updates = sum(ramp.first.updates for ramp in ramps)
    how = config.anneal.replace("_", " ")
    if config.anneal not in ("constant", "measured", "range_test"):
        how += f" by {config.anneal_with.replace('_', ' ')}"
    lines = [
        f"{config.dataset}, {config.model}: {how}",
        f"{updates:,} updates in {schedule.epochs:g} epochs of {schedule.examples:,} examples"
        + (", if the controller never decides" if config.anneal in CONTROLLED else ""),
    ]
    return "\n".join(textwrap.shorten(line, 90, placeholder=" …") for line in lines)


def _scale(axes: Any, values: Sequence[float], linear: bool) -> None:
    """Sets the scale and the ticks of the vertical axis for `values`.

    If there are at most `_MOST_TICKS` distinct values, each tick is one of these values.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    distinct = sorted(set(values))
    if len(distinct) > 1 and not linear:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_yticks(_ticks(distinct))
    elif len(distinct) > _MOST_TICKS:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
    else:
        axes.set_yticks(distinct)
        axes.margins(y=0.2)
    axes.yaxis.set_major_formatter(
        lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    )


def _ticks(distinct: Sequence[float]) -> list[float]:
    """Returns ticks for a logarithmic axis; two ticks are at least 1/6 of its length apart."""
    low, high = distinct[0], distinct[-1]
    if len(distinct) <= _MOST_TICKS:
        offered = list(distinct)
    else:
        digits = (1,) if high / low > 300 else (1, 2, 5)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        round_numbers = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [each for each in round_numbers if low * 0.99 <= each <= high * 1.01]
        offered = inside if len(inside) > 1 else [low, high]
    apart = math.log(high / low) / (_MOST_TICKS + 1)
    ticks: list[float] = []
    for each in reversed(offered):
        if not ticks or math.log(ticks[-1] / each) >= apart:
            ticks.append(each)
    return ticks
