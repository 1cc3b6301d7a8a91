"""Plan of a run: its phases, computed before the run from the Trajectory that training follows.

A phase is all consecutive updates with one image size and one Setting (batch size, learning rate
and momentum).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trainer.config.flags import Config
from trainer.schedule.layout import Layout
from trainer.schedule.span import Span, spans
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import aligned

# Values of --anneal with which a controller may change the schedule during the run.
CONTROLLED = ("plateau", "measured")


# Function from the batch size and the image size (None if the image size does not change) to the
# layout, which divides a batch into micro-batches (layout.py).
Layouts = Callable[[int, int | None], Layout]


@dataclasses.dataclass(frozen=True)
class Phase:
    """Consecutive updates with one Setting and image size; plan's JSON has the same fields."""

    start_epoch: float
    start_update: int
    updates: int
    batch_size: int
    learning_rate: float
    momentum: float
    noise_scale: float
    micro_batch_size: int
    accumulation: int
    image_size: int | None = None  # Side of the images, in pixels, if it changes during the run.

    def as_json(self) -> dict[str, float]:
        """Returns the fields that are not None, as entries of plan's JSON."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Updates of one batch size; their learning rate only rises, only falls or is constant.

    If the momentum changes too, the learning rate may also rise and fall within the ramp.
    """

    first: Phase  # Phase of the first update; its `updates` counts all updates of the ramp.
    last: Phase  # Phase of the last update, or `first` if the ramp is flat.
    position: int  # Position of the first update.
    flat: bool  # True if all updates have the same Setting.


class Begin(NamedTuple):
    """First update of a plan: its position and its number; not 0 for a forked run."""

    position: int = 0
    update: int = 0


START = Begin()


def phases(trajectory: Trajectory, layout: Layouts, begin: Begin = START) -> Iterator[Phase]:
    """Yields the phases of `trajectory` from `begin` on.

    While the learning rate changes, each update is a phase of its own. So this function takes
    seconds if the learning rate changes in many updates. `ramps` is faster, because it does not
    visit each update. `layout` maps a batch size and an image size to their layout.
    """
    start_update, run = begin.update, spans(trajectory, begin.position)
    for part in _joined(part for span in run for part in _single(trajectory, span)):
        yield _phase(trajectory, part, start_update, layout)
        start_update += part.updates


def ramps(trajectory: Trajectory, layout: Layouts, begin: Begin = START) -> list[Ramp]:
    """Returns all updates of `trajectory` from `begin` on as ramps; see `phases` for `layout`."""
    found: list[Ramp] = []
    start_update, run = begin.update, spans(trajectory, begin.position)
    for part in _joined(part for span in run for part in _steady(trajectory, span)):
        first = last = _phase(trajectory, part, start_update, layout)
        if not part.flat:
            at = part.position_of(part.updates - 1)
            end = Span(at, 1, trajectory.at(at), flat=True, image_size=part.image_size)
            last = _phase(trajectory, end, start_update + part.updates - 1, layout)
        found.append(Ramp(first, last, part.position, part.flat))
        start_update += part.updates
    return found


def _joined(parts: Iterable[Span]) -> Iterator[Span]:
    """Yields `parts`, but joins flat neighbours that have the same Setting and image size."""
    waiting = None
    for part in parts:
        if waiting and waiting.flat and part.flat and _alike(waiting, part):
            waiting = dataclasses.replace(waiting, updates=waiting.updates + part.updates)
            continue
        if waiting:
            yield waiting
        waiting = part
    if waiting:
        yield waiting


def _alike(one: Span, other: Span) -> bool:
    return (one.first, one.image_size) == (other.first, other.image_size)


def _single(trajectory: Trajectory, span: Span) -> Iterator[Span]:
    """Yields `span` if it is flat, otherwise a span for each of its updates."""
    if span.flat:
        yield span
        return
    for update in range(span.updates):
        position = span.position_of(update)
        yield Span(position, 1, trajectory.at(position), True, span.image_size)


def _steady(trajectory: Trajectory, span: Span) -> list[Span]:
    """Returns one or two parts of `span` in which the learning rate only rises or only falls.

    The learning rate is the product of a rising warm-up factor and a curve that may fall. So it may
    first rise and then fall. Bisection finds the update with the highest learning rate.
    """

    def rate(update: int) -> float:
        return trajectory.at(span.position_of(update)).learning_rate

    def rises(update: int) -> bool:
        return rate(update + 1) > rate(update)

    if span.flat or span.updates < 3 or rises(0) == rises(span.updates - 2):
        return [span]
    low, high = 0, span.updates - 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rises(middle) == rises(0) else (low, middle)
    top = span.position_of(high + 1)
    return [
        dataclasses.replace(span, updates=high + 1),
        Span(top, span.updates - high - 1, trajectory.at(top), False, span.image_size),
    ]


def _phase(trajectory: Trajectory, span: Span, start_update: int, layout: Layouts) -> Phase:
    setting = span.first
    lay = layout(setting.batch_size, span.image_size)
    return Phase(
        start_epoch=span.position / trajectory.examples,
        start_update=start_update,
        updates=span.updates,
        **vars(setting),
        noise_scale=trajectory.noise_scale(setting),
        micro_batch_size=lay.micro_batch_size,
        accumulation=lay.accumulation,
        image_size=span.image_size,
    )


def image_size_column(trajectory: Trajectory) -> dict[str, Callable[[Phase], str]]:
    """Returns the column of `table` for the side of the images; {} if it does not change."""
    if trajectory.image_sizes is None:
        return {}
    return {"image size": lambda phase: str(phase.image_size)}


def uncertain(config: Config) -> str:
    """Returns a line to print before the plan of a run with a controller, otherwise ""."""
    if config.anneal not in CONTROLLED:
        return ""
    return f"--anneal={config.anneal} may change the plan during the run. If it does not:\n"


def table(
    found: Sequence[Ramp],
    columns: Mapping[str, Callable[[Phase], str]] | None = None,
    width: int | None = None,
) -> str:
    """Returns aligned text with a row for each ramp.

    Args:
      found: ramps of a whole run.
      columns: further columns, by header. Each is a function from the first phase of a ramp to the
        text in the ramp's row.
      width: characters in a line of the terminal, or None for no limit. Columns that do not fit are
        left out, and the last line of the text names them.
    """
    columns = columns or {}
    header = ("epoch", "update", "updates", "batch", "learning rate", "momentum", "noise scale")
    rows = [(*header, "layout", *columns)]
    for ramp in found:
        first, last = ramp.first, ramp.last
        rows.append(
            (
                f"{first.start_epoch:.2f}",
                str(first.start_update),
                str(first.updates),
                str(first.batch_size),
                _span(first.learning_rate, last.learning_rate),
                _span(first.momentum, last.momentum),
                _span(first.noise_scale, last.noise_scale),
                f"{first.micro_batch_size} × {first.accumulation}",
                *(column(first) for column in columns.values()),
            )
        )
    lines = aligned(rows)
    left_out: list[str] = []
    # The table leaves out the least needed column first.
    for name in ("update", "momentum", "noise scale", "layout"):
        if width is None or len(lines[0]) <= width:
            break
        at = rows[0].index(name)
        rows = [(*row[:at], *row[at + 1 :]) for row in rows]
        lines = aligned(rows)
        left_out.append(name)
    if left_out:
        lines.append(f"(a wider terminal shows {', '.join(left_out)} too)")
    return "\n".join(lines)


def _span(first: float, last: float) -> str:
    return f"{first:.4g}" if f"{first:.4g}" == f"{last:.4g}" else f"{first:.4g} → {last:.4g}"
